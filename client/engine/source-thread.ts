/**
 * The source's half of a run: follows the scan, compares each directory with what is remembered of it,
 * settles what needs no reading, and queues the files that do.
 *
 * Both the scan and the records come in the order of names, so one pass over both suffices: a record
 * without an entry is a thing that is gone.
 */
import { Problem } from '../../protocol/problem.ts'
import type { CheckpointDatabase, EntryRecord } from './checkpoint-database.ts'
import { fileEntry, otherEntry } from './entries.ts'
import type { LinkedContent } from './hard-links.ts'
import type { Run } from './run.ts'
import type { ScannedEntry, Source, SourceStat } from './source.ts'
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

/** Follows one scan from front to end. */
export async function runSource(
  run: Run,
  source: Source,
  tree: Tree,
  database: CheckpointDatabase,
  queue: QueueFile,
  options: SourceThreadOptions,
): Promise<void> {
  await database.flush()
  const root = await database.get(0, Buffer.alloc(0))
  const follower = new ScanFollower(run, tree, database, queue, options, root)
  for await (const events of source.scan(run.signal)) {
    await run.gate()
    for (const event of events) {
      if (event.type === 'enter') follower.enter(event.name, event.stat)
      else if (event.type === 'entries') await follower.entries(event.entries)
      else if (event.type === 'listed') await follower.listed()
      else if (event.type === 'leave') await follower.leave()
      else if (event.path.length > 0) run.report(event.path, event.code, event.detail)
      // Without its root a source is not an empty one: better no checkpoint than one that says so.
      else throw new Problem(event.code, `the source itself could not be read: ${event.detail}`)
    }
  }
  await run.gate()
  follower.end()
}

interface Level {
  readonly directory: OpenDirectory
  readonly records: RecordCursor
  /** What is remembered of the directories that are still to be entered, by name as a byte string. */
  readonly subdirectories: Map<string, EntryRecord>
}

class ScanFollower {
  readonly #run: Run
  readonly #tree: Tree
  readonly #database: CheckpointDatabase
  readonly #queue: QueueFile
  readonly #options: SourceThreadOptions
  readonly #levels: Level[] = []
  readonly #root: EntryRecord | undefined

  constructor(
    run: Run,
    tree: Tree,
    database: CheckpointDatabase,
    queue: QueueFile,
    options: SourceThreadOptions,
    root: EntryRecord | undefined,
  ) {
    this.#root = root
    this.#run = run
    this.#tree = tree
    this.#database = database
    this.#queue = queue
    this.#options = options
  }

  enter(name: Buffer, stat: SourceStat): void {
    const parent = this.#levels.at(-1)
    const key = name.toString('latin1')
    const record = parent === undefined ? this.#root : parent.subdirectories.get(key)
    parent?.subdirectories.delete(key)
    const directory = this.#tree.enter(parent?.directory, name, stat, record)
    const records = new RecordCursor(
      directory.record === undefined ? undefined : this.#database.records(directory.number),
    )
    this.#levels.push({ directory, records, subdirectories: new Map() })
    this.#run.counts.directories++
  }

  get #level(): Level {
    const level = this.#levels.at(-1)
    if (level === undefined)
      throw new Problem('internal-error', 'the scan told of entries outside any directory')
    return level
  }

  async entries(entries: readonly ScannedEntry[]): Promise<void> {
    const level = this.#level
    for (const entry of entries) {
      const before = await this.#advance(level, entry.name)
      if (entry.kind === 'directory') {
        if (before !== undefined) await this.#rememberDirectory(level, entry, before)
      } else if (entry.kind === 'file') {
        await this.#file(level.directory, entry, before)
      } else {
        await this.#tree.record(level.directory, entry.name, { entry: otherEntry(entry) }, before)
      }
    }
  }

  /** The record of `name`; records that stand before it are of things that are gone. */
  async #advance(level: Level, name: Buffer): Promise<EntryRecord | undefined> {
    for (;;) {
      const next = await level.records.next()
      if (next === undefined) return undefined
      const order = Buffer.compare(next.name, name)
      if (order > 0) return undefined
      level.records.drop()
      if (order === 0) return next.record
      await this.#tree.forget(level.directory, next.name, next.record)
    }
  }

  async #rememberDirectory(level: Level, entry: ScannedEntry, before: EntryRecord): Promise<void> {
    if (before.number !== undefined) level.subdirectories.set(entry.name.toString('latin1'), before)
    else await this.#tree.forget(level.directory, entry.name, before)
  }

  async #file(
    directory: OpenDirectory,
    { name, stat }: ScannedEntry,
    before: EntryRecord | undefined,
  ): Promise<void> {
    this.#run.seen.files++
    this.#run.seen.bytes += stat.size
    const { entry } = before ?? {}
    if (entry?.kind !== 'file' || !this.#isUnchanged(before as EntryRecord, stat)) {
      const path = directory.path.length === 0 ? name : Buffer.concat([directory.path, slash, name])
      directory.open++
      await this.#read({ directory, name, path, stat, before })
      return
    }
    const { id, chunked } = entry
    const record = {
      entry: fileEntry(name, stat, { id, chunked: chunked === true }),
      ctimeNs: stat.ctimeNs,
      inode: stat.inode,
    }
    if (before?.ctimeNs === undefined) await this.#tree.record(directory, name, record, before)
    this.#run.settleFile('unmodified', stat.size, stat.size)
  }

  async #read(task: FileTask): Promise<void> {
    const met = this.#run.links.meet(task)
    if (met === 'read') await this.#queue(task)
    else if (met !== 'wait') await settleFile(this.#run, this.#tree, task, met)
  }

  /** Records that came from the receiver know neither ctime nor inode: size and mtime must do. */
  #isUnchanged({ entry, ctimeNs, inode }: EntryRecord, stat: SourceStat): boolean {
    if (this.#options.verifyContent || entry?.kind !== 'file' || this.#options.distrusted.has(entry.id))
      return false
    if (entry.size !== stat.size || entry.mtimeNs !== stat.mtimeNs) return false
    return ctimeNs === undefined || (ctimeNs === stat.ctimeNs && inode === stat.inode)
  }

  /** The directory is told to its end: whatever records are left are of things that are gone. */
  async listed(): Promise<void> {
    const level = this.#level
    for (;;) {
      const next = await level.records.next()
      if (next === undefined) return
      level.records.drop()
      await this.#tree.forget(level.directory, next.name, next.record)
    }
  }

  async leave(): Promise<void> {
    const level = this.#level
    this.#levels.pop()
    this.#tree.settle(level.directory)
    await this.#tree.room()
  }

  end(): void {
    if (this.#levels.length > 0) throw new Problem('internal-error', 'the scan ended inside a directory')
  }
}

const slash = Buffer.from('/')

/** Remembers a file whose content the receiver has acknowledged, and settles it. */
export async function settleFile(
  run: Run,
  tree: Tree,
  { directory, name, stat, before }: FileTask,
  content: LinkedContent & { readonly sent?: number },
): Promise<void> {
  const entry = fileEntry(name, content.stat, content)
  const { ctimeNs, inode } = content.stat
  const { sent } = content
  const record = { entry, ctimeNs, inode, ...(sent === undefined ? {} : { sent }) }
  await tree.record(directory, name, record, before)
  const same = before?.entry?.kind === 'file' && before.entry.id === content.id
  const as = before?.entry?.kind !== 'file' ? 'new' : same ? 'unmodified' : 'changed'
  run.settleFile(as, content.stat.size, stat.size)
  tree.settle(directory)
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

interface NamedRecord {
  readonly name: Buffer
  readonly record: EntryRecord
}

/** Looks one record ahead. */
class RecordCursor {
  readonly #records: AsyncGenerator<NamedRecord, void, undefined> | undefined
  #ahead: NamedRecord | undefined
  #ended: boolean

  constructor(records: AsyncGenerator<NamedRecord, void, undefined> | undefined) {
    this.#records = records
    this.#ended = records === undefined
  }

  async next(): Promise<NamedRecord | undefined> {
    if (this.#ahead !== undefined || this.#ended) return this.#ahead
    const { value, done } = await (this.#records as AsyncGenerator<NamedRecord, void, undefined>).next()
    if (done === true) this.#ended = true
    else this.#ahead = value as NamedRecord
    return this.#ahead
  }

  drop(): void {
    this.#ahead = undefined
  }
}
