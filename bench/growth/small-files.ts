/**
 * A tree of up to a million files of about 100 bytes, no two alike, made once and kept. Its parts are trees as well, so
 * that every size is measured on the same files:
 *
 *     p0 … p9             100,000 files each
 *     p0/q0 … q9           10,000 files each
 *     p0/q0/r0 … r9         1,000 files each, in ten folders of 100
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as yieldToEventLoop } from 'node:timers/promises'

/** Of parts of that many files: how they are called. */
const parts = [
  [100_000, 'p'],
  [10_000, 'q'],
  [1000, 'r'],
  [100, 's'],
] as const

export const fileCounts = [1000, 10_000, 100_000, 1_000_000] as const
export type FileCount = (typeof fileCounts)[number]

/** The folder with that many of them; made below `work` when it is not there yet. */
export async function smallFiles(
  work: string,
  count: FileCount,
  log: (line: string) => void,
): Promise<string> {
  const top = join(work, 'small-files')
  const path = join(top, ...parts.filter(([size]) => size >= count).map(([, name]) => `${name}0`))
  const done = join(work, `small-files-${count}.done`)
  if (existsSync(done)) return path
  log(`making ${count} small files in ${path}`)
  // What is smaller is a part of it, and not whole again until all of it is.
  const marks = fileCounts
    .filter((size) => size <= count)
    .map((size) => join(work, `small-files-${size}.done`))
  for (const mark of marks) await rm(mark, { force: true })
  await rm(path, { recursive: true, force: true })
  for (let first = 0; first < count; first += 100) {
    const folder = join(top, ...parts.map(([size, name]) => `${name}${Math.floor(first / size) % 10}`))
    mkdirSync(folder, { recursive: true })
    for (let i = first; i < first + 100; i++) writeFileSync(join(folder, `file-${i}.txt`), contentOf(i))
    await yieldToEventLoop()
  }
  for (const mark of marks) writeFileSync(mark, '')
  return path
}

/** 80 to 119 bytes of text. */
function contentOf(i: number): string {
  const words = `this is file ${i}, seed ${(i * 2_654_435_761) % 4_294_967_296}; `
  return `${words.repeat(4).slice(0, 79 + (i % 40))}\n`
}
