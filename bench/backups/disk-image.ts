/**
 * Two versions of a disk image. The first has extents of 64 KiB to 4 MiB, as files lie on a disk: a third are zeros,
 * a third text, a third random (what is compressed already). In the second 1 % of the blocks of 4 KiB are random
 * anew, in runs of 1 to 32 blocks anywhere, as a file system writes.
 *
 * The versions stand in 1/ and 2/; the one that is looked at is a hard link in now/.
 */
import { linkSync, mkdirSync, rmSync } from 'node:fs'
import { copyFile, open } from 'node:fs/promises'
import { join } from 'node:path'
import { Dice } from '../../test/support/dice.ts'
import type { Facts } from './corpora.ts'
import { RandomBytes } from './random-file.ts'
import { SourceText } from './source-text.ts'

const block = 4096
const name = 'disk.img'

export async function makeDiskImages(folder: string, bytes: number): Promise<Facts> {
  for (const version of ['1', '2']) mkdirSync(join(folder, version))
  await writeFirst(join(folder, '1', name), bytes)
  await copyFile(join(folder, '1', name), join(folder, '2', name))
  await changeBlocks(join(folder, '2', name), bytes)
  showVersion(folder, 1)
  return { files: 1, bytes }
}

/** Makes now/disk.img that version. */
export function showVersion(folder: string, version: 1 | 2): void {
  rmSync(join(folder, 'now'), { recursive: true, force: true })
  mkdirSync(join(folder, 'now'))
  linkSync(join(folder, String(version), name), join(folder, 'now', name))
}

async function writeFirst(path: string, bytes: number): Promise<void> {
  const dice = new Dice(4096)
  const random = new RandomBytes('disk image')
  const source = new SourceText(512)
  // Text is made once and taken from anywhere in it, with a random block in front, so that extents differ.
  const text = Buffer.from(source.text(Math.min(bytes / 4, 48 * 1024 * 1024)), 'latin1')
  await using file = await open(path, 'w')
  for (let at = 0; at < bytes; ) {
    const length = Math.min(bytes - at, block * (16 + dice.pick(1008)))
    const kind = dice.pick(3)
    const start = dice.pick(Math.max(1, text.length - length))
    if (kind === 1) await file.write(text.subarray(start, start + length), 0, null, at)
    else if (kind === 2) await file.write(random.next(length), 0, length, at)
    at += length
  }
  await file.truncate(bytes)
}

async function changeBlocks(path: string, bytes: number): Promise<void> {
  const dice = new Dice(100)
  const random = new RandomBytes('changed blocks')
  const blocks = bytes / block
  const changed = new Set<number>()
  await using file = await open(path, 'r+')
  while (changed.size < blocks / 100) {
    const first = dice.pick(blocks)
    const run = Math.min(1 + dice.pick(32), blocks - first)
    for (let at = first; at < first + run; at++) changed.add(at)
    await file.write(random.next(run * block), 0, run * block, first * block)
  }
}
