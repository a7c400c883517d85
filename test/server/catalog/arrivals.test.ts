/** Objects that are looked into when they arrive: what that spares a commit, and what it must not. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { assembleBlock } from '../../../protocol/block.ts'
import type { Id } from '../../../protocol/id.ts'
import { type EncodedObject, encodeDirectoryObject, encodeFileObject } from '../../../protocol/objects.ts'
import { Problem } from '../../../protocol/problem.ts'
import type { CheckpointName } from '../../../protocol/url.ts'
import { Arrivals } from '../../../server/catalog/arrivals.ts'
import { type Catalog, openCatalog } from '../../../server/catalog/catalog.ts'
import type { ChunkReader } from '../../../server/catalog/chunk-reader.ts'
import { Closure } from '../../../server/catalog/closure.ts'
import { wantedRoot } from '../../../server/catalog/wanted.ts'
import type { PackChunkStore } from '../../../server/store/pack-chunk-store.ts'
import { receiveBatch } from '../../../server/store/receive.ts'
import { Pace } from '../../../server/upkeep/pace.ts'
import { FaultyFiles } from '../../support/faulty-files.ts'
import { attributes, chunk, directoryEntry, fileEntry, smallTree } from '../requests.ts'
import { PackSubject } from '../store/pack-subject.ts'

const tree = smallTree()

/** Chunks in a map; tells what it was asked for. */
class CountedReader implements ChunkReader {
  losses = 0
  readonly read: Id[] = []
  readonly sought: Id[] = []
  readonly chunks = new Map<Id, Buffer>()
  failsOnce = false
  onStat = (): void => {}

  async stat(ids: readonly Id[]): Promise<(number | undefined)[]> {
    this.onStat()
    if (this.failsOnce) {
      this.failsOnce = false
      throw new Problem('unavailable', 'the index failed')
    }
    this.sought.push(...ids)
    return ids.map((id) => this.chunks.get(id)?.length)
  }

  async get(id: Id): Promise<Buffer | undefined> {
    this.read.push(id)
    return this.chunks.get(id)
  }

  async flush(): Promise<void> {}
}

describe('over chunks in memory', () => {
  let reader: CountedReader
  let closure: Closure
  beforeEach(() => {
    reader = new CountedReader()
    closure = new Closure(reader)
  })

  /** They arrive as one batch, and what there is to look into is looked into. */
  const arrive = async (...items: EncodedObject[]): Promise<void> => {
    for (const { id, bytes } of items) reader.chunks.set(id, bytes)
    closure.arrivals.note(
      items.filter(({ bytes }) => bytes[0] === 0x7b),
      reader.losses,
    )
    await closure.arrivals.settled()
  }
  const missing = async (root: EncodedObject = tree.root): Promise<Id[]> => {
    reader.read.length = 0
    reader.sought.length = 0
    return (await closure.missing([[wantedRoot(root.id)]])).map(({ id }) => id)
  }

  const { a, b, parts, big, sub, root } = tree
  test.each([
    ['directories after what is in them', [[a, b, ...parts, big], [sub], [root]], 0],
    ['all at once, from below', [[a, b, ...parts, big, sub, root]], 0],
    ['a list before its chunks', [[big], [...parts, a, b], [sub, root]], 0],
    ['a list long before', [[a, big], [b], [...parts], [sub], [], [root]], 0],
    // Here the commit has to look.
    ['a directory before the one below', [[root], [a, b, ...parts, big], [sub]], 1],
    ['the root before its list', [[a, b, sub], [root], [...parts, big]], 2],
    ['a chunk last', [[b, ...parts, big, sub, root], [a]], 1],
  ] as const)('%s: the tree is whole', async (_, batches, left) => {
    for (const batch of batches) await arrive(...batch)
    expect(await missing()).toEqual([])
    // What is left is at hand yet, or has to be read.
    expect(reader.read.length).toBeLessThanOrEqual(left)
    if (left === 0) expect(reader.sought).toEqual([])
    expect(await missing()).toEqual([])
    expect([reader.read, reader.sought]).toEqual([[], []])
  })

  test.each([...tree.chunks, big, sub].map((item, place) => [place, item] as const))(
    'without item %d it is not',
    async (_, gone) => {
      const items = [...tree.chunks, big, sub].filter((item) => item !== gone)
      await arrive(...items)
      await arrive(root)
      expect(await missing()).toEqual([gone.id])
    },
  )

  test('what was found whole is looked up anew when something was lost since', async () => {
    await arrive(...tree.chunks, ...tree.objects)
    reader.chunks.delete(b.id)
    reader.losses++
    expect(await missing()).toEqual([b.id])
  })

  test('what arrived before a loss is not at hand any more', async () => {
    closure.arrivals.note([sub], 0)
    reader.losses++
    expect(closure.arrivals.take(sub.id)).toBeUndefined()
    closure.arrivals.note([sub], 0)
    expect(closure.arrivals.take(sub.id)).toBeUndefined()
    closure.arrivals.note([sub], 1)
    expect(closure.arrivals.take(sub.id)).toEqual(sub.bytes)
  })

  test('a loss during the look: nothing of it is remembered', async () => {
    for (const { id, bytes } of [...tree.chunks, ...tree.objects]) reader.chunks.set(id, bytes)
    closure.arrivals.note(tree.objects, 0)
    reader.losses++
    await closure.arrivals.settled()
    reader.chunks.delete(b.id)
    expect(await missing()).toEqual([b.id])
  })

  test('a commit does not wait for what others send meanwhile', async () => {
    let sent = 0
    reader.onStat = () => {
      if (sent >= 1000) return
      closure.arrivals.note([encodeDirectoryObject([fileEntry(`${sent++}`, a)])], 0)
    }
    await arrive(...tree.chunks, ...tree.objects)
    expect(sent).toBeLessThan(10)
    expect(await missing()).toEqual([])
  })

  test('a lookup that fails is left to the commit', async () => {
    reader.failsOnce = true
    await arrive(...tree.chunks, ...tree.objects)
    expect(await missing()).toEqual([])
    await arrive(encodeDirectoryObject([directoryEntry('x', root)]))
  })

  const wrongSize = encodeDirectoryObject([{ ...fileEntry('a', a), size: 3 } as never])
  const twice = encodeDirectoryObject([fileEntry('b c.txt', b), fileEntry('b c.txt', b)])
  const listOfWrong = encodeFileObject([{ id: a.id, size: a.bytes.length - 1 }], undefined)
  const file = { kind: 'file', name: 'f', ...attributes, chunked: true } as const
  test.each([
    ['a chunk of another size', wrongSize, []],
    ['names out of order', twice, []],
    ['a list of another size', encodeDirectoryObject([{ ...file, id: big.id, size: 7 }]), [big]],
    [
      'a list with a chunk of another size',
      encodeDirectoryObject([{ ...file, id: listOfWrong.id, size: a.bytes.length - 1 }]),
      [listOfWrong],
    ],
    ['a list where a directory is said to be', encodeDirectoryObject([directoryEntry('d', big)]), [big]],
  ])('%s is refused', async (_, bad, lists) => {
    await arrive(...tree.chunks)
    await arrive(...lists)
    await arrive(bad)
    const above = encodeDirectoryObject([directoryEntry('bad', bad)])
    await arrive(above)
    await expect(missing(above)).rejects.toMatchObject({ code: 'invalid-object' })
  })

  test('each object is entered once, however many refer to it and however often one fails', async () => {
    const lists = Array.from({ length: 50 }, (_, i) =>
      encodeFileObject([{ id: chunk(`not here ${i}`).id, size: 10 }], undefined),
    )
    const entries = lists.map(({ id }, i) => ({
      ...file,
      name: `f${String(i).padStart(2, '0')}`,
      id,
      size: 10,
    }))
    const directories = Array.from({ length: 50 }, (_, i) =>
      encodeDirectoryObject([...entries, fileEntry(`g${i}`, chunk(`nor this ${i}`))]),
    )
    await arrive(...lists)
    for (const directory of directories) await arrive(directory)
    expect(reader.sought.length).toBe(100)
    expect(reader.read).toEqual([])
  })

  test('no more is at hand than there is room for', () => {
    const arrivals = new Arrivals(closure, reader)
    const bytes = Buffer.alloc(100_000, 'x')
    const ids = Array.from({ length: 200 }, (_, i) => chunk(String(i)).id)
    arrivals.note(
      ids.map((id) => ({ id, bytes })),
      0,
    )
    expect(ids.filter((id) => arrivals.take(id) !== undefined).length).toBeLessThan(90)
  })
})

describe('over packs on the disk', () => {
  let subject: PackSubject
  let files: FaultyFiles
  let store: PackChunkStore
  let catalog: Catalog
  let name: CheckpointName
  beforeEach(async () => {
    subject = await PackSubject.create()
    files = new FaultyFiles()
    await open()
    const { number } = await catalog.checkpoints.begin('s', { kind: 'dir' })
    name = { source: 's', number }
  })
  afterEach(async () => {
    await store.close()
    await subject.dispose()
  })

  const open = async (): Promise<void> => {
    store = await subject.open({ files, cacheBytes: 1 })
    catalog = await openCatalog(subject.vaultDir, store)
  }
  const send = async (...items: readonly EncodedObject[]): Promise<void> => {
    const blocks = items.map(({ id, bytes }) =>
      assembleBlock([{ id, length: bytes.length }], 'identity', bytes),
    )
    const { losses } = store
    const { objects } = await receiveBatch(store, Buffer.concat(blocks.map(({ bytes }) => bytes)))
    catalog.closure.arrivals.note(objects, losses)
    await catalog.closure.arrivals.settled()
  }
  const isRemembered = (): boolean => {
    return catalog.closure.recall({ id: tree.root.id, as: 'directory', within: tree.root.id }) !== undefined
  }
  const commit = () => catalog.checkpoints.commit(name, { root: tree.root.id })

  const collection = async (keep: readonly EncodedObject[]): Promise<void> => {
    const collection = store.collect()
    collection.keep(keep.map(({ id }) => id))
    for (const { pack } of await collection.survey(new Pace())) await collection.compact(pack, new Pace())
    collection.end()
  }
  const all = [...tree.chunks, ...tree.objects]
  const without = (...gone: EncodedObject[]): EncodedObject[] => all.filter((item) => !gone.includes(item))

  test.each([
    ['a collection that gives a chunk back', () => collection(without(tree.b)), [tree.b]],
    ['a collection that gives a list back', () => collection(without(tree.big, tree.parts[0])), [tree.big]],
    ['a collection that gives all back', () => collection([]), [tree.root]],
    [
      'damage that somebody met',
      async () => {
        await subject.damage(tree.parts[1].id)
        await expect(store.get(tree.parts[1].id)).rejects.toMatchObject({ code: 'chunk-corrupt' })
      },
      [tree.parts[1]],
    ],
    [
      'a sync that failed',
      async () => {
        files.fail('datasync', 'EIO')
        await expect(store.flush()).rejects.toMatchObject({ code: 'unavailable' })
      },
      undefined,
    ],
  ] as const)('%s between the look and the commit', async (_, happens, lost) => {
    await send(...all)
    expect(isRemembered()).toBe(true)
    await happens()
    expect(isRemembered()).toBe(false)
    const missing = lost?.map(({ id }) => id) ?? (await absent())
    if (missing.length > 0) {
      const told = await commit().catch((error: unknown) => error)
      expect(told).toMatchObject({ code: 'missing-chunks' })
      const { missing: listed } = (told as Problem).extensions as { missing: { id: Id }[] }
      expect(missing).toEqual(expect.arrayContaining(listed.map(({ id }) => id)))
    }
    await send(...all)
    expect(await commit()).toMatchObject({ state: 'committed' })
    expect(await absent()).toEqual([])
  })

  const absent = async (): Promise<Id[]> => {
    const sizes = await store.stat(all.map(({ id }) => id))
    return all.filter((_, i) => sizes[i] === undefined).map(({ id }) => id)
  }

  test('a collection begins before the commit, and gives back after it: nothing that was committed', async () => {
    await send(...all)
    const collecting = store.collect()
    expect(await commit()).toMatchObject({ state: 'committed' })
    for (const { pack } of await collecting.survey(new Pace())) await collecting.compact(pack, new Pace())
    collecting.end()
    expect(await absent()).toEqual([])
  })

  test('a collection begins before the look, and gives back before the commit: nothing that was sent since', async () => {
    const collecting = store.collect()
    await send(...all)
    expect(isRemembered()).toBe(true)
    for (const { pack } of await collecting.survey(new Pace())) await collecting.compact(pack, new Pace())
    collecting.end()
    expect(await absent()).toEqual([])
    expect(await commit()).toMatchObject({ state: 'committed' })
  })

  test('what was here already when a collection began is found again by the look, and stays', async () => {
    await send(...tree.chunks, tree.big)
    const collecting = store.collect()
    await send(tree.sub, tree.root)
    expect(await commit()).toMatchObject({ state: 'committed' })
    for (const { pack } of await collecting.survey(new Pace())) await collecting.compact(pack, new Pace())
    collecting.end()
    expect(await absent()).toEqual([])
  })

  test('a restart between: the commit looks itself', async () => {
    await send(...all)
    await store.close()
    await open()
    expect(isRemembered()).toBe(false)
    expect(await commit()).toMatchObject({ state: 'committed' })
  })

  test('the process ends between, and a chunk is gone from the disk: the commit misses it', async () => {
    await send(...all)
    const left = await subject.copy()
    await left.damage(tree.b.id)
    await store.close()
    await subject.dispose()
    subject = left
    await left.dropIndex()
    await open()
    await expect(commit()).rejects.toMatchObject({ code: 'missing-chunks' })
    await send(tree.b)
    expect(await commit()).toMatchObject({ state: 'committed' })
  })

  test('an object whose record was damaged before it was sent again is not taken for one that came now', async () => {
    await send(...all)
    await store.flush()
    await subject.damage(tree.sub.id)
    await store.close()
    await open()
    await send(...all)
    await expect(commit()).rejects.toMatchObject({
      code: 'missing-chunks',
      extensions: { missing: [{ id: tree.sub.id }] },
    })
    await send(tree.sub)
    expect(await commit()).toMatchObject({ state: 'committed' })
  })
})
