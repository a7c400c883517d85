/** How a restore comes by the objects of a tree: in few requests, and each rightly. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { KeptObjects, type Soon } from '../../client/restore/kept-objects.ts'
import { encodeBlock } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { type EncodedObject, encodeDirectoryObject } from '../../protocol/objects.ts'
import type { DirectoryEntry } from '../../protocol/schema.ts'
import { Fixture, plain, plainDirectory } from './tree-fixture.ts'

let fixture: Fixture
beforeEach(async () => {
  fixture = await Fixture.start()
})
afterEach(() => fixture.stop())

const soon: Soon = { ids: () => [], below: true }
const entry = (name: string, id: Id): DirectoryEntry => ({ kind: 'directory', name, ...plainDirectory, id })
const names = Array.from({ length: 20 }, (_, i) => `directory ${String(i).padStart(2, '0')}`)

async function putTogether(objects: readonly EncodedObject[]): Promise<void> {
  const table = objects.map(({ id, bytes }) => ({ id, length: bytes.length }))
  await fixture.client.putBatch([await encodeBlock(table, Buffer.concat(objects.map(({ bytes }) => bytes)))])
}

/** A root and directories in one block, in each of these one more in a block of its own. */
async function deepTree() {
  const innermost = names.map((name) => encodeDirectoryObject([{ kind: 'fifo', name, ...plain }]))
  const middle = innermost.map(({ id }, i) => encodeDirectoryObject([entry(names[i] as string, id)]))
  const root = encodeDirectoryObject(middle.map(({ id }, i) => entry(names[i] as string, id)))
  await putTogether([root, ...middle])
  return { root, middle, innermost }
}

test('what came unasked is followed down too', async () => {
  const { root, middle, innermost } = await deepTree()
  for (const object of innermost) await putTogether([object])
  const kept = new KeptObjects(fixture.client, undefined)
  const before = fixture.client.counters.requests
  for (const { id, bytes } of [root, ...middle, ...innermost]) expect(await kept.get(id, soon)).toEqual(bytes)
  expect(fixture.client.counters.requests - before).toBe(2)
  await kept.close()
})

test('what cannot be had ahead is told to whoever wants it, and to nobody else', async () => {
  const { root, middle, innermost } = await deepTree()
  const [lost, ...others] = innermost as [EncodedObject, ...EncodedObject[]]
  for (const object of others) await putTogether([object])
  const kept = new KeptObjects(fixture.client, undefined)
  for (const { id, bytes } of [root, ...middle, ...others]) expect(await kept.get(id, soon)).toEqual(bytes)
  expect(await kept.get(lost.id, soon)).toMatchObject({ code: 'chunk-not-found' })
  await kept.close()
})

test('a receiver that is gone is told to whoever wants the next one', async () => {
  const { root } = await deepTree()
  const kept = new KeptObjects(fixture.client, undefined)
  await kept.get(root.id, soon)
  await fixture.client.close()
  await expect(kept.get(hashId(Buffer.from('another')), soon)).rejects.toThrow()
  await kept.close()
})
