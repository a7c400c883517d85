/** What a client can make the live tree keep, and how long it may keep others waiting. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { isProblem } from '../../../protocol/problem.ts'
import { LiveTree, type Lock, type Names } from '../../../server/catalog/live-tree.ts'
import { keys } from '../../../server/catalog/tree-records.ts'

const day = 24 * 3600 * 1000
const chunks = { losses: 0, flush: async () => {} }
let folder: string
let tree: LiveTree

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-tree-bounds-'))
  tree = await LiveTree.open(folder, chunks, { trashMs: day })
})

afterEach(async () => {
  vi.restoreAllMocks()
  vi.useRealTimers()
  await tree.close()
  await rm(folder, { recursive: true, force: true })
})

function at(path: string): Names {
  return path.split('/').map((name) => Buffer.from(name))
}

const make = (path: string) => tree.change((change) => change.makeCollection(at(path)))

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'done'
  } catch (error) {
    return isProblem(error) ? error.code : (error as Error).constructor.name
  }
}

test('dead properties of a resource take a mebibyte at most, all together', async () => {
  await make('tree/d')
  const set = (name: string, bytes: number) =>
    codeOf(
      tree.change((change) =>
        change.setDeadProperties(at('tree/d'), [{ name, xml: 'x'.repeat(bytes - name.length) }], []),
      ),
    )
  for (const name of ['a', 'b', 'c', 'd']) expect(await set(name, 256 * 1024)).toBe('done')
  expect(await set('e', 2)).toBe('insufficient-storage')
  expect(await set('a', 100)).toBe('done')
  expect(await set('e', 2)).toBe('done')
  const record = await tree.find(at('tree/d'))
  const properties = record === undefined ? [] : await tree.deadProperties(record)
  expect(properties.map(({ name }) => name)).toEqual(['a', 'b', 'c', 'd', 'e'])
})

function lock(n: number, seconds: number): Lock {
  return {
    path: Buffer.from(`tree/${n}`),
    token: `urn:uuid:${n}`,
    scope: 'exclusive',
    depth: 0,
    owner: '',
    expiresAtMs: Date.now() + seconds * 1000,
    timeoutSeconds: seconds,
  }
}

test('a vault has 10,000 locks at most, and those that have expired make room', async () => {
  const add = (from: number, to: number, seconds: number) =>
    codeOf(
      tree.change(async (change) => {
        for (let n = from; n < to; n++) await change.addLock(lock(n, seconds))
      }),
    )
  expect(await add(0, 10, -1)).toBe('done')
  expect(await add(10, 10_010, 100)).toBe('done')
  expect(await add(10_010, 10_011, 100)).toBe('insufficient-storage')
  // Those that are there can be refreshed, and also count after a restart.
  expect(await codeOf(tree.change((change) => change.refreshLock(lock(10, 1), 200)))).toBe('done')
  await tree.close()
  tree = await LiveTree.open(folder, chunks, { trashMs: day })
  expect(await add(10_010, 10_011, 100)).toBe('insufficient-storage')
  await tree.change((change) => change.removeLock(lock(20, 1)))
  expect(await add(10_010, 10_011, 100)).toBe('done')
}, 60_000)

test('a lock whose removal failed still holds', async () => {
  const held = lock(1, 100)
  await tree.change((change) => change.addLock(held))
  vi.spyOn(Level.prototype, 'batch').mockImplementationOnce((async () => {
    throw new Error('IO error: Input/output error')
  }) as never)
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
  const first = tree.change(() => pause(100))
  await pause(10)
  // Both wait behind the first, so they share the batch that fails.
  const ends = [tree.change((change) => change.removeLock(held)), tree.expire(new Date(0))].map(codeOf)
  expect(await Promise.all(ends)).toEqual(['unavailable', 'unavailable'])
  await first
  expect((await tree.locksOn(at('tree/1'))).length).toBe(1)
  expect((await tree.change((change) => change.locksOn(at('tree/1')))).length).toBe(1)
})

test('what is noted of the past does not grow with each look at the trash', async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() })
  const hour = 3_600_000
  for (let i = 0; i < 200; i++) {
    await make(`tree/d${i}`)
    await tree.change((change) => change.remove(at(`tree/d${i}`)))
    vi.setSystemTime(Date.now() + hour)
    await tree.expire(new Date(Date.now() - 40 * hour))
  }
  await tree.settled()
  await tree.close()
  const level = new Level<Buffer, Buffer>(folder, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
  await level.open()
  const removals = await level.keys({ gte: keys.allRemovals, lt: keys.allEntries }).all()
  const state = JSON.parse(((await level.get(keys.state)) as Buffer).subarray(0, -4).toString())
  await level.close()
  tree = await LiveTree.open(folder, chunks, { trashMs: day })
  expect(state.marks.length).toBeLessThanOrEqual(20)
  // Kept as long as the trash, and a sixteenth longer.
  expect(removals.length).toBeGreaterThanOrEqual(39)
  expect(removals.length).toBeLessThanOrEqual(45)
})

test('clearing away many directories lets others in between', async () => {
  await make('tree/d')
  await tree.change(async (change) => {
    for (let i = 0; i < 2000; i++) await change.makeCollection(at(`tree/d/${i}`))
  })
  await tree.change((change) => change.remove(at('tree/d')))
  const searches = vi.spyOn(Level.prototype, 'iterator')
  const perBatch: number[] = []
  const batch = Level.prototype.batch as (...given: unknown[]) => Promise<void>
  vi.spyOn(Level.prototype, 'batch').mockImplementation(async function (this: unknown, ...given: unknown[]) {
    perBatch.push(searches.mock.calls.length)
    searches.mockClear()
    await batch.apply(this, given)
  } as never)
  await tree.expire(new Date(Date.now() + day))
  await tree.settled()
  expect(Math.max(...perBatch)).toBeLessThan(600)
  expect(await codeOf(make('tree/d'))).toBe('done')
})
