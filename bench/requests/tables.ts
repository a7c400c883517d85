/** The tables of single requests. */
import { drawBars } from '../bar-chart.ts'
import { median } from '../figures.ts'
import type { Chart, Table } from '../section.ts'
import type { Reading, Who, Work } from './measure.ts'

const KiB = 1024
const MiB = 1024 * KiB

const names: readonly (readonly [Who, string])[] = [
  ['nginx', 'nginx'],
  ['Apache', 'Apache'],
  ['tree', 'live tree'],
  ['chunks', 'chunk resources'],
  ['batches', 'batches'],
  ['bare', 'bare node:http'],
]

export const promiseTable: Table = {
  caption: 'What a 2xx promises',
  columns: ['', 'before the answer', 'survives the end of the process', 'survives a power cut'],
  rows: [
    ['nginx PUT', 'written to a temporary file, renamed', 'yes', 'no: nothing is synced'],
    ['Apache PUT', 'written to a temporary file, renamed', 'yes', 'no: nothing is synced'],
    ['live tree PUT', 'cut, hashed, deduplicated, fsync of chunks and name', 'yes', 'yes'],
    [
      'chunk resources, batches',
      'hashed, compared with the id, deduplicated, written',
      'yes',
      'with the commit',
    ],
  ],
}

export function rateTable(works: readonly Work[]): Table {
  return {
    caption: 'Requests a second; of batches, chunks a second',
    columns: ['', 'in flight', ...names.map(([, name]) => name)],
    rows: works.map((work) => [
      title(work),
      String(work.inFlight),
      ...names.map(([who]) => number(median(rates(work, who)))),
    ]),
  }
}

/** Eight in flight: who answers how many requests a second. */
export function rateChart(works: readonly Work[]): Chart {
  const shown = works.filter(({ inFlight }) => inFlight === 8)
  const heading = 'Requests a second, eight in flight'
  const whoInTurn: readonly Who[] = ['chunks', 'nginx', 'Apache', 'tree']
  const svg = drawBars({
    title: `${heading} (longer is faster)`,
    groups: shown.map(title),
    series: whoInTurn.map((who) => ({
      name: `${who === 'tree' || who === 'chunks' ? 'chunkdav, ' : ''}${names.find(([it]) => it === who)?.[1]}`,
      values: shown.map((work) => {
        const value = median(rates(work, who))
        return Number.isNaN(value) ? undefined : value
      }),
    })),
    label: number,
    axis: 'log',
  })
  return { file: 'requests.svg', alt: `${heading}: nginx, Apache and chunkdav`, svg }
}

const pairs: readonly (readonly [Who, Who, string])[] = [
  ['chunks', 'nginx', 'chunk resources to nginx'],
  ['chunks', 'Apache', 'chunk resources to Apache'],
  ['batches', 'nginx', 'batches to nginx'],
  ['tree', 'nginx', 'live tree to nginx'],
  ['tree', 'Apache', 'live tree to Apache'],
]

export function ratioTable(works: readonly Work[]): Table {
  return {
    caption: 'Ratios of requests a second: more than 1 is faster than they are',
    columns: ['', 'in flight', ...pairs.map(([, , name]) => name)],
    rows: works.map((work) => [
      title(work),
      String(work.inFlight),
      ...pairs.map(([ours, theirs]) => spread(ratios(work, ours, theirs, rateOf))),
    ]),
  }
}

export function durableTable(works: readonly Work[]): Table {
  return {
    caption: 'PUT, with the time until all of it is on the disk (a sync behind the last answer)',
    columns: ['', 'in flight', ...pairs.map(([, , name]) => name)],
    rows: works
      .filter(({ kind }) => kind === 'PUT')
      .map((work) => [
        title(work),
        String(work.inFlight),
        ...pairs.map(([ours, theirs]) => spread(ratios(work, ours, theirs, durableRateOf))),
      ]),
  }
}

export function barTable(works: readonly Work[]): Table {
  const put = (bytes: number): Work | undefined =>
    works.find((work) => work.kind === 'PUT' && work.bytes === bytes && work.inFlight === 8)
  const row = (name: string, work: Work | undefined, ours: Who, least: number): string[] => {
    const all = work === undefined ? [] : ratios(work, ours, 'nginx', rateOf)
    return [name, `≥ ${least}`, spread(all), median(all) >= least ? 'yes' : 'no']
  }
  return {
    caption: 'What is to be reached',
    columns: ['eight in flight, to nginx', 'bar', 'reached', ''],
    rows: [
      row('PUT of 1 MiB chunks', put(MiB), 'chunks', 0.7),
      row('batches of 4 KiB chunks, chunks to requests', put(4 * KiB), 'batches', 10),
    ],
  }
}

/** Where the load generator had most to do. */
export function highestOwnLoad(works: readonly Work[]): { who: string; load: number; work: string } {
  const all = works.flatMap((work) =>
    [...work.readings].map(([who, readings]) => ({
      who: names.find(([it]) => it === who)?.[1] ?? who,
      load: median(readings.map(({ ownLoad }) => ownLoad)),
      work: `${title(work)}, ${work.inFlight} in flight`,
    })),
  )
  return all.reduce((most, it) => (it.load > most.load ? it : most))
}

function title({ kind, bytes }: Work): string {
  if (kind === 'PROPFIND') return 'PROPFIND of 1,000 members'
  return `${kind} ${bytes < MiB ? `${bytes / KiB} KiB` : `${bytes / MiB} MiB`}`
}

const rateOf = ({ rate }: Reading): number => rate
const durableRateOf = ({ durableRate }: Reading): number => durableRate ?? Number.NaN

function rates(work: Work, who: Who): number[] {
  return (work.readings.get(who) ?? []).map(rateOf)
}

/** Round by round. */
function ratios(work: Work, ours: Who, theirs: Who, of: (reading: Reading) => number): number[] {
  const other = work.readings.get(theirs) ?? []
  return (work.readings.get(ours) ?? []).map((reading, i) => of(reading) / of(other[i] as Reading))
}

function spread(values: readonly number[]): string {
  if (values.length === 0) return '–'
  const text = (value: number): string => value.toFixed(value < 10 ? 2 : 1)
  return `${text(median(values))} (${text(Math.min(...values))}–${text(Math.max(...values))})`
}

function number(value: number): string {
  return Number.isNaN(value)
    ? '–'
    : value.toLocaleString('en', { maximumFractionDigits: value < 100 ? 1 : 0 })
}
