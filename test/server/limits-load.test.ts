import { expect, test } from 'vitest'
import { fairnessOf, runLoad } from '../../bench/load/load.ts'

test('clients beside slow, half-open and deaf connections all finish their backups (npm run proof:load is the large one)', async () => {
  const figures = await runLoad({
    clients: 4,
    seconds: 2,
    seed: 'small',
    vaults: 2,
    processes: 1,
    compared: 2,
    slowHeads: 40,
    halfOpen: 20,
    slowBodies: 16,
    slowReaders: 16,
  })
  expect(figures.errors).toEqual([])
  expect(figures.compared).toBe(2)
  expect(figures.backups).toHaveLength(4)
  expect(figures.backups[0]).toBeGreaterThan(0)
  expect(figures.nuisances.opened).toBeGreaterThanOrEqual(92)
}, 90_000)

test.each([
  [[5, 5, 5, 5], 1],
  [[8, 0, 0, 0], 0.25],
  [[0, 0], 0],
])('the fairness of %s is %s', (values, index) => {
  expect(fairnessOf(values)).toBe(index)
})
