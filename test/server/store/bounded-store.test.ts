/** Quotas and the reserve: nothing new beyond them, also of many puts at once; whatever is there stays usable. */
import { describe, expect, it, test } from 'vitest'
import { isProblem, type Problem } from '../../../protocol/problem.ts'
import { boundedStore, type Room } from '../../../server/store/bounded-store.ts'
import type { PutOutcome, VerifiedBlock } from '../../../server/store/chunk-store.ts'
import { MemoryChunkStore } from '../../../server/store/memory-chunk-store.ts'
import { verified } from '../../../server/store/receive.ts'
import {
  chunkStoreSuite,
  type Sample,
  sampleBlock,
  sampleChunk,
} from '../../conformance/chunk-store-suite.ts'
import { collectableSuite } from '../../conformance/collectable-suite.ts'
import { PackSubject } from './pack-subject.ts'

const roomy: Room = { reserveBytes: 1, take: async () => true, settle: () => {} }

describe('one with room enough is as the store in it', () => {
  const bounds = { quotaBytes: () => 1e12, room: roomy }
  const create = async () => {
    const subject = await PackSubject.create()
    return { open: async () => boundedStore(await subject.open(), bounds), dispose: () => subject.dispose() }
  }
  chunkStoreSuite({ describe, it }, { create })
  collectableSuite({ describe, it }, { create })
})

const blockOf = async (...chunks: Sample[]): Promise<VerifiedBlock> =>
  await verified(await sampleBlock(chunks, 'identity'))

async function outcome(put: Promise<PutOutcome[]>): Promise<unknown> {
  try {
    return await put
  } catch (error) {
    if (!isProblem(error)) throw error
    return error
  }
}
const isFull = (found: unknown): found is Problem => isProblem(found, 'insufficient-storage')

describe('a quota', () => {
  test('refuses what would exceed it, tells by how much, and takes what is known', async () => {
    const inner = await MemoryChunkStore.open()
    let quotaBytes: number | undefined
    const store = boundedStore(inner, { quotaBytes: () => quotaBytes })
    const [a, b] = [sampleChunk(1000), sampleChunk(1000)]
    const blocks = [await blockOf(a), await blockOf(b), await blockOf(a, b)] as const
    await store.put(blocks[0])
    quotaBytes = store.usage.storedBytes + blocks[1].bytes.length - 1
    const refused = await outcome(store.put(blocks[1]))
    expect(isFull(refused) && refused.extensions).toEqual({
      quotaBytes,
      storedBytes: inner.usage.storedBytes,
    })
    expect(isFull(await outcome(store.put(blocks[2])))).toBe(true)
    expect([await store.put(blocks[0]), await store.get(a.id)]).toEqual([['known'], a.bytes])
    expect(await store.stat([a.id, b.id])).toEqual([1000, undefined])
    quotaBytes++
    expect(await store.put(blocks[1])).toEqual(['stored'])
    quotaBytes = 0
    expect(await store.put(blocks[2])).toEqual(['known', 'known'])
  })

  test('is not exceeded by many at once, and is used up', async () => {
    const inner = await MemoryChunkStore.open()
    const blocks = await Promise.all(Array.from({ length: 50 }, () => blockOf(sampleChunk(1000))))
    const each = blocks[0]?.bytes.length ?? 0
    const store = boundedStore(inner, { quotaBytes: () => 20 * each })
    const found = await Promise.all(blocks.map((block) => outcome(store.put(block))))
    expect(found.filter(isFull).length).toBe(30)
    expect(store.usage.storedBytes).toBe(20 * each)
  })

  test('a put that turns out to be known makes room for one that waits', async () => {
    const inner = await MemoryChunkStore.open()
    const [known, fresh] = [await blockOf(sampleChunk(1000)), await blockOf(sampleChunk(1000))]
    await inner.put(known)
    const slow = Object.create(inner, {
      usage: { get: () => inner.usage },
      stat: { value: inner.stat.bind(inner) },
      put: {
        configurable: true,
        value: async (block: VerifiedBlock) => {
          await new Promise((resolve) => setTimeout(resolve, 20))
          return await inner.put(block)
        },
      },
    }) as MemoryChunkStore
    const store = boundedStore(slow, { quotaBytes: () => 2 * known.bytes.length })
    expect(await Promise.all([store.put(known), store.put(fresh)])).toEqual([['known'], ['stored']])
  })

  test('a put that fails holds nothing', async () => {
    const inner = await MemoryChunkStore.open()
    const block = await blockOf(sampleChunk(1000))
    let fails = 3
    const failing = Object.create(inner, {
      usage: { get: () => inner.usage },
      put: {
        configurable: true,
        value: async (each: VerifiedBlock) =>
          fails-- > 0 ? Promise.reject(new Error('EIO')) : inner.put(each),
      },
    }) as MemoryChunkStore
    const store = boundedStore(failing, { quotaBytes: () => block.bytes.length })
    for (let i = 0; i < 3; i++) await expect(store.put(block)).rejects.toThrow('EIO')
    expect(await store.put(block)).toEqual(['stored'])
  })
})

describe('the reserve', () => {
  test('what does not fit beside it is refused; what was taken is settled once', async () => {
    const calls: [string, ...unknown[]][] = []
    let hasRoom = true
    const room: Room = {
      reserveBytes: 77,
      take: async (bytes) => {
        calls.push(['take', bytes])
        return hasRoom
      },
      settle: (bytes, written) => void calls.push(['settle', bytes, written]),
    }
    const store = boundedStore(await MemoryChunkStore.open(), { quotaBytes: () => 3000, room })
    const [first, second] = [await blockOf(sampleChunk(1000)), await blockOf(sampleChunk(1000))]
    const bytes = first.bytes.length
    await store.put(first)
    await store.put(first)
    hasRoom = false
    expect(await store.put(first)).toEqual(['known'])
    const refused = await outcome(store.put(second))
    expect(isFull(refused) && refused.extensions).toEqual({ reserveBytes: 77 })
    hasRoom = true
    expect(isFull(await outcome(store.put(await blockOf(sampleChunk(2000)))))).toBe(true)
    const large = 2000 + (bytes - 1000)
    expect(calls).toEqual([
      ['take', bytes],
      ['settle', bytes, true],
      ['take', bytes],
      ['settle', bytes, false],
      ['take', bytes],
      ['take', bytes],
      ['take', large],
      ['settle', large, false],
    ])
  })
})
