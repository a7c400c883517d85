/**
 * The LevelDB below the live tree (tree-records.ts has its layout): changes one after the other, one fsync for
 * all who wait.
 *
 * A change reads and writes through an overlay. Changes that wait are taken as a group: each runs by itself and
 * sees what those before it did; one that throws leaves nothing behind. Then the chunks that they refer to are
 * made durable, all their writes go into one synced batch, and only then are they answered, also those that
 * threw: why they did may rest on what the batch says. Readers see LevelDB, so only what is durable.
 *
 * Recovery: a batch is written whole or not at all, so there is nothing to recover at an opening. When a batch
 * fails the group is told, and the database is opened again before anything else is done: LevelDB refuses all
 * writes after a failed one. When that fails too, as it does on a full disk, each later use tries it again.
 * LevelDB takes a folder without `CURRENT` for a new database and deletes the tables in it: that is never let happen.
 */
import { mkdir, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Level } from 'level'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { diskFull, isDiskFull } from '../full-disk.ts'
import { TreeCache } from './tree-cache.ts'
import { OverlaidChange, Overlay } from './tree-overlay.ts'
import { endOf, sealed, unsealed } from './tree-records.ts'

type Store = Level<Buffer, Buffer>
type Snapshot = ReturnType<Store['snapshot']>

export interface Row {
  readonly key: Buffer
  readonly value: Buffer
}

/** A state of the database to read. Problem `store-corrupt` for a damaged record, `unavailable` after `close`. */
export interface TreeReads {
  /** Undefined where there is nothing. */
  get(key: Buffer): Promise<Buffer | undefined>
  /** Rows whose keys begin with `prefix` and stand behind `after`, in order of their keys, a page in memory at a time. */
  range(prefix: Buffer, after?: Buffer): AsyncIterable<Row>
}

export interface TreeWrites extends TreeReads {
  put(key: Buffer, value: Buffer): void
  remove(key: Buffer): void
  /** The change refers to chunks, stored when `losses` was this: they are made durable before it is. */
  needsChunks(losses: number): void
}

/** A state to read for as long as it is not closed. */
export interface TreeSnapshot extends TreeReads {
  close(): Promise<void>
}

/** What makes chunks durable. */
export interface ChunkFlush {
  readonly losses: number
  flush(): Promise<void>
}

interface Task {
  readonly work: (writes: TreeWrites) => Promise<unknown>
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}

/** Changes that share a batch. */
const maxGroup = 256
/** Rows after which a batch is written, whoever waits: each further change searches them. */
const maxGroupRows = 4096
const rowsAtOnce = 256

export class TreeDatabase implements TreeReads {
  readonly #folder: string
  readonly #level: Store
  readonly #chunks: ChunkFlush
  /** Told of the keys of each batch, when it is written or has failed. */
  onWritten: (keys: readonly Buffer[]) => void = () => {}
  readonly #cache = new TreeCache()
  #queue: Task[] = []
  #running: Promise<void> | undefined
  #reopening: Promise<Error | undefined> | undefined
  #isClosed = false
  /** For changes under way: they end also after `close` was called. */
  readonly #reads: TreeReads = {
    get: (key) => this.#cache.get(key, () => this.#reported(() => readOne(this.#level, key))),
    range: (prefix, after) => this.#listed(() => readRange(this.#level, prefix, after)),
  }

  private constructor(folder: string, level: Store, chunks: ChunkFlush) {
    this.#folder = folder
    this.#level = level
    this.#chunks = chunks
  }

  /** Opens the database in `folder`, made if need be. Problems as those of `change`, `in-use`, `store-corrupt`. */
  static async open(folder: string, chunks: ChunkFlush): Promise<TreeDatabase> {
    try {
      await mkdir(folder, { recursive: true })
      await expectCurrent(folder)
      // It opens by itself from here on.
      const level: Store = new Level(folder, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
      await level.open()
      return new TreeDatabase(folder, level, chunks)
    } catch (cause) {
      throw databaseProblem(cause, folder)
    }
  }

  /** As in `ChunkFlush`. */
  get losses(): number {
    return this.#chunks.losses
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    this.#expectOpen()
    return await this.#reads.get(key)
  }

  async *range(prefix: Buffer, after?: Buffer): AsyncGenerator<Row> {
    this.#expectOpen()
    yield* this.#reads.range(prefix, after)
  }

  /** Runs `use` on the state of this moment, whatever is changed meanwhile. */
  async at<T>(use: (reads: TreeReads) => Promise<T>): Promise<T> {
    const snapshot = await this.snapshot()
    try {
      return await use(snapshot)
    } finally {
      await snapshot.close()
    }
  }

  /** The state of this moment, for who reads over a longer time and closes it himself. */
  async snapshot(): Promise<TreeSnapshot> {
    this.#expectOpen()
    const snapshot = await this.#reported(async () => this.#level.snapshot())
    return {
      get: (key) => this.#reported(() => readOne(this.#level, key, snapshot)),
      range: (prefix, after) => this.#listed(() => readRange(this.#level, prefix, after, snapshot)),
      close: () => snapshot.close(),
    }
  }

  /**
   * Runs `work` when nobody else changes anything; durable on return. What it throws discards what it wrote.
   * Problems `unavailable`, `insufficient-storage` when the disk fails, for all who share the batch.
   */
  change<T>(work: (writes: TreeWrites) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#isClosed) throw closed()
      this.#queue.push({ work, resolve: resolve as (value: unknown) => void, reject })
      this.#running ??= this.#run()
    })
  }

  async #run(): Promise<void> {
    // Whoever comes in this turn of the loop shares the first batch.
    await Promise.resolve()
    while (this.#queue.length > 0) await this.#runGroup()
    // At once: whoever comes next finds either this loop or nobody.
    this.#running = undefined
  }

  async #runGroup(): Promise<void> {
    const overlay = new Overlay()
    const losses: number[] = []
    const ends: { task: Task; tell: () => void }[] = []
    const waiting = this.#queue.splice(0, maxGroup)
    for (const [i, task] of waiting.entries()) {
      if (overlay.rows.size >= maxGroupRows) {
        this.#queue.unshift(...waiting.slice(i))
        break
      }
      const change = new OverlaidChange(this.#reads, overlay)
      try {
        const value = await task.work(change)
        // By itself: the others of the group are not to pay for what this one relied on.
        if (change.losses !== undefined && change.losses !== this.#chunks.losses) throw lost()
        overlay.take(change.written)
        if (change.losses !== undefined) losses.push(change.losses)
        ends.push({ task, tell: () => task.resolve(value) })
      } catch (error) {
        ends.push({ task, tell: () => task.reject(error) })
      }
    }
    try {
      // What one relied on may have gone since: the group runs again, without that one.
      if (await this.#write(overlay, losses)) for (const { tell } of ends) tell()
      else this.#queue.unshift(...ends.map(({ task }) => task))
    } catch (error) {
      for (const { task } of ends) task.reject(error)
    }
  }

  /** False, and nothing is written, when chunks were lost since `losses`, which the changes rely on. */
  async #write(overlay: Overlay, losses: readonly number[]): Promise<boolean> {
    if (overlay.rows.size === 0) return true
    if (losses.length > 0) {
      await this.#chunks.flush()
      if (losses.some((seen) => seen !== this.#chunks.losses)) return false
    }
    const batch = [...overlay.rows].map(([text, value]) => {
      const key = Buffer.from(text, 'latin1')
      return value === undefined
        ? ({ type: 'del', key } as const)
        : ({ type: 'put', key, value: sealed(key, value) } as const)
    })
    try {
      await this.#expectLevel()
      await this.#level.batch(batch, { sync: true })
      this.#cache.written(overlay)
      return true
    } catch (cause) {
      this.#cache.clear()
      await this.#reopen()
      throw databaseProblem(cause, this.#folder)
    } finally {
      // Of a batch that failed too: its rows may be found at the opening.
      this.onWritten(batch.map(({ key }) => key))
    }
  }

  /** Those who come while it is under way share it. What kept it from being opened; undefined when it is open. */
  async #reopen(): Promise<Error | undefined> {
    this.#reopening ??= reopen(this.#level, this.#folder).finally(() => {
      this.#reopening = undefined
    })
    return await this.#reopening
  }

  /** Opens it again where that has failed before, or throws why it cannot be: a disk may still be full. */
  async #expectLevel(): Promise<void> {
    if (this.#level.status === 'open' || this.#isClosed) return
    const failure = await this.#reopen()
    if (failure !== undefined) throw failure
  }

  async #reported<T>(read: () => Promise<T>): Promise<T> {
    try {
      await this.#expectLevel()
      return await read()
    } catch (cause) {
      throw databaseProblem(cause, this.#folder)
    }
  }

  async *#listed(rows: () => AsyncIterable<Row>): AsyncGenerator<Row> {
    try {
      await this.#expectLevel()
      yield* rows()
    } catch (cause) {
      throw databaseProblem(cause, this.#folder)
    }
  }

  #expectOpen(): void {
    if (this.#isClosed) throw closed()
  }

  /** Waits for the changes under way and releases the folder. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.#running
    await this.#reopening
    this.#cache.clear()
    await this.#level.close()
  }
}

/**
 * Whether the folder holds data of LevelDB's that nothing points at any more. A manifest alone is what a stop leaves
 * while a database is made.
 */
export async function lacksCurrent(folder: string): Promise<boolean> {
  const names = await readdir(folder)
  if (names.includes('CURRENT')) return false
  if (names.some((name) => /\.(ldb|sst)$/.test(name))) return true
  const logs = names.filter((name) => name.endsWith('.log'))
  const sizes = await Promise.all(logs.map(async (name) => (await stat(join(folder, name))).size))
  return sizes.some((size) => size > 0)
}

async function expectCurrent(folder: string): Promise<void> {
  if (!(await lacksCurrent(folder))) return
  throw new Problem(
    'store-corrupt',
    `the live tree in ${folder} is damaged: its file CURRENT is gone. Put the folder back from a copy; or move it away for an empty tree: the next garbage collection then deletes what only the old one referred to`,
  )
}

async function reopen(level: Store, folder: string): Promise<Error | undefined> {
  try {
    await level.close()
    await expectCurrent(folder)
    await level.open()
    return undefined
  } catch (error) {
    if (!(error instanceof Error)) throw error
    return error
  }
}

async function readOne(level: Store, key: Buffer, snapshot?: Snapshot): Promise<Buffer | undefined> {
  const value = await level.get(key, snapshot === undefined ? {} : { snapshot })
  return value === undefined ? undefined : unsealed(key, value)
}

async function* readRange(
  level: Store,
  prefix: Buffer,
  after: Buffer | undefined,
  snapshot?: Snapshot,
): AsyncGenerator<Row> {
  const from = after === undefined ? { gte: prefix } : { gt: after }
  const rows = level.iterator({ ...from, lt: endOf(prefix), ...(snapshot && { snapshot }) })
  try {
    for (;;) {
      const page = await rows.nextv(rowsAtOnce)
      if (page.length === 0) return
      for (const [key, value] of page) yield { key, value: unsealed(key, value) }
    }
  } finally {
    await rows.close()
  }
}

function lost(): Problem {
  return new Problem('unavailable', 'stored chunks were lost meanwhile; send the request again')
}

function closed(): Problem {
  return new Problem('unavailable', 'the live tree is closed')
}

/** What LevelDB's error means to whoever runs the receiver. */
function databaseProblem(cause: unknown, folder: string): unknown {
  if (isProblem(cause) || cause instanceof TypeError) return cause
  const errors: { code?: unknown; message: string }[] = []
  for (let at = cause; at instanceof Error; at = at.cause) errors.push(at)
  const codes = errors.map(({ code }) => code)
  const reason = errors.at(-1)?.message ?? String(cause)
  if (codes.includes('LEVEL_LOCKED')) {
    return new Problem('in-use', `${folder} is open in another process; stop it first`, { cause })
  }
  if (codes.includes('LEVEL_CORRUPTION')) {
    return new Problem('store-corrupt', `the live tree in ${folder} is damaged: ${reason}`, { cause })
  }
  if (isDiskFull(cause)) return diskFull(cause)
  return new Problem('unavailable', `the live tree in ${folder} failed: ${reason}`, { cause })
}
