/**
 * Blocks and batches: how chunks travel and how they are stored.
 *
 * A block is a table of chunk ids and lengths, then the chunks' bytes, encoded together. A batch is
 * blocks one behind the other, nothing between. A pack record is one block, byte for byte.
 * All integers are little-endian.
 *
 *     offset  size  field
 *          0     4  magic "CDB1"
 *          4     1  encoding: 0 = identity, 1 = one zstd frame
 *          5     3  zero
 *          8     4  n, the number of chunks, 1..4096
 *         12     4  plain length: the sum of the chunks' lengths, at most 16 MiB
 *         16     4  payload length, at most 32 MiB; equals the plain length under identity
 *         20     4  CRC-32 of the payload (the polynomial of IEEE 802.3, as in gzip)
 *         24     4  CRC-32 of bytes 0..23 and the table
 *         28  37·n  the table: per chunk its id (33 bytes) and its length (4 bytes)
 *               …   the payload
 *
 * The header's CRC lets a reader trust the lengths before it has the payload; the payload's CRC finds
 * rot without decoding. Neither replaces the ids: who takes a block from somebody else calls
 * `verifyBlock`, which decodes it and hashes every chunk.
 */
import { setImmediate as yieldToEventLoop } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import { hashId, hashInSlices } from './hash.ts'
import { algorithmOf, type Id, idBytes, readId, writeId } from './id.ts'
import { limits } from './limits.ts'
import { Problem } from './problem.ts'
import { compress, compressNow, decompress, decompressNow } from './zstd.ts'

export const blockHeaderBytes = 28
export const blockRowBytes = idBytes + 4
/** Media type of a batch, in requests and in answers of `fetch`. */
export const batchMediaType = 'application/vnd.chunkdav.batch'
export const blockMagic = Buffer.from('CDB1', 'latin1')

export const blockEncodings = ['identity', 'zstd'] as const
export type BlockEncoding = (typeof blockEncodings)[number]

/** One row of a block's table. `start` is the chunk's offset in the plain bytes. */
export interface BlockRow {
  readonly id: Id
  readonly start: number
  readonly length: number
}

export interface BlockHeader {
  readonly encoding: BlockEncoding
  readonly rows: readonly BlockRow[]
  readonly plainBytes: number
  readonly payloadBytes: number
  readonly payloadCrc: number
  /** Header, table and payload together. */
  readonly totalBytes: number
}

/** A block as it travels: `bytes` is all of it, `header` what its first part says. */
export interface Block {
  readonly header: BlockHeader
  readonly bytes: Buffer
}

/** A block that is only sent: its bytes stand in pieces, where they were made. */
export interface OutgoingBlock {
  /** How many there are in it. */
  readonly chunks: number
  readonly bytes: number
  readonly pieces: readonly Uint8Array[]
}

/** A chunk and its plain bytes. The bytes are borrowed: whoever keeps them must copy. */
export interface PlainChunk {
  readonly id: Id
  readonly bytes: Buffer
}

/** Encoded is kept only where it saves at least one part in thirty-two. */
export function compressionPays(encodedBytes: number, plainBytes: number): boolean {
  return encodedBytes < plainBytes - (plainBytes >>> 5)
}

/** What a block is made of: ids and lengths of chunks whose bytes stand one behind the other. */
export type ChunkTable = readonly { readonly id: Id; readonly length: number }[]

/** Bytes of a block with so many chunks and so long a payload. */
export function blockBytes(chunks: number, payloadBytes: number): number {
  return blockHeaderBytes + chunks * blockRowBytes + payloadBytes
}

/** Writes a block's header and table, from its rows; the lengths must add up. Returns where they end. */
function writeHeader(
  out: Buffer,
  start: number,
  chunks: ChunkTable,
  encoding: BlockEncoding,
  payload: Uint8Array,
): number {
  const end = start + blockBytes(chunks.length, 0)
  const header = out.subarray(start, end)
  blockMagic.copy(header, 0)
  header.writeUInt32LE(blockEncodings.indexOf(encoding), 4)
  header.writeUInt32LE(chunks.length, 8)
  header.writeUInt32LE(payload.length, 16)
  header.writeUInt32LE(crc32(payload), 20)
  let offset = blockHeaderBytes
  let plainBytes = 0
  for (const { id, length } of chunks) {
    offset = header.writeUInt32LE(length, writeId(id, header, offset))
    plainBytes += length
  }
  header.writeUInt32LE(plainBytes, 12)
  header.writeUInt32LE(headerCrc(header), 24)
  return end
}

function headerCrc(header: Buffer): number {
  return crc32(header.subarray(blockHeaderBytes), crc32(header.subarray(0, 24)))
}

/**
 * The block of `chunks`, whose bytes stand one behind the other in `plain`.
 * With `zstd`, compresses off the main thread and keeps the result only if it pays.
 * TypeError when the chunks are none, too many, too long, or do not add up.
 */
export async function encodeBlock(
  chunks: ChunkTable,
  plain: Buffer,
  options: { encoding?: BlockEncoding; level?: number } = {},
): Promise<Block> {
  expectTable(chunks, plain)
  if (options.encoding !== 'zstd' || plain.length === 0) return assembleBlock(chunks, 'identity', plain)
  const encoded = await compress(plain, options.level === undefined ? {} : { level: options.level })
  const pays = compressionPays(encoded.length, plain.length)
  const block = pays ? assembleBlock(chunks, 'zstd', encoded) : assembleBlock(chunks, 'identity', plain)
  discard(encoded)
  return block
}

/**
 * Writes the block of `chunks` into `out`, on a thread that may be busy: compressed where that pays, unless `level` is 0.
 * Otherwise only header and table are written, and `plain` itself is the payload, to be sent behind them. Returns where
 * in `out` it ends. TypeError as `encodeBlock`; `out` must have room for `blockBytes(chunks.length, plain.length)`.
 */
export function writeBlock(
  out: Buffer,
  start: number,
  chunks: ChunkTable,
  plain: Buffer,
  level: number,
): { encoding: BlockEncoding; end: number } {
  expectTable(chunks, plain)
  if (level !== 0 && plain.length > 0) {
    const encoded = compressNow(plain, level)
    const pays = compressionPays(encoded.length, plain.length)
    const end = pays ? writeHeader(out, start, chunks, 'zstd', encoded) : 0
    if (pays) encoded.copy(out, end)
    const encodedBytes = encoded.length
    discard(encoded)
    if (pays) return { encoding: 'zstd', end: end + encodedBytes }
  }
  return { encoding: 'identity', end: writeHeader(out, start, chunks, 'identity', plain) }
}

function expectTable(chunks: ChunkTable, plain: Buffer): void {
  const sum = chunks.reduce((total, chunk) => total + chunk.length, 0)
  if (chunks.length === 0 || chunks.length > limits.maxBlockChunks) {
    throw new TypeError(`a block holds 1 to ${limits.maxBlockChunks} chunks, not ${chunks.length}`)
  }
  if (sum !== plain.length || sum > limits.maxBlockBytes) {
    throw new TypeError(
      `a block's chunks must fill its ${plain.length} bytes, at most ${limits.maxBlockBytes}`,
    )
  }
}

/**
 * Frees the memory of a buffer that nobody else holds or will look at, unless it is a part of Node's pool of small ones. What is
 * left to the collector makes it run for every few blocks: a fifth of the time that storing a file of incompressible bytes
 * takes (measured).
 */
export function discard({ buffer, length }: Uint8Array): void {
  const isAlone = buffer.byteLength > Buffer.poolSize || (length > 0 && length === buffer.byteLength)
  if (buffer instanceof ArrayBuffer && isAlone) buffer.transfer(0)
}

/** The block around a payload that is encoded already. The caller vouches that they belong together. */
export function assembleBlock(chunks: ChunkTable, encoding: BlockEncoding, payload: Buffer): Block {
  const bytes = Buffer.allocUnsafe(blockBytes(chunks.length, payload.length))
  payload.copy(bytes, writeHeader(bytes, 0, chunks, encoding, payload))
  return { header: parseHeader(bytes) as BlockHeader, bytes }
}

/** The same where the payload stands behind room for header and table, `blockBytes(chunks.length, 0)`: nothing is copied. */
export function completeBlock(chunks: ChunkTable, encoding: BlockEncoding, bytes: Buffer): Block {
  writeHeader(bytes, 0, chunks, encoding, bytes.subarray(blockBytes(chunks.length, 0)))
  return { header: parseHeader(bytes) as BlockHeader, bytes }
}

/** How many bytes a header at `offset` takes with its table, or undefined when it is not there whole. */
export function headerLength(bytes: Buffer, offset = 0): number | undefined {
  if (bytes.length < offset + blockHeaderBytes) return undefined
  return blockHeaderBytes + bytes.readUInt32LE(offset + 8) * blockRowBytes
}

/**
 * The header that stands at `offset`, or undefined when there is none that is whole and right.
 * Checks everything that can be checked without the payload.
 */
export function parseHeader(bytes: Buffer, offset = 0): BlockHeader | undefined {
  const length = headerLength(bytes, offset)
  if (length === undefined || bytes.length < offset + length) return undefined
  const header = bytes.subarray(offset, offset + length)
  const encoding = blockEncodings[header[4] as number]
  const count = header.readUInt32LE(8)
  if (!header.subarray(0, 4).equals(blockMagic) || encoding === undefined) return undefined
  if (header.readUIntLE(5, 3) !== 0 || count === 0 || count > limits.maxBlockChunks) return undefined
  if (header.readUInt32LE(24) !== headerCrc(header)) return undefined
  const plainBytes = header.readUInt32LE(12)
  const payloadBytes = header.readUInt32LE(16)
  if (plainBytes > limits.maxBlockBytes) return undefined
  if (encoding === 'identity' && payloadBytes !== plainBytes) return undefined
  if (payloadBytes > limits.maxBatchBytes) return undefined
  const rows = parseRows(header, count, plainBytes)
  if (rows === undefined) return undefined
  const payloadCrc = header.readUInt32LE(20)
  return { encoding, rows, plainBytes, payloadBytes, payloadCrc, totalBytes: length + payloadBytes }
}

function parseRows(header: Buffer, count: number, plainBytes: number): BlockRow[] | undefined {
  const rows: BlockRow[] = []
  let start = 0
  for (let i = 0; i < count; i++) {
    const offset = blockHeaderBytes + i * blockRowBytes
    const id = readId(header, offset)
    if (id === undefined) return undefined
    const length = header.readUInt32LE(offset + idBytes)
    rows.push({ id, start, length })
    start += length
  }
  return start === plainBytes ? rows : undefined
}

/** The encoded payload of a block: a view, not a copy. */
export function payloadOf(block: Block): Buffer {
  return block.bytes.subarray(block.header.totalBytes - block.header.payloadBytes)
}

/** Whether the payload's bytes are the ones that the header was written for. */
export function payloadIsIntact(block: Block): boolean {
  return crc32(payloadOf(block)) === block.header.payloadCrc
}

/**
 * Splits a batch into its blocks, which are views of `body`.
 * Problem `invalid-batch` with the offset when anything is out of place, `body-too-large` when there are more
 * than `maxChunks` rows: then nothing of it counts. With `checksPayloads: false` their checksums are left to who
 * verifies the blocks.
 */
export function splitBatch(
  body: Buffer,
  options: { maxChunks?: number; checksPayloads?: boolean } = {},
): Block[] {
  const { maxChunks = Number.POSITIVE_INFINITY, checksPayloads = true } = options
  const blocks: Block[] = []
  let chunks = 0
  let offset = 0
  while (offset < body.length) {
    const header = parseHeader(body, offset)
    if (header === undefined) throw batchProblem(offset, 'there is no block header, or it is damaged')
    chunks += header.rows.length
    if (chunks > maxChunks) throw new Problem('body-too-large', `a batch has at most ${maxChunks} chunks`)
    const end = offset + header.totalBytes
    if (end > body.length) throw batchProblem(offset, 'the block is cut short')
    const block = { header, bytes: body.subarray(offset, end) }
    if (checksPayloads && !payloadIsIntact(block))
      throw batchProblem(offset, "the payload's checksum is wrong")
    blocks.push(block)
    offset = end
  }
  if (blocks.length === 0) throw batchProblem(0, 'the batch is empty')
  return blocks
}

/** What taking a batch needs beside its bytes. */
export interface BatchExtent {
  /** The plain bytes of the largest block that must be decoded. */
  readonly decodedBytes: number
  readonly blocks: number
  readonly chunks: number
}

/** Believes what stands there: `splitBatch` refuses the batch when it is not so. */
export function extentOf(body: Buffer): BatchExtent {
  let [decodedBytes, blocks, chunks] = [0, 0, 0]
  for (let offset = 0; offset + blockHeaderBytes <= body.length; blocks++) {
    const isEncoded = body[offset + 4] !== blockEncodings.indexOf('identity')
    const plainBytes = Math.min(body.readUInt32LE(offset + 12), limits.maxBlockBytes)
    if (isEncoded) decodedBytes = Math.max(decodedBytes, plainBytes)
    const rows = body.readUInt32LE(offset + 8)
    chunks += Math.min(rows, limits.maxBlockChunks)
    offset += blockHeaderBytes + rows * blockRowBytes + body.readUInt32LE(offset + 16)
  }
  return { decodedBytes, blocks, chunks }
}

function batchProblem(offset: number, what: string): Problem {
  return new Problem('invalid-batch', `at byte ${offset} of the batch ${what}`, { extensions: { offset } })
}

/** Of so little the way to another thread and back costs several times what decoding does (measured). */
const soonDecodedBytes = 128 * 1024

/**
 * The plain bytes of a block, decoded off the main thread unless they are few. Problem `invalid-encoding` when they do not
 * come out right.
 */
export async function decodeBlock(block: Block): Promise<Buffer> {
  const { encoding, plainBytes } = block.header
  if (encoding === 'identity') return payloadOf(block)
  const payload = payloadOf(block)
  if (plainBytes <= soonDecodedBytes) return ofLength(plainBytes, decompressNow(payload, plainBytes))
  return ofLength(plainBytes, await decompress(payload, { maxBytes: plainBytes }))
}

function ofLength(plainBytes: number, plain: Buffer): Buffer {
  if (plain.length === plainBytes) return plain
  throw new Problem(
    'invalid-encoding',
    `the block decodes to ${plain.length} bytes, its table says ${plainBytes}`,
  )
}

/** The chunk of one row, as a view of the block's plain bytes. */
export function sliceRow(plain: Buffer, row: BlockRow): Buffer {
  return plain.subarray(row.start, row.start + row.length)
}

/** Chunks that are hashed between two turns of the event loop, however short they are. */
const rowsPerTurn = 256

/**
 * Decodes a block and hashes every chunk in it, never holding the event loop for long; returns the plain bytes.
 * Problem `digest-mismatch` with the id when a chunk is not what its id says.
 */
export async function verifyBlock(block: Block): Promise<Buffer> {
  const plain = await decodeBlock(block)
  for (const [i, row] of block.header.rows.entries()) {
    if (i % rowsPerTurn === rowsPerTurn - 1) await yieldToEventLoop()
    expectHash(row, await hashInSlices(sliceRow(plain, row), row.id))
  }
  return plain
}

/** The same at once, for threads that may be busy. */
export function verifyBlockNow(block: Block): Buffer {
  const { encoding, plainBytes, rows } = block.header
  const payload = payloadOf(block)
  const plain = encoding === 'identity' ? payload : ofLength(plainBytes, decompressNow(payload, plainBytes))
  try {
    for (const row of rows) expectHash(row, hashId(sliceRow(plain, row), algorithmOf(row.id)))
  } catch (error) {
    if (encoding !== 'identity') discard(plain)
    throw error
  }
  return plain
}

function expectHash({ id }: BlockRow, actual: Id): void {
  if (actual === id) return
  throw new Problem('digest-mismatch', `the bytes sent as ${id} hash to ${actual}`, {
    extensions: { id, actual },
  })
}
