/**
 * Changes a part of a tree's files and puts them back. An original is renamed to the same path below a folder beside
 * the tree, and a changed copy stands in its place: renamed back it has its inode and times again, also when a run was
 * killed in between.
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { Dice } from '../../test/support/dice.ts'
import { filesBelow } from './files-below.ts'

/** One in a hundred regular files, chosen by the seed, gets a line somewhere inside. Returns how many. */
export function changeFiles(root: string, aside: string, seed: number): number {
  const dice = new Dice(seed)
  const files = filesBelow(root)
  const chosen = dice.some(files, Math.max(1, Math.round(files.length / 100)))
  for (const path of chosen) {
    const original = join(aside, relative(root, path))
    mkdirSync(dirname(original), { recursive: true })
    const times = statSync(dirname(path))
    renameSync(path, original)
    const bytes = readFileSync(original)
    const at = dice.pick(bytes.length + 1)
    const line = Buffer.from(`\n# changed ${seed}: ${dice.next()}, ${dice.next()}\n`)
    writeFileSync(path, Buffer.concat([bytes.subarray(0, at), line, bytes.subarray(at)]), {
      mode: statSync(original).mode,
    })
    utimesSync(dirname(path), times.atime, times.mtime)
  }
  return chosen.length
}

/** Every original is in its place again; does nothing when nothing was changed. */
export function putBack(root: string, aside: string): void {
  if (!existsSync(aside)) return
  for (const original of filesBelow(aside)) {
    const path = join(root, relative(aside, original))
    const times = statSync(dirname(path))
    renameSync(original, path)
    utimesSync(dirname(path), times.atime, times.mtime)
  }
  rmSync(aside, { recursive: true })
}
