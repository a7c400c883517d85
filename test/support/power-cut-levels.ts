/**
 * What a power cut leaves of LevelDB's folders, which are not below the file layer.
 *
 * LevelDB syncs its tables, its MANIFEST and CURRENT itself, before anything refers to them. Its log is synced when a
 * batch with `sync` returns: what stands in the log then is there; what came later ends at any byte, with or without
 * zeros or garbage behind. To know both, the calls of every Level are watched. An index may also be gone altogether.
 */
import { copyFile, mkdir, readdir, readFile, stat, unlink, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Level } from 'level'
import type { Pick } from './dice.ts'
import { PowerOff, type ProcessFiles } from './power-cut-files.ts'

const levelFile = /^(CURRENT|LOCK|LOG|LOG\.old|MANIFEST-\d+|\d+\.(log|ldb|sst|dbtmp))$/

/** The watched folders of one disk. */
export class LevelWatch {
  readonly #root: string
  /** Of each log, how much is surely on the disk. */
  readonly #synced = new Map<string, number>()
  readonly #folders = new Set<string>()
  readonly #busy = new Set<Promise<unknown>>()
  /** The process that is at work on the disk. */
  process: ProcessFiles | undefined
  /** The batch after so many fails, and LevelDB sees nothing of it. */
  failBatchAfter: number | undefined
  batches = 0

  constructor(root: string) {
    this.#root = `${root}/`
    watches.add(this)
    watchLevels()
  }

  forget(): void {
    watches.delete(this)
  }

  isOf(folder: string): boolean {
    return folder.startsWith(this.#root)
  }

  /** A folder that is on the disk as it is. */
  async add(folder: string): Promise<void> {
    this.#folders.add(folder)
    await this.#note(folder)
  }

  has(folder: string): boolean {
    return this.#folders.has(folder)
  }

  syncedOf(log: string): number {
    return this.#synced.get(log) ?? 0
  }

  /** Resolves when LevelDB is at work on nothing. */
  async settled(): Promise<void> {
    while (this.#busy.size > 0) await Promise.allSettled(this.#busy)
  }

  /** Runs a call; when it `syncs`, everything in the log is durable behind it. */
  async run<T>(folder: string, what: string, syncs: boolean, work: () => Promise<T>): Promise<T> {
    const { process } = this
    const named = `${what} of ${basename(folder)}`
    process?.moment(named)
    this.#folders.add(folder)
    if (what === 'batch' && this.batches++ === this.failBatchAfter) {
      throw new Error('IO error: Input/output error')
    }
    const working = work()
    this.#busy.add(working)
    try {
      const result = await working
      // Refused, it would be open and closed by nobody.
      if (what === 'open') {
        await this.#note(folder)
        return result
      }
      // What the process does after the power is gone is not on the disk, though LevelDB did it.
      if (process?.isAlive === false) throw new PowerOff()
      if (syncs) await this.#note(folder)
      process?.moment(`${named}, done`)
      return result
    } finally {
      this.#busy.delete(working)
    }
  }

  async #note(folder: string): Promise<void> {
    for (const name of await readdir(folder)) {
      const log = join(folder, name)
      if (name.endsWith('.log')) this.#synced.set(log, (await stat(log)).size)
    }
  }
}

const watches = new Set<LevelWatch>()
let isWatching = false

function watchOf(level: object): LevelWatch | undefined {
  const { location } = level as { location: string }
  for (const watch of watches) if (watch.isOf(location)) return watch
  return undefined
}

interface Inside {
  _open(options: unknown): Promise<void>
  _batch(operations: unknown, options: { sync?: boolean }): Promise<void>
  _chainedBatch(): { _write(options: { sync?: boolean }): Promise<void> }
}

/** Once per process, and for good: what is on no watched disk goes through untouched. */
function watchLevels(): void {
  if (isWatching) return
  isWatching = true
  const inside = Level.prototype as unknown as Inside
  const { _open, _batch, _chainedBatch } = inside
  const run = <T>(level: object, what: string, syncs: boolean, work: () => Promise<T>): Promise<T> => {
    const watch = watchOf(level)
    return watch === undefined
      ? work()
      : watch.run((level as { location: string }).location, what, syncs, work)
  }
  inside._open = function (options) {
    return run(this, 'open', true, () => _open.call(this, options))
  }
  inside._batch = function (operations, options) {
    return run(this, 'batch', options.sync === true, () => _batch.call(this, operations, options))
  }
  inside._chainedBatch = function () {
    const batch = _chainedBatch.call(this)
    const { _write } = batch
    batch._write = (options) => run(this, 'batch', options.sync === true, () => _write.call(batch, options))
    return batch
  }
}

export async function isLevelFolder(path: string): Promise<boolean> {
  return (await readdir(path)).some((name) => levelFile.test(name))
}

/** Leaves of an index what an interrupted removal may have left: anything but CURRENT. */
export async function removeInPart(folder: string, pick: Pick): Promise<void> {
  if (!(await isThere(folder))) return
  for (const name of await readdir(folder)) {
    if (name === 'CURRENT' || pick(2) === 0) await unlink(join(folder, name))
  }
}

/** Copies a folder as the power cut leaves it. */
export async function copyLevel(watch: LevelWatch, from: string, to: string, pick: Pick): Promise<void> {
  if (basename(from) === 'index' && pick(12) === 0) return
  if (!(await isThere(from))) return
  await mkdir(to, { recursive: true })
  for (const name of await stableNames(from)) {
    if (name === 'LOCK') continue
    if (name.endsWith('.log')) {
      const log = await readFile(join(from, name))
      await writeFile(join(to, name), leftOf(log, watch.syncedOf(join(from, name)), pick))
    } else {
      await copyFile(join(from, name), join(to, name))
    }
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return false
  }
}

/** The files, when no compaction is at work on them. */
async function stableNames(folder: string): Promise<string[]> {
  const look = async (): Promise<string[]> => {
    const names = (await readdir(folder)).sort()
    const sizes = await Promise.all(
      names.map(async (name) => {
        const { size, mtimeMs } = await stat(join(folder, name))
        return `${name} ${size} ${mtimeMs}`
      }),
    )
    return sizes
  }
  for (let before = await look(); ; ) {
    await sleep(1)
    const after = await look()
    if (after.join() === before.join()) return after.map((line) => line.split(' ')[0] as string)
    before = after
  }
}

function leftOf(log: Buffer, synced: number, pick: Pick): Buffer {
  const unsynced = log.length - synced
  if (unsynced <= 0) return log
  const whole = synced + pick(unsynced + 1)
  const how = pick(3)
  if (how === 0) return log.subarray(0, whole)
  const left = Buffer.from(log)
  for (let at = whole; at < left.length; at++) left[at] = how === 1 ? 0 : pick(256)
  return left
}
