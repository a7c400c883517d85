/**
 * How cost grows: backups of ever more files, and of ever more data. Each size begins with a new receiver, a new vault and a
 * client that remembers nothing, so that the peaks of memory are its own.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { run as runProgram } from '../../test/clients/run-program.ts'
import { startBuiltReceiver } from '../built-receiver.ts'
import { GiB } from '../figures.ts'
import type { BenchOptions, Section } from '../section.ts'
import { type BackupReading, backUpFolder, backUpStream, type Place } from './backup-process.ts'
import { fileChart, fileTable, growthOf, streamTable } from './growth-tables.ts'
import { type FileCount, smallFiles } from './small-files.ts'

export interface FilesReading {
  readonly files: FileCount
  readonly first: BackupReading
  readonly again: BackupReading
}

export interface StreamReading {
  readonly gib: number
  readonly backup: BackupReading
}

const scopes = {
  full: { files: [10_000, 100_000, 1_000_000], gib: [1, 10, 100] },
  quick: { files: [1000, 10_000], gib: [0.1, 1] },
} as const

export async function run({ quick, work, log }: BenchOptions): Promise<Section> {
  const scope = scopes[quick ? 'quick' : 'full']
  const files: FilesReading[] = []
  for (const count of scope.files) files.push(await measureFiles(count, work, log))
  const streams: StreamReading[] = []
  for (const gib of scope.gib) streams.push(await measureStream(gib, work, log))
  return {
    title: 'How cost grows',
    notes: [
      'Files of about 100 bytes, no two alike, in folders of 100; backed up by `chunkdav backup FOLDER`, and again when nothing had changed. The tree was read once before. Then data of which nineteen parts in twenty came before, in stretches of 32 MiB, piped into `chunkdav backup -`. Each line has a new receiver, a new vault, and a client that remembers nothing; times are whole runs of the program, from its start to its exit code, one run each; the receiver’s peak is that since its start.',
      growthOf(files, streams),
    ],
    tables: [
      fileTable('First backup', files, ({ first }) => first),
      fileTable('Second backup, nothing changed', files, ({ again }) => again),
      streamTable(streams),
    ],
    charts: [fileChart(files)],
  }
}

async function measureFiles(
  files: FileCount,
  work: string,
  log: (line: string) => void,
): Promise<FilesReading> {
  const path = await smallFiles(work, files, log)
  return inPlace(work, async (place) => {
    // What an earlier run or the making left in the caches is the same now for every size.
    await runProgram('bash', ['-c', 'tar cf - -C "$0" . | cat >/dev/null; sync', path])
    const first = await backUpFolder(path, place)
    log(`${files} files: ${first.seconds.toFixed(1)} s`)
    const again = await backUpFolder(path, place)
    log(`${files} files, unchanged: ${again.seconds.toFixed(1)} s`)
    if (first.summary.files !== files || again.summary.filesRead !== 0) {
      throw new Error(`the backup of ${files} files was of others: ${JSON.stringify([first, again])}`)
    }
    return { files, first, again }
  })
}

async function measureStream(gib: number, work: string, log: (line: string) => void): Promise<StreamReading> {
  return inPlace(work, async (place) => {
    const bytes = Math.floor(gib * GiB)
    const backup = await backUpStream(bytes, place)
    log(`${gib} GiB: ${backup.seconds.toFixed(1)} s`)
    if (backup.summary.bytesRead !== bytes) throw new Error(`not ${bytes} bytes: ${JSON.stringify(backup)}`)
    return { gib, backup }
  })
}

async function inPlace<T>(work: string, measure: (place: Place) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(work, 'growth-'))
  try {
    await using receiver = await startBuiltReceiver(folder)
    return await measure({ receiver, folder })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
