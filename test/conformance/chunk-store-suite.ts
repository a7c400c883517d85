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
import { type Block, encodeBlock } from '../../protocol/block.ts'
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

export interface Sample {
  readonly id: Id
  readonly bytes: Buffer
}

/** A chunk of random bytes, so that tests never meet each other's. */
export function sampleChunk(length: number, algorithm: HashAlgorithm = 'blake3'): Sample {
  const bytes = randomBytes(length)
  return { id: hashId(bytes, algorithm), bytes }
}

/** A chunk that compresses well. */
export function sampleText(length: number): Sample {
  const bytes = Buffer.alloc(length, `all work and no play ${randomBytes(8).toString('hex')} `)
  return { id: hashId(bytes), bytes }
}

/** A block of these chunks, true or not. */
export function unverifiedBlock(
  chunks: readonly Sample[],
  encoding: 'identity' | 'zstd' = 'identity',
): Promise<Block> {
  const rows = chunks.map(({ id, bytes }) => ({ id, length: bytes.length }))
  return encodeBlock(rows, Buffer.concat(chunks.map(({ bytes }) => bytes)), { encoding })
}

/** A verified block of these chunks. */
export async function sampleBlock(
  chunks: readonly Sample[],
  encoding: 'identity' | 'zstd' = 'identity',
): Promise<VerifiedBlock> {
  return verified(await unverifiedBlock(chunks, encoding))
}

/** Asserts that a promise rejects with a Problem of `code`. */
export async function rejectsWith(code: ProblemCode, promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.equal((error as { code?: unknown }).code, code, String(error))
    return true
  })
}

/** All items of an iterable. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

/** Asserts that the store has these chunks, and that they read back. */
export async function expectHeld(store: ChunkStore, chunks: readonly Sample[]): Promise<void> {
  assert.deepEqual(
    await store.stat(chunks.map(({ id }) => id)),
    chunks.map(({ bytes }) => bytes.length),
  )
  for (const { id, bytes } of chunks) assert.ok((await store.get(id))?.equals(bytes), `${id} reads back`)
}

/** Asserts that the store does not know the chunk. */
export async function expectAbsent(store: ChunkStore, { id }: Sample): Promise<void> {
  assert.deepEqual(await store.stat([id]), [undefined])
  assert.equal(await store.get(id), undefined)
  assert.deepEqual(await collect(store.blocks([id])), [])
}

/** Runs `body` with the subject's store, opened again. */
async function withStore(
  subject: ChunkStoreSubject,
  body: (store: ChunkStore) => Promise<void>,
): Promise<void> {
  const store = await subject.open()
  try {
    await body(store)
  } finally {
    await store.close()
  }
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

  describe('a chunk store: keeping and giving back', () => keepingTests(test))
  describe('a chunk store: receiving', () => receivingTests(test))
  describe('a chunk store: closing and opening', () => openingTests(test))
  describe('a chunk store: damage', () => damageTests(test))
}

type Test = (name: string, body: (store: ChunkStore, subject: ChunkStoreSubject) => Promise<void>) => void

function keepingTests(test: Test): void {
  test('holds nothing at first', async (store) => {
    await expectAbsent(store, sampleChunk(10))
    assert.equal(store.usage.chunks, 0)
    assert.deepEqual(await collect(store.list()), [])
    assert.deepEqual(await store.stat([]), [])
    await store.flush()
  })

  for (const encoding of ['identity', 'zstd'] as const) {
    test(`gives back the chunks of a block under ${encoding}`, async (store) => {
      const chunks = [sampleText(9000), sampleChunk(0), sampleChunk(1), sampleChunk(500, 'sha256')]
      const block = await sampleBlock(chunks, encoding)
      assert.equal(block.header.encoding, encoding)
      assert.deepEqual(await store.put(block), ['stored', 'stored', 'stored', 'stored'])
      await expectHeld(store, chunks)
      await store.flush()
      await expectHeld(store, chunks)
      assert.equal(store.usage.chunks, 4)
      assert.ok(store.usage.storedBytes >= block.bytes.length)
    })
  }

  test('keeps an empty chunk', async (store) => {
    const empty = sampleChunk(0)
    assert.deepEqual(await store.put(await sampleBlock([empty])), ['stored'])
    assert.deepEqual(await store.stat([empty.id]), [0])
    await expectHeld(store, [empty])
  })

  test('keeps the largest chunk', async (store) => {
    const chunk = sampleChunk(limits.maxChunkBytes)
    assert.deepEqual(await store.put(await sampleBlock([chunk])), ['stored'])
    await store.flush()
    await expectHeld(store, [chunk])
  })

  test('keeps the block with the most chunks', async (store) => {
    const chunks = Array.from({ length: limits.maxBlockChunks }, () => sampleChunk(8))
    const outcomes = await store.put(await sampleBlock(chunks))
    assert.ok(outcomes.length === chunks.length && outcomes.every((outcome) => outcome === 'stored'))
    await store.flush()
    assert.deepEqual(await store.stat(chunks.map(({ id }) => id)), new Array(chunks.length).fill(8))
    await expectHeld(store, chunks.slice(-3))
  })

  test('answers stat in the order of the question, repeated and absent ids included', async (store) => {
    const [a, b, c] = [sampleChunk(3), sampleChunk(5), sampleChunk(7)]
    await store.put(await sampleBlock([a]))
    await store.flush()
    await store.put(await sampleBlock([b]))
    assert.deepEqual(await store.stat([b.id, c.id, a.id, b.id]), [5, undefined, 3, 5])
  })

  test('copies or writes the bytes of a put: the caller may reuse them', async (store) => {
    const chunk = sampleChunk(1000)
    const block = await sampleBlock([chunk])
    await store.put(block)
    block.bytes.fill(0xff)
    await expectHeld(store, [chunk])
  })

  test('does not store a known block again', async (store) => {
    const chunks = [sampleChunk(1000), sampleChunk(2000)]
    await store.put(await sampleBlock(chunks))
    const { storedBytes } = store.usage
    assert.deepEqual(await store.put(await sampleBlock(chunks)), ['known', 'known'])
    await store.flush()
    assert.deepEqual(await store.put(await sampleBlock(chunks.toReversed())), ['known', 'known'])
    assert.deepEqual(store.usage, { chunks: 2, storedBytes })
  })

  test('tells the known from the new in a block that has both', async (store) => {
    const [a, b, c] = [sampleChunk(10), sampleChunk(20), sampleChunk(30)]
    await store.put(await sampleBlock([b]))
    assert.deepEqual(await store.put(await sampleBlock([a, b, c])), ['stored', 'known', 'stored'])
    await expectHeld(store, [a, b, c])
    await store.flush()
    await expectHeld(store, [a, b, c])
    assert.equal(store.usage.chunks, 3)
  })

  test('counts a chunk that stands twice in one block once', async (store) => {
    const a = sampleChunk(10)
    assert.deepEqual(await store.put(await sampleBlock([a, a])), ['stored', 'known'])
    assert.equal(store.usage.chunks, 1)
    await expectHeld(store, [a])
  })

  test('stores one of many concurrent puts of the same block', async (store) => {
    const block = await sampleBlock([sampleChunk(4000)])
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => store.put(block)))
    assert.equal(outcomes.flat().filter((outcome) => outcome === 'stored').length, 1)
    assert.equal(store.usage.chunks, 1)
  })

  test('stores a chunk once when concurrent puts bring it in different blocks', async (store) => {
    const shared = sampleChunk(4000)
    const others = Array.from({ length: 20 }, () => sampleChunk(100))
    const blocks = await Promise.all(others.map((other) => sampleBlock([other, shared])))
    const outcomes = await Promise.all(blocks.map((block) => store.put(block)))
    assert.ok(outcomes.every(([other]) => other === 'stored'))
    assert.equal(outcomes.filter(([, second]) => second === 'stored').length, 1)
    assert.equal(store.usage.chunks, 21)
    await expectHeld(store, [shared, ...others])
  })

  test('gives each block once, in the order of first need', async (store) => {
    const chunks = Array.from({ length: 6 }, (_, i) => sampleChunk(100 + i))
    const [a, b, c, d, e, f] = chunks as [Sample, Sample, Sample, Sample, Sample, Sample]
    const blocks = [await sampleBlock([a, b]), await sampleBlock([c]), await sampleBlock([d, e, f])]
    for (const block of blocks) await store.put(block)
    const given = await collect(store.blocks([f.id, a.id, sampleChunk(9).id, d.id, b.id, f.id, c.id]))
    assert.deepEqual(
      given.map(({ header }) => header.rows.map(({ id }) => id)),
      [blocks[2], blocks[0], blocks[1]].map((block) => block?.header.rows.map(({ id }) => id)),
    )
    for (const block of given) await verified(block)
  })

  test('lists every chunk once, flushed or not', async (store) => {
    const chunks = Array.from({ length: 30 }, (_, i) => sampleChunk(i))
    await store.put(await sampleBlock(chunks.slice(0, 20)))
    await store.flush()
    await store.put(await sampleBlock(chunks.slice(10)))
    const listed = await collect(store.list())
    const byId = (x: { id: string }, y: { id: string }): number => (x.id < y.id ? -1 : 1)
    const expected = chunks.map(({ id, bytes }) => ({ id, length: bytes.length }))
    assert.deepEqual(listed.toSorted(byId), expected.toSorted(byId))
  })
}

function receivingTests(test: Test): void {
  test('takes a plain chunk and a compressed one', async (store) => {
    const [plain, text] = [sampleChunk(3000), sampleText(50_000)]
    assert.equal(await receiveChunk(store, plain.id, Readable.from([plain.bytes]), plainBody), 'stored')
    assert.equal(await receiveChunk(store, plain.id, Readable.from([plain.bytes]), plainBody), 'known')
    const frame = await compress(text.bytes)
    const zstdBody = { ...plainBody, encoding: 'zstd', declaredBytes: frame.length } as const
    assert.equal(await receiveChunk(store, text.id, Readable.from([frame]), zstdBody), 'stored')
    await expectHeld(store, [plain, text])
    assert.ok(store.usage.storedBytes < 10_000, 'the text is kept in its compressed form')
  })

  test('compresses a plain chunk where that pays', async (store) => {
    const text = sampleText(100_000)
    await receiveChunk(store, text.id, text.bytes, plainBody)
    await expectHeld(store, [text])
    assert.ok(store.usage.storedBytes < 10_000)
  })

  test('stores nothing of an aborted stream', async (store) => {
    const chunk = sampleChunk(10_000)
    const stream = new Readable({ read() {} })
    const receiving = receiveChunk(store, chunk.id, stream, { ...plainBody, declaredBytes: 10_000 })
    stream.push(chunk.bytes.subarray(0, 5000))
    setImmediate(() => stream.destroy())
    await rejectsWith('incomplete-body', receiving)
    await expectAbsent(store, chunk)
  })

  const refusals: { name: string; code: ProblemCode; body: (chunk: Sample) => unknown; options?: object }[] =
    [
      { name: 'a wrong hash', code: 'digest-mismatch', body: () => randomBytes(100) },
      {
        name: 'one byte too few',
        code: 'incomplete-body',
        body: ({ bytes }) => bytes.subarray(1),
        options: { declaredBytes: 100 },
      },
      {
        name: 'one byte too many',
        code: 'incomplete-body',
        body: ({ bytes }) => Buffer.concat([bytes, bytes]),
        options: { declaredBytes: 100 },
      },
      {
        name: 'more than the limit',
        code: 'body-too-large',
        body: ({ bytes }) => bytes,
        options: { maxBytes: 99 },
      },
      {
        name: 'a declared length over the limit',
        code: 'body-too-large',
        body: ({ bytes }) => bytes,
        options: { maxBytes: 99, declaredBytes: 100 },
      },
      {
        name: 'what is no zstd frame',
        code: 'invalid-encoding',
        body: ({ bytes }) => bytes,
        options: { encoding: 'zstd' },
      },
      {
        name: 'a frame that decodes to too much',
        code: 'body-too-large',
        body: () => compress(Buffer.alloc(1e6)),
        options: { encoding: 'zstd', maxBytes: 1e6 - 1 },
      },
      {
        name: 'a frame of other bytes',
        code: 'digest-mismatch',
        body: () => compress(Buffer.alloc(100)),
        options: { encoding: 'zstd' },
      },
    ]
  for (const { name, code, body, options } of refusals) {
    test(`refuses a chunk with ${name}: ${code}`, async (store) => {
      const chunk = sampleChunk(100)
      const stream = Readable.from([await body(chunk)])
      await rejectsWith(code, receiveChunk(store, chunk.id, stream, { ...plainBody, ...options }))
      await expectAbsent(store, chunk)
      assert.deepEqual(await collect(store.list()), [])
    })
  }

  test('refuses the one false block of a batch and takes the others', async (store) => {
    const [a, b, c, d] = [sampleChunk(10), sampleChunk(20), sampleChunk(20), sampleChunk(40)]
    const lie = { id: sampleChunk(1).id, bytes: c.bytes }
    const blocks = [await sampleBlock([a]), await unverifiedBlock([b, lie]), await sampleBlock([d, a])]
    const { answer, kept } = await receiveBatch(store, Buffer.concat(blocks.map(({ bytes }) => bytes)))
    assert.deepEqual(
      answer.outcomes.filter((_, i) => i === 1 || i === 2 || i === 3),
      ['refused', 'refused', 'stored'],
    )
    assert.deepEqual([answer.outcomes[0], answer.outcomes[4]].sort(), ['known', 'stored'])
    const type = 'urn:chunkdav:problem:digest-mismatch'
    assert.deepEqual(
      answer.problems.map((problem) => [problem.id, problem.type]),
      [[lie.id, type]],
    )
    assert.deepEqual(kept, [a.id, d.id, a.id])
    await expectHeld(store, [a, d])
    await expectAbsent(store, b)
    await expectAbsent(store, lie)
  })

  test('stores nothing of a batch whose framing is wrong', async (store) => {
    const [a, b] = [sampleChunk(10), sampleChunk(20)]
    const whole = Buffer.concat([(await sampleBlock([a])).bytes, (await sampleBlock([b])).bytes])
    for (const body of [whole.subarray(0, -1), Buffer.concat([whole, Buffer.of(0)]), Buffer.alloc(0)]) {
      await rejectsWith('invalid-batch', receiveBatch(store, body))
    }
    assert.equal(store.usage.chunks, 0)
  })

  test('makes a chunk from another and a delta', async (store) => {
    const base = sampleChunk(100_000)
    const bytes = Buffer.concat([
      base.bytes.subarray(0, 60_000),
      Buffer.from('new'),
      base.bytes.subarray(60_000),
    ])
    const next = { id: hashId(bytes), bytes }
    const delta = await compress(bytes, { dictionary: base.bytes })
    await rejectsWith('base-not-found', receiveDelta(store, next.id, base.id, delta))
    await receiveChunk(store, base.id, base.bytes, plainBody)
    await rejectsWith('digest-mismatch', receiveDelta(store, sampleChunk(1).id, base.id, delta))
    await rejectsWith('invalid-encoding', receiveDelta(store, next.id, base.id, delta.subarray(0, -4)))
    assert.equal(await receiveDelta(store, next.id, base.id, Readable.from([delta])), 'stored')
    await expectHeld(store, [base, next])
  })
}

function openingTests(test: Test): void {
  test('refuses every call after close', async (store) => {
    const chunk = sampleChunk(100)
    const block = await sampleBlock([chunk])
    await store.put(block)
    const list = store.list()[Symbol.asyncIterator]()
    await list.next()
    await store.close()
    await store.close()
    await rejectsWith('unavailable', store.stat([chunk.id]))
    await rejectsWith('unavailable', store.put(block))
    await rejectsWith('unavailable', store.get(chunk.id))
    await rejectsWith('unavailable', store.flush())
    await rejectsWith('unavailable', collect(store.blocks([chunk.id])))
    await rejectsWith('unavailable', collect(store.list()))
    await rejectsWith('unavailable', list.next())
  })

  test('waits with close for the calls under way', async (store) => {
    const blocks = await Promise.all(Array.from({ length: 10 }, () => sampleBlock([sampleChunk(1000)])))
    const puts = blocks.map((block) => store.put(block))
    await store.close()
    assert.deepEqual(await Promise.all(puts), new Array(10).fill(['stored']))
  })

  test('finds everything again after close and open', async (store, subject) => {
    if (!store.capabilities.durable) return
    const chunks = Array.from({ length: 50 }, (_, i) => sampleChunk(i * 100))
    await store.put(await sampleBlock(chunks.slice(0, 25)))
    await store.flush()
    await store.put(await sampleBlock(chunks.slice(25), 'zstd'))
    const { usage } = store
    await store.close()
    await withStore(subject, async (again) => {
      assert.deepEqual(again.usage, usage)
      await expectHeld(again, chunks)
      assert.deepEqual(await again.put(await sampleBlock(chunks.slice(20, 30))), new Array(10).fill('known'))
    })
  })

  test('loses only the torn end when the last block was cut short', async (store, subject) => {
    if (subject.tear === undefined) return
    const [kept, torn, next] = [sampleChunk(1000), sampleChunk(2000), sampleChunk(3000)]
    await store.put(await sampleBlock([kept]))
    await store.close()
    await subject.tear(await sampleBlock([torn]))
    await withStore(subject, async (again) => {
      await expectHeld(again, [kept])
      await expectAbsent(again, torn)
      assert.deepEqual(await again.put(await sampleBlock([next, torn])), ['stored', 'stored'])
    })
    await withStore(subject, (again) => expectHeld(again, [kept, torn, next]))
  })

  test('rebuilds a lost index', async (store, subject) => {
    if (subject.dropIndex === undefined) return
    const chunks = Array.from({ length: 50 }, (_, i) => sampleChunk(i * 100))
    await store.put(await sampleBlock(chunks.slice(0, 25)))
    await store.put(await sampleBlock(chunks.slice(20)))
    const { usage } = store
    await store.close()
    await subject.dropIndex()
    await withStore(subject, async (again) => {
      assert.deepEqual(again.usage, usage)
      await expectHeld(again, chunks)
    })
  })
}

function damageTests(test: Test): void {
  test('reports a damaged chunk, forgets its block, and takes it again', async (store, subject) => {
    if (subject.damage === undefined) return
    const [a, b, c] = [sampleChunk(1000), sampleChunk(2000), sampleChunk(3000)]
    await store.put(await sampleBlock([a, b]))
    await store.put(await sampleBlock([c]))
    await store.flush()
    await subject.damage(a.id)
    const { losses } = store
    await rejectsWith('chunk-corrupt', store.get(a.id))
    assert.ok(store.losses > losses, 'losses rises')
    await expectAbsent(store, a)
    await expectAbsent(store, b)
    await expectHeld(store, [c])
    assert.equal(store.usage.chunks, 1)
    assert.deepEqual(await store.put(await sampleBlock([a, b])), ['stored', 'stored'])
    await expectHeld(store, [a, b, c])
  })

  test('keeps a damaged chunk forgotten, and a healed one healed, when it is opened again', async (store, subject) => {
    if (subject.damage === undefined || !store.capabilities.durable) return
    const [a, b] = [sampleChunk(1000), sampleChunk(2000)]
    await store.put(await sampleBlock([a, b]))
    await store.flush()
    await subject.damage(b.id)
    await rejectsWith('chunk-corrupt', store.get(b.id))
    await store.close()
    await withStore(subject, async (again) => {
      await expectAbsent(again, a)
      await again.put(await sampleBlock([a, b]))
    })
    await withStore(subject, (again) => expectHeld(again, [a, b]))
  })

  test('leaves damaged blocks out of blocks()', async (store, subject) => {
    if (subject.damage === undefined) return
    const [a, b, c] = [sampleChunk(1000), sampleChunk(2000), sampleChunk(3000)]
    for (const chunk of [a, b, c]) await store.put(await sampleBlock([chunk]))
    await store.flush()
    await subject.damage(b.id)
    const given = await collect(store.blocks([a.id, b.id, c.id]))
    assert.deepEqual(
      given.map(({ header }) => header.rows[0]?.id),
      [a.id, c.id],
    )
    await expectAbsent(store, b)
  })

  test('says of a delta whose base is damaged that the base is not there', async (store, subject) => {
    if (subject.damage === undefined) return
    const base = sampleChunk(1000)
    await store.put(await sampleBlock([base]))
    await store.flush()
    await subject.damage(base.id)
    const delta = await compress(base.bytes, { dictionary: base.bytes })
    await rejectsWith('base-not-found', receiveDelta(store, base.id, base.id, delta))
  })
}
