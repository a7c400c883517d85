/**
 * An encoding thread's inside: packs chunks into blocks and compresses them, with synchronous calls.
 *
 * The blocks of a job are written one behind the other into the memory that comes with the job, or into memory made for it
 * where they might not fit, which goes back with the answer. What does not compress stays where it is: only its header is
 * written.
 */
import { parentPort } from 'node:worker_threads'
import { type BlockEncoding, blockBytes, type ChunkTable, discard, writeBlock } from '../../protocol/block.ts'
import { compressNow } from '../../protocol/zstd.ts'
import { takeOrders } from '../threads.ts'

/** A block to be: its table, and where its plain bytes are. */
export interface BlockToEncode {
  readonly chunks: ChunkTable
  /** In order; more than one where what was wanted does not stand in one piece. */
  readonly plain: readonly Uint8Array[]
}

export interface EncodeJob {
  readonly blocks: readonly BlockToEncode[]
  /** zstd level; 0 compresses nothing. */
  readonly level: number
  readonly out: ArrayBuffer
}

export interface EncodedJob {
  /** `out` of the job, or what took its place. */
  readonly out: ArrayBuffer
  /** Where each block ends in `out`; it begins where the one before it ends, the first at 0. */
  readonly blocks: readonly {
    readonly encoding: BlockEncoding
    readonly end: number
    readonly isWhole: boolean
  }[]
}

/** How much of a large block is tried before all of it is compressed. */
const probeBytes = 16 * 1024

/** Compresses a stretch from the middle of large blocks, so that media and archives cost next to nothing. */
function looksCompressible(plain: Buffer): boolean {
  if (plain.length < 8 * probeBytes) return true
  const middle = (plain.length >>> 1) & ~4095
  return [middle, 0].some((start) => {
    const probe = compressNow(plain.subarray(start, start + probeBytes), 1)
    const { length } = probe
    discard(probe)
    return length < probeBytes * 0.95
  })
}

function asBuffer({ buffer, byteOffset, length }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, length)
}

/** Room for all blocks of a job, however badly they compress. */
function mostBytes(blocks: readonly BlockToEncode[]): number {
  return blocks.reduce((sum, { chunks, plain }) => {
    return (
      sum +
      blockBytes(
        chunks.length,
        plain.reduce((bytes, { length }) => bytes + length, 0),
      )
    )
  }, 0)
}

function encode({ blocks, level, out: given }: EncodeJob): EncodedJob {
  const most = mostBytes(blocks)
  const out = most <= given.byteLength ? given : new ArrayBuffer(most)
  const bytes = Buffer.from(out)
  let start = 0
  const encoded = blocks.map(({ chunks, plain: pieces }) => {
    const isOne = pieces.length === 1
    const plainBytes = pieces.reduce((sum, { length }) => sum + length, 0)
    const plain = isOne ? asBuffer(pieces[0] as Uint8Array) : Buffer.concat(pieces)
    const { encoding, end } = writeBlock(bytes, start, chunks, plain, looksCompressible(plain) ? level : 0)
    // Pieces that were put together here are nowhere else.
    const isCopied = encoding === 'identity' && !isOne
    if (isCopied) plain.copy(bytes, end)
    if (!isOne) discard(plain)
    start = isCopied ? end + plainBytes : end
    return { encoding, end: start, isWhole: encoding === 'zstd' || isCopied }
  })
  return { out, blocks: encoded }
}

takeOrders((job: EncodeJob) => {
  const encoded = encode(job)
  parentPort?.postMessage(encoded, [encoded.out])
})
