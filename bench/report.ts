/** Makes the Markdown of what was measured. One part of it is written by people, and stays when the rest is made anew. */
import type { Machine } from './machine.ts'
import type { Section, Table } from './section.ts'

export interface Measured {
  /** ISO 8601. */
  readonly at: string
  readonly tookSeconds: number
  readonly quick: boolean
  readonly machine: Machine
  readonly section: Section
  /** What the section was made of, where its part can make it again. */
  readonly raw?: unknown
}

/** The sections, by the names of their parts, in the order of the report. */
export type Results = Readonly<Record<string, Measured>>

const begin = '<!-- written by hand: begin -->'
const end = '<!-- written by hand: end -->'

export function writeReport(results: Results, before: string): string {
  const parts = Object.values(results)
  const newest = parts.toSorted((a, b) => (a.at < b.at ? 1 : -1))[0]
  if (newest === undefined) throw new TypeError('there is nothing to report')
  return `${[
    '# Benchmarks',
    'Written by `npm run bench`; only "What was found" is by hand. Ratios are ours divided by theirs: below 1 we need less.',
    ...(parts.some(({ quick }) => quick)
      ? [
          '**Measured with `--quick`**: little data and few rounds. This shows that everything runs, and is no basis for a judgement.',
        ]
      : []),
    ...(handWritten(before) === undefined ? [] : [`${begin}\n${handWritten(before)}\n${end}`]),
    ...parts.flatMap((part) => sectionText(part, newest)),
    machineText(newest),
    howToRun,
  ].join('\n\n')}\n`
}

/** What stands between the markers; undefined in a report that has none. */
export function handWritten(report: string): string | undefined {
  const [from, to] = [report.indexOf(begin), report.indexOf(end)]
  if (from === -1 && to === -1) return '\n## What was found, and the next limit\n'
  if (from === -1 || to < from) throw new Error('the markers of what is written by hand are damaged')
  return report.slice(from + begin.length, to).trim() === ''
    ? '\n## What was found, and the next limit\n'
    : `\n${report.slice(from + begin.length, to).trim()}\n`
}

function sectionText({ section, at, machine }: Measured, newest: Measured): string[] {
  const isOther = at.slice(0, 10) !== newest.at.slice(0, 10) || machine.commit !== newest.machine.commit
  return [
    `## ${section.title}`,
    ...(isOther ? [`Measured ${at.slice(0, 16).replace('T', ' ')}${commitText(machine)}.`] : []),
    ...section.notes,
    ...(section.charts ?? []).map(({ file, alt }) => `![${alt}](charts/${file})`),
    ...section.tables.map(tableText),
  ]
}

/** The first column is words; the others stand to the right where their cells are figures. */
export function tableText({ caption, columns, rows }: Table): string {
  const isFigures = (column: number): boolean =>
    column > 0 && rows.every((row) => /^([-–<>≤≥~]?\s*\d|–|$)/.test(row[column] ?? ''))
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  const rule = `|${columns.map((_, column) => (isFigures(column) ? '---:' : '---')).join('|')}|`
  return [`### ${caption}\n`, line(columns), rule, ...rows.map(line)].join('\n')
}

function machineText({ machine, at }: Measured): string {
  return [
    '## The machine\n',
    `- ${machine.processor}, ${machine.cores} cores, ${(machine.memoryBytes / 1024 ** 3).toFixed(0)} GiB of memory`,
    `- ${machine.system}`,
    `- disk: ${machine.disk}`,
    `- Node.js ${machine.node}${commitText(machine)}, ${at.slice(0, 16).replace('T', ' ')} UTC`,
  ].join('\n')
}

function commitText({ commit }: Machine): string {
  return commit === '' ? '' : `, commit ${commit}`
}

const howToRun = `## How to run it

\`\`\`sh
apt-get install restic rclone borgbackup casync time nginx libnginx-mod-http-dav-ext apache2
npm ci
npm run bench                      # three quarters of an hour; writes docs/benchmarks.md and docs/charts
npm run bench -- --quick           # three minutes; writes below the work folder
npm run bench -- --only backups    # one part; the others stay as they were measured before
npm run bench -- --help
\`\`\`

Corpora are made once, below /var/tmp/chunkdav-bench or what \`--work\` names, and take about 11 GiB there; 40 GiB more are needed while it runs. What was
measured is kept beside them in results.json, each part and each corpus as soon as it is through, so that a run that was interrupted is gone on with by \`--only\` and \`--corpus\`; \`npm run bench -- --report-only FILE\` makes the report of it again.`
