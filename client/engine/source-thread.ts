/**
 * The source's half of a run: follows the scan, compares each directory with what is remembered of it,
 * settles what needs no reading, and queues the files that do.
 *
 * Both the scan and the records come in the order of names, so one pass over both suffices: a record
 * without an entry is a thing that is gone.
 */
import { Problem } from '../../protocol/problem.ts'
import type { FileEntry } from '../../protocol/schema.ts'
import type { CheckpointDatabase, EntryRecord, NamedRecord } from './checkpoint-database.ts'
import { fileEntry, otherEntry, sameEntry } from './entries.ts'
import type { LinkedContent } from './hard-links.ts'
import { fingerprintOf } from './packed-stat.ts'
import type { RecordReader } from './record-reader.ts'
import type { Run } from './run.ts'
import type { ScanEvent, ScannedEntry, SourceStat } from './source.ts'
import type { OpenDirectory, Tree } from './tree.ts'

/** A file whose content must be read. */
export interface FileTask {
  readonly directory: OpenDirectory
  readonly name: Buffer
  readonly path: Buffer
  readonly stat: SourceStat
  readonly before: EntryRecord | undefined
}

export interface SourceThreadOptions {
  /** Read every file, whatever its stat says. */
  readonly verifyContent: boolean
  /** Ids that the receiver was found to lack. */
  readonly distrusted: ReadonlySet<string>
}

/** Where files go that must be read. Resolves when there was room. */
export type QueueFile = (task: FileTask) => Promise<void>

/** Follows one scan from front to end. What need not wait for anything does not: most entries settle at once. */
export async function runSource(
  run: Run,
  scan: AsyncIterable<readonly ScanEvent[]>,
  tree: Tree,
  database: CheckpointDatabase,
  queue: QueueFile,
  options: SourceThreadOptions,
): Promise<void> {
  await database.flush()
  const root = await database.get(0, Buffer.alloc(0))
  const reader = database.reader()
  const follower = new ScanFollower(run, tree, reader, queue, options, root)
  try {
    for await (const events of scan) {
      await run.gate()
      for (const event of events) {
        const waiting = follower.take(event)
        if (waiting !== undefined) await waiting
      }
    }
  } finally {
    await reader.close()
  }
  await run.gate()
  follower.end()
}

interface Level {
  readonly directory: OpenDirectory
  /** There are records of it. */
  readonly isKnown: boolean
  /** What is remembered of the directories that are still to be entered, by name as a byte string. */
  readonly subdirectories: Map<string, EntryRecord>
}

class ScanFollower {
  readonly #run: Run
  readonly #tree: Tree
  readonly #reader: RecordReader<NamedRecord>
  readonly #queue: QueueFile
  readonly #options: SourceThreadOptions
  readonly #levels: Level[] = []
  readonly #root: EntryRecord | undefined

  constructor(
    run: Run,
    tree: Tree,
    reader: RecordReader<NamedRecord>,
    queue: QueueFile,
    options: SourceThreadOptions,
    root: EntryRecord | undefined,
  ) {
    this.#root = root
    this.#run = run
    this.#tree = tree
    this.#reader = reader
    this.#queue = queue
    this.#options = options
  }

  take(event: ScanEvent): Promise<void> | undefined {
    if (event.type === 'entries') return this.#entries(event.entries, 0)
    if (event.type === 'listed') return this.#level.isKnown ? this.#listed(this.#level) : undefined
    if (event.type === 'leave') return this.#leave()
    if (event.type === 'enter') this.#enter(event.name, event.stat)
    else if (event.path.length > 0) this.#run.report(event.path, event.code, event.detail)
    // Without its root a source is not an empty one: better no checkpoint than one that says so.
    else throw new Problem(event.code, `the source itself could not be read: ${event.detail}`)
    return undefined
  }

  #enter(name: Buffer, stat: SourceStat): void {
    const parent = this.#levels.at(-1)
    const key = name.toString('latin1')
    const record = parent === undefined ? this.#root : parent.subdirectories.get(key)
    parent?.subdirectories.delete(key)
    const directory = this.#tree.enter(parent?.directory, name, stat, record)
    const isKnown = directory.record !== undefined
    if (isKnown) this.#reader.enter(directory.number)
    this.#levels.push({ directory, isKnown, subdirectories: new Map() })
    this.#run.counts.directories++
  }

  get #level(): Level {
    const level = this.#levels.at(-1)
    if (level === undefined)
      throw new Problem('internal-error', 'the scan told of entries outside any directory')
    return level
  }

  /** Settles the entries from `first` on; a promise when one of them has to wait for something. */
  #entries(entries: readonly ScannedEntry[], first: number): Promise<void> | undefined {
    const level = this.#level
    for (let i = first; i < entries.length; i++) {
      const entry = entries[i] as ScannedEntry
      const before = level.isKnown ? this.#advance(level, entry.name) : undefined
      const waiting =
        before instanceof Promise
          ? before.then((record) => this.#entry(level, entry, record))
          : this.#entry(level, entry, before)
      if (waiting !== undefined) return waiting.then(() => this.#entries(entries, i + 1))
    }
    return undefined
  }

  #entry(level: Level, entry: ScannedEntry, before: NamedRecord | undefined): Promise<void> | undefined {
    const { name, kind, stat } = entry
    if (kind === 'file') return this.#file(level.directory, entry, before)
    const record = before?.record
    if (kind === 'directory') {
      if (record?.number === undefined) return this.#tree.forget(level.directory, name, record)
      level.subdirectories.set(name.toString('latin1'), record)
      return undefined
    }
    const found = otherEntry(entry)
    if (before?.isOf(kind, stat) && sameEntry(record?.entry, found)) return undefined
    return this.#tree.record(level.directory, name, { entry: found }, record, fingerprintOf(kind, stat))
  }

  /** The record of `name`; records that stand before it are of things that are gone. */
  #advance(level: Level, name: Buffer): NamedRecord | undefined | Promise<NamedRecord | undefined> {
    const next = this.#reader.next()
    return next instanceof Promise
      ? next.then((at) => this.#compared(level, name, at))
      : this.#compared(level, name, next)
  }

  #compared(
    level: Level,
    name: Buffer,
    next: NamedRecord | undefined,
  ): NamedRecord | undefined | Promise<NamedRecord | undefined> {
    const order = next === undefined ? 1 : Buffer.compare(next.name, name)
    if (next === undefined || order > 0) return undefined
    this.#reader.drop()
    if (order === 0) return next
    return this.#forgetBefore(level, name, next)
  }

  /** `gone` is gone; and so is what stands between it and `name`. */
  async #forgetBefore(level: Level, name: Buffer, gone: NamedRecord): Promise<NamedRecord | undefined> {
    for (let at = gone; ; ) {
      await this.#tree.forget(level.directory, at.name, at.record)
      const next = await this.#reader.next()
      const order = next === undefined ? 1 : Buffer.compare(next.name, name)
      if (next === undefined || order > 0) return undefined
      this.#reader.drop()
      if (order === 0) return next
      at = next
    }
  }

  #file(
    directory: OpenDirectory,
    { name, stat }: ScannedEntry,
    before: NamedRecord | undefined,
  ): Promise<void> | undefined {
    const { size } = stat
    this.#run.seen.files++
    this.#run.seen.bytes += size
    const { verifyContent, distrusted } = this.#options
    const isSame = before?.isOf('file', stat) === true && !verifyContent
    // Most files end here, and nothing of them was parsed.
    if (isSame && distrusted.size === 0) {
      this.#run.settleFile('unmodified', size, size)
      return undefined
    }
    const record = before?.record
    const { entry } = record ?? {}
    const hasContent = !verifyContent && entry?.kind === 'file' && !distrusted.has(entry.id)
    if (hasContent && (isSame || this.#isUntouched(before as NamedRecord, entry, stat))) {
      this.#run.settleFile('unmodified', size, size)
      if (isSame) return undefined
      const found = fileEntry(name, stat, { id: entry.id, chunked: entry.chunked === true })
      return this.#tree.record(directory, name, { entry: found }, record, fingerprintOf('file', stat))
    }
    const path = directory.path.length === 0 ? name : Buffer.concat([directory.path, slash, name])
    directory.open++
    return this.#read({ directory, name, path, stat, before: record })
  }

  async #read(task: FileTask): Promise<void> {
    const met = this.#run.links.meet(task)
    if (met === 'read') await this.#queue(task)
    else if (met !== 'wait') await settleFile(this.#run, this.#tree, task, met)
  }

  /** Records that came from the receiver know neither ctime nor inode: size and mtime must do. */
  #isUntouched({ hasFingerprint }: NamedRecord, { size, mtimeNs }: FileEntry, stat: SourceStat): boolean {
    return !hasFingerprint && size === stat.size && mtimeNs === stat.mtimeNs
  }

  /** The directory is told to its end: whatever records are left are of things that are gone. */
  #listed(level: Level): Promise<void> | undefined {
    const next = this.#reader.next()
    return next === undefined ? undefined : this.#forgetRest(level, next)
  }

  async #forgetRest(level: Level, first: NamedRecord | Promise<NamedRecord | undefined>): Promise<void> {
    for (let next = await first; next !== undefined; next = await this.#reader.next()) {
      this.#reader.drop()
      await this.#tree.forget(level.directory, next.name, next.record)
    }
  }

  #leave(): Promise<void> | undefined {
    const level = this.#level
    this.#levels.pop()
    this.#tree.settle(level.directory)
    return this.#tree.room()
  }

  end(): void {
    if (this.#levels.length > 0) throw new Problem('internal-error', 'the scan ended inside a directory')
  }
}

const slash = Buffer.from('/')

/** Remembers a file whose content the receiver has acknowledged, and settles it. A promise where there is something to wait for. */
export function settleFile(
  run: Run,
  tree: Tree,
  { directory, name, stat, before }: FileTask,
  content: LinkedContent & { readonly sent?: number },
): Promise<void> | undefined {
  const entry = fileEntry(name, content.stat, content)
  const { sent } = content
  const record = { entry, ...(sent === undefined ? {} : { sent }) }
  const settle = (): void => {
    const same = before?.entry?.kind === 'file' && before.entry.id === content.id
    const as = before?.entry?.kind !== 'file' ? 'new' : same ? 'unmodified' : 'changed'
    run.settleFile(as, content.stat.size, stat.size)
    tree.settle(directory)
  }
  const recorded = tree.record(directory, name, record, before, fingerprintOf('file', content.stat))
  if (recorded !== undefined) return recorded.then(settle)
  settle()
  return undefined
}

/**
 * Reports a file that cannot be backed up, and settles it without. Returns a further name of its inode that
 * must be tried in its stead.
 */
export async function giveUpFile(
  run: Run,
  tree: Tree,
  task: FileTask,
  problem: Problem,
): Promise<FileTask | undefined> {
  run.report(task.path, problem.code, problem.message)
  await tree.forget(task.directory, task.name, task.before)
  run.settled.files++
  run.settled.bytes += task.stat.size
  const heir = run.links.fail(task)
  tree.settle(task.directory)
  return heir
}
