/** What the live tree remembers of its database is what stands there. */
import { expect, test } from 'vitest'
import { TreeCache } from '../../../server/catalog/tree-cache.ts'
import { Overlay } from '../../../server/catalog/tree-overlay.ts'
import { keys } from '../../../server/catalog/tree-records.ts'

const key = keys.entry(1, Buffer.from('name'))
const [old, young] = [Buffer.from('old'), Buffer.from('young')]
const never = (): Promise<undefined> => {
  throw new TypeError('it was read')
}

function batch(value: Buffer | undefined): Overlay {
  const overlay = new Overlay()
  overlay.set(key.toString('latin1'), value)
  return overlay
}

test.each([
  ['a row', old],
  ['that there is none', undefined],
])('%s is read once', async (_, value) => {
  const cache = new TreeCache()
  expect(await cache.get(key, async () => value)).toBe(value)
  expect(await cache.get(key, never)).toEqual(value)
})

test.each([
  ['replaced', young],
  ['removed', undefined],
])('what a batch has %s is not read', async (_, value) => {
  const cache = new TreeCache()
  await cache.get(key, async () => old)
  cache.written(batch(value))
  expect(await cache.get(key, never)).toEqual(value)
})

test('what was being read when a batch ended is not kept', async () => {
  const cache = new TreeCache()
  const early = cache.get(key, async () => {
    cache.written(batch(young))
    return old
  })
  expect(await early).toEqual(old)
  expect(await cache.get(key, never)).toEqual(young)
})

test('nothing is kept when it is not known what stands there, and nothing but entries ever', async () => {
  const cache = new TreeCache()
  await cache.get(key, async () => old)
  cache.clear()
  expect(await cache.get(key, async () => young)).toEqual(young)
  await cache.get(keys.state, async () => old)
  expect(await cache.get(keys.state, async () => young)).toEqual(young)
})

test('what is kept takes no more memory than it counts for', async () => {
  const cache = new TreeCache()
  // Of a slab of 64 KiB, which a row must not keep.
  const value = Buffer.from('a small row')
  expect(value.buffer.byteLength).toBeGreaterThan(1000)
  await cache.get(key, async () => value)
  expect((await cache.get(key, never))?.buffer.byteLength).toBe(value.length)
  cache.written(batch(value))
  expect((await cache.get(key, never))?.buffer.byteLength).toBe(value.length)
})
