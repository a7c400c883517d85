import { expect, test } from 'vitest'
import { HashingQueue, type Rank } from '../../../server/access/hashing-queue.ts'

interface Job {
  readonly done: Promise<unknown>
  finish(): void
}

function bench(atOnce: number, maxWaiting: number) {
  const queue = new HashingQueue({ atOnce, maxWaiting })
  const started: string[] = []
  let running = 0
  let most = 0
  const add = (from: string, name: string, rank: Rank = 'unknown'): Job => {
    let finish = (): void => {}
    const gate = new Promise<void>((resolve) => {
      finish = resolve
    })
    const done = queue.run(from, rank, async () => {
      started.push(name)
      most = Math.max(most, ++running)
      await gate
      running--
    })
    return { done, finish }
  }
  return { queue, add, started, most: () => most }
}

test('so many at once, the others in turns by where they come from', async () => {
  const { add, started, most } = bench(2, 100)
  const jobs = [
    ...['a1', 'a2', 'a3', 'a4', 'a5'].map((name) => add('a', name)),
    add('b', 'b1'),
    add('b', 'b2'),
    add('c', 'c1'),
  ]
  for (const job of jobs) job.finish()
  await Promise.all(jobs.map(({ done }) => done))
  expect(started).toEqual(['a1', 'a2', 'a3', 'b1', 'c1', 'a4', 'b2', 'a5'])
  expect(most()).toBe(2)
})

test('too many waiting are turned away, and there is room again when they are through', async () => {
  const { add } = bench(1, 2)
  const jobs = [add('a', '1'), add('a', '2'), add('b', '3')]
  await expect(add('c', '4').done).rejects.toMatchObject({ code: 'unavailable' })
  for (const job of jobs) job.finish()
  await Promise.all(jobs.map(({ done }) => done))
  const late = add('c', '5')
  late.finish()
  await late.done
})

test('when the places are taken, who has many waiting gives one up for who has none', async () => {
  const { add, started } = bench(1, 4)
  const greedy = ['a1', 'a2', 'a3', 'a4', 'a5'].map((name) => add('a', name))
  const results = Promise.allSettled(greedy.map(({ done }) => done))
  const modest = add('b', 'b1')
  const next = add('b', 'b2')
  await expect(add('b', 'b3').done).rejects.toMatchObject({ code: 'unavailable' })
  for (const job of [...greedy, modest, next]) job.finish()
  await Promise.all([modest.done, next.done])
  expect((await results).map(({ status }) => status === 'fulfilled')).toEqual([
    true,
    true,
    true,
    false,
    false,
  ])
  expect(started).toEqual(['a1', 'a2', 'b1', 'a3', 'b2'])
})

test('the better rank comes first, and worse ones make room', async () => {
  const { add, started } = bench(1, 3)
  const others = [add('a', 'a', 'suspect'), add('b', 'b', 'suspect'), add('c', 'c'), add('d', 'd', 'suspect')]
  const results = Promise.allSettled(others.map(({ done }) => done))
  await expect(add('e', 'e', 'suspect').done).rejects.toMatchObject({ code: 'unavailable' })
  const good = [add('f', 'f', 'welcome'), add('g', 'g', 'welcome'), add('h', 'h', 'welcome')]
  for (const rank of ['unknown', 'suspect', 'welcome'] as const) {
    await expect(add('i', 'i', rank).done).rejects.toMatchObject({ code: 'unavailable' })
  }
  for (const job of [...others, ...good]) job.finish()
  await Promise.all(good.map(({ done }) => done))
  expect((await results).map(({ status }) => status === 'fulfilled')).toEqual([true, false, false, false])
  expect(started).toEqual(['a', 'f', 'g', 'h'])
})

test('within the places, too', async () => {
  const { add, started } = bench(1, 10)
  const jobs = [
    add('a', 'now'),
    add('a', '4', 'suspect'),
    add('b', '2'),
    add('c', '1', 'welcome'),
    add('d', '5', 'suspect'),
    add('d', '3'),
  ]
  for (const job of jobs) job.finish()
  await Promise.all(jobs.map(({ done }) => done))
  expect(started).toEqual(['now', '1', '2', '3', '4', '5'])
})

test('one that fails gives its place back', async () => {
  const { queue } = bench(1, 1)
  const failed = queue.run('a', 'unknown', async () => {
    throw new RangeError('x')
  })
  await expect(failed).rejects.toThrow(RangeError)
  expect(await queue.run('a', 'unknown', async () => 5)).toBe(5)
})
