/** What the pipeline is made of, each part by itself, beside what the machine can do at best in the same run. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { mib, ms } from '../figures.ts'
import type { BenchOptions, Section } from '../section.ts'
import { measureBytes } from './bytes.ts'
import { costColumns, costRow, type Rate, rateColumns, rateRow } from './figures.ts'
import { type MachineLimits, measureMachine } from './machine.ts'
import { type Commits, makeMillion, measureCommits, measureLookups } from './million.ts'
import { measureStore } from './store.ts'

const notes = [
  'Each part by itself, from memory to memory on one thread, beside what the machine can do at best in the same run. ' +
    '“Of the limit” is the distance: 100 % would be as fast as copying the bytes once, as writing them, as LevelDB’s own lookup.',
  'Backups search for cuts in WebAssembly; the receiver cuts what is put into a live tree in JavaScript.',
  'Appending is what `put` does with a block that is verified: the index in memory, one write. With `flush` it is on the disk, and so are its rows.',
]

export async function run({ quick, work, log }: BenchOptions): Promise<Section> {
  await mkdir(work, { recursive: true })
  const folder = await mkdtemp(join(work, 'micro-'))
  try {
    const effort = quick ? { ms: 200, runs: 5 } : { ms: 1500, runs: 10 }
    log('micro: the machine')
    const machine = await measureMachine(folder, effort)
    log('micro: hashing, cutting, compressing, framing')
    const bytes = await measureBytes(machine.copy, effort)
    log('micro: the pack store')
    const store = await measureStore(folder, machine, quick ? 3 : 8)
    const chunks = quick ? 200_000 : 1_000_000
    log(`micro: a vault of ${chunks.toLocaleString('en')} chunks`)
    const million = await makeMillion(join(folder, 'million'), chunks)
    log('micro: lookups')
    const lookups = await measureLookups(million, effort)
    log('micro: commits')
    const commits = await measureCommits(million, quick ? 1 : 4)
    return sectionOf(
      machine,
      [...bytes, ...store],
      [...lookups, commits.first, commits.again].map(costRow),
      commits,
    )
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function sectionOf(
  machine: MachineLimits,
  rates: readonly Rate[],
  costs: readonly (readonly string[])[],
  { first, again, peakBytes: [before, atFirst, after] }: Commits,
): Section {
  const commitNote =
    `The commit takes ${ms(first.timing.median)} after a start, ${ms(again.timing.median)} when the receiver remembers; ` +
    `the receiver’s peak of memory is ${mib(before)} before, ${mib(atFirst)} after the first, ${mib(after)} after all.`
  return {
    title: 'What the pipeline is made of',
    notes: [...notes, commitNote],
    tables: [
      { caption: 'What this machine can do', columns: rateColumns.slice(0, 4), rows: machineRows(machine) },
      { caption: 'Bytes on their way', columns: rateColumns, rows: rates.map(rateRow) },
      { caption: 'Lookups and commits', columns: costColumns, rows: costs },
    ],
  }
}

function machineRows(machine: MachineLimits): string[][] {
  return Object.values(machine).map((rate) => rateRow(rate).slice(0, 4))
}
