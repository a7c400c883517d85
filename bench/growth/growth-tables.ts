/** The tables of growth, and what they come to. */
import { drawBars } from '../bar-chart.ts'
import { GiB, mib } from '../figures.ts'
import type { Chart, Table } from '../section.ts'
import type { BackupReading } from './backup-process.ts'
import type { FilesReading, StreamReading } from './growth.ts'

/** What grows by more than this from the smallest size that counts to the largest is not flat. */
const flat = 1.5
/** Below it the start of the program is most of what is measured. */
const countedFiles = 100_000
const countedGib = 10

export function fileTable(
  caption: string,
  readings: readonly FilesReading[],
  of: (reading: FilesReading) => BackupReading,
): Table {
  return {
    caption,
    columns: [
      'files',
      'time',
      'for each file',
      "client's CPU for each",
      "receiver's CPU for each",
      "client's peak",
      "receiver's peak",
    ],
    rows: readings.map((reading) => {
      const { seconds, client, receiver } = of(reading)
      const each = (value: number): string => `${((value * 1e6) / reading.files).toFixed(1)} µs`
      return [
        reading.files.toLocaleString('en'),
        `${seconds.toFixed(2)} s`,
        each(seconds),
        each(client.cpuSeconds),
        each(receiver.cpuSeconds),
        mib(client.peakBytes),
        mib(receiver.peakBytes),
      ]
    }),
  }
}

export function streamTable(readings: readonly StreamReading[]): Table {
  return {
    caption: 'A stream',
    columns: [
      'GiB',
      'time',
      'for each GiB',
      "client's CPU for each",
      "receiver's CPU for each",
      "client's peak",
      "receiver's peak",
      'sent',
    ],
    rows: readings.map(({ gib, backup: { seconds, client, receiver, summary } }) => [
      String(gib),
      `${seconds.toFixed(1)} s`,
      ...[seconds, client.cpuSeconds, receiver.cpuSeconds].map((it) => `${(it / gib).toFixed(2)} s`),
      mib(client.peakBytes),
      mib(receiver.peakBytes),
      `${(summary.bytesSent / GiB).toFixed(2)} GiB`,
    ]),
  }
}

/** Time for each file of the first and of an unchanged backup. */
export function fileChart(readings: readonly FilesReading[]): Chart {
  const heading = 'Time for each file, by how many there are'
  const each = (of: (reading: FilesReading) => BackupReading): number[] =>
    readings.map((reading) => (of(reading).seconds * 1e6) / reading.files)
  const svg = drawBars({
    title: heading,
    groups: readings.map(({ files }) => `${files.toLocaleString('en')} files`),
    series: [
      { name: 'first backup', values: each(({ first }) => first) },
      { name: 'nothing changed', values: each(({ again }) => again) },
    ],
    label: (value) => `${Math.round(value)} µs`,
  })
  return { file: 'growth.svg', alt: heading, svg }
}

/** What does not stay flat, and by how much. */
export function growthOf(files: readonly FilesReading[], streams: readonly StreamReading[]): string {
  const [smallFiles, largeFiles] = ends(files, ({ files: count }) => count >= countedFiles)
  const [smallStream, largeStream] = ends(streams, ({ gib }) => gib >= countedGib)
  const found: [string, number, number][] = []
  for (const [name, of] of [
    ['first backup', (it: FilesReading) => it.first],
    ['second backup', (it: FilesReading) => it.again],
  ] as const) {
    const [small, large] = [of(smallFiles), of(largeFiles)]
    found.push([
      `${name}, time for each file`,
      small.seconds / smallFiles.files,
      large.seconds / largeFiles.files,
    ])
    found.push(...memories(name, small, large))
  }
  const [small, large] = [smallStream.backup, largeStream.backup]
  found.push(['stream, time for each GiB', small.seconds / smallStream.gib, large.seconds / largeStream.gib])
  found.push(...memories('stream', small, large))
  const grows = found.filter(([, from, to]) => to > flat * from)
  const range = `From ${smallFiles.files.toLocaleString('en')} to ${largeFiles.files.toLocaleString('en')} files and from ${smallStream.gib} to ${largeStream.gib} GiB`
  if (grows.length === 0) {
    return `${range} nothing grows by more than ${flat}: time for each file and GiB, and both sides' memory as a whole.`
  }
  const listed = grows.map(([name, from, to]) => `${name} ${(to / from).toFixed(1)} times`)
  return `${range} these grow by more than ${flat}: ${listed.join('; ')}. All other times for each file and GiB, and both sides' memory as a whole, do not.`
}

function memories(name: string, small: BackupReading, large: BackupReading): [string, number, number][] {
  return [
    [`${name}, client's memory`, small.client.peakBytes, large.client.peakBytes],
    [`${name}, receiver's memory`, small.receiver.peakBytes, large.receiver.peakBytes],
  ]
}

/** The least and the largest of those that count; of all, where fewer than two do. */
function ends<T>(readings: readonly T[], counts: (reading: T) => boolean): [T, T] {
  const counted = readings.filter(counts)
  const these = counted.length < 2 ? readings : counted
  return [these[0] as T, these.at(-1) as T]
}
