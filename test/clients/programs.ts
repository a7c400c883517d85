/** What the tests of other people's programs share: skipping, trees to send, comparing what came back. */
import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'vitest'
import { seededBytes } from '../support/tree.ts'
import { isInstalled } from './run-program.ts'

/** A test that needs `programs`; where one is absent the test's name says that it is skipped, and why. */
export function testWith(
  programs: readonly string[],
  name: string,
  body: () => Promise<void>,
  otherReason?: string,
): void {
  const absent = programs.filter((program) => !isInstalled(program))
  const reason = absent.length > 0 ? `${absent.join(' and ')} is not installed` : otherReason
  if (reason === undefined) test(name, body)
  else test.skip(`${name} (skipped: ${reason})`, () => {})
}

/** Names that are awkward in a URL, in XML or in a shell. */
const awkwardNames = [
  'plain',
  'with space',
  'a#b',
  'a&b<c>',
  '100% sure',
  'per%41cent',
  'ünïcödé-名前',
  "it's+?",
]

/** A tree of `count` files of up to 4 KiB with awkward names, one that is larger, one that is empty. */
export function makeFiles(root: string, count: number, largeBytes = 5_000_000): void {
  const folders = Math.max(1, Math.ceil(count / 100))
  for (let i = 0; i < count; i++) {
    const folder = join(root, `${awkwardNames[(i % folders) % awkwardNames.length]} ${i % folders}`, 'below')
    if (i < folders) mkdirSync(folder, { recursive: true })
    const name = `${i} ${awkwardNames[i % awkwardNames.length]}.txt`
    writeFileSync(join(folder, name), seededBytes(`file ${i}`, 1 + ((i * 37) % 4096)))
  }
  writeFileSync(join(root, 'large.bin'), seededBytes('large', largeBytes))
  writeFileSync(join(root, 'empty'), '')
}

/** Every path below `root` with the hash of its bytes: equal for two trees when their names and bytes are. */
export function contents(root: string): Record<string, string> {
  const found: Record<string, string> = {}
  for (const path of readdirSync(root, { recursive: true, encoding: 'utf8' }).sort()) {
    const stats = lstatSync(join(root, path))
    if (stats.isDirectory()) found[path] = 'directory'
    else {
      found[path] = createHash('sha256')
        .update(readFileSync(join(root, path)))
        .digest('hex')
    }
  }
  return found
}

/** What differs between two trees, ten lines at most; none when names and bytes are equal. */
export function differences(left: string, right: string): string[] {
  const [a, b] = [contents(left), contents(right)]
  const paths = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()
  return paths
    .filter((path) => a[path] !== b[path])
    .map((path) => `${path}: ${a[path] ?? 'absent'} and ${b[path] ?? 'absent'}`)
    .slice(0, 10)
}
