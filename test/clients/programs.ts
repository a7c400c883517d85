/** Other people's programs: whether they are here, running them, and comparing what they left. */
import { type SpawnOptions, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  accessSync,
  constants,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join } from 'node:path'
import { test } from 'vitest'
import { seededBytes } from '../support/tree.ts'

/** /sbin is where mount.davfs is, and not in everybody's path. */
const searchPath = `${process.env.PATH ?? ''}${delimiter}/usr/sbin${delimiter}/sbin`

export function isInstalled(program: string): boolean {
  return searchPath.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch (error) {
      if (error instanceof Error && 'code' in error) return false
      throw error
    }
  })
}

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

export interface Ran {
  readonly code: number | null
  readonly stdout: Buffer
  readonly stderr: string
  /** Both, in no certain order: for looking at what went wrong. */
  readonly output: string
}

export interface RunOptions {
  readonly cwd?: string
  /** Beside PATH; nothing else of our own environment is handed on, so that no proxy or configuration is. */
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string | Buffer
}

/** Runs a program to its end, whatever its exit code is. */
export async function runAnyhow(
  program: string,
  args: readonly string[],
  { cwd, env, input }: RunOptions = {},
): Promise<Ran> {
  const options: SpawnOptions = { env: { PATH: searchPath, LC_ALL: 'C.UTF-8', ...env } }
  if (cwd !== undefined) options.cwd = cwd
  const child = spawn(program, args, { ...options, stdio: ['pipe', 'pipe', 'pipe'] })
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []]
  child.stdout?.on('data', (piece: Buffer) => stdout.push(piece))
  child.stderr?.on('data', (piece: Buffer) => stderr.push(piece))
  // A program that ends before it has read its input is judged by its exit code.
  child.stdin?.on('error', () => {})
  child.stdin?.end(input)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  const errors = Buffer.concat(stderr).toString()
  const bytes = Buffer.concat(stdout)
  return { code, stdout: bytes, stderr: errors, output: `${bytes.toString()}${errors}` }
}

/** Runs a program that must succeed; the error shows what it printed. */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const ran = await runAnyhow(program, args, options)
  if (ran.code !== 0)
    throw new Error(`${program} ${args.join(' ')} ended with ${ran.code}:\n${ran.output.slice(-6000)}`)
  return ran
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
