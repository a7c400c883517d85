/** What a compaction must not do: destroy what one bad read shows as damaged, lie in the index, count bytes twice. */
import { open } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { nodeFiles, type StoreFile } from '../../../server/file-layer.ts'
import { boundedStore } from '../../../server/store/bounded-store.ts'
import type { Pacing } from '../../../server/store/collectable.ts'
import type { PackChunkStore } from '../../../server/store/pack-chunk-store.ts'
import { type Sample, sampleBlock, sampleChunk } from '../../conformance/chunk-store-suite.ts'
import { FaultyFiles } from '../../support/faulty-files.ts'
import { PackSubject } from './pack-subject.ts'

const atOnce: Pacing = { step: async () => {} }
let subject: PackSubject
let store: PackChunkStore
let files: FaultyFiles

/** Does something to what is read, once. */
type Spoil = (bytes: Buffer, path: string, position: number) => void
let spoil: Spoil | undefined

beforeEach(async () => {
  subject = await PackSubject.create({ packBytes: 8000 })
  files = new FaultyFiles({
    ...nodeFiles,
    open: async (path, mode) => spoiled(await nodeFiles.open(path, mode), path),
  })
  store = await subject.open({ files })
})
afterEach(async () => {
  spoil = undefined
  await store.close()
  await subject.dispose()
})

function spoiled(file: StoreFile, path: string): StoreFile {
  return {
    read: async (target, position) => {
      const bytes = await file.read(target, position)
      spoil?.(target.subarray(0, bytes), path, position)
      return bytes
    },
    write: (parts, position) => file.write(parts, position),
    datasync: () => file.datasync(),
    truncate: (length) => file.truncate(length),
    size: () => file.size(),
    close: () => file.close(),
  }
}

const isFirst = (path: string): boolean => path.endsWith('00000001.pack')

async function put(...lengths: number[]): Promise<Sample[]> {
  const samples = lengths.map((length) => sampleChunk(length))
  for (const sample of samples) await store.put(await sampleBlock([sample]))
  await store.flush()
  return samples
}

describe('a pack with damage', () => {
  test('is left where it is when one read shows what is kept as damaged; the next collection finds it sound', async () => {
    const [kept, dead] = (await put(1000, 6500)) as [Sample, Sample]
    await put(6000)
    const collection = store.collect()
    collection.keep([kept.id])
    spoil = (bytes, path) => {
      if (!isFirst(path) || bytes.length < 500) return
      bytes[400] = (bytes[400] as number) ^ 1
      spoil = undefined
    }
    expect(await collection.compact(1, atOnce)).toMatchObject({ freedBytes: 0, isDamaged: true })
    expect(await store.get(kept.id)).toEqual(kept.bytes)
    expect(await collection.compact(1, atOnce)).toMatchObject({ isDamaged: false })
    collection.end()
    expect(await store.get(kept.id)).toEqual(kept.bytes)
    expect(await store.get(dead.id)).toBeUndefined()
    expect(await subject.packs()).not.toContain('00000001.pack')
  })

  test('goes when nothing in it is kept, also when it cannot be read', async () => {
    const dead = await put(2400, 2400, 2400)
    const [kept] = (await put(2600)) as [Sample]
    const collection = store.collect()
    collection.keep([kept.id])
    spoil = (_, path, position) => {
      if (isFirst(path) && position < 4000) throw Object.assign(new Error('EIO'), { code: 'EIO' })
    }
    expect(await collection.compact(1, atOnce)).toMatchObject({ isDamaged: false })
    collection.end()
    expect(await store.stat(dead.map(({ id }) => id))).toEqual([undefined, undefined, undefined])
    expect(await store.get(kept.id)).toEqual(kept.bytes)
    expect(store.usage.chunks).toBe(1)
  })
})

test('a copy that turns out damaged before it is synced leaves the first one, with a row that is true', async () => {
  const [kept, , tail, fill] = (await put(1000, 3000, 1000, 5000)) as [Sample, Sample, Sample, Sample]
  const collection = store.collect()
  collection.keep([kept, tail, fill].map(({ id }) => id))
  let isDone = false
  const pacing = {
    step: async () => {
      // When the copies are written, before they are synced: the reader finds the copy damaged and forgets it.
      const [newest] = (await subject.packs()).slice(-1)
      if (isDone || newest === '00000001.pack') return
      const handle = await open(subject.packPath(2), 'r+')
      const { size } = await handle.stat()
      if (size > 1000) {
        isDone = true
        await handle.write(Buffer.of(1, 2, 3, 4), 0, 4, size - 4)
        for (const { id } of [kept, tail, fill]) await store.get(id).catch(() => undefined)
      }
      await handle.close()
    },
  }
  await collection.compact(1, pacing)
  collection.end()
  for (const sample of [kept, tail, fill]) {
    const [length] = await store.stat([sample.id])
    if (length !== undefined) expect(await store.get(sample.id)).toEqual(sample.bytes)
  }
})

test('the pack goes only after its copies are synced', async () => {
  const [kept] = (await put(1000, 7500)) as [Sample]
  await put(100)
  const collection = store.collect()
  collection.keep([kept.id])
  files.calls.length = 0
  await collection.compact(1, atOnce)
  collection.end()
  const calls = files.calls.map((call) => call.split(' ')[0])
  const copied = calls.lastIndexOf('write')
  const removed = calls.indexOf('unlink')
  expect(calls.slice(copied, removed)).toContain('datasync')
  expect(calls.slice(removed)).toContain('syncFolder')
})

test('what is moved does not count against a quota while its pack is still there', async () => {
  const samples = await put(1500, 1500, 1500, 1500, 1500, 1500)
  const { storedBytes } = store.usage
  const bounded = boundedStore(store, { quotaBytes: () => storedBytes + 1000 })
  const collection = store.collect()
  collection.keep(samples.slice(0, 4).map(({ id }) => id))
  let most = 0
  const pacing = {
    step: async () => {
      most = Math.max(most, store.usage.storedBytes)
    },
  }
  for (const { pack } of await collection.survey(atOnce)) {
    await collection.compact(pack, pacing)
    await bounded.put(await sampleBlock([sampleChunk(1)]))
  }
  collection.end()
  expect(most).toBeLessThan(storedBytes + 500)
  expect(store.usage.storedBytes).toBeLessThan(storedBytes)
})

test('a backup that comes during the survey does not look like garbage', async () => {
  const samples = await put(1000, 1000)
  const collection = store.collect()
  collection.keep(samples.map(({ id }) => id))
  let left = 3
  const garbage = await collection.survey({
    step: async () => {
      if (left-- > 0) await store.put(await sampleBlock([sampleChunk(500)]))
    },
  })
  collection.end()
  expect(garbage.every(({ garbageBytes }) => garbageBytes === 0)).toBe(true)
})
