/** What the micro-benchmarks chew on: bytes that do not compress, and bytes as they stand on this machine. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodeBlock } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { VerifiedBlock } from '../../server/store/chunk-store.ts'
import { verified } from '../../server/store/receive.ts'
import { seededBytes } from '../../test/support/tree.ts'

export const MiB = 1024 * 1024
const realFolder = '/usr/lib'

/** The first bytes of the programs and libraries below /usr/lib, in the order of their names. */
export function realBytes(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  let filled = 0
  const visit = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      if (filled === length) return
      const path = join(folder, entry.name)
      if (entry.isDirectory()) visit(path)
      else if (entry.isFile()) filled += readFileSync(path).copy(bytes, filled)
    }
  }
  visit(realFolder)
  if (filled < length) throw new Error(`${realFolder} has ${filled} bytes only`)
  return bytes
}

export function inBlocks(bytes: Buffer, blockBytes: number): Buffer[] {
  const blocks: Buffer[] = []
  for (let at = 0; at < bytes.length; at += blockBytes) blocks.push(bytes.subarray(at, at + blockBytes))
  return blocks
}

/** A block of random chunks, `verified` as if it had come from somebody. */
export async function verifiedBlock(
  seed: string,
  chunks: number,
  chunkBytes: number,
): Promise<VerifiedBlock> {
  const plain = seededBytes(seed, chunks * chunkBytes)
  const rows = inBlocks(plain, chunkBytes).map((bytes) => ({ id: hashId(bytes), length: chunkBytes }))
  return await verified(await encodeBlock(rows, plain))
}
