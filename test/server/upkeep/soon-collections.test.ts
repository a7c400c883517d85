/** Collections of vaults from which something was removed: not too often, and none is left out. */
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { CollectionState } from '../../../protocol/schema.ts'
import { Schedule } from '../../../server/upkeep/schedule.ts'

const second = 1000
const minute = 60 * second

/** Collectors that do nothing for a while, one job at a time, as those of a vault. */
class FakeCollector {
  readonly begun: [startedS: number, dryRun: boolean][] = []
  state: CollectionState = {}
  lengthMs = 5 * second
  #ended: Promise<CollectionState> = Promise.resolve({})

  /** A dry run makes way, as in a vault. */
  async start({ dryRun = false } = {}): Promise<{ state: CollectionState; ended: Promise<CollectionState> }> {
    const [, isDryRun] = this.begun.at(-1) ?? []
    if (this.state.running === undefined || (isDryRun && !dryRun)) this.#ended = this.#run(dryRun)
    return { state: this.state, ended: this.#ended }
  }

  async #run(dryRun: boolean): Promise<CollectionState> {
    const startedAt = new Date().toISOString()
    this.begun.push([Date.now() / second, dryRun])
    const running = { startedAt, progress: {} as never }
    this.state = { running }
    await new Promise((resolve) => setTimeout(resolve, this.lengthMs))
    const finishedAt = new Date().toISOString()
    if (this.state.running === running)
      this.state = { last: { startedAt, finishedAt, outcome: 'done', report: { dryRun } as never } }
    return this.state
  }
}

let home: FakeCollector
let work: FakeCollector
let schedule: Schedule

beforeEach(() => {
  vi.useFakeTimers({ now: 0 })
  home = new FakeCollector()
  work = new FakeCollector()
  const visit = async (name: string, use: (vault: unknown) => unknown) => {
    if (name === 'broken') throw new Error('x')
    return await use({ collector: name === 'home' ? home : work })
  }
  const vaults = {
    list: async () => ['home', 'work'],
    get: async () => Promise.reject(new Error('x')),
    visit,
  }
  schedule = new Schedule(vaults as never, {
    freezes: [],
    trashMs: 0,
    collect: '30 3 * * *',
    log: pino({ level: 'silent' }),
  })
})

afterEach(async () => {
  schedule.stop()
  await vi.runAllTimersAsync()
  vi.useRealTimers()
})

const startsOf = ({ begun }: FakeCollector) => begun.map(([at]) => at)

test('several removals share one, half a minute after the first; others do not wait for each other', async () => {
  schedule.collectSoon('home')
  await vi.advanceTimersByTimeAsync(20 * second)
  schedule.collectSoon('home')
  schedule.collectSoon('work')
  await vi.advanceTimersByTimeAsync(60 * minute)
  expect([startsOf(home), startsOf(work)]).toEqual([[30], [50]])
})

test.each([
  ['ten minutes', 5 * second, [30, 30 + 5 + 600, 30 + 5 + 600 + 5 + 600]],
  ['ten times the length of the last', 2 * minute, [30, 30 + 120 + 1200, 30 + 2 * 1320]],
])('who removes all the time is collected at intervals of %s', async (_, lengthMs, starts) => {
  home.lengthMs = lengthMs
  for (let at = 0; at < 45 * minute; at += 10 * second) {
    schedule.collectSoon('home')
    await vi.advanceTimersByTimeAsync(10 * second)
  }
  expect(startsOf(home).slice(0, 3)).toEqual(starts)
})

test('what was removed while one ran, or during the rest, is collected later', async () => {
  schedule.collectSoon('home')
  await vi.advanceTimersByTimeAsync(32 * second)
  schedule.collectSoon('home')
  await vi.advanceTimersByTimeAsync(12 * 60 * minute)
  expect(startsOf(home)).toEqual([30, 635])
  schedule.collectSoon('home')
  await vi.advanceTimersByTimeAsync(minute)
  expect(home.begun).toHaveLength(3)
})

test('a vault that cannot be collected is tried again when something is removed, not all the time', async () => {
  for (const vault of ['broken', 'home']) schedule.collectSoon(vault)
  await vi.advanceTimersByTimeAsync(60 * minute)
  expect(startsOf(home)).toEqual([30])
})

describe('one that somebody else has begun', () => {
  test.each<[string, number, boolean, number[]]>([
    ['before the removal does not count', -2, false, [-2, 58]],
    ['after the removal does', 20, false, [20]],
    ['a dry run makes way', 20, true, [20, 30]],
  ])('%s', async (_, atS, dryRun, starts) => {
    home.lengthMs = minute
    vi.setSystemTime(10 * second)
    if (atS < 0) await home.start({ dryRun })
    await vi.advanceTimersByTimeAsync(2 * second)
    schedule.collectSoon('home')
    await vi.advanceTimersByTimeAsync(20 * second)
    if (atS > 0) await home.start({ dryRun })
    await vi.advanceTimersByTimeAsync(60 * minute)
    expect(startsOf(home).map((at) => at - 12)).toEqual(starts)
  })

  test('dry makes way for the nightly one too; another does for it', async () => {
    await home.start({ dryRun: true })
    work.lengthMs = minute
    await work.start()
    const collected = schedule.collect()
    await vi.advanceTimersByTimeAsync(2 * minute)
    await collected
    expect([home.begun.length, work.begun.length]).toEqual([2, 1])
  })
})
