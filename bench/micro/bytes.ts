/** What happens to bytes on their way: hashing, cutting, compressing, framing. On one thread, from memory to memory. */
import {
  blockBytes,
  parseHeader,
  payloadOf,
  splitBatch,
  verifyBlock,
  writeBlock,
} from '../../protocol/block.ts'
import { cutLength, cutLengthBy } from '../../protocol/cut.ts'
import { createSearchedMemory, gearSearchBytes, gearSearchIn } from '../../protocol/gear-search.ts'
import { hashImplementations } from '../../protocol/hash.ts'
import { compressNow, decompressNow } from '../../protocol/zstd.ts'
import { seededBytes } from '../../test/support/tree.ts'
import type { Rate } from './figures.ts'
import { inBlocks, MiB, realBytes, verifiedBlock } from './material.ts'
import { type Effort, time } from './timing.ts'

const materialBytes = 16 * MiB

/** The limit of what looks at each byte is `copy`. */
export async function measureBytes(copy: Rate, effort: Effort): Promise<Rate[]> {
  const random = seededBytes('random', materialBytes)
  const real = realBytes(materialBytes)
  const rates = [
    ...(await hashing(random, effort)),
    ...(await cutting({ random, real }, effort)),
    ...(await compressing({ random, real }, effort)),
    ...(await framing(effort)),
  ]
  return rates.map((rate) => ({ limit: copy, ...rate }))
}

async function hashing(random: Buffer, effort: Effort): Promise<Rate[]> {
  const rates: Rate[] = []
  for (const [size, chunkBytes] of Object.entries({ '1 MiB': MiB, '4 KiB': 4096 })) {
    const chunks = inBlocks(random.subarray(0, 4 * MiB), chunkBytes)
    for (const { name, hex } of hashImplementations()) {
      const timing = await time(() => {
        for (const chunk of chunks) hex(chunk)
      }, effort)
      rates.push({ name: `hash: ${name}, chunks of ${size}`, bytes: 4 * MiB, timing })
    }
  }
  return rates
}

/** Backups search in WebAssembly, in memory that threads share; the receiver's live tree in JavaScript. */
async function cutting(materials: Record<string, Buffer>, effort: Effort): Promise<Rate[]> {
  const rates: Rate[] = []
  for (const [kind, bytes] of Object.entries(materials)) {
    const memory = createSearchedMemory(bytes.length)
    const [start, end] = [gearSearchBytes, gearSearchBytes + bytes.length]
    new Uint8Array(memory.buffer).set(bytes, start)
    const find = gearSearchIn(memory)
    const searched = await time(() => {
      for (let at = start; at < end; ) at += cutLengthBy(find, at, end, true)
    }, effort)
    const inJavaScript = await time(() => {
      for (let at = 0; at < bytes.length; ) at += cutLength(bytes, at, bytes.length, true)
    }, effort)
    rates.push(
      { name: `cut: WebAssembly, ${kind} bytes`, bytes: bytes.length, timing: searched },
      { name: `cut: JavaScript, ${kind} bytes`, bytes: bytes.length, timing: inJavaScript },
    )
  }
  return rates
}

async function compressing(materials: Record<string, Buffer>, effort: Effort): Promise<Rate[]> {
  const rates: Rate[] = []
  for (const [kind, bytes] of Object.entries(materials)) {
    const blocks = inBlocks(bytes, MiB)
    const frames = blocks.map((block) => compressNow(block))
    const one = await time(() => {
      for (const block of blocks) compressNow(block)
    }, effort)
    const back = await time(() => {
      for (const frame of frames) decompressNow(frame, MiB)
    }, effort)
    const left = ((100 * frames.reduce((sum, { length }) => sum + length, 0)) / bytes.length).toFixed(0)
    rates.push(
      {
        name: `compress: zstd level 1, ${kind} blocks of 1 MiB (to ${left} %)`,
        bytes: bytes.length,
        timing: one,
      },
      { name: `decompress: the same`, bytes: bytes.length, timing: back },
    )
  }
  return rates
}

/** Of blocks of 1 MiB with 256 chunks, uncompressed. */
async function framing(effort: Effort): Promise<Rate[]> {
  const seeds = Array.from({ length: 4 }, (_, i) => `frame ${i}`)
  const blocks = await Promise.all(seeds.map((seed) => verifiedBlock(seed, 256, 4096)))
  const batch = Buffer.concat(blocks.map(({ bytes }) => bytes))
  const out = Buffer.alloc(blockBytes(256, MiB))
  const bytes = blocks.reduce((sum, { header }) => sum + header.plainBytes, 0)
  const rate = async (name: string, work: () => unknown): Promise<Rate> => {
    return { name: `frame: ${name}, blocks of 256 chunks of 4 KiB`, bytes, timing: await time(work, effort) }
  }
  return [
    await rate('encode', () => {
      for (const block of blocks) writeBlock(out, 0, block.header.rows, payloadOf(block), 0)
    }),
    // Of a block it looks at the first hundredth.
    {
      ...(await rate('parse headers', () => {
        for (const block of blocks) parseHeader(block.bytes)
      })),
      limit: undefined,
    },
    await rate('split a batch and check its sums', () => splitBatch(batch)),
    await rate('verify every chunk', async () => {
      for (const block of blocks) await verifyBlock(block)
    }),
  ]
}
