/**
 * The checkpoints of one vault: open → committed, or deleted.
 *
 * Concurrency. Each open checkpoint has a lock that items, commit and delete take: so a commit sees a
 * list that does not change, two commits come one after the other (the second finds it committed), and a
 * delete waits for a commit or makes it fail with `checkpoint-not-found`. Committed checkpoints are
 * deleted under a lock per source, under which numbers are given too. The touched log has a lock of its
 * own: chunks keep coming in while a commit walks.
 *
 * What is open is known in memory, and the files say the same: the file changes first.
 *
 * The file is long because this is the one face of what stands beside it, and all of it shares these locks.
 */
import { join } from 'node:path'
import { Mutex, Semaphore } from 'async-mutex'
import { type Id, idBytes } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { Problem } from '../../protocol/problem.ts'
import type {
  CheckpointState,
  CommitRequest,
  ItemsAnswer,
  ItemsPage,
  ItemsRequest,
  OpenRequest,
  Part,
} from '../../protocol/schema.ts'
import type { CheckpointName } from '../../protocol/url.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import { CheckpointFolder } from './checkpoint-folder.ts'
import {
  begunState,
  checkCommitRequest,
  committedState,
  isSameItem,
  itemsConflict,
  missingChunks,
  notFound,
  pinned,
  sameCommit,
  tooManyOpen,
} from './checkpoint-requests.ts'
import { type CheckpointRoots, committedRoots, type TouchedId, whileThere } from './checkpoint-roots.ts'
import { begunSpace, CheckpointSpace, committedSpace, sourceSpace } from './checkpoint-space.ts'
import type { ChunkReader } from './chunk-reader.ts'
import type { Closure, InTurn } from './closure.ts'
import { appendItems, itemBytes, itemPages, readItems, syncItems } from './item-list.ts'
import { NotedIds } from './noted-ids.ts'
import { keyOf, newOpen, type OpenCheckpoint, openState, type Source, sign } from './open-checkpoint.ts'
import { type Claimant, expectClaimable, expectOwner, unlimited } from './source-owner.ts'
import { appendTouched, readTouched } from './touched-log.ts'
import { type Wanted, wantedItem, wantedRoot } from './wanted.ts'

/** Commits that walk at the same time, per vault: each holds a few objects per level in memory. */
const walksAtOnce = 4
/** How often a commit walks because something was lost under it. */
const maxWalks = 5
/** Sources of a vault. Every one is in memory, and a folder that collections, prunes and lists look into. */
const maxSources = 10_000
/** Open checkpoints of one source: a client has one or two under way, and each that it gave up goes after a week. */
const maxOpen = 64
/** The same with walks under which nothing happened but that a collection began. */
const maxWalksInAll = 50

type OnDamage = (problem: Problem) => void

/** What tells whether somebody goes on with an open checkpoint. */
export interface OpenSigns extends CheckpointName {
  readonly signedAt: number | undefined
  readonly isBusy: boolean
  /** Length of its files: what came in its name over all processes. */
  readonly bytes: number
}

/** See above. Opened by the vault that it belongs to; nothing to close: every answer is on disk already. */
export class Checkpoints {
  private readonly path: string
  private readonly reader: ChunkReader
  private readonly closure: Closure
  private readonly sources = new Map<string, Source>()
  private readonly onDamage: OnDamage
  private readonly files: FileLayer
  private readonly walks = new Semaphore(walksAtOnce)
  private readonly space: CheckpointSpace
  private readonly noted = new NotedIds()

  private constructor(
    path: string,
    reader: ChunkReader,
    closure: Closure,
    onDamage: OnDamage,
    files: FileLayer,
    expectSpace: (bytes: number) => void,
  ) {
    this.path = path
    this.onDamage = onDamage
    this.files = files
    this.reader = reader
    this.closure = closure
    this.space = new CheckpointSpace(expectSpace)
  }

  /**
   * Opens the folder of a vault's checkpoints, which is there, and puts it in order. A damaged checkpoint is
   * left out, here and in lists; `onDamage` is told each time. `expectSpace` throws the Problem when the vault cannot
   * take so many bytes more; it is asked before a checkpoint is begun, and before anything is added to one.
   */
  static async open(
    path: string,
    reader: ChunkReader,
    closure: Closure,
    onDamage: OnDamage = () => {},
    files: FileLayer = nodeFiles,
    expectSpace: (bytes: number) => void = () => {},
  ): Promise<Checkpoints> {
    const checkpoints = new Checkpoints(path, reader, closure, onDamage, files, expectSpace)
    for (const name of await files.names(path)) {
      if ((await files.stat(join(path, name)))?.isFolder) await checkpoints.recover(name)
    }
    return checkpoints
  }

  private async recover(name: string): Promise<void> {
    const source = this.addSource(name)
    source.owner = await source.folder.readOwner()
    source.isBegun = await source.folder.isBegun()
    for (const { state, items, itemBytes } of await source.folder.recover()) {
      source.open.set(state.number, newOpen(state, source.folder, items, itemBytes))
    }
    const space = await source.folder.space()
    for (const [number, bytes] of space) this.space.set(keyOf({ source: name, number }), bytes)
  }

  /** What all checkpoints take on the disk, about (checkpoint-space.ts). */
  get storedBytes(): number {
    return this.space.storedBytes
  }

  /** That something may be added. Problem `insufficient-storage`. */
  expectSpace(): void {
    this.space.expect(1)
  }

  private addSource(name: string): Source {
    const folder = new CheckpointFolder(join(this.path, name), this.onDamage, this.files)
    const source: Source = { folder, lock: new Mutex(), open: new Map(), owner: undefined, isBegun: false }
    this.sources.set(name, source)
    this.space.add(name, sourceSpace)
    return source
  }

  /** Names of sources that have checkpoints, in order. */
  async listSources(): Promise<string[]> {
    const names: string[] = []
    for (const [name, source] of this.sources) {
      if (source.open.size > 0 || (await source.folder.committedNumbers()).length > 0) names.push(name)
    }
    return names.sort()
  }

  /** Every checkpoint of a source, ascending, open ones too, damaged ones left out; none for a source that was never heard of. */
  async list(sourceName: string): Promise<CheckpointState[]> {
    const source = this.sources.get(sourceName)
    if (source === undefined) return []
    const states = new Map([...source.open].map(([number, opened]) => [number, openState(opened)]))
    for (const state of await source.folder.listCommitted()) {
      // A commit that failed at its end has left a file that may not be durable: it is open until it is committed again.
      if (!source.open.has(state.number)) states.set(state.number, state)
    }
    return [...states.values()].sort((a, b) => a.number - b.number)
  }

  /** The open checkpoints of a source, ascending. Reads no file. */
  listOpen(sourceName: string): CheckpointState[] {
    const open = this.sources.get(sourceName)?.open.values() ?? []
    return [...open].map(openState).sort((a, b) => a.number - b.number)
  }

  /** The committed checkpoint with the highest number; undefined when there is none. Damaged ones are passed over. */
  async latest(sourceName: string): Promise<CheckpointState | undefined> {
    const source = this.sources.get(sourceName)
    return await source?.folder.lastCommitted(source.open)
  }

  /**
   * That `by` may open checkpoints of the source, and continue those that are open. Reads no file. Problem
   * `forbidden`; a source that was never heard of is for everybody, but for those of freezes.
   */
  expectUsable(sourceName: string, by: Claimant): void {
    const source = this.sources.get(sourceName)
    if (source?.isBegun === true) expectOwner(sourceName, source.owner, by)
    else expectClaimable(sourceName, by)
  }

  /**
   * Opens a checkpoint under the next number, which was never given before. Durable on return. The source then belongs
   * to whoever opens its first one; Problem `forbidden` for others who may not use it. Problems `conflict` when too many
   * of the source are open, `insufficient-storage`.
   */
  async begin(sourceName: string, request: OpenRequest, by: Claimant = unlimited): Promise<CheckpointState> {
    const begun = begunState(sourceName, request)
    const source = this.sources.get(sourceName) ?? this.beginSource(sourceName, begunSpace(begun))
    return await source.lock.runExclusive(async () => {
      this.expectUsable(sourceName, by)
      if (source.open.size >= maxOpen) throw tooManyOpen(sourceName, maxOpen)
      this.space.expect(begunSpace(begun))
      await source.folder.create()
      // It may be there all the same: under a name that this file system takes for the same, such as `Laptop` for `laptop`.
      if (!source.isBegun && (await source.folder.isBegun())) {
        source.owner = await source.folder.readOwner()
        source.isBegun = true
        this.expectUsable(sourceName, by)
      }
      // Before the first number is given: from then on it counts.
      if (!source.isBegun) await source.folder.setOwner(by.name)
      const number = await source.folder.nextNumber()
      if (!source.isBegun) source.owner = by.name
      source.isBegun = true
      const state: CheckpointState = { ...begun, number, openedAt: new Date().toISOString() }
      this.space.take(keyOf(state), begunSpace(state))
      try {
        await source.folder.begin(state)
      } catch (error) {
        this.space.set(keyOf(state), 0)
        throw error
      }
      const opened = newOpen(state, source.folder, 0, 0)
      sign(opened)
      source.open.set(state.number, opened)
      return openState(opened)
    })
  }

  private beginSource(name: string, bytes: number): Source {
    if (this.sources.size >= maxSources) {
      throw new Problem('insufficient-storage', `the vault has ${maxSources} sources; use one of them`)
    }
    this.space.expect(sourceSpace + bytes)
    return this.addSource(name)
  }

  /**
   * A checkpoint's state. An open `chunks` one tells which items are not whole yet; an open `dir` one, with
   * `root`, what is missing below that. Walks run `inTurn`. Problem `checkpoint-not-found`.
   */
  async state(name: CheckpointName, root?: Id, inTurn?: InTurn): Promise<CheckpointState> {
    const opened = this.sources.get(name.source)?.open.get(name.number)
    if (opened === undefined) return await this.committed(name)
    const state = openState(opened)
    if (state.kind === 'chunks') return { ...state, missing: await this.missingItems(opened, inTurn) }
    if (root === undefined) return state
    const walk = () => this.walk(() => this.closure.missing([[wantedRoot(root)]]))
    const missing = await (inTurn === undefined ? walk() : inTurn(walk))
    return { ...state, missing: missing.map(({ id }) => id) }
  }

  private async missingItems(opened: OpenCheckpoint, inTurn?: InTurn): Promise<Id[]> {
    const missing = new Set<Id>()
    for await (const page of itemPages(
      this.files,
      opened.folder.itemsPath(opened.state.number),
      opened.items,
    )) {
      const left = limits.maxListedMissing - missing.size
      if (left <= 0) break
      for (const id of await this.closure.incomplete(page.map(wantedItem), left, inTurn)) missing.add(id)
    }
    return [...missing]
  }

  private async refuseCommitted(name: CheckpointName): Promise<never> {
    await this.committed(name)
    throw new Problem(
      'forbidden',
      `checkpoint ${name.source}/${name.number} is committed: to delete it takes the right to write`,
    )
  }

  private async committed({ source, number }: CheckpointName): Promise<CheckpointState> {
    const state = await this.sources.get(source)?.folder.readCommitted(number)
    if (state === undefined) throw notFound({ source, number })
    return state
  }

  /** The open checkpoint; Problems `checkpoint-not-found`, `checkpoint-committed`. */
  private async opened(name: CheckpointName): Promise<OpenCheckpoint> {
    const opened = this.sources.get(name.source)?.open.get(name.number)
    if (opened !== undefined) {
      sign(opened)
      return opened
    }
    await this.committed(name)
    throw new Problem('checkpoint-committed', `checkpoint ${name.source}/${name.number} is committed`)
  }

  /** Runs `use` while nobody else changes the open checkpoint. The same problems. */
  private async exclusively<T>(
    name: CheckpointName,
    use: (opened: OpenCheckpoint) => Promise<T>,
  ): Promise<T> {
    const { lock } = await this.opened(name)
    return await lock.runExclusive(async () => await use(await this.opened(name)))
  }

  /** The same; and until the function that it returns is called, somebody is at work in the checkpoint's name. */
  async enter(name: CheckpointName): Promise<() => void> {
    const opened = await this.opened(name)
    opened.users++
    return () => {
      opened.users--
      sign(opened)
    }
  }

  /**
   * Notes that these ids were asked about or sent in the checkpoint's name; `isContent` says of those that they were
   * looked into and are no objects. What is known to stand in the log already is not written again. The same
   * problems, and `insufficient-storage`.
   */
  async touch(
    name: CheckpointName,
    ids: readonly Id[],
    isContent: (id: Id) => boolean = () => false,
  ): Promise<void> {
    const opened = await this.opened(name)
    const path = opened.folder.touchedPath(name.number)
    const touched = ids.map((id) => ({ id, isContent: isContent(id) }))
    if (await opened.touchLock.runExclusive(() => this.appendFresh(name, path, touched))) return
    await this.opened(name)
    throw notFound(name)
  }

  /** False when the checkpoint has no log any more. */
  private async appendFresh(
    name: CheckpointName,
    path: string,
    touched: readonly TouchedId[],
  ): Promise<boolean> {
    if (this.sources.get(name.source)?.open.has(name.number) !== true) return false
    const log = keyOf(name)
    const fresh = this.noted.fresh(log, touched, this.reader.losses)
    if (fresh.length === 0) return true
    const bytes = fresh.length * idBytes
    let isWritten = false
    try {
      this.space.take(log, bytes)
      try {
        isWritten = await appendTouched(this.files, path, fresh)
      } finally {
        // One that was committed meanwhile was counted anew, without its log.
        const isOpen = this.sources.get(name.source)?.open.has(name.number) === true
        if (!isWritten && isOpen) this.space.add(log, -bytes)
      }
    } finally {
      if (!isWritten) this.noted.forget(log)
    }
    return isWritten
  }

  /**
   * Appends items at the list's end, or confirms what stands there; Problem `items-conflict` otherwise.
   * Survives kill -9; durable with the commit. Tells which of these are not whole. Problem `invalid-object`
   * for an item that is here and not what it says, `insufficient-storage`: then none of these is kept. Walks run
   * `inTurn`, which must not wait for what a commit holds: that would wait for this.
   */
  async addItems(
    name: CheckpointName,
    { first, items }: ItemsRequest,
    inTurn?: InTurn,
  ): Promise<ItemsAnswer> {
    return await this.exclusively(name, async (opened) => {
      if (opened.state.kind !== 'chunks') {
        throw new Problem('invalid-request', 'only a checkpoint of kind chunks has items')
      }
      const path = opened.folder.itemsPath(name.number)
      const overlap = Math.min(items.length, opened.items - first)
      if (overlap < 0)
        throw itemsConflict(`the list has ${opened.items} items, ${first} does not continue it`, opened)
      const standing = overlap === 0 ? [] : await readItems(this.files, path, first, overlap)
      if (!standing.every((item, position) => isSameItem(item, items[position]))) {
        throw itemsConflict(`other items stand from ${first} on`, opened)
      }
      const fresh = items.slice(overlap)
      const bytes = fresh.reduce((sum, item) => sum + item.size, opened.itemBytes)
      if (bytes > Number.MAX_SAFE_INTEGER) {
        throw new Problem('invalid-request', 'the items of one checkpoint hold less than 2^53 bytes')
      }
      // All of them are looked at, though only so many are told of: what was kept wrong could never be committed.
      const missing = await this.closure.incomplete(items.map(wantedItem), items.length, inTurn)
      if (fresh.length > 0) {
        this.space.take(keyOf(name), fresh.length * itemBytes)
        try {
          await appendItems(this.files, path, opened.items, fresh)
        } catch (error) {
          this.space.add(keyOf(name), -fresh.length * itemBytes)
          throw error
        }
        opened.items += fresh.length
        opened.itemBytes = bytes
      }
      return { total: opened.items, missing: missing.slice(0, limits.maxListedMissing) }
    })
  }

  /** A page of the list of a `chunks` checkpoint, open or committed. Problems `checkpoint-not-found`, `store-corrupt`. */
  async items(name: CheckpointName, first: number, limit: number): Promise<ItemsPage> {
    const opened = this.sources.get(name.source)?.open.get(name.number)
    const state = opened === undefined ? await this.committed(name) : openState(opened)
    if (state.kind !== 'chunks') throw new Problem('not-found', 'only a checkpoint of kind chunks has items')
    const total = state.items ?? 0
    const folder = (this.sources.get(name.source) as Source).folder
    const count = Math.max(0, Math.min(limit, total - first))
    const items = count === 0 ? [] : await this.itemsThere(name, folder, first, count)
    const next = first + items.length
    return { first, total, items, ...(next < total && items.length > 0 ? { next } : {}) }
  }

  private async itemsThere(
    name: CheckpointName,
    folder: CheckpointFolder,
    first: number,
    count: number,
  ): Promise<Part[]> {
    const path = folder.itemsPath(name.number)
    try {
      return await readItems(this.files, path, first, count)
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause
      // It may have been deleted meanwhile.
      if (this.sources.get(name.source)?.open.has(name.number) !== true) await this.committed(name)
      throw new Problem('store-corrupt', `the item list ${path} is gone`, { cause })
    }
  }

  /**
   * Verifies that everything is here that the checkpoint reaches, makes it durable, and publishes. On
   * return it survives a power cut. The same request again gets the same answer. Problems: `missing-chunks`
   * (the checkpoint stays open), `invalid-object`, `items-conflict`, `checkpoint-committed`.
   */
  async commit(name: CheckpointName, request: CommitRequest): Promise<CheckpointState> {
    const opened = this.sources.get(name.source)?.open.get(name.number)
    if (opened === undefined) return sameCommit(await this.committed(name), request)
    sign(opened)
    return await opened.lock.runExclusive(async () => {
      const source = this.sources.get(name.source) as Source
      if (!source.open.has(name.number)) return sameCommit(await this.committed(name), request)
      checkCommitRequest(opened, request)
      // A collection that begins from here on keeps what the walk finds, also when the root was never sent in its name.
      opened.committing = request.root
      try {
        await this.makeWhole(opened, request)
        const path = opened.folder.itemsPath(name.number)
        if (opened.state.kind === 'chunks') await syncItems(this.files, path)
        const state = committedState(opened, request)
        // Its log and a file go: only a root whose attributes are longer than those takes more than it gives back.
        const growth = committedSpace(state) - this.space.of(keyOf(name))
        if (growth > 0) this.space.expect(growth)
        await opened.folder.commit(state)
        // It is committed whatever comes of its remainders: nobody may look for the files of an open one any more.
        source.open.delete(name.number)
        this.noted.forget(keyOf(name))
        this.space.set(keyOf(name), committedSpace(state))
        await opened.folder.tidy(state)
        return state
      } finally {
        opened.committing = undefined
      }
    })
  }

  /** On return everything that the commit reaches is present and durable. Problem `missing-chunks`. */
  private async makeWhole(opened: OpenCheckpoint, request: CommitRequest): Promise<void> {
    let lossy = 0
    for (let walks = 0; walks < maxWalksInAll && lossy < maxWalks; walks++) {
      const { losses, collections = 0 } = this.reader
      const missing = await this.walk(() => this.closure.missing(this.reached(opened, request)))
      if (missing.length > 0) throw missingChunks(missing)
      await this.reader.flush()
      // What the walk found may have been lost since, by the flush or by a reader that met damage.
      if (this.reader.losses === losses) return
      // Or a collection has begun: what is found from then on stays.
      const begun = (this.reader.collections ?? 0) - collections
      if (this.reader.losses - losses > begun) lossy++
    }
    if (lossy === maxWalks) {
      throw new Problem('unavailable', 'stored chunks keep getting lost; look at the receiver’s disk')
    }
    throw new Problem('unavailable', 'garbage collections began again and again meanwhile; commit again')
  }

  private async *reached(opened: OpenCheckpoint, request: CommitRequest): AsyncGenerator<Wanted[]> {
    if (request.root !== undefined) yield [wantedRoot(request.root)]
    if (opened.state.kind !== 'chunks') return
    for await (const page of itemPages(
      this.files,
      opened.folder.itemsPath(opened.state.number),
      opened.items,
    )) {
      yield page.map(wantedItem)
    }
  }

  private async walk<T>(use: () => Promise<T>): Promise<T> {
    return await this.walks.runExclusive(use)
  }

  /**
   * Removes a checkpoint, open or committed; durable on return. Says which it was. Problems `checkpoint-not-found`, and
   * `conflict` when it is pinned.
   */
  async delete(name: CheckpointName, { onlyOpen = false } = {}): Promise<'open' | 'committed'> {
    const source = this.sources.get(name.source)
    if (source === undefined) throw notFound(name)
    const opened = source.open.get(name.number)
    const remove = async (): Promise<'open' | 'committed'> => {
      // Under the lock: it may have been committed while this waited.
      const was = source.open.has(name.number) ? 'open' : 'committed'
      if (onlyOpen && was === 'committed') await this.refuseCommitted(name)
      if (await source.folder.isPinned(name.number)) throw pinned(name)
      if (!(await this.remove(source, name))) throw notFound(name)
      return was
    }
    if (opened === undefined) return await source.lock.runExclusive(remove)
    return await opened.lock.runExclusive(() => opened.touchLock.runExclusive(remove))
  }

  /** Removes one in whatever state, under its lock; durable on return. It is gone whatever comes of its remainders. */
  private async remove({ folder, open }: Source, name: CheckpointName): Promise<boolean> {
    const removed = await folder.remove(name.number)
    open.delete(name.number)
    this.noted.forget(keyOf(name))
    this.space.set(keyOf(name), 0)
    await folder.removeRemainders(name.number)
    return removed
  }

  /**
   * Removes committed checkpoints, in the order given, and returns which; durable on return. Left are those that are
   * pinned or gone, and whatever is the last of the source that can be read. For a few at a time: nobody begins one meanwhile.
   */
  async deleteOld(sourceName: string, numbers: readonly number[]): Promise<number[]> {
    const source = this.sources.get(sourceName)
    if (source === undefined) return []
    return await source.lock.runExclusive(async () => {
      const last = await source.folder.lastCommitted(source.open)
      const removed: number[] = []
      for (const number of numbers) {
        if (last === undefined || number >= last.number || source.open.has(number)) continue
        if (await source.folder.isPinned(number)) continue
        if (await this.remove(source, { source: sourceName, number })) removed.push(number)
      }
      return removed
    })
  }

  /**
   * What every checkpoint keeps, open ones first: one that is committed meanwhile is among both, or the latter. One that
   * is deleted meanwhile may end early. Problem `store-corrupt` for a committed one that cannot be read.
   */
  async *roots(): AsyncGenerator<CheckpointRoots> {
    yield* this.openRoots()
    for (const { folder } of [...this.sources.values()]) {
      for (const number of await folder.committedNumbers()) {
        const state = await folder.readCommitted(number)
        if (state !== undefined) yield committedRoots(this.files, folder, state)
      }
    }
  }

  /** The same of the open ones alone. */
  openRoots(): CheckpointRoots[] {
    return [...this.sources].flatMap(([source, { open }]) =>
      [...open].map(([number, opened]) => this.rootsOf({ source, number }, opened)),
    )
  }

  private rootsOf(name: CheckpointName, opened: OpenCheckpoint): CheckpointRoots {
    const { folder, committing } = opened
    // Whoever commits or deletes it does so under this lock.
    const isThere = (): Promise<boolean> =>
      opened.lock.runExclusive(() => this.sources.get(name.source)?.open.has(name.number) === true)
    const items = (): AsyncGenerator<Wanted[]> =>
      this.reached(opened, committing === undefined ? {} : { root: committing })
    return {
      name,
      isCommitted: false,
      references: () => whileThere(items, isThere),
      touched: (skipped) =>
        whileThere(() => readTouched(this.files, folder.touchedPath(name.number), skipped), isThere),
    }
  }

  /** The open checkpoints of all sources, and the signs of life that they show. */
  async openSigns(): Promise<OpenSigns[]> {
    const found: OpenSigns[] = []
    for (const [source, { folder, open }] of this.sources) {
      for (const [number, opened] of open) {
        const { signedAt, users, lock, touchLock } = opened
        const isBusy = users > 0 || lock.isLocked() || touchLock.isLocked()
        found.push({ source, number, signedAt, isBusy, bytes: await folder.openBytes(number) })
      }
    }
    return found
  }

  /** Deletes an open checkpoint, durably, unless it has shown a sign of life since `seen`, or is in use. False when it is left, or gone. */
  async deleteAbandoned(
    { source: sourceName, number }: CheckpointName,
    { signedAt }: Pick<OpenSigns, 'signedAt'>,
  ): Promise<boolean> {
    const source = this.sources.get(sourceName)
    const opened = source?.open.get(number)
    if (source === undefined || opened === undefined || opened.lock.isLocked()) return false
    return await opened.lock.runExclusive(() =>
      opened.touchLock.runExclusive(async () => {
        if (opened.users > 0 || opened.signedAt !== signedAt || !source.open.has(number)) return false
        return await this.remove(source, { source: sourceName, number })
      }),
    )
  }

  /** Pins a committed checkpoint, durably: nobody deletes it then. Problems `checkpoint-not-found`, `conflict` for an open one. */
  async pin(name: CheckpointName): Promise<CheckpointState> {
    return await this.committedExclusively(name, async ({ folder }) => {
      const state = await this.committed(name)
      await folder.pin(name.number)
      return { ...state, pinned: true }
    })
  }

  /** Takes the pin off again, durably, when there is one. The same problems. */
  async unpin(name: CheckpointName): Promise<boolean> {
    return await this.committedExclusively(name, async ({ folder }) => {
      // Also of one that cannot be read any more: it could not be deleted otherwise.
      const wasPinned = await folder.unpin(name.number)
      if (!wasPinned) await this.committed(name)
      return wasPinned
    })
  }

  private async committedExclusively<T>(
    name: CheckpointName,
    use: (source: Source) => Promise<T>,
  ): Promise<T> {
    const source = this.sources.get(name.source)
    if (source === undefined) throw notFound(name)
    return await source.lock.runExclusive(async () => {
      if (source.open.has(name.number)) {
        throw new Problem('conflict', `checkpoint ${name.source}/${name.number} is not committed yet`)
      }
      return await use(source)
    })
  }
}
