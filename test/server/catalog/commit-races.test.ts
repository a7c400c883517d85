/** Commits while chunks are lost: a store that forgets at the worst moment. */
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Id } from '../../../protocol/id.ts'
import { encodeDirectoryObject } from '../../../protocol/objects.ts'
import { Problem } from '../../../protocol/problem.ts'
import type { CheckpointName } from '../../../protocol/url.ts'
import { type Catalog, openCatalog } from '../../../server/catalog/catalog.ts'
import type { CheckpointRoots } from '../../../server/catalog/checkpoint-roots.ts'
import type { ChunkReader } from '../../../server/catalog/chunk-reader.ts'
import { type FileLayer, nodeFiles } from '../../../server/file-layer.ts'
import { FaultyFiles } from '../../support/faulty-files.ts'
import { directoryEntry, smallTree } from '../requests.ts'

/** Chunks in a map, that can lose one, or be slow. */
class ForgetfulReader implements ChunkReader {
  losses = 0
  collections = 0
  gets = 0
  stats = 0
  flushes = 0
  readonly chunks = new Map<Id, Buffer>()
  readonly damaged = new Set<Id>()
  onFlush: () => void | Promise<void> = () => {}

  async stat(ids: readonly Id[]): Promise<(number | undefined)[]> {
    this.stats++
    return ids.map((id) => this.chunks.get(id)?.length)
  }

  async get(id: Id): Promise<Buffer | undefined> {
    this.gets++
    if (this.damaged.delete(id)) {
      this.lose(id)
      throw new Problem('chunk-corrupt', id)
    }
    return this.chunks.get(id)
  }

  async flush(): Promise<void> {
    this.flushes++
    await this.onFlush()
  }

  lose(id: Id): void {
    this.chunks.delete(id)
    this.losses++
  }
}

let path: string
let reader: ForgetfulReader
let catalog: Catalog
const tree = smallTree()
const root = { root: tree.root.id }
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'chunkdav-catalog-'))
  reader = new ForgetfulReader()
  for (const { id, bytes } of [...tree.chunks, ...tree.objects]) reader.chunks.set(id, bytes)
  catalog = await openCatalog(path, reader)
})
afterEach(() => rm(path, { recursive: true }))

const begin = async (): Promise<{ source: string; number: number }> => {
  const { number } = await catalog.checkpoints.begin('s', { kind: 'dir' })
  return { source: 's', number }
}

describe('a chunk that is lost', () => {
  test('by the flush, after the walk found it: the commit walks again and tells', async () => {
    reader.onFlush = () => {
      if (reader.flushes === 1) reader.lose(tree.b.id)
    }
    const name = await begin()
    await expect(catalog.checkpoints.commit(name, root)).rejects.toMatchObject({
      code: 'missing-chunks',
      extensions: { missing: [{ id: tree.b.id, within: tree.b.id }] },
    })
    expect(await catalog.checkpoints.state(name)).toMatchObject({ state: 'open' })
    reader.chunks.set(tree.b.id, tree.b.bytes)
    expect(await catalog.checkpoints.commit(name, root)).toMatchObject({ state: 'committed' })
  })

  test('and another that nothing needs: the commit walks again and succeeds', async () => {
    reader.onFlush = () => {
      if (reader.flushes === 1) reader.losses++
    }
    expect(await catalog.checkpoints.commit(await begin(), root)).toMatchObject({ state: 'committed' })
    expect(reader.flushes).toBe(2)
  })

  test('again and again: the commit gives up, nothing is published', async () => {
    reader.onFlush = () => void reader.losses++
    const name = await begin()
    await expect(catalog.checkpoints.commit(name, root)).rejects.toMatchObject({ code: 'unavailable' })
    expect(await catalog.checkpoints.state(name)).toMatchObject({ state: 'open' })
  })

  const collect = (): void => {
    reader.losses++
    reader.collections++
  }

  test('is none where collections begin: the commit goes on until none does', async () => {
    reader.onFlush = () => {
      if (reader.flushes <= 12) collect()
    }
    expect(await catalog.checkpoints.commit(await begin(), root)).toMatchObject({ state: 'committed' })
    expect(reader.flushes).toBe(13)
  })

  test('while a collection begins counts all the same', async () => {
    reader.onFlush = () => {
      collect()
      reader.losses++
    }
    await expect(catalog.checkpoints.commit(await begin(), root)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('disk'),
    })
    expect(reader.flushes).toBe(5)
  })

  test('or not: with a collection under every walk the commit gives up at last', async () => {
    reader.onFlush = collect
    await expect(catalog.checkpoints.commit(await begin(), root)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('collections'),
    })
    expect(reader.flushes).toBeLessThan(100)
  })

  test('because it is found damaged on the way counts as missing', async () => {
    reader.damaged.add(tree.sub.id)
    await expect(catalog.checkpoints.commit(await begin(), root)).rejects.toMatchObject({
      code: 'missing-chunks',
      extensions: { missing: [{ id: tree.sub.id, within: tree.sub.id }] },
    })
  })

  test('after its tree was found whole: what was remembered is void', async () => {
    await catalog.checkpoints.commit(await begin(), root)
    reader.lose(tree.parts[1].id)
    await expect(catalog.checkpoints.commit(await begin(), root)).rejects.toMatchObject({
      extensions: { missing: [{ id: tree.parts[1].id, within: tree.big.id }] },
    })
  })
})

test('a flush that fails publishes nothing', async () => {
  reader.onFlush = () => Promise.reject(new Problem('unavailable', 'fsync failed'))
  const name = await begin()
  await expect(catalog.checkpoints.commit(name, root)).rejects.toMatchObject({ code: 'unavailable' })
  expect(await catalog.checkpoints.list('s')).toMatchObject([{ state: 'open' }])
})

test('a delete waits for the commit that is under way', async () => {
  const name = await begin()
  const order: string[] = []
  reader.onFlush = async () => {
    const deleted = catalog.checkpoints.delete(name).then(() => order.push('deleted'))
    await new Promise((resolve) => setTimeout(resolve, 20))
    order.push('flushed')
    void deleted
  }
  await catalog.checkpoints.commit(name, root)
  order.push('committed')
  await expect.poll(() => order).toEqual(['flushed', 'committed', 'deleted'])
  await expect(catalog.checkpoints.state(name)).rejects.toMatchObject({ code: 'checkpoint-not-found' })
})

test('an unchanged tree is not walked again', async () => {
  await catalog.checkpoints.commit(await begin(), root)
  const { gets } = reader
  const above = encodeDirectoryObject([directoryEntry('old', tree.root)])
  reader.chunks.set(above.id, above.bytes)
  await catalog.checkpoints.commit(await begin(), { root: above.id })
  expect(reader.gets - gets).toBe(1)
})

test('directories that name each other twice on each level are entered once each', async () => {
  let below = tree.sub
  for (let level = 0; level < 40; level++) {
    below = encodeDirectoryObject([directoryEntry('a', below), directoryEntry('b', below)])
    reader.chunks.set(below.id, below.bytes)
  }
  reader.chunks.delete(tree.b.id)
  const { gets } = reader
  await expect(catalog.checkpoints.commit(await begin(), { root: below.id })).rejects.toMatchObject({
    extensions: { missing: [{ id: tree.b.id }] },
  })
  expect(reader.gets - gets).toBeLessThan(100)
})

test.each([
  ['committed', (name: CheckpointName) => catalog.checkpoints.commit(name, root)],
  ['deleted', (name: CheckpointName) => catalog.checkpoints.delete(name)],
])('what an open checkpoint keeps can be read while it is being %s', async (_, end) => {
  let look: (() => Promise<void>) | undefined
  const seen: (Promise<void> | undefined)[] = []
  const files: FileLayer = {
    ...nodeFiles,
    unlink: async (name) => {
      await nodeFiles.unlink(name)
      // What it asks for comes before whatever is done next.
      seen.push(look?.())
    },
  }
  catalog = await openCatalog(path, reader, undefined, files)
  const name = await begin()
  await catalog.checkpoints.touch(name, [tree.a.id])
  look = async () => {
    for (const { touched, references } of catalog.checkpoints.openRoots()) {
      await Array.fromAsync(touched(0))
      await Array.fromAsync(references())
    }
  }
  await end(name)
  await Promise.all(seen)
  expect(seen.length).toBeGreaterThan(1)
})

test('a commit that failed at its end has not happened, for anybody, until it is repeated', async () => {
  const files = new FaultyFiles()
  catalog = await openCatalog(path, reader, undefined, files)
  const { checkpoints } = catalog
  const name = await begin()
  // The file is there by then; whether it would be after a power cut nobody knows.
  files.fail('syncFolder', 'EIO')
  await expect(checkpoints.commit(name, root)).rejects.toMatchObject({ code: 'EIO' })
  expect(await readdir(join(path, 'checkpoints/s'))).toContain('1.json')
  expect(await checkpoints.list('s')).toMatchObject([{ number: 1, state: 'open' }])
  expect(await checkpoints.latest('s')).toBeUndefined()
  await checkpoints.commit(name, root)
  expect(await checkpoints.latest('s')).toMatchObject({ number: 1, state: 'committed' })
})

test.each([
  ['committed', 3, (name: CheckpointName) => catalog.checkpoints.commit(name, root)],
  ['deleted', 2, (name: CheckpointName) => catalog.checkpoints.delete(name)],
] as const)('once %s it is no open one any more, whatever comes of its remainders', async (_, files, end) => {
  for (let after = 1; after < files; after++) {
    const faulty = new FaultyFiles()
    catalog = await openCatalog(path, reader, undefined, faulty)
    const { checkpoints } = catalog
    const name = await begin()
    faulty.fail('unlink', 'EIO', 1, after)
    await expect(end(name)).rejects.toMatchObject({ code: 'EIO' })
    expect(checkpoints.openRoots()).toEqual([])
    await expect(checkpoints.touch(name, [tree.a.id])).rejects.toMatchObject({ name: 'Problem' })
    await Array.fromAsync(checkpoints.roots())
  }
})

test('a wide tree is looked up in batches', async () => {
  const names = Array.from({ length: 3000 }, (_, i) => `f${String(i).padStart(5, '0')}`)
  const wide = encodeDirectoryObject(
    names.map((name) => ({
      kind: 'file',
      name,
      mode: 0,
      uid: 0,
      gid: 0,
      mtimeNs: '0',
      id: tree.a.id,
      size: tree.a.bytes.length,
    })),
  )
  reader.chunks.set(wide.id, wide.bytes)
  const { stats } = reader
  await catalog.checkpoints.commit(await begin(), { root: wide.id })
  expect(reader.stats - stats).toBeLessThanOrEqual(3)
})

test.each(['openToWrite', 'size', 'write'] as const)(
  'what could not be written into the log (%s) is written when it is noted again',
  async (call) => {
    const files = new FaultyFiles()
    catalog = await openCatalog(path, reader, undefined, files)
    const { checkpoints } = catalog
    const name = await begin()
    await checkpoints.touch(name, [tree.a.id])
    files.fail(call, 'EIO')
    await expect(checkpoints.touch(name, [tree.a.id, tree.b.id])).rejects.toMatchObject({ code: 'EIO' })
    await checkpoints.touch(name, [tree.a.id, tree.b.id])
    const [{ touched }] = checkpoints.openRoots() as [CheckpointRoots]
    const ids = (await Array.fromAsync(touched(0))).flat().map(({ id }) => id)
    expect(new Set(ids)).toEqual(new Set([tree.a.id, tree.b.id]))
  },
)
