import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { StreamThread } from '../../../client/sources/stream-thread.ts'
import { collect } from '../../conformance/chunk-store-suite.ts'
import { within } from '../../conformance/source-suite.ts'
import type { Job } from './failing-worker.ts'

const module = new URL('./failing-worker.ts', import.meta.url)
const never = (): AbortSignal => new AbortController().signal
const count = (to: number, label = ''): Job => ({ do: 'count', to, label })
const numbers = (to: number, label = ''): string[] => Array.from({ length: to }, (_, i) => `${label}${i}`)

/** A thread that ends with the test, and what it dropped. */
async function withThread(
  body: (thread: StreamThread<Job, string>, dropped: string[]) => Promise<void>,
  { ahead = 3, atStart }: { ahead?: number; atStart?: string } = {},
): Promise<void> {
  const dropped: string[] = []
  const data = atStart === undefined ? {} : { atStart }
  const thread = new StreamThread<Job, string>(module, ahead, { data, drop: (item) => dropped.push(item) })
  try {
    await body(thread, dropped)
  } finally {
    await within(thread.close(), 'close')
  }
}

const all = (items: AsyncIterable<string>): Promise<string[]> => within(collect(items), 'a job')

test('jobs come in the order of their calls, each whole', () =>
  withThread(async (thread) => {
    const started: string[] = []
    const jobs = ['a', 'b', 'c', 'd'].map(async (label) => {
      const items: string[] = []
      for await (const item of thread.run(count(50, label), never())) {
        if (items.length === 0) started.push(label)
        items.push(item)
      }
      return items
    })
    expect(thread.load).toBe(4)
    expect(await within(Promise.all(jobs), 'jobs')).toEqual(
      ['a', 'b', 'c', 'd'].map((label) => numbers(50, label)),
    )
    expect(started).toEqual(['a', 'b', 'c', 'd'])
    expect(thread.load).toBe(0)
  }))

test('a job may have no items', () =>
  withThread(async (thread) => {
    expect(await all(thread.run(count(0), never()))).toEqual([])
    expect(await all(thread.run(count(2), never()))).toEqual(numbers(2))
  }))

test('the worker is no more than `ahead` items in front', () =>
  withThread(
    async (thread, dropped) => {
      const items = thread.run(count(1000), never())
      expect((await items.next()).value).toBe('0')
      await sleep(100)
      await items.return()
      // Three that were under way, and one that went out when the first was taken away from them.
      expect(dropped.length).toBeLessThanOrEqual(4)
      expect(dropped).toEqual(numbers(dropped.length + 1).slice(1))
    },
    { ahead: 3 },
  ))

test('every item of a cancelled job is taken or dropped, once, and none goes to the next job', () =>
  withThread(async (thread, dropped) => {
    for (let round = 0; round < 40; round++) {
      dropped.length = 0
      const taken: string[] = []
      const abort = new AbortController()
      const label = `${round}-`
      const job = (async () => {
        for await (const item of thread.run(count(500, label), abort.signal)) {
          taken.push(item)
          if (taken.length === round) abort.abort()
        }
      })()
      if (round === 0) abort.abort()
      await within(
        job.catch((error: unknown) => expect(error).toBe(abort.signal.reason)),
        'an aborted job',
      )
      const seen = [...taken, ...dropped]
      expect(seen).toEqual(numbers(seen.length, label))
    }
    expect(await all(thread.run(count(5), never()))).toEqual(numbers(5))
  }))

test('a job that is given up while it waits lets the others have their turn', () =>
  withThread(async (thread) => {
    const first = thread.run(count(100, 'a'), never())
    await first.next()
    const abort = new AbortController()
    const second = thread.run(count(100, 'b'), abort.signal).next()
    const third = all(thread.run(count(5, 'c'), never()))
    abort.abort()
    await expect(within(second, 'an aborted job')).rejects.toBe(abort.signal.reason)
    expect(await Promise.race([third, sleep(50, 'waits')])).toBe('waits')
    expect((await first.next()).value).toBe('a1')
    await first.return()
    expect(await third).toEqual(numbers(5, 'c'))
  }))

test('a job that throws has failed with its reason, and the next one runs', () =>
  withThread(async (thread) => {
    const items: string[] = []
    const job = (async () => {
      for await (const item of thread.run({ do: 'throw' }, never())) items.push(item)
    })()
    await expect(within(job, 'a job')).rejects.toMatchObject({ code: 'internal-error' })
    await expect(job).rejects.toThrow('thrown by a job')
    expect(items).toEqual(['first'])
    expect(await all(thread.run(count(5), never()))).toEqual(numbers(5))
  }))

for (const how of ['die', 'exit'] as const) {
  test(`a worker that ends (${how}) fails what comes later, and what waits`, () =>
    withThread(async (thread) => {
      const jobs: Job[] = [{ do: how }, count(5), count(5)]
      const ends = jobs.map((job) => within(collect(thread.run(job, never())), 'a job'))
      const [, ...later] = await Promise.allSettled(ends)
      expect(later.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
      await expect(all(thread.run(count(5), never()))).rejects.toMatchObject({
        code: expect.stringMatching(/internal-error|cancelled/),
      })
    }))
}

test('a worker that fails at its start fails every job', () =>
  withThread(
    async (thread) => {
      await expect(all(thread.run(count(5), never()))).rejects.toMatchObject({ code: 'internal-error' })
      await expect(all(thread.run(count(5), never()))).rejects.toMatchObject({ code: 'internal-error' })
    },
    { atStart: 'throw' },
  ))

for (const delayMs of [0, 20, 60]) {
  test(`closing ${delayMs} ms after a worker that fails was made`, () =>
    withThread(() => sleep(delayMs), { atStart: 'throw' }))
}

test('close ends the job at hand and those that wait; idempotent', () =>
  withThread(async (thread) => {
    const first = thread.run(count(100, 'a'), never())
    await first.next()
    const waiting = expect(all(thread.run(count(5, 'b'), never()))).rejects.toMatchObject({
      code: 'cancelled',
    })
    await within(Promise.all([thread.close(), thread.close()]), 'close')
    await thread.close()
    await waiting
    await expect(all(first)).rejects.toMatchObject({ code: 'cancelled' })
    await expect(all(thread.run(count(5), never()))).rejects.toMatchObject({ code: 'cancelled' })
  }))
