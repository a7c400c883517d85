import { crc32 } from 'node:zlib'
import {
  assembleBlock,
  type Block,
  decodeBlock,
  encodeBlock,
  payloadOf,
  sliceRow,
} from '../../../protocol/block.ts'
import { hashId } from '../../../protocol/hash.ts'
import type { HashAlgorithm, Id } from '../../../protocol/id.ts'

/** Frames made once by libzstd 1.5, kept because other encoders make other bytes of the same text. */
const repeatedText = Array.from({ length: 40 }, (_, i) => `line ${i} of a text that repeats itself\n`).join(
  '',
)
const repeatedTextFrame =
  '28b52ffd00588d04000205101690c5396025e0d7b3c1227797d3feb79632e5ebdb0004ffffffbf6ddbb6ddb66d5be4300a62b8' +
  '4b53280527d93ac475c61603f04c72bc801d0d8f4281a6500a272080334a0fb878ce877984e73ccc473cc7c33cc2731ec6239e' +
  'f3301ff11c0ff3889ff3e7c3f8f9883e9fc3e7c3ecf9083d9f93e7c3e0f9883b1f68e7b9248b94e445b2a4445e9265a45844c632'
const deltaBase = Array.from(
  { length: 64 },
  (_, i) => `${i}: ${((i * 2654435761) >>> 0).toString(16)}\n`,
).join('')
const deltaFrame = '28b52ffd00088d000048696e7365727465640a0100297156e208'
/** A frame with one RLE block: 1,000 times "a". */
const runFrame = '28b52ffd60e802431f0061'

const chunk = (text: string, algorithm: HashAlgorithm = 'blake3') => {
  const bytes = Buffer.from(text)
  return { id: hashId(bytes, algorithm), length: bytes.length, bytes }
}

async function describeBlock(name: string, block: Block): Promise<unknown> {
  const { encoding, plainBytes, payloadBytes, payloadCrc, rows } = block.header
  const plain = await decodeBlock(block)
  return {
    name,
    hex: block.bytes.toString('hex'),
    encoding,
    plainBytes,
    payloadBytes,
    payloadCrc,
    payloadHex: payloadOf(block).toString('hex'),
    chunks: rows.map((row) => ({
      id: row.id,
      start: row.start,
      length: row.length,
      text: sliceRow(plain, row).toString(),
    })),
  }
}

const identity = async (...chunks: ReturnType<typeof chunk>[]): Promise<Block> =>
  encodeBlock(chunks, Buffer.concat(chunks.map(({ bytes }) => bytes)))

/** The header's checksum made right again after an edit, so that only the edit itself can be at fault. */
function reseal(bytes: Buffer, rows: number): Buffer {
  bytes.writeUInt32LE(crc32(bytes.subarray(28, 28 + 37 * rows), crc32(bytes.subarray(0, 24))), 24)
  return bytes
}

function edited(block: Block, edit: (bytes: Buffer) => void, sealed: boolean): Buffer {
  const bytes = Buffer.from(block.bytes)
  edit(bytes)
  return sealed ? reseal(bytes, block.header.rows.length) : bytes
}

/** `step`: what finds the fault. `split` looks at the framing of the batch, `verify` decodes and hashes. */
function damaged(block: Block, zstd: Block): { name: string; bytes: Buffer; step: string; fault: string }[] {
  const split = (name: string, edit: (bytes: Buffer) => void, sealed = true) => ({
    name,
    bytes: edited(block, edit, sealed),
    step: 'split',
    fault: 'invalid-batch',
  })
  const table = 28
  const payload = block.bytes.length - block.header.payloadBytes
  return [
    { name: 'an empty batch', bytes: Buffer.alloc(0), step: 'split', fault: 'invalid-batch' },
    { name: 'one byte', bytes: block.bytes.subarray(0, 1), step: 'split', fault: 'invalid-batch' },
    { name: 'a header alone', bytes: block.bytes.subarray(0, 28), step: 'split', fault: 'invalid-batch' },
    {
      name: 'the last byte is absent',
      bytes: block.bytes.subarray(0, -1),
      step: 'split',
      fault: 'invalid-batch',
    },
    {
      name: 'a byte behind',
      bytes: Buffer.concat([block.bytes, Buffer.alloc(1)]),
      step: 'split',
      fault: 'invalid-batch',
    },
    split('another magic', (b) => b.write('CDB2', 0)),
    split('an unknown encoding', (b) => b.writeUInt8(2, 4)),
    split('a reserved byte is not zero', (b) => b.writeUInt8(1, 5)),
    split('no chunks', (b) => b.writeUInt32LE(0, 8)),
    split('more chunks than a block holds', (b) => b.writeUInt32LE(4097, 8)),
    split('the lengths do not add up', (b) => b.writeUInt32LE(block.header.plainBytes + 1, 12)),
    split('identity, and the payload is longer than the plain bytes', (b) =>
      b.writeUInt32LE(block.header.plainBytes + 1, 16),
    ),
    split('a wrong checksum of the payload', (b) => b.writeUInt32LE(0, 20)),
    split('a wrong checksum of the header', (b) => b.writeUInt32LE(0, 24), false),
    split('an unknown algorithm in the table', (b) => b.writeUInt8(3, table)),
    split('a changed byte of the payload', (b) => b.writeUInt8(b.readUInt8(payload) ^ 1, payload)),
    {
      name: 'a chunk that does not hash to its id',
      bytes: edited(block, (b) => b.writeUInt8(b.readUInt8(table + 1) ^ 1, table + 1), true),
      step: 'verify',
      fault: 'digest-mismatch',
    },
    {
      name: 'a payload that is no frame',
      bytes: reframe(zstd, Buffer.from('no zstd frame at all')),
      step: 'verify',
      fault: 'invalid-encoding',
    },
    {
      name: 'a frame that is cut short',
      bytes: reframe(zstd, payloadOf(zstd).subarray(0, -1)),
      step: 'verify',
      fault: 'invalid-encoding',
    },
    {
      name: 'bytes behind the frame',
      bytes: reframe(zstd, Buffer.concat([payloadOf(zstd), Buffer.alloc(1)])),
      step: 'verify',
      fault: 'invalid-encoding',
    },
    {
      name: 'a frame of fewer bytes than the table says',
      bytes: reframe(zstd, Buffer.from(runFrame, 'hex')),
      step: 'verify',
      fault: 'invalid-encoding',
    },
    {
      name: 'a frame of more bytes than the table says',
      bytes: overfull(),
      step: 'verify',
      fault: 'body-too-large',
    },
  ]
}

function reframe(block: Block, payload: Buffer): Buffer {
  return assembleBlock(block.header.rows, 'zstd', payload).bytes
}

function overfull(): Buffer {
  const { id, length } = chunk('a'.repeat(999))
  return assembleBlock([{ id, length }], 'zstd', Buffer.from(runFrame, 'hex')).bytes
}

export async function blockVectors(): Promise<unknown> {
  const one = await identity(chunk('hello\n'))
  const several = await identity(chunk('first'), chunk(''), chunk('second', 'sha256'), chunk('first'))
  const run = chunk('a'.repeat(1000))
  const runBlock = assembleBlock([run], 'zstd', Buffer.from(runFrame, 'hex'))
  const halves = [chunk(repeatedText.slice(0, 700)), chunk(repeatedText.slice(700), 'sha256')]
  const textBlock = assembleBlock(halves, 'zstd', Buffer.from(repeatedTextFrame, 'hex'))
  const empty = await identity(chunk(''))
  const next: Id = hashId(Buffer.from(`inserted\n${deltaBase}`))
  return {
    blocks: [
      await describeBlock('one chunk, identity', one),
      await describeBlock('the empty chunk', empty),
      await describeBlock('several chunks, one empty, one of another algorithm, one twice', several),
      await describeBlock('one zstd frame with a run', runBlock),
      await describeBlock('two chunks in one zstd frame', textBlock),
    ],
    batch: {
      name: 'three of these blocks, one behind the other',
      blocks: ['one chunk, identity', 'two chunks in one zstd frame', 'the empty chunk'],
      base64: Buffer.concat([one.bytes, textBlock.bytes, empty.bytes]).toString('base64'),
    },
    damaged: damaged(several, textBlock).map(({ name, bytes, step, fault }) => ({
      name,
      step,
      fault,
      hex: bytes.toString('hex'),
    })),
    delta: {
      name: 'a zstd frame with the base as dictionary (PATCH on a chunk)',
      baseText: deltaBase,
      base: hashId(Buffer.from(deltaBase)),
      frameHex: deltaFrame,
      resultText: `inserted\n${deltaBase}`,
      result: next,
    },
  }
}
