/** What clients of a kill proof back up, and what is there when it was restored. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Dice } from '../support/dice.ts'
import { seededBytes } from '../support/tree.ts'

const poolSize = 80
const folders = ['.', 'one', 'two', 'two/deeper']
const fileNames = 6

/**
 * Of a small pool, so that what was deleted, and its space given back, comes again, here or from another client; once in
 * three times of nobody's.
 */
export function content(dice: Dice): Buffer {
  const place = dice.once(3) ? poolSize + dice.pick(1e9) : dice.pick(poolSize)
  const bytes = place % 4 === 0 ? 60_000 + ((place * 7919) % 300_000) : 200 + ((place * 104_729) % 20_000)
  return seededBytes(`kill ${place}`, bytes)
}

/** New, changed, renamed and deleted files. */
export function changeSource(root: string, dice: Dice): void {
  for (const folder of folders) mkdirSync(join(root, folder), { recursive: true })
  const paths = folders.flatMap((folder) =>
    Array.from({ length: fileNames }, (_, i) => join(folder, `f${i}`)),
  )
  const isNew = !existsSync(join(root, 'f0')) && !paths.some((path) => existsSync(join(root, path)))
  for (const path of dice.some(paths, isNew ? 12 : 4)) writeFileSync(join(root, path), content(dice))
  const there = paths.filter((path) => existsSync(join(root, path)))
  for (const path of dice.some(there, there.length > 14 ? 3 : 1)) rmSync(join(root, path))
  const [from] = dice.some(
    there.filter((path) => existsSync(join(root, path))),
    1,
  )
  if (from !== undefined) renameSync(join(root, from), join(root, dice.of(paths)))
}

export function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 24)
}

/** Paths and contents, for what has no times of its own: a line for each file, and for each folder. */
export function contentListing(root: string): string[] {
  const lines: string[] = []
  const visit = (below: string): void => {
    for (const entry of readdirSync(join(root, below), { withFileTypes: true })) {
      const path = below === '' ? entry.name : `${below}/${entry.name}`
      if (entry.isDirectory()) {
        lines.push(`${path}/`)
        visit(path)
      } else lines.push(`${path} ${digest(readFileSync(join(root, path)))}`)
    }
  }
  visit('')
  return lines.sort()
}
