/**
 * The guard against waste: fixed work is done by real processes and counted, not timed. A slow or busy machine
 * changes none of the counts by more than the budgets allow.
 */
import { beforeAll, describe, expect, it } from 'vitest'
import { deviations } from './budget.ts'
import { budgets } from './budgets.ts'
import { type Counts, runScenario, type Steps, untracedNames } from './scenario.ts'
import { hasStrace } from './system-calls.ts'

const howToAccept =
  'when it is meant to be so, "npm run work:measure" writes new budgets to test/work/budgets.ts'

describe.skipIf(process.platform !== 'linux')('the work of', () => {
  let steps: Steps = {}
  beforeAll(async () => {
    steps = await runScenario()
  }, 120_000)

  const names = Object.keys(budgets)
  const expectKept = (step: string, isAsked: (name: string) => boolean): void => {
    const asked = (all: Counts | (typeof budgets)[string]) =>
      Object.fromEntries(Object.entries(all).filter(([name]) => isAsked(name)))
    const lines = deviations(asked(steps[step] ?? {}) as Counts, asked(budgets[step] ?? {}))
    expect(lines, `${step}: ${lines.join('; ')}; ${howToAccept}`).toEqual([])
  }

  it('no step is without a budget', () => expect(Object.keys(steps)).toEqual(names))

  it.each(names)('%s: requests and bytes', (step) => expectKept(step, (name) => untracedNames.has(name)))

  it.skipIf(!hasStrace).each(names)('%s: system calls', (step) =>
    expectKept(step, (name) => !untracedNames.has(name)),
  )
})
