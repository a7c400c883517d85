/** Some of `npm run proof:power-cuts`, of other seeds each time. */
import { expect, test } from 'vitest'
import { CutRun, noFigures } from '../proof/cut-run.ts'
import { allFaults, runWith, shortFiles } from '../proof/fault-run.ts'

const histories = 25
const faults = 12

test('what was promised is there after power cuts and kills, and nothing is half there', async () => {
  const figures = noFigures()
  const firstSeed = Date.now() % 1_000_000_000
  console.log(`seeds from ${firstSeed} on`)
  for (let i = 0; i < histories; i++) await CutRun.of(firstSeed + i, figures)
  expect(figures.runs).toBe(histories)
  expect(figures.cuts).toBeGreaterThan(0)
}, 120_000)

test('a vault is the same on files whose every read and write is short', async () => {
  await runWith(undefined, shortFiles)
})

test('a call that fails costs what was asked for then, and nothing else', async () => {
  const all = await allFaults()
  expect(all.length).toBeGreaterThan(faults)
  for (let i = 0; i < faults; i++) {
    const place = Math.floor(((i + Math.random()) * all.length) / faults)
    await runWith(all[place])
  }
}, 120_000)
