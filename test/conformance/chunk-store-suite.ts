/**
 * The conformance suite of ChunkStore, for any test framework that has `describe` and `it`:
 *
 *     import { describe, it } from 'vitest'
 *     import { chunkStoreSuite } from 'chunkdav/conformance'
 *     chunkStoreSuite({ describe, it }, {
 *       create: async () => ({ open: () => MyStore.open('/some/fresh/place'), dispose: async () => {} }),
 *     })
 *
 * What a subject can do is data: tests that need durability, or a fault that only the backend's author
 * can cause, run where the subject offers it.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { type Block, decodeBlock, encodeBlock, sliceRow } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { HashAlgorithm, Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import type { ProblemCode } from '../../protocol/problem.ts'
import { compress } from '../../protocol/zstd.ts'
import type { ChunkStore, VerifiedBlock } from '../../server/store/chunk-store.ts'
import { receiveBatch, receiveChunk, receiveDelta, verified } from '../../server/store/receive.ts'

export interface SuiteRunner {
  describe(name: string, body: () => void): void
  it(name: string, body: () => Promise<void>): void
}

/** One store's place. `open` after the last store was closed finds what that one made durable. */
export interface ChunkStoreSubject {
  open(): Promise<ChunkStore>
  /** Flips a bit in the stored payload of the block that holds `id`. The store may be open. */
  damage?(id: Id): Promise<void>
  /** With the store closed: leaves the first part of one more block where the next one would be written. */
  tear?(block: Block): Promise<void>
  /** With the store closed: removes what the store can rebuild from the rest. */
  dropIndex?(): Promise<void>
  dispose(): Promise<void>
}

export interface ChunkStoreSuiteOptions {
  /** A subject in a fresh, empty place. */
  create(): Promise<ChunkStoreSubject>
}

interface Sample {
  readonly id: Id
  readonly bytes: Buffer
}

/** A chunk of random bytes, so that tests never meet each other's. */
export function sampleChunk(length: number, algorithm: HashAlgorithm = 'blake3'): Sample {
  const bytes = randomBytes(length)
  return { id: hashId(bytes, algorithm), bytes }
}

/** A verified block of these chunks. */
export async function sampleBlock(
  chunks: readonly Sample[],
  encoding: 'identity' | 'zstd' = 'identity',
): Promise<VerifiedBlock> {
  const rows = chunks.map(({ id, bytes }) => ({ id, length: bytes.length }))
  return verified(await encodeBlock(rows, Buffer.concat(chunks.map(({ bytes }) => bytes)), { encoding }))
}

/** Asserts that a promise rejects with a Problem of `code`. */
export async function rejectsWith(code: ProblemCode, promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.equal((error as { code?: unknown }).code, code, String(error))
    return true
  })
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

async function expectHeld(store: ChunkStore, chunks: readonly Sample[]): Promise<void> {
  assert.deepEqual(
    await store.stat(chunks.map(({ id }) => id)),
    chunks.map(({ bytes }) => bytes.length),
  )
  for (const { id, bytes } of chunks) assert.ok((await store.get(id))?.equals(bytes), `${id} reads back`)
}

async function expectAbsent(store: ChunkStore, { id }: Sample): Promise<void> {
  assert.deepEqual(await store.stat([id]), [undefined])
  assert.equal(await store.get(id), undefined)
  assert.deepEqual(await collect(store.blocks([id])), [])
}

const plainBody = { encoding: 'identity', maxBytes: limits.maxChunkBytes } as const

export function chunkStoreSuite({ describe, it }: SuiteRunner, options: ChunkStoreSuiteOptions): void {
  /** One test: a fresh place, a store in it, both gone afterwards. */
  const test = (name: string, body: (store: ChunkStore, subject: ChunkStoreSubject) => Promise<void>): void =>
    it(name, async () => {
      const subject = await options.create()
      try {
        const store = await subject.open()
        try {
          await body(store, subject)
        } finally {
          await store.close()
        }
      } finally {
        await subject.dispose()
      }
    })

  describe('a chunk store', () => {
    test('holds nothing at first', async (store) => {
      await expectAbsent(store, sampleChunk(10))
      assert.equal(store.usage.chunks, 0)
      assert.deepEqual(await collect(store.list()), [])
      assert.deepEqual(await store.stat([]), [])
      await store.flush()
    })

    for (const encoding of ['identity', 'zstd'] as const) {
      test(`gives back the chunks of a block under ${encoding}`, async (store) => {
        const text = Buffer.from('all work and no play '.repeat(500))
        const chunks = [
          { id: hashId(text), bytes: text },
          sampleChunk(0),
          sampleChunk(1),
          sampleChunk(5000, 'sha256'),
        ]
        const block = await sampleBlock(chunks, encoding)
        assert.deepEqual(await store.put(block), ['stored', 'stored', 'stored', 'stored'])
        await expectHeld(store, chunks)
        await store.flush()
        await expectHeld(store, chunks)
        assert.equal(store.usage.chunks, 4)
        assert.ok(store.usage.storedBytes >= block.bytes.length)
      })
    }

    test('gives back the largest chunk', async (store) => {
      const chunk = sampleChunk(limits.maxChunkBytes)
      assert.deepEqual(await store.put(await sampleBlock([chunk])), ['stored'])
      await expectHeld(store, [chunk])
    })
  })
}

export {
  collect,
  compress,
  decodeBlock,
  expectAbsent,
  expectHeld,
  plainBody,
  Readable,
  receiveBatch,
  receiveChunk,
  receiveDelta,
  sliceRow,
}
