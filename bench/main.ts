/**
 * `npm run bench`: measures, and writes the report.
 *
 *     npm run bench -- [--quick] [--only NAME]… [--work DIR] [--out DIR] [--no-build] [--report-only FILE]
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import * as backups from './backups/backups.ts'
import * as growth from './growth/growth.ts'
import { describeMachine } from './machine.ts'
import * as micro from './micro/micro.ts'
import { type Results, writeReport } from './report.ts'
import * as requests from './requests/requests.ts'
import type { BenchOptions, RunSection, Section } from './section.ts'

interface Part {
  readonly run: RunSection
  /** Makes the section again of what its run returned as `raw`. */
  readonly render?: (raw: unknown) => Section
}

/** In the order in which they run, and stand in the report. */
const parts: Readonly<Record<string, Part>> = { backups, requests, micro, growth }
const names = Object.keys(parts)
const root = new URL('..', import.meta.url).pathname

const help = `npm run bench -- [options]

Measures chunkdav beside other tools, and writes docs/benchmarks.md and docs/charts.

Options:
  --quick             little data and few rounds, three minutes in all; the report goes to {work}/quick
  --only <name>       one part: ${names.join(', ')} (repeatable); the others are taken from the last results
  --corpus <name>     of whole backups, only those of tree, few, random, source or image (repeatable)
  --work <dir>        a folder on a real disk with 50 GiB free (default: /var/tmp/chunkdav-bench); the corpora stay there
  --out <dir>         where benchmarks.md and charts/ go
  --no-build          measure dist/ as it is, instead of building it first
  --report-only <file>  measure nothing; write the report from this file of results
  --help              print this
`

function readArguments() {
  try {
    return parseArgs({
      allowNegative: true,
      options: {
        quick: { type: 'boolean', default: false },
        corpus: { type: 'string', multiple: true, default: [] },
        only: { type: 'string', multiple: true, default: [] },
        work: { type: 'string', default: '/var/tmp/chunkdav-bench' },
        out: { type: 'string' },
        build: { type: 'boolean', default: true },
        'report-only': { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n`)
    return process.exit(2)
  }
}

const values = readArguments()

/** Scratch of the parts in the work folder. Corpora and results have other names, and nothing else there is ours. */
const scratch = new RegExp(`^(${names.join('|')})-\\w{6}$`)

async function main(): Promise<void> {
  if (values.help) return void process.stdout.write(help)
  const unknown = values.only.find((name) => !names.includes(name))
  if (unknown !== undefined) throw new Error(`there is no part ${unknown}: ${names.join(', ')}`)
  const work = resolve(values.work)
  const out = resolve(values.out ?? (values.quick ? join(work, 'quick') : join(root, 'docs')))
  if (values['report-only'] !== undefined) return report(readResults(values['report-only']), out)
  mkdirSync(work, { recursive: true })
  process.once('SIGINT', () => stop(work, 130)).once('SIGTERM', () => stop(work, 143))
  if (values.build) execFileSync('npm', ['run', '-s', 'build'], { cwd: root, stdio: 'inherit' })
  const file = join(work, values.quick ? 'results-quick.json' : 'results.json')
  let results = readResults(file)
  for (const name of values.only.length > 0 ? values.only : names) {
    results = {
      ...results,
      [name]: await measure(name, { quick: values.quick, corpora: values.corpus, work, log }),
    }
    writeFileSync(file, `${JSON.stringify(results, null, 1)}\n`)
  }
  report(results, out)
  log(`the results are in ${file}`)
}

async function measure(name: string, options: BenchOptions): Promise<Results[string]> {
  log(`── ${name}`)
  const started = performance.now()
  const part = parts[name]
  if (part === undefined) throw new TypeError(`there is no part ${name}`)
  const { raw, ...section } = (await part.run(options)) as Section & { raw?: unknown }
  const tookSeconds = (performance.now() - started) / 1000
  log(`── ${name} took ${tookSeconds.toFixed(0)} s`)
  const machine = describeMachine(options.work)
  return { at: new Date().toISOString(), tookSeconds, quick: options.quick, machine, section, raw }
}

function report(results: Results, out: string): void {
  const entries = names.flatMap((name) => {
    const found = results[name]
    if (found === undefined) return []
    const section = found.raw === undefined ? undefined : parts[name]?.render?.(found.raw)
    return [[name, { ...found, section: section ?? found.section }] as const]
  })
  const path = join(out, 'benchmarks.md')
  mkdirSync(join(out, 'charts'), { recursive: true })
  writeFileSync(path, writeReport(Object.fromEntries(entries), readIfThere(path)))
  for (const [, { section }] of entries) {
    for (const { file, svg } of section.charts ?? []) writeFileSync(join(out, 'charts', file), svg)
  }
  log(`wrote ${path}`)
}

function readResults(file: string): Results {
  const text = readIfThere(file)
  if (text === '' && values['report-only'] !== undefined) throw new Error(`there are no results in ${file}`)
  return text === '' ? {} : (JSON.parse(text) as Results)
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    // A process may end while its file in /proc is read.
    if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    return ''
  }
}

function log(line: string): void {
  process.stderr.write(`${line}\n`)
}

/** Ends what was started below this process, and removes its scratch. */
function stop(work: string, code: number): never {
  for (const pid of descendants()) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
  for (const name of readdirSync(work)) {
    if (scratch.test(name)) rmSync(join(work, name), { recursive: true, force: true, maxRetries: 10 })
  }
  process.exit(code)
}

/** The ids of all processes below this one, parents first. */
function descendants(): number[] {
  const parentOf = new Map<number, number>()
  for (const name of readdirSync('/proc').filter((each) => /^\d+$/.test(each))) {
    const stat = readIfThere(`/proc/${name}/stat`)
    parentOf.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 4).split(' ')[0]))
  }
  const found = [process.pid]
  for (const pid of found) for (const [child, parent] of parentOf) if (parent === pid) found.push(child)
  return found.slice(1)
}

try {
  await main()
} catch (error) {
  // One line for people; where it came from only where that is a defect of ours.
  process.stderr.write(`bench: ${error instanceof TypeError ? error.stack : (error as Error).message}\n`)
  process.exitCode = 1
}
