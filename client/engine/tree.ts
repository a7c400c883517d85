/**
 * The tree while it is being backed up: directories that are still open, and what becomes of each entry.
 *
 * The source thread enters and leaves directories; the target thread settles files, in any order and
 * while the source is elsewhere. A directory is finished when it was left and everything in it is
 * settled: then its object is built from its records, and its parent learns the id. A directory in
 * which nothing changed keeps the id that it had, and costs nothing.
 *
 * Recovery: see checkpoint-database.ts. The order of writes is the only thing that matters here: a
 * directory is marked dirty before the first change below it is recorded, and so is its parent before
 * its own new id is.
 */

import type { Id } from '../../protocol/id.ts'
import { DirectoryListBuilder, FileListBuilder } from '../../protocol/list-builder.ts'
import type { EncodedObject } from '../../protocol/objects.ts'
import type { DirectoryEntry, Entry, Part } from '../../protocol/schema.ts'
import type { CheckpointDatabase, EntryRecord } from './checkpoint-database.ts'
import { directoryEntry, sameEntry } from './entries.ts'
import type { SourceStat } from './source.ts'

export interface OpenDirectory {
  readonly number: number
  readonly name: Buffer
  readonly path: Buffer
  readonly stat: SourceStat
  readonly parent: OpenDirectory | undefined
  readonly record: EntryRecord | undefined
  dirty: boolean
  /** Unsettled files and directories below, and one for as long as it is not left. */
  open: number
}

/** Sends objects; resolves when the receiver has them. */
export type PutObjects = (objects: readonly EncodedObject[]) => Promise<void>

const nothing = Buffer.alloc(0)
/** Objects of one directory that are built before they are sent. */
const objectsAhead = 16
/** Directories that are being finished at once, before the scan is held back. */
const maxFinishing = 64

export class Tree {
  readonly #database: CheckpointDatabase
  readonly #putObjects: PutObjects
  readonly #withLists: boolean
  readonly #distrusted: ReadonlySet<string>
  readonly #onFailure: (error: unknown) => void
  readonly #finishing = new Set<Promise<void>>()
  #settleRoot: () => void = () => {}
  /** Resolves when the root is finished. */
  readonly finished: Promise<void>

  /**
   * `withLists`: also keep, for each directory, the list of its chunks: its files' content, then its own
   * objects. What is below its subdirectories is in their lists: lists do not nest as deep as trees do.
   * `distrusted`: ids that the receiver was found to lack; a directory with such an id is built anew.
   */
  constructor(
    database: CheckpointDatabase,
    putObjects: PutObjects,
    options: { withLists: boolean; distrusted: ReadonlySet<string>; onFailure: (error: unknown) => void },
  ) {
    this.#database = database
    this.#putObjects = putObjects
    this.#withLists = options.withLists
    this.#distrusted = options.distrusted
    this.#onFailure = options.onFailure
    this.finished = new Promise((resolve) => {
      this.#settleRoot = resolve
    })
  }

  /** Opens a directory. `record` is what was remembered of it. */
  enter(
    parent: OpenDirectory | undefined,
    name: Buffer,
    stat: SourceStat,
    record: EntryRecord | undefined,
  ): OpenDirectory {
    const known = record?.number === undefined ? undefined : record
    const number = known?.number ?? this.#database.newNumber()
    const path =
      parent === undefined || parent.path.length === 0
        ? name
        : Buffer.concat([parent.path, Buffer.from('/'), name])
    const directory: OpenDirectory = {
      number,
      name,
      path,
      stat,
      parent,
      record: known,
      dirty: false,
      open: 1,
    }
    if (parent !== undefined) parent.open++
    const { entry } = known ?? {}
    const usable = entry?.kind === 'directory' && !this.#distrusted.has(entry.id)
    if (!usable || (this.#withLists && !this.#hasList(known))) this.markDirty(directory)
    return directory
  }

  #hasList(record: EntryRecord | undefined): boolean {
    return record?.list !== undefined && !this.#distrusted.has(record.list.id)
  }

  /** Writes down that the directory's object is out of date. Idempotent. */
  markDirty(directory: OpenDirectory): void {
    if (directory.dirty) return
    directory.dirty = true
    this.#database.put(directory.parent?.number ?? 0, directory.name, {
      number: directory.number,
      dirty: true,
    })
  }

  /**
   * Remembers an entry, by `fingerprint` where there is one. `before` is what was remembered of that name. A promise where
   * there is something to wait for.
   */
  record(
    directory: OpenDirectory,
    name: Buffer,
    record: EntryRecord,
    before: EntryRecord | undefined,
    fingerprint?: Buffer,
  ): Promise<void> | undefined {
    if (!sameEntry(before?.entry, record.entry)) this.markDirty(directory)
    const put = (): void => this.#database.put(directory.number, name, record, fingerprint)
    if (before?.number !== undefined && record.number === undefined) {
      return this.#database.removeBelow(before.number).then(put)
    }
    put()
    return undefined
  }

  /** Forgets a name that is gone, or that could not be read. */
  forget(directory: OpenDirectory, name: Buffer, before: EntryRecord | undefined): Promise<void> | undefined {
    if (before === undefined) return undefined
    this.markDirty(directory)
    this.#database.remove(directory.number, name)
    return before.number === undefined ? undefined : this.#database.removeBelow(before.number)
  }

  /** One file or directory in it is settled, or the directory is left. */
  settle(directory: OpenDirectory): void {
    for (let at: OpenDirectory | undefined = directory; at !== undefined; at = at.parent) {
      at.open--
      if (at.open > 0) return
      if (at.dirty) {
        this.#finishLater(at)
        return
      }
      const { entry, ...rest } = at.record as EntryRecord
      const { id } = entry as Entry & { kind: 'directory' }
      this.#remember(at, { ...rest, entry: directoryEntry(at.name, at.stat, id) })
    }
  }

  #finishLater(directory: OpenDirectory): void {
    const finishing = this.#finish(directory)
      .catch(this.#onFailure)
      .finally(() => this.#finishing.delete(finishing))
    this.#finishing.add(finishing)
  }

  /** A promise when too many directories are being finished: whoever opens more waits for it. */
  room(): Promise<void> | undefined {
    return this.#finishing.size < maxFinishing ? undefined : this.#fewerFinishing()
  }

  async #fewerFinishing(): Promise<void> {
    while (this.#finishing.size >= maxFinishing) await Promise.race(this.#finishing)
  }

  async #finish(directory: OpenDirectory): Promise<void> {
    const { name, number, parent, stat } = directory
    const { id, list } = await this.#build(number)
    const record = { entry: directoryEntry(name, stat, id), number, ...(list === undefined ? {} : { list }) }
    this.#remember(directory, record)
    if (parent !== undefined) this.settle(parent)
  }

  /** `next` is what is known of the directory from now on. */
  #remember({ dirty, parent, name, record }: OpenDirectory, next: EntryRecord): void {
    const isChanged = !sameEntry(record?.entry, next.entry)
    if (isChanged && parent !== undefined) this.markDirty(parent)
    if (isChanged || dirty) this.#database.put(parent?.number ?? 0, name, next)
    if (parent === undefined) this.#settleRoot()
  }

  /** Builds a directory's object from its records and sends it, in bounded memory. */
  async #build(number: number): Promise<{ id: Id; list?: Part }> {
    const builder = new DirectoryListBuilder()
    const list = this.#withLists ? new FileListBuilder() : undefined
    let objects: EncodedObject[] = []
    for await (const { record } of this.#database.records(number)) {
      if (record.entry === undefined) throw new TypeError('a directory was built before what is in it')
      objects.push(...listContent(list, record), ...this.#listed(list, builder.add(record.entry)))
      if (objects.length >= objectsAhead) {
        await this.#putObjects(objects)
        objects = []
      }
    }
    const { objects: last, reference: id } = builder.finish()
    objects.push(...this.#listed(list, last))
    const whole = list?.finish()
    if (whole !== undefined) objects.push(...whole.objects)
    await this.#putObjects(objects)
    return whole === undefined ? { id } : { id, list: whole.reference }
  }

  /** Directory objects are chunks too: the list of a `chunks` checkpoint names them behind the content. */
  #listed(list: FileListBuilder | undefined, objects: EncodedObject[]): EncodedObject[] {
    if (list === undefined) return objects
    return objects.flatMap((object) => [object, ...list.add({ id: object.id, size: object.bytes.length })])
  }

  /** The root's entry and number. After `finished`. */
  async root(): Promise<{ entry: DirectoryEntry; number: number }> {
    await this.#database.flush()
    const record = await this.#database.get(0, nothing)
    if (record?.entry?.kind !== 'directory' || record.number === undefined) {
      throw new TypeError('the root is not finished')
    }
    return { entry: record.entry, number: record.number }
  }

  /** The list of every chunk of the tree, directory by directory, as one part. After `finished`. */
  async wholeList(): Promise<Part> {
    const builder = new FileListBuilder()
    const root = await this.#database.get(0, nothing)
    await this.#putObjects(builder.add(root?.list as Part))
    const numbers = [root?.number as number]
    for (let number = numbers.pop(); number !== undefined; number = numbers.pop()) {
      for await (const { record } of this.#database.records(number)) {
        if (record.number === undefined) continue
        numbers.push(record.number)
        await this.#putObjects(builder.add(record.list as Part))
      }
    }
    const { objects, reference } = builder.finish()
    await this.#putObjects(objects)
    return reference
  }
}

function listContent(list: FileListBuilder | undefined, { entry }: EntryRecord): EncodedObject[] {
  if (list === undefined || entry?.kind !== 'file') return []
  return list.add({ id: entry.id, size: entry.size, ...(entry.chunked ? { chunked: true as const } : {}) })
}
