/**
 * The live tree of a vault: what WebDAV clients write. Its bytes are in the chunk store; here is what stands where.
 *
 * One change at a time, made durable with those that wait beside it (tree-database.ts); tree-change.ts has what
 * a change can do. Readers never wait and see only what is durable. What takes long goes in pieces that each
 * leave a sound tree: a copy of a collection grows unseen in `staging` and is published by one record; what is
 * removed for good goes to `doomed` by one record and is cleared away in the background, also after a restart.
 *
 * The file is long because it is the one face of the tree-*.ts beside it; it has no depth.
 */
import { isProblem, Problem } from '../../protocol/problem.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import { pagesOf } from '../pages.ts'
import { againAfterLoss } from './again-after-loss.ts'
import { makeFolderDurably } from './durable-file.ts'
import {
  type ChangeWatch,
  deadPropertiesOf,
  findRecord,
  membersOf,
  superRoot,
  TreeChange,
} from './tree-change.ts'
import { type Copying, type CopySource, publishCopy } from './tree-copy.ts'
import { type ChunkFlush, TreeDatabase, type TreeWrites } from './tree-database.ts'
import { dropExpired, locksBelow, locksOn } from './tree-locks.ts'
import {
  type DeadProperty,
  type DirectoryRecord,
  decodeJson,
  decodeNote,
  encodeJson,
  type FileRecord,
  type FrozenDirectory,
  keyNumber,
  keys,
  type Lock,
  type Member,
  type Names,
  nodes,
  pathOf,
  type TrashNote,
  type TreeRecord,
  type TreeState,
} from './tree-records.ts'
import { forgetRemovals, removeDoomed } from './tree-removal.ts'
import { type Changes, changesIn, type SyncToken, stateOf } from './tree-sync.ts'

export type { NewContent, TreeChange } from './tree-change.ts'
export type { CopySource } from './tree-copy.ts'
export type * from './tree-records.ts'
export type { Changes, SyncToken } from './tree-sync.ts'

/** A thing in the trash: `trash/{item}/{name}`. */
export interface TrashItem extends TrashNote {
  readonly item: number
  readonly name: Buffer
  readonly record: TreeRecord
}

/** A collection as it was at one moment, to make directory objects of it. */
export interface FrozenView {
  readonly root: DirectoryRecord
  members(directory: number): AsyncIterable<Member>
  /** The object that stood for it, when nothing below it has changed since. */
  frozen(directory: number): Promise<FrozenDirectory | undefined>
  /** Notes the object; written at the end, unless something below has changed meanwhile. */
  remember(directory: number, frozen: FrozenDirectory): void
}

/** Rows written in one change, where there may be any number. */
const rowsAtOnce = 1000
/** Items of the trash that go in one change. */
const purgedAtOnce = 100
/** Of a vault, those that have expired not counted: whoever looks below a path reads all that are there. */
const maxLocks = 10_000
/** Moments, over the time that the trash is kept, of which it is known what was removed before. */
const maxMarks = 16

export interface LiveTreeOptions {
  /** How long what was deleted or overwritten is kept, in ms. */
  readonly trashMs: number
  /**
   * Asked before records are written that refer to content which was stored before, while a garbage collection may be
   * under way: what it finds is kept. Problem `conflict` when some is gone.
   */
  readonly expectHere?: (files: readonly FileRecord[]) => Promise<void>
  /** Told when clearing away fails; it is tried again at the next removal, and at the next opening. */
  readonly onFault?: (error: unknown) => void
  /** Makes the folder of the database; what is in it is LevelDB's. */
  readonly files?: FileLayer
}

export class LiveTree {
  readonly trashMs: number
  readonly #database: TreeDatabase
  readonly #state: TreeState
  readonly #onFault: (error: unknown) => void
  readonly #expectHere: (files: readonly FileRecord[]) => Promise<void>
  /** Directories below which something has changed, for each freeze under way. */
  readonly #dirtied = new Set<Set<number>>()
  /** Locks, expired ones too: where there is none, none is searched for each name of a path. */
  #locksAtMost = Number.POSITIVE_INFINITY
  #locksAdded = 0
  #isDoomed = true
  #clearing: Promise<void> | undefined
  readonly #closing = new AbortController()

  private constructor(database: TreeDatabase, state: TreeState, options: LiveTreeOptions) {
    this.#database = database
    this.#state = state
    this.trashMs = options.trashMs
    this.#onFault = options.onFault ?? (() => {})
    this.#expectHere = options.expectHere ?? (async () => {})
    database.onWritten = (written) => {
      for (const key of written) if (key[0] === keys.allFrozen[0]) this.#noteDirtied(keyNumber(key))
    }
  }

  /**
   * Opens the tree in `folder`, an empty one where there is none, and goes on with what a stop interrupted.
   * Problems `in-use`, `store-corrupt`, `unavailable`.
   */
  static async open(folder: string, chunks: ChunkFlush, options: LiveTreeOptions): Promise<LiveTree> {
    await makeFolderDurably(folder, options.files ?? nodeFiles)
    const database = await TreeDatabase.open(folder, chunks)
    try {
      const known = await database.get(keys.state)
      const state = known === undefined ? await plant(database) : decodeJson<TreeState>(known)
      const tree = new LiveTree(database, state, options)
      await tree.#tidy()
      return tree
    } catch (error) {
      await database.close()
      throw error
    }
  }

  /** What an opening can do without: on a full disk the tree can be read all the same. */
  async #tidy(): Promise<void> {
    try {
      await this.#doomStaging()
      // When there are none, nobody looks for any.
      await this.#expireLocks()
      this.#clear()
    } catch (error) {
      if (!isProblem(error, 'insufficient-storage')) throw error
      this.#onFault(error)
    }
  }

  // -- reading ------------------------------------------------------------------------------------------

  /** What stands at the path, as of the last durable change; undefined when nothing does. */
  async find(names: Names): Promise<TreeRecord | undefined> {
    return await findRecord(this.#database, names)
  }

  /** What is in a collection, in order of the names' bytes, as of the call; a page in memory at a time. */
  members({ node }: DirectoryRecord): AsyncIterable<Member> {
    return membersOf(this.#database, node)
  }

  /** Its dead properties, in order of their names. */
  async deadProperties(record: TreeRecord): Promise<DeadProperty[]> {
    return await deadPropertiesOf(this.#database, record)
  }

  /** The locks that hold for this path, expired ones left out. */
  async locksOn(names: Names): Promise<Lock[]> {
    return this.#locksAtMost > 0 ? await locksOn(this.#database, names) : []
  }

  /** The locks on anything strictly below the path, expired ones left out: to list a collection with its members' locks. */
  async locksBelow(names: Names): Promise<Lock[]> {
    return await locksBelow(this.#database, names)
  }

  /** As `changesIn` of tree-sync.ts, on one durable state. */
  async changesIn(names: Names, since: SyncToken | undefined, limit: number): Promise<Changes | undefined> {
    return await this.#database.at((reads) => changesIn(reads, names, since, limit))
  }

  /** The token of a client that knows all that is durable now. */
  async syncToken(): Promise<SyncToken> {
    const last = (await stateOf(this.#database)).change - 1
    return { upTo: last, begun: last }
  }

  // -- changing -----------------------------------------------------------------------------------------

  /**
   * Runs `work` on a state that nobody else changes; what it throws undoes all that it did. Durable on return,
   * its content included. It must not wait for another change. Problems `unavailable`, `insufficient-storage`.
   */
  async change<T>(work: (change: TreeChange) => Promise<T>): Promise<T> {
    const watch: ChangeWatch = {
      dirtied: (node) => this.#noteDirtied(node),
      doomed: () => {
        this.#isDoomed = true
      },
      locked: (writes) => this.#countLock(writes),
      mayBeLocked: () => this.#locksAtMost > 0,
    }
    try {
      return await this.#database.change(async (writes) => {
        const change = new TreeChange(writes, this.#state, watch)
        const result = await work(change)
        change.finish()
        return result
      })
    } finally {
      this.#clear()
    }
  }

  #noteDirtied(node: number): void {
    for (const dirtied of this.#dirtied) dirtied.add(node)
  }

  /**
   * Copies what is at `from` to `to`; no content is copied. What is at `to` goes to the trash whole. `judge` runs
   * before anything is copied, and again in the change that publishes: it throws what speaks against the copy.
   * A collection is copied as it was at the call. Durable on return. Problems `not-found`, `conflict`, `forbidden`.
   */
  async copy(
    from: Names,
    to: Names,
    depth: 0 | 'infinity',
    judge: (change: TreeChange) => Promise<void>,
  ): Promise<'created' | 'replaced'> {
    return await againAfterLoss(this.#database, () => this.#copyOnce(from, to, depth, judge))
  }

  async #copyOnce(
    from: Names,
    to: Names,
    depth: 0 | 'infinity',
    judge: (change: TreeChange) => Promise<void>,
  ): Promise<'created' | 'replaced'> {
    await this.change(judge)
    const since = this.#database.losses
    return await this.#database.at(async (reads) => {
      const record = await findRecord(reads, from)
      if (record === undefined) throw new Problem('not-found', 'there is nothing at this path')
      const source = { record, members: ({ node }: DirectoryRecord) => membersOf(reads, node) }
      const stillJudge = async (change: TreeChange): Promise<void> => {
        await judge(change)
        const { node } = (await change.find(from)) ?? {}
        if (node !== record.node) throw new Problem('conflict', 'the source was replaced meanwhile')
      }
      return await this.#publish({ source, to, depth, since, judge: stillJudge })
    })
  }

  /** The same for a source outside of the tree. Its content was in the chunk store when `losses` was `since`. */
  async copyIn(
    source: CopySource,
    since: number,
    to: Names,
    depth: 0 | 'infinity',
    judge: (change: TreeChange) => Promise<void>,
  ): Promise<'created' | 'replaced'> {
    await this.change(judge)
    return await this.#publish({ source, to, depth, since, judge })
  }

  async #publish(copying: Copying): Promise<'created' | 'replaced'> {
    const tree = {
      change: <T>(work: (change: TreeChange) => Promise<T>) => this.change(work),
      signal: this.#closing.signal,
      expectHere: this.#expectHere,
      onFault: this.#onFault,
    }
    return await publishCopy(tree, copying)
  }

  // -- the trash ----------------------------------------------------------------------------------------

  /** Where a thing in the trash came from; undefined when there is no such item. */
  async trashNote(item: number): Promise<TrashNote | undefined> {
    if (!Number.isSafeInteger(item) || item < 0 || item >= 2 ** 48) return undefined
    const value = await this.#database.get(keys.trash(item))
    return value === undefined ? undefined : decodeNote(value)
  }

  /** What is in the trash, oldest first. */
  async *trashItems(): AsyncGenerator<TrashItem> {
    for await (const { key, value } of this.#database.range(keys.allTrash)) {
      const item = keyNumber(key)
      const entry = await this.#database.get(keys.entry(nodes.trash, Buffer.from(String(item))))
      if (entry === undefined) continue
      for await (const { name, record } of membersOf(this.#database, decodeJson<TreeRecord>(entry).node)) {
        yield { item, name, record, ...decodeNote(value) }
        break
      }
    }
  }

  /** Removes for good what came into the trash before `before`, and locks that have expired. Returns the items removed. */
  async expire(before: Date): Promise<number> {
    const expired: number[] = []
    for await (const { item, deletedAt } of this.trashItems()) {
      if (deletedAt < before) expired.push(item)
    }
    let removed = 0
    for await (const items of pagesOf(expired, purgedAtOnce)) removed += await this.#purge(items)
    await this.#expireLocks()
    await this.#forgetRemovals(before)
    return removed
  }

  /** Returns how many there were: others may have been restored or removed meanwhile. */
  async #purge(items: readonly number[]): Promise<number> {
    return await this.change(async (change) => {
      let removed = 0
      for (const item of items) {
        const names = [Buffer.from('trash'), Buffer.from(String(item))]
        if ((await change.find(names)) === undefined) continue
        await change.remove(names)
        removed++
      }
      return removed
    })
  }

  async #expireLocks(): Promise<void> {
    const { left, added } = await this.#database.change(async (writes) => {
      return { left: await dropExpired(writes), added: this.#locksAdded }
    })
    // Counted on what is durable now; of a lock that came after it nothing is known here.
    if (this.#locksAdded === added) this.#locksAtMost = left
  }

  async #countLock(writes: TreeWrites): Promise<void> {
    if (this.#locksAtMost >= maxLocks) this.#locksAtMost = await dropExpired(writes)
    if (this.#locksAtMost >= maxLocks) {
      throw new Problem('insufficient-storage', `a vault has at most ${maxLocks} locks`)
    }
    this.#locksAtMost++
    this.#locksAdded++
  }

  /** Names that went before `before` are not told any more to who asks what changed. */
  async #forgetRemovals(before: Date): Promise<void> {
    const state = this.#state
    const { marks } = state
    const now = Date.now()
    const past = marks.findLastIndex(({ atMs }) => atMs < before.getTime())
    const upTo = past < 0 ? 0 : (marks[past] as { change: number }).change
    const isDue = (now - (marks.at(-1)?.atMs ?? 0)) * maxMarks >= now - before.getTime()
    if (!isDue && upTo <= state.forgotten) return
    // They are written with each change.
    state.marks = [
      ...marks.slice(Math.max(0, past)),
      ...(isDue ? [{ atMs: now, change: state.change - 1 }] : []),
    ]
    state.forgotten = Math.max(state.forgotten, upTo)
    await this.#database.change(async (writes) => writes.put(keys.state, encodeJson(state)))
    await forgetRemovals(this.#database, upTo, this.#closing.signal)
  }

  // -- freezing -----------------------------------------------------------------------------------------

  /**
   * Shows `use` the collection as it is now, to make directory objects of it. What it remembers is written when
   * it returns, so that the next freeze makes only what has changed. Problem `not-found`.
   */
  async freeze<T>(names: Names, use: (view: FrozenView) => Promise<T>): Promise<T> {
    const dirtied = new Set<number>()
    const remembered = new Map<number, FrozenDirectory>()
    this.#dirtied.add(dirtied)
    try {
      // What is not in the snapshot is noted, when it is done and when it is written: a change may be between the two.
      return await this.#database.at(async (reads) => {
        const root = await findRecord(reads, names)
        if (root?.kind !== 'directory') {
          throw new Problem('not-found', `there is no collection at ${pathOf(names).toString('utf8')}`)
        }
        const result = await use({
          root,
          members: (directory) => membersOf(reads, directory),
          frozen: async (directory) => {
            const value = await reads.get(keys.frozen(directory))
            return value === undefined ? undefined : decodeJson<FrozenDirectory>(value)
          },
          remember: (directory, frozen) => void remembered.set(directory, frozen),
        })
        for await (const page of pagesOf(remembered, rowsAtOnce)) {
          await this.#database.change(async (writes) => {
            for (const [node, frozen] of page) {
              if (!dirtied.has(node)) writes.put(keys.frozen(node), encodeJson(frozen))
            }
          })
        }
        return result
      })
    } finally {
      this.#dirtied.delete(dirtied)
    }
  }

  /** Forgets all directory objects: one of them turned out to be gone. */
  async forgetFrozen(): Promise<void> {
    for await (const page of pagesOf(this.#database.range(keys.allFrozen), rowsAtOnce)) {
      await this.#database.change(async (writes) => {
        for (const { key } of page) writes.remove(key)
      })
    }
  }

  /**
   * Every content that the tree and its trash reach: roots of garbage collection. As of the call, with the changes that
   * are being written: whether their chunks are here has been judged already.
   */
  async *contents(): AsyncGenerator<FileRecord> {
    // Whether those that share its batch are refused is nothing to whoever asks here.
    await Promise.allSettled([this.#database.change(async () => {})])
    for await (const { value } of this.#database.range(keys.allEntries)) {
      const record = decodeJson<TreeRecord>(value)
      if (record.kind === 'file') yield record
    }
  }

  // -- clearing away ------------------------------------------------------------------------------------

  /** Copies that a stop left unfinished. */
  async #doomStaging(): Promise<void> {
    for await (const { name, record } of membersOf(this.#database, nodes.staging)) {
      await this.#database.change(async (writes) => {
        writes.remove(keys.entry(nodes.staging, name))
        writes.put(keys.entry(nodes.doomed, name), encodeJson(record))
      })
    }
  }

  /** Removes what is doomed, in the background; a call while that is under way makes it look again. */
  #clear(): void {
    if (!this.#isDoomed || this.#clearing !== undefined || this.#closing.signal.aborted) return
    this.#isDoomed = false
    this.#clearing = removeDoomed(this.#database, this.#closing.signal)
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#onFault(error)
      })
      .finally(() => {
        this.#clearing = undefined
        this.#clear()
      })
  }

  /** Resolves when nothing is being cleared away, or when `signal` is aborted. */
  async settled(signal?: AbortSignal): Promise<void> {
    const aborted = Promise.withResolvers<void>()
    const abort = (): void => aborted.resolve()
    signal?.addEventListener('abort', abort, { once: true })
    while (this.#clearing !== undefined && signal?.aborted !== true) {
      await Promise.race([this.#clearing, aborted.promise])
    }
    signal?.removeEventListener('abort', abort)
  }

  /** Waits for changes under way and releases the folder; clearing away goes on at the next opening. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#clearing
    await this.#database.close()
  }
}

/** The first state: the four collections of node 0. */
async function plant(database: TreeDatabase): Promise<TreeState> {
  const state: TreeState = { node: nodes.firstFree, change: 1, item: 1, forgotten: 0, marks: [] }
  const now = `${Date.now()}000000`
  const names = ['tree', 'trash', 'staging', 'doomed'] as const
  await database.change(async (writes) => {
    for (const name of names) {
      const record: DirectoryRecord = { ...superRoot, node: nodes[name], mtimeNs: now, createdNs: now }
      writes.put(keys.entry(nodes.root, Buffer.from(name)), encodeJson(record))
    }
    writes.put(keys.state, encodeJson(state))
  })
  return state
}
