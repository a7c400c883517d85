/**
 * The one place above all stores where bytes from somebody else are measured, decoded and hashed.
 * What passes becomes a VerifiedBlock; stores trust it. Nothing is stored unless it is right: either its
 * hash was compared with the id that was stated, or the id is the hash that this process has just computed.
 */
import type { Readable } from 'node:stream'
import rawBody from 'raw-body'
import {
  assembleBlock,
  type Block,
  type BlockEncoding,
  type BlockHeader,
  blockBytes,
  type ChunkTable,
  completeBlock,
  compressionPays,
  discard,
  encodeBlock,
  type PlainChunk,
  splitBatch,
  verifyBlock,
} from '../../protocol/block.ts'
import { hashInSlices } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { BatchAnswer } from '../../protocol/schema.ts'
import { compressNow, decompress } from '../../protocol/zstd.ts'
import type { ChunkStore, PutOutcome, VerifiedBlock } from './chunk-store.ts'
import type { Lease } from './collectable.ts'
import { type Judge, judgeInPlace } from './verifying-thread.ts'

export interface BodyBounds {
  /** The most bytes to take. */
  readonly maxBytes: number
  /** The length that the sender announced, in bytes; the body must have exactly that. */
  readonly declaredBytes?: number | undefined
}

export interface ChunkBodyOptions extends BodyBounds {
  /** How the body is encoded. `maxBytes` bounds the plain bytes, `declaredBytes` counts encoded ones. */
  readonly encoding: BlockEncoding
  /** A body in memory again, with `chunkRoomBytes` in front of it: its block is then made where it stands. */
  readonly withRoom?: Buffer | undefined
}

/** What a block of one chunk has in front of the chunk. */
export const chunkRoomBytes = blockBytes(1, 0)

/** What became of a batch. */
export interface ReceivedBatch {
  readonly answer: BatchAnswer
  /** Ids of the blocks that were not refused, in order. */
  readonly kept: Id[]
  /** Whether a kept chunk looks like a file or directory object: whoever keeps it must look what it refers to. */
  readonly mayBeObject: (id: Id) => boolean
  /** Of these, short ones that were stored just now, each in memory of its own. */
  readonly objects: PlainChunk[]
}

/** How much of a long chunk is compressed to learn whether it can be: half from its beginning, half from its middle. */
const probeBytes = 16 * 1024
const probe = Buffer.alloc(probeBytes)
/** Of each byte, how many. */
const counts = new Uint32Array(256)
/** Blocks of one batch that are given to the store at the same time: it writes them with one system call. */
const blocksAtOnce = 256

/**
 * All of a body, in memory. Problem `body-too-large` as soon as it is known that it is (the stream is
 * then left paused, its rest unread); `incomplete-body` when it ends early, is aborted, or does not have
 * the declared length.
 */
export async function readBody(body: Readable, { maxBytes, declaredBytes }: BodyBounds): Promise<Buffer> {
  try {
    return await rawBody(body, { limit: maxBytes, length: declaredBytes ?? null })
  } catch (cause) {
    if (!(cause instanceof Error) || cause instanceof TypeError) throw cause
    if ('type' in cause && cause.type === 'stream.encoding.set') throw cause
    if ('type' in cause && cause.type === 'entity.too.large') {
      throw new Problem('body-too-large', `the body is larger than ${maxBytes} bytes`, {
        cause,
        extensions: { maxBytes },
      })
    }
    const received = 'received' in cause ? `, after ${cause.received} bytes` : ''
    throw new Problem('incomplete-body', `the body ended early or was aborted${received}`, { cause })
  }
}

/** The longest zstd frame that a careful encoder makes of `plainBytes` (ZSTD_COMPRESSBOUND and its header). */
export function maxEncodedBytes(plainBytes: number): number {
  return plainBytes + (plainBytes >>> 8) + 1024
}

/** Decodes a block and hashes every chunk; Problem `digest-mismatch` or `invalid-encoding`. */
export async function verified(block: Block): Promise<VerifiedBlock> {
  const plain = await verifyBlock(block)
  if (block.header.encoding !== 'identity') discard(plain)
  return block as VerifiedBlock
}

/**
 * Takes one chunk. A plain body is compressed where that pays; a zstd body is kept as it came, unless it
 * is longer than what it stands for. Problems: those of `readBody`, `invalid-encoding` when it does not
 * decode, `body-too-large` when it decodes to more than `maxBytes`, `digest-mismatch`, those of `put`.
 */
export async function receiveChunk(
  store: ChunkStore,
  id: Id,
  body: Readable | Buffer,
  options: ChunkBodyOptions,
): Promise<PutOutcome> {
  const maxBytes = Math.min(options.maxBytes, limits.maxChunkBytes)
  const zstd = options.encoding === 'zstd'
  const bodyBytes = await takeBody(body, {
    maxBytes: zstd ? maxEncodedBytes(maxBytes) : maxBytes,
    declaredBytes: options.declaredBytes,
  })
  if (!zstd) return storePlain(store, id, bodyBytes, options.withRoom)
  const plain = await decompress(bodyBytes, { maxBytes })
  if (bodyBytes.length >= plain.length) return storePlain(store, id, plain)
  const { length } = plain
  // False or not.
  await expectHash(plain, id).finally(() => discard(plain))
  const block = blockOf([{ id, length }], 'zstd', bodyBytes, options.withRoom)
  return storeOne(store, block as VerifiedBlock)
}

function blockOf(
  chunks: ChunkTable,
  encoding: BlockEncoding,
  payload: Buffer,
  withRoom: Buffer | undefined,
): Block {
  return withRoom === undefined
    ? assembleBlock(chunks, encoding, payload)
    : completeBlock(chunks, encoding, withRoom)
}

/**
 * Takes a batch. It is `judge`d first, and may stand elsewhere from then on; its memory stays the caller's, who must not
 * use it again before this returns. When its framing or a checksum is wrong, Problems `invalid-batch`, `body-too-large`
 * (too many chunks), nothing is stored. A block with a false chunk is refused whole, and `problems` has one entry for it,
 * with the first that is false; the others are stored. `lease` is told of all ids before any is stored. When the store
 * fails, some blocks may be stored.
 */
export async function receiveBatch(
  store: ChunkStore,
  batch: Buffer,
  options: { maxChunks?: number; lease?: Lease; judge?: Judge } = {},
): Promise<ReceivedBatch> {
  const { maxChunks = limits.maxBatchChunks, lease, judge = judgeInPlace } = options
  const headers = splitBatch(batch, { maxChunks, checksPayloads: false }).map(({ header }) => header)
  for (const { rows } of headers) for (const { id } of rows) lease?.add(id)
  const plainBytes = headers.reduce((sum, header) => sum + header.plainBytes, 0)
  const { body, verdict } = await judge(batch, plainBytes)
  const refused = new Set(verdict.refused)
  const objects = new Map(verdict.objects.map(({ id, bytes }) => [id, bytes]))
  const kept: VerifiedBlock[] = []
  let start = 0
  for (const [index, header] of headers.entries()) {
    const bytes = body.subarray(start, start + header.totalBytes)
    start += header.totalBytes
    if (refused.has(index)) continue
    const block: Block = { header, bytes }
    kept.push(block as VerifiedBlock)
  }
  const outcomes = await stored(store, kept)
  const fresh = kept.flatMap(({ header }, i) => freshObjects(header, outcomes[i] as PutOutcome[], objects))
  let next = 0
  const outcomesOf = ({ rows }: BlockHeader, index: number): BatchAnswer['outcomes'] =>
    refused.has(index) ? rows.map(() => 'refused') : (outcomes[next++] as PutOutcome[])
  return {
    answer: {
      outcomes: headers.flatMap(outcomesOf),
      problems: verdict.problems,
    },
    kept: kept.flatMap(({ header }) => header.rows.map(({ id }) => id)),
    mayBeObject: (id) => objects.has(id),
    objects: fresh,
  }
}

/** Not those that were here already: their records may be damaged, and only who reads one finds that out. */
function freshObjects(
  { rows }: BlockHeader,
  outcomes: readonly PutOutcome[],
  objects: ReadonlyMap<Id, Uint8Array | undefined>,
): PlainChunk[] {
  return rows.flatMap(({ id }, place) => {
    const bytes = outcomes[place] === 'stored' ? objects.get(id) : undefined
    return bytes === undefined ? [] : { id, bytes: Buffer.from(bytes.buffer) }
  })
}

/** Stores all, or some and then rejects; when it does nobody looks at the blocks any more. */
async function stored(store: ChunkStore, blocks: readonly VerifiedBlock[]): Promise<PutOutcome[][]> {
  const outcomes: PutOutcome[][] = []
  for (let first = 0; first < blocks.length; first += blocksAtOnce) {
    const puts = blocks.slice(first, first + blocksAtOnce).map((block) => store.put(block))
    for (const put of await Promise.allSettled(puts)) {
      if (put.status === 'rejected') throw put.reason
      outcomes.push(put.value)
    }
  }
  return outcomes
}

/**
 * Makes a chunk from another: the body is a zstd frame with the base's plain bytes as dictionary.
 * Problem `base-not-found` when the base is absent, or turns out to be damaged (the sender then sends the
 * chunk whole); `invalid-encoding`, `body-too-large`, `digest-mismatch` as in `receiveChunk`.
 */
export async function receiveDelta(
  store: ChunkStore,
  id: Id,
  baseId: Id,
  body: Readable | Buffer,
  bounds: BodyBounds = { maxBytes: limits.maxChunkBytes },
): Promise<PutOutcome> {
  const maxBytes = Math.min(bounds.maxBytes, limits.maxChunkBytes)
  const delta = await takeBody(body, { ...bounds, maxBytes: maxEncodedBytes(maxBytes) })
  const dictionary = await baseBytes(store, baseId)
  return storePlain(store, id, await decompress(delta, { maxBytes, dictionary }))
}

async function baseBytes(store: ChunkStore, baseId: Id): Promise<Buffer> {
  const extensions = { base: baseId }
  try {
    const base = await store.get(baseId)
    if (base !== undefined) return base
  } catch (cause) {
    if (!isProblem(cause, 'chunk-corrupt')) throw cause
    throw new Problem('base-not-found', `${baseId} was damaged and is gone`, { cause, extensions })
  }
  throw new Problem('base-not-found', `${baseId} is not here`, { extensions })
}

function takeBody(body: Readable | Buffer, bounds: BodyBounds): Promise<Buffer> | Buffer {
  if (!Buffer.isBuffer(body)) return readBody(body, bounds)
  if (body.length > bounds.maxBytes) {
    throw new Problem('body-too-large', `the body is larger than ${bounds.maxBytes} bytes`)
  }
  if (bounds.declaredBytes !== undefined && bounds.declaredBytes !== body.length) {
    throw new Problem('incomplete-body', `the body has ${body.length} of ${bounds.declaredBytes} bytes`)
  }
  return body
}

/** Whoever sends a chunk has been told that it is missing, so the store is not asked before it is put. */
async function storePlain(store: ChunkStore, id: Id, plain: Buffer, withRoom?: Buffer): Promise<PutOutcome> {
  await expectHash(plain, id)
  return storeNew(store, id, plain, withRoom)
}

/**
 * Stores a chunk that needs no verification: the caller has computed `id`, in this process, from the very
 * bytes that stand in `plain`, and keeps them as they are until this returns. Never for an id that
 * somebody else has stated. Compresses where that pays, and nothing when the chunk is here already.
 * Problems: those of `put`.
 */
export async function storeHashed(store: ChunkStore, id: Id, plain: Buffer): Promise<PutOutcome> {
  const [length] = await store.stat([id])
  if (length !== undefined) return 'known'
  return storeNew(store, id, plain)
}

async function storeNew(store: ChunkStore, id: Id, plain: Buffer, withRoom?: Buffer): Promise<PutOutcome> {
  const chunks = [{ id, length: plain.length }]
  if (!looksCompressible(plain)) {
    return storeOne(store, blockOf(chunks, 'identity', plain, withRoom) as VerifiedBlock)
  }
  const block = await encodeBlock(chunks, plain, { encoding: 'zstd' })
  const outcome = await storeOne(store, block as VerifiedBlock)
  discard(block.bytes)
  return outcome
}

/** Looks at two stretches of long chunks, so that media and archives are not compressed in vain. */
function looksCompressible(plain: Buffer): boolean {
  if (plain.length < 8 * probeBytes) return true
  const half = probeBytes / 2
  plain.copy(probe, 0, 0, half)
  const middle = plain.length >>> 1
  plain.copy(probe, half, middle, middle + half)
  if (looksRandom(probe)) return false
  const encoded = compressNow(probe).length
  // Enough where it would pay for one of them.
  return encoded < half || compressionPays(encoded - half, half)
}

/** Five standard deviations above the mean of Pearson's chi-squared with 255 degrees of freedom. */
const randomAtMost = 370

/**
 * Whether all bytes are as frequent as in noise: what is encrypted or packed well, and has nothing in it twice. Found
 * out in a fifth of the time that compressing takes (measured).
 */
function looksRandom(bytes: Buffer): boolean {
  counts.fill(0)
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i] as number
    counts[byte] = (counts[byte] as number) + 1
  }
  let squares = 0
  for (const count of counts) squares += count * count
  return (squares * 256) / bytes.length - bytes.length < randomAtMost
}

async function expectHash(plain: Buffer, id: Id): Promise<void> {
  const actual = await hashInSlices(plain, id)
  if (actual === id) return
  throw new Problem('digest-mismatch', `the bytes sent as ${id} hash to ${actual}`, {
    extensions: { id, actual },
  })
}

async function storeOne(store: ChunkStore, block: VerifiedBlock): Promise<PutOutcome> {
  const [outcome] = await store.put(block)
  if (outcome === undefined) throw new TypeError('the store gave no outcome for a block of one chunk')
  return outcome
}
