/** The walk that names what is harmed, where directories contain each other many times over. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Id } from '../../../protocol/id.ts'
import { type EncodedObject, encodeDirectoryObject, encodeFileObject } from '../../../protocol/objects.ts'
import { openCatalog } from '../../../server/catalog/catalog.ts'
import { findHarm } from '../../../server/upkeep/harm.ts'
import { chunk, directoryEntry, fileEntry } from '../requests.ts'

/** A vault of these objects and chunks, with a checkpoint of each root. */
function vaultOf(objects: readonly EncodedObject[], roots: readonly EncodedObject[]) {
  const stored = new Map<Id, Buffer>(objects.map(({ id, bytes }) => [id, bytes]))
  let reads = 0
  const checkpoints = roots.map(({ id }, i) => ({
    source: 's',
    number: i + 1,
    kind: 'dir',
    state: 'committed',
    root: id,
  }))
  const vault = {
    catalog: {
      reader: {
        losses: 0,
        stat: async (ids: readonly Id[]) => ids.map((id) => stored.get(id)?.length),
        get: async (id: Id) => {
          reads++
          return stored.get(id)
        },
        flush: async () => {},
      },
      checkpoints: {
        listSources: async () => ['s'],
        list: async () => checkpoints,
        state: async () => checkpoints[0],
      },
    },
    tree: { find: async () => undefined, members: () => [] },
  }
  return { vault: vault as never, reads: () => reads }
}

const free = { step: async () => {} }
const lost = chunk('it is nowhere')

test.each([
  ['sound', []],
  ['harmed', [fileEntry('lost', lost)]],
])('sixty levels of directories, each twice in the one above, %s below', async (_, below) => {
  const objects = [encodeDirectoryObject(below)]
  for (let level = 0; level < 60; level++) {
    const inner = objects[0] as EncodedObject
    objects.unshift(encodeDirectoryObject([directoryEntry('a', inner), directoryEntry('b', inner)]))
  }
  const { vault, reads } = vaultOf(objects, [objects[0] as EncodedObject])
  const { harm } = await findHarm(vault, free)
  expect(reads()).toBeLessThan(1000)
  expect(harm.checkpoints.map(({ count, paths }) => [count, paths.length])).toEqual(
    below.length === 0 ? [] : [[Number.MAX_SAFE_INTEGER, 100]],
  )
})

test('what is counted no more is not taken for sound', async () => {
  let inner = encodeDirectoryObject([fileEntry('lost', lost)])
  const objects = [inner]
  for (let level = 0; level < 60; level++) {
    inner = encodeDirectoryObject([directoryEntry('a', inner), directoryEntry('b', inner)])
    objects.unshift(inner)
  }
  const late = encodeDirectoryObject([fileEntry('lost too', lost)])
  const root = encodeDirectoryObject([directoryEntry('bomb', inner), directoryEntry('late', late)])
  const { vault } = vaultOf([...objects, late, root], [root, late])
  const { harm } = await findHarm(vault, free)
  expect(harm.checkpoints[1]).toMatchObject({ number: 2, count: 1, paths: ['lost%20too'] })
})

test('a file object whose parts are each other, and one of which is gone', async () => {
  const size = lost.bytes.length
  const objects: EncodedObject[] = [encodeFileObject([{ id: lost.id, size }], undefined)]
  let bytes = size
  for (let level = 0; level < 7; level++) {
    const inner = objects[0] as EncodedObject
    const parts = Array.from({ length: 50 }, () => ({ id: inner.id, size: bytes, chunked: true as const }))
    bytes *= 50
    objects.unshift(encodeFileObject(parts, undefined))
  }
  const file = { ...fileEntry('big', objects[0] as EncodedObject), size: bytes, chunked: true as const }
  const root = encodeDirectoryObject([file])
  const { vault, reads } = vaultOf([...objects, root], [root])
  const { harm } = await findHarm(vault, free)
  expect(reads()).toBeLessThan(100)
  expect(harm).toMatchObject({ missingChunks: 1, checkpoints: [{ count: 1, paths: ['big'] }] })
})

test('the first hundred paths of each, and how many there are', async () => {
  const names = Array.from({ length: 250 }, (_, i) => `file ${String(i).padStart(3, '0')}`)
  const root = encodeDirectoryObject(names.map((name) => fileEntry(name, lost)))
  const other = encodeDirectoryObject([directoryEntry('sub', root)])
  const { vault } = vaultOf([root, other], [root, other])
  const { harm, missing } = await findHarm(vault, free)
  expect(missing).toEqual([lost.id])
  expect(harm.checkpoints.map(({ count, paths }) => [count, paths.length, paths[0]])).toEqual([
    [250, 100, 'file%20000'],
    [250, 100, 'sub/file%20000'],
  ])
})

test('a checkpoint that is deleted while those before it are looked at is no failure', async () => {
  const path = await mkdtemp(join(tmpdir(), 'chunkdav-harm-'))
  const a = chunk('a')
  let looked = async (): Promise<void> => {}
  const reader = {
    losses: 0,
    stat: async (ids: readonly Id[]) => {
      await looked()
      return ids.map((id) => (id === a.id ? a.bytes.length : undefined))
    },
    get: async () => a.bytes,
    flush: async () => {},
  }
  const catalog = await openCatalog(path, reader)
  const { checkpoints } = catalog
  for (const number of [1, 2]) {
    await checkpoints.begin('s', { kind: 'chunks' })
    await checkpoints.addItems(
      { source: 's', number },
      { first: 0, items: [{ id: a.id, size: a.bytes.length }] },
    )
    await checkpoints.commit({ source: 's', number }, { items: 1 })
  }
  looked = async () => {
    if ((await checkpoints.list('s')).length === 2) await checkpoints.delete({ source: 's', number: 2 })
  }
  const tree = { find: async () => undefined, members: () => [] }
  const { harm } = await findHarm({ catalog, tree } as never, free)
  expect(harm.checkpoints).toEqual([])
  expect(await checkpoints.list('s')).toHaveLength(1)
  await rm(path, { recursive: true })
})
