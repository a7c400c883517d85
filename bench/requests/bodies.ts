/** Bodies of requests: bytes that look random, no two alike, and the same from the same seed. */
import { createCipheriv, createHash } from 'node:crypto'
import { encodeBlock } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'

/** As our client sends small chunks: blocks of 1 MiB, and as many as a shipment has. */
export const batchChunkBytes = 4096
export const blockChunks = 256
export const batchBlocks = 6
export const batchChunks = batchBlocks * blockChunks

export function randomBytesOf(seed: string, length: number): Buffer {
  const key = createHash('sha256').update(seed).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
}

export function makeBodies(seed: string, count: number, bytes: number): Buffer[] {
  return Array.from({ length: count }, (_, i) => randomBytesOf(`${seed} ${i}`, bytes))
}

export function idsOf(bodies: readonly Buffer[]): Id[] {
  return bodies.map((body) => hashId(body))
}

/** Each a batch of 1,536 chunks of 4 KiB. */
export async function makeBatches(seed: string, count: number): Promise<Buffer[]> {
  const batches: Buffer[] = []
  for (let i = 0; i < count; i++) {
    const blocks: Buffer[] = []
    for (let j = 0; j < batchBlocks; j++) {
      const plain = randomBytesOf(`${seed} ${i} ${j}`, blockChunks * batchChunkBytes)
      const rows = Array.from({ length: blockChunks }, (_, k) => {
        const chunk = plain.subarray(k * batchChunkBytes, (k + 1) * batchChunkBytes)
        return { id: hashId(chunk), length: batchChunkBytes }
      })
      blocks.push((await encodeBlock(rows, plain)).bytes)
    }
    batches.push(Buffer.concat(blocks))
  }
  return batches
}
