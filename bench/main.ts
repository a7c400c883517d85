/**
 * `npm run bench`: measures, and writes the report.
 *
 *     npm run bench -- [--quick] [--only NAME]… [--work DIR] [--out DIR] [--no-build] [--report-only FILE]
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, statfsSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import * as backups from './backups/backups.ts'
import { GiB } from './figures.ts'
import * as growth from './growth/growth.ts'
import { leaveNothing } from './leave-nothing.ts'
import { describeMachine } from './machine.ts'
import * as micro from './micro/micro.ts'
import { type Measured, type Results, writeReport } from './report.ts'
import * as requests from './requests/requests.ts'
import type { BenchOptions, RawSection, RunSection, Section } from './section.ts'

interface Part {
  readonly run: RunSection
  /** On two processors that nobody else uses, with all corpora there (measured). */
  readonly expectedSeconds: (scope: Pick<BenchOptions, 'quick' | 'corpora'>) => number
  /** Makes the section again of what its run returned as `raw`. */
  readonly render?: (raw: unknown) => Section
}

/** In the order in which they run, and stand in the report. */
const parts: Readonly<Record<string, Part>> = {
  backups,
  requests: { ...requests, expectedSeconds: ({ quick }) => (quick ? 30 : 340) },
  micro: { ...micro, expectedSeconds: ({ quick }) => (quick ? 20 : 85) },
  growth: { ...growth, expectedSeconds: ({ quick }) => (quick ? 25 : 400) },
}
const names = Object.keys(parts)
const root = new URL('..', import.meta.url).pathname

/** Of the disk: what all tools write in all rounds of one corpus, before it is removed. */
const neededGib = { full: 40, quick: 4 } as const

const help = `npm run bench -- [options]

Measures chunkdav beside other tools, and writes docs/benchmarks.md and docs/charts.

Options:
  --quick             little data and few rounds, three minutes in all; the report goes to {work}/quick
  --only <name>       one part: ${names.join(', ')} (repeatable); the others are taken from the last results
  --corpus <name>     of whole backups, only those of tree, few, random, source or image (repeatable)
  --work <dir>        a folder on a real disk with ${neededGib.full} GiB free (default: /var/tmp/chunkdav-bench); the corpora stay there
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
  const known = values['report-only'] === undefined ? {} : readResults(values['report-only'])
  const isRough = values.quick || Object.values(known).some(({ quick }) => quick)
  const out = resolve(values.out ?? (isRough ? join(work, 'quick') : join(root, 'docs')))
  if (values['report-only'] !== undefined) return report(known, out)
  const chosen = values.only.length > 0 ? values.only : names
  const file = join(work, values.quick ? 'results-quick.json' : 'results.json')
  let results = readResults(file)
  const unmeasured = names.filter((name) => !chosen.includes(name) && results[name] === undefined)
  checkReport(out, unmeasured)
  mkdirSync(work, { recursive: true })
  checkRoom(work)
  leaveNothing({ folder: work, names: scratch })
  log(expectation(chosen))
  if (values.build) execFileSync('npm', ['run', '-s', 'build'], { cwd: root, stdio: 'inherit' })
  for (const name of chosen) {
    await measure(name, work, results[name]?.raw, (measured) => {
      results = { ...results, [name]: measured }
      writeFileSync(`${file}.new`, `${JSON.stringify(results, null, 1)}\n`)
      renameSync(`${file}.new`, file)
    })
  }
  report(results, out)
  if (values.quick) log('little data and few rounds: these figures are rough, and no basis for a judgement')
  log(`the results are in ${file}`)
}

function checkRoom(work: string): void {
  const { bavail, bsize } = statfsSync(work)
  const [free, needed] = [(bavail * bsize) / GiB, neededGib[values.quick ? 'quick' : 'full']]
  if (free < needed) throw new Error(`${work} has ${free.toFixed(0)} GiB free, of ${needed} that are needed`)
}

/** The report is made anew from results: parts of which there are none here, but elsewhere once, would go from it. */
function checkReport(out: string, unknown: readonly string[]): void {
  const path = join(out, 'benchmarks.md')
  if (unknown.length === 0 || readIfThere(path) === '') return
  throw new Error(
    `${path} would lose ${unknown.join(', ')}, of which there are no results here; measure these too, or name another folder with --out`,
  )
}

/** How long it will take, in all and each part. */
function expectation(chosen: readonly string[]): string {
  const seconds = (name: string): number =>
    parts[name]?.expectedSeconds({ quick: values.quick, corpora: values.corpus }) ?? 0
  const shown = (value: number): string =>
    value < 120 ? `${value.toFixed(0)} s` : `${(value / 60).toFixed(0)} minutes`
  const all = chosen.reduce((sum, name) => sum + seconds(name), 0)
  const each = chosen.map((name) => `${name} ${shown(seconds(name))}`).join(', ')
  return `this takes about ${shown(all)} (${each}), and longer where the corpora are not there yet`
}

/** `keep` gets what was measured, and before that what there is of it already, should the rest not come to its end. */
async function measure(
  name: string,
  work: string,
  before: unknown,
  keep: (measured: Measured) => void,
): Promise<void> {
  log(`── ${name}`)
  const started = performance.now()
  const part = parts[name]
  if (part === undefined) throw new TypeError(`there is no part ${name}`)
  const { quick } = values
  const machine = describeMachine(work)
  const save = ({ raw, ...section }: RawSection): void => {
    const tookSeconds = (performance.now() - started) / 1000
    keep({ at: new Date().toISOString(), tookSeconds, quick, machine, section, raw })
  }
  save(await part.run({ quick, corpora: values.corpus, work, log, before, save }))
  log(`── ${name} took ${((performance.now() - started) / 1000).toFixed(0)} s`)
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
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return ''
  }
}

function log(line: string): void {
  process.stderr.write(`${line}\n`)
}

try {
  await main()
} catch (error) {
  // One line for people; where it came from only where that is a defect of ours.
  process.stderr.write(`bench: ${error instanceof TypeError ? error.stack : (error as Error).message}\n`)
  process.exitCode = 1
}
