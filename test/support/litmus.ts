/** litmus, the test suite for WebDAV servers: running it, and reading what it prints. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { temporaryFolder } from './tree.ts'

export interface LitmusSuite {
  readonly name: string
  readonly run: number
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  readonly warnings: number
}

export interface LitmusReport {
  readonly suites: readonly LitmusSuite[]
  /** The lines that tell of a failure, a warning or a skipped test. */
  readonly complaints: readonly string[]
}

export const litmusIsInstalled = (process.env.PATH ?? '')
  .split(':')
  .some((folder) => existsSync(`${folder}/litmus`))

/** Runs all suites on the collection at `url`, which ends in a slash; also those after a failure. */
export async function runLitmus(url: string): Promise<LitmusReport> {
  await using folder = await temporaryFolder()
  const child = spawn('litmus', ['-k', url], {
    // It leaves its debug.log where it runs.
    cwd: folder.path,
    env: { PATH: process.env.PATH, LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (piece: Buffer) => {
    output += piece.toString('latin1')
  })
  await once(child, 'close')
  return parseLitmus(output)
}

/** Reads lines such as ``<- summary for `basic': of 16 tests run: 16 passed, 0 failed. 100.0%``. */
export function parseLitmus(output: string): LitmusReport {
  const suites: LitmusSuite[] = []
  const complaints: string[] = []
  for (const raw of output.split('\n')) {
    // A test's line is written over with a carriage return when it is done.
    const line = raw.slice(raw.lastIndexOf('\r') + 1)
    const summary = /^<- summary for `(\w+)': of (\d+) tests run: (\d+) passed, (\d+) failed/.exec(line)
    const skipped = /^-> (\d+) tests? (?:was|were) skipped/.exec(line)
    const warned = /^-> (\d+) warnings? (?:was|were) issued/.exec(line)
    const last = suites.at(-1)
    if (summary !== null) {
      const [, name = '', run, passed, failed] = summary
      const counts = { run: Number(run), passed: Number(passed), failed: Number(failed) }
      suites.push({ name, ...counts, skipped: 0, warnings: 0 })
    } else if (skipped !== null && last !== undefined) {
      suites[suites.length - 1] = { ...last, skipped: Number(skipped[1]) }
    } else if (warned !== null && last !== undefined) {
      suites[suites.length - 1] = { ...last, warnings: Number(warned[1]) }
    } else if (/FAIL|WARNING|SKIP/.test(line)) complaints.push(line.trim())
  }
  return { suites, complaints }
}

export function totalOf(suites: readonly LitmusSuite[]): LitmusSuite {
  const sum = (key: 'run' | 'passed' | 'failed' | 'skipped' | 'warnings'): number =>
    suites.reduce((total, suite) => total + suite[key], 0)
  return {
    name: 'total',
    run: sum('run'),
    passed: sum('passed'),
    failed: sum('failed'),
    skipped: sum('skipped'),
    warnings: sum('warnings'),
  }
}

/** A table for people, with a line of totals. */
export function litmusTable(suites: readonly LitmusSuite[]): string {
  const columns = ['suite', 'run', 'passed', 'failed', 'skipped', 'warnings']
  const rows = [...suites, totalOf(suites)].map((suite) => Object.values(suite).map(String))
  return [columns, ...rows]
    .map((cells) => cells.map((cell, i) => (i === 0 ? cell.padEnd(10) : cell.padStart(9))).join(''))
    .join('\n')
}
