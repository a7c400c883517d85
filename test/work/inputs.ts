/**
 * What the work is done on: the same bytes, names, modes and times in every run, so that the counts are the same.
 */
import { chmodSync, mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodeBlock } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { seededBytes } from '../support/tree.ts'

/** Files of `makeTree` that are small: 1 to 16 KiB, in twelve directories. */
export const smallFiles = 300
const filesInDirectory = 25
const largeBytes = 12 * 1024 * 1024
/** Every time in the tree: they stand in directory objects. */
const someDay = new Date('2020-02-02T02:02:02Z')
const words = 'the way of a chunk through disk reader target thread uploader and receiver to its pack '

/** 300 small files, half of them text, and one of 12 MiB that does not compress. */
export function makeTree(root: string): void {
  mkdirSync(root)
  for (let i = 0; i < smallFiles; i++) {
    const folder = join(root, `d${Math.floor(i / filesInDirectory)}`)
    if (i % filesInDirectory === 0) mkdirSync(folder)
    const length = 1024 + ((i * 7919) % 15_360)
    const noise = seededBytes(`small ${i}`, length)
    write(join(folder, `f${i}`), i % 2 === 0 ? noise : Buffer.from(`${i} ${words.repeat(length / 64)}`))
  }
  write(join(root, 'large'), seededBytes('large', largeBytes))
  for (let i = 0; i < smallFiles; i += filesInDirectory) settle(join(root, `d${i / filesInDirectory}`), 0o755)
  settle(root, 0o755)
}

/** One small file gets other bytes of the same length. */
export function changeOne(root: string): void {
  const path = join(root, 'd7', 'f180')
  writeFileSync(path, seededBytes('changed', 4096))
  const later = new Date(someDay.getTime() + 1000)
  utimesSync(path, later, later)
}

function write(path: string, bytes: Buffer): void {
  writeFileSync(path, bytes)
  settle(path, 0o644)
}

function settle(path: string, mode: number): void {
  chmodSync(path, mode)
  utimesSync(path, someDay, someDay)
}

export interface Chunk {
  readonly id: Id
  readonly bytes: Buffer
}

/** Chunks that do not compress. */
export function chunksOf(seed: string, count: number, length: number): Chunk[] {
  return Array.from({ length: count }, (_, i) => {
    const bytes = seededBytes(`${seed} ${i}`, length)
    return { id: hashId(bytes), bytes }
  })
}

/** A batch of chunks, in blocks of 250. */
export async function batchOf(chunks: readonly Chunk[]): Promise<Buffer> {
  const blocks: Buffer[] = []
  for (let first = 0; first < chunks.length; first += 250) {
    const some = chunks.slice(first, first + 250)
    const rows = some.map(({ id, bytes }) => ({ id, length: bytes.length }))
    blocks.push((await encodeBlock(rows, Buffer.concat(some.map(({ bytes }) => bytes)))).bytes)
  }
  return Buffer.concat(blocks)
}
