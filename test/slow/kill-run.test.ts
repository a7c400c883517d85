/** A small one of `npm run proof:kill`. */
import { expect, test } from 'vitest'
import { runKills } from '../proof/kill-run.ts'

test('what a receiver promised is there however often it is killed, and what was deleted is not', async () => {
  const seed = Date.now() % 1_000_000_000
  console.log(`seed ${seed}`)
  const figures = await runKills({ kills: 6, seed, fullCheckEvery: 3, tell: (line) => console.log(line) })
  expect(figures.failures).toEqual([])
  expect(figures).toMatchObject({ kills: 6, fullChecks: 2 })
})
