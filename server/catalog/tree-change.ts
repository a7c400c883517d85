/**
 * What can be done to the live tree within one change (tree-database.ts): all of it or nothing.
 *
 * Invariants that each method keeps:
 * - Nothing that has content is lost: what is removed or replaced stands in the trash afterwards, under an item
 *   of its own, with a note of where it was.
 * - Every change of an entry has a number; the directory's row for it (`c`) replaces the entry's older one, so it
 *   has one for each of its entries. A name that goes leaves a row (`d`) until removals so old are forgotten.
 * - A directory object that stood for a directory is forgotten before anything below that directory differs.
 *
 * One class, though it is long: all of its methods end in the same few lines about places, numbers and the trash.
 */
import { nameFault } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { Part } from '../../protocol/schema.ts'
import type { TreeReads, TreeWrites } from './tree-database.ts'
import { locksBelow, locksOn } from './tree-locks.ts'
import {
  type DeadProperty,
  type DirectoryRecord,
  decodeJson,
  encodeJson,
  encodeLock,
  encodeNote,
  type FileRecord,
  keyRest,
  keys,
  type Lock,
  type Member,
  type Names,
  nodes,
  type PropertyName,
  pathOf,
  type TrashReason,
  type TreeRecord,
  type TreeState,
} from './tree-records.ts'

/** Content that is stored already. */
export interface NewContent {
  readonly part: Part
  readonly md5: string
  readonly sha1: string
  /** The client's, when it said one. */
  readonly mtimeNs?: string
  /** The store's `losses` before the first of its chunks was put. */
  readonly since: number
}

/** Bytes of one name: what file systems take. */
const maxNameBytes = 255
/** Bytes of a path below the vault, slashes included. */
const maxPathBytes = 4096

/** UTF-8 bytes of a resource's dead properties, names and values: they are read as one. */
const maxPropertyBytes = 1024 * 1024

/** Who is told of what a change does, at once, whether or not it comes to pass. */
export interface ChangeWatch {
  /** Something changes below this directory. */
  dirtied(node: number): void
  /** There is something to clear away. */
  doomed(): void
  /** A lock is to be added, and is none of those that are there. Throws when there are too many. */
  locked(writes: TreeWrites): Promise<void>
  /** Whether there can be a lock. */
  mayBeLocked(): boolean
}

/** Where a path leads. */
interface Place {
  /** The directories on the way, from node 0 on; the last is the parent. */
  readonly trail: readonly DirectoryRecord[]
  readonly parent: DirectoryRecord
  /** The parent's own name; undefined for node 0. */
  readonly parentName: Buffer | undefined
  readonly name: Buffer
  readonly record: TreeRecord | undefined
}

export const superRoot: DirectoryRecord = {
  kind: 'directory',
  node: nodes.root,
  version: 0,
  changed: 0,
  mtimeNs: '0',
  createdNs: '0',
}

const atTop = { trail: [superRoot], parent: superRoot, parentName: undefined }

/** What stands at the path; undefined when nothing does. */
export async function findRecord(reads: TreeReads, names: Names): Promise<TreeRecord | undefined> {
  let record: TreeRecord = superRoot
  let placed = 0
  for (const name of names) {
    if (record.kind === 'file') return undefined
    const value = await reads.get(keys.entry(record.node, name))
    if (value === undefined) return undefined
    record = decodeJson<TreeRecord>(value)
    if (record.kind === 'directory') placed = Math.max(placed, record.placed ?? 0)
  }
  return record.kind === 'directory' ? { ...record, placed } : record
}

export async function* membersOf(reads: TreeReads, directory: number): AsyncGenerator<Member> {
  for await (const { key, value } of reads.range(keys.entries(directory))) {
    yield { name: Buffer.from(keyRest(key)), record: decodeJson<TreeRecord>(value) }
  }
}

export async function deadPropertiesOf(
  reads: TreeReads,
  { node, dead }: TreeRecord,
): Promise<DeadProperty[]> {
  const properties: DeadProperty[] = []
  if (dead !== true) return properties
  for await (const { key, value } of reads.range(keys.properties(node))) {
    properties.push({ name: keyRest(key).toString('utf8'), xml: value.toString('utf8') })
  }
  return properties
}

export class TreeChange {
  readonly #writes: TreeWrites
  readonly #state: TreeState
  readonly #watch: ChangeWatch
  #tookNumbers = false

  /** Numbers are taken from `state`. */
  constructor(writes: TreeWrites, state: TreeState, watch: ChangeWatch) {
    this.#writes = writes
    this.#state = state
    this.#watch = watch
  }

  /** What stands there, with what this change did already. */
  find(names: Names): Promise<TreeRecord | undefined> {
    return findRecord(this.#writes, names)
  }

  /**
   * Puts a file with this content. One that is there keeps its number, its time of creation and its dead
   * properties; its old content goes to the trash. Problems `conflict` without a parent collection,
   * `method-not-allowed` on a collection, `forbidden` outside the tree.
   */
  async putFile(names: Names, content: NewContent): Promise<FileRecord> {
    const place = await this.#placeIn(names)
    const { record: old } = place
    if (old?.kind === 'directory')
      throw new Problem('method-not-allowed', 'a collection has no content to replace')
    // An empty file is no loss, and clients that lock a name before they write make many.
    const isLoss = old !== undefined && old.size > 0 && old.id !== content.part.id
    if (isLoss) await this.#discard(names, await this.#copyOf(old), 'overwritten')
    const change = this.#nextChange()
    const { id, size, chunked } = content.part
    const now = nowNs()
    const record: FileRecord = {
      kind: 'file',
      node: old?.node ?? this.#nextNode(),
      version: change,
      changed: change,
      mtimeNs: content.mtimeNs ?? now,
      createdNs: old?.createdNs ?? now,
      ...(old?.dead && { dead: true }),
      id,
      size,
      ...(chunked && { chunked }),
      md5: content.md5,
      sha1: content.sha1,
    }
    this.#writes.needsChunks(content.since)
    this.#write(place, record)
    return record
  }

  /** Makes an empty collection. Problems `conflict`, `method-not-allowed` when something is there, `forbidden`. */
  async makeCollection(names: Names): Promise<DirectoryRecord> {
    const place = await this.#placeIn(names)
    if (place.record !== undefined) throw new Problem('method-not-allowed', 'there is something already')
    const record = this.#newDirectory(nowNs())
    this.#write(place, record)
    return record
  }

  /**
   * Removes what is there, whole: to the trash, or out of the trash for good. Its locks and those below go. The
   * bytes of what is gone for good are given back by garbage collection. Problems `not-found`, `forbidden`.
   */
  async remove(names: Names, reason: TrashReason = 'deleted'): Promise<void> {
    const place = await this.#place(names)
    const { record } = place
    if (record === undefined) throw new Problem('not-found', 'there is nothing at this path')
    if (isInTrash(names) && names.length > 2) {
      throw new Problem('forbidden', 'things in the trash are removed item by item')
    }
    await this.#detach(names, place, record)
    if (isInTrash(names)) {
      this.#writes.remove(keys.trash(Number(place.name.toString('latin1'))))
      this.#doom(record)
    } else if (record.kind === 'file' && record.size === 0) {
      this.#doom(record)
    } else {
      await this.#discard(names, record, reason)
    }
  }

  /**
   * Moves what is at `from`, whole, to `to`, where nothing is. Its locks and those below do not move: they go.
   * Problems `not-found`, `conflict`, `forbidden`; TypeError when something is at `to`.
   */
  async move(from: Names, to: Names): Promise<void> {
    const source = await this.#place(from)
    const { record } = source
    if (record === undefined) throw new Problem('not-found', 'there is nothing at this path')
    if (isInTrash(from) && from.length < 3) {
      throw new Problem('forbidden', 'what is in an item of the trash can be moved, not the item')
    }
    const target = await this.#placeIn(to)
    if (target.record !== undefined) throw new TypeError('what is at the destination is to be removed first')
    if (target.trail.some(({ node }) => node === record.node)) {
      throw new Problem('forbidden', 'a collection cannot be moved into itself')
    }
    await this.#detach(from, source, record)
    // The first half may have changed the parent's record.
    this.#write(await this.#placeIn(to), arrived(record, this.#nextChange()))
    if (isInTrash(from)) await this.#dropEmptyItem(from)
  }

  /**
   * Publishes a copy at `to`, where nothing is: of a file, of a collection without its members, or of a collection
   * that was copied below `staging`. `since` is the store's `losses` before the copy was begun. The same problems.
   */
  async attachCopy(source: TreeRecord, to: Names, since: number, staged?: TreeRecord): Promise<void> {
    const target = await this.#placeIn(to)
    if (target.record !== undefined) throw new TypeError('what is at the destination is to be removed first')
    const copy = staged ?? (await this.#copyOf(source))
    if (staged !== undefined) this.#writes.remove(keys.entry(nodes.staging, stagedName(staged)))
    const change = this.#nextChange()
    this.#writes.needsChunks(since)
    this.#write(target, { ...arrived(copy, change), version: change })
  }

  /** A record like it under a number of its own, with its dead properties. */
  async #copyOf(record: TreeRecord): Promise<TreeRecord> {
    const node = this.#nextNode()
    for (const { name, xml } of await deadPropertiesOf(this.#writes, record)) {
      this.#writes.put(keys.property(node, name), Buffer.from(xml, 'utf8'))
    }
    return { ...record, node, createdNs: nowNs() }
  }

  /** The start of a copy of a collection, in `staging`: empty, with the dead properties. */
  async stageCopy(record: DirectoryRecord): Promise<TreeRecord> {
    const copy = await this.#copyOf(record)
    this.#writes.put(keys.entry(nodes.staging, stagedName(copy)), encodeJson(copy))
    return copy
  }

  /** Copies members into a directory that nobody sees yet; returns those that are collections, still empty. */
  async copyMembers(
    members: readonly Member[],
    into: number,
  ): Promise<{ from: DirectoryRecord; to: number }[]> {
    const collections: { from: DirectoryRecord; to: number }[] = []
    for (const { name, record } of members) {
      const change = this.#nextChange()
      const copy = { ...(await this.#copyOf(record)), version: change, changed: change }
      this.#writes.put(keys.entry(into, name), encodeJson(copy))
      this.#writes.put(keys.change(into, change), name)
      if (record.kind === 'directory') collections.push({ from: record, to: copy.node })
    }
    return collections
  }

  /** Gives a copy up that was never published. */
  dropStaged(staged: TreeRecord): void {
    this.#writes.remove(keys.entry(nodes.staging, stagedName(staged)))
    this.#doom(staged)
  }

  /** Sets the time of last modification. Problem `not-found`. */
  async setTimes(names: Names, { mtimeNs }: { mtimeNs: string }): Promise<void> {
    const { place, record } = await this.#existing(names)
    this.#write(place, { ...record, mtimeNs, changed: this.#nextChange() })
  }

  /**
   * Sets and removes dead properties; removing what is not there is no error. Problems `not-found`;
   * `insufficient-storage` when all of them together would take too much.
   */
  async setDeadProperties(
    names: Names,
    set: readonly DeadProperty[],
    remove: readonly PropertyName[],
  ): Promise<void> {
    const { place, record } = await this.#existing(names)
    for (const name of remove) this.#writes.remove(keys.property(record.node, name))
    for (const { name, xml } of set)
      this.#writes.put(keys.property(record.node, name), Buffer.from(xml, 'utf8'))
    const { dead: _, ...rest } = record
    const left = await deadPropertiesOf(this.#writes, { ...record, dead: true })
    const bytes = left.reduce(
      (sum, { name, xml }) => sum + Buffer.byteLength(name) + Buffer.byteLength(xml),
      0,
    )
    if (bytes > maxPropertyBytes) {
      throw new Problem('insufficient-storage', `a resource keeps ${maxPropertyBytes} bytes of properties`)
    }
    const next = { ...rest, changed: this.#nextChange(), ...(left.length > 0 && { dead: true as const }) }
    this.#write(place, next)
  }

  // -- locks ------------------------------------------------------------------------------------------

  /** As `locksOn` and `locksBelow` of tree-locks.ts, with what this change did already. */
  async locksOn(names: Names): Promise<Lock[]> {
    return this.#watch.mayBeLocked() ? await locksOn(this.#writes, names) : []
  }

  async locksBelow(names: Names): Promise<Lock[]> {
    return this.#watch.mayBeLocked() ? await locksBelow(this.#writes, names) : []
  }

  /**
   * Adds a lock. Whether it is compatible with the others is the caller's to know. Problem
   * `insufficient-storage` when the vault has too many.
   */
  async addLock(lock: Lock): Promise<void> {
    const key = keys.lock(lock.path, lock.token)
    if ((await this.#writes.get(key)) === undefined) await this.#watch.locked(this.#writes)
    this.#writes.put(key, encodeLock(lock))
  }

  /** Starts the lock's time again; returns it as it is then. */
  async refreshLock(lock: Lock, timeoutSeconds: number): Promise<Lock> {
    const refreshed = { ...lock, timeoutSeconds, expiresAtMs: Date.now() + timeoutSeconds * 1000 }
    await this.addLock(refreshed)
    return refreshed
  }

  /** Removes a lock; nothing happens when it is gone. */
  async removeLock({ path, token }: Lock): Promise<void> {
    this.#writes.remove(keys.lock(path, token))
  }

  async #dropLocks(names: Names): Promise<void> {
    if (!this.#watch.mayBeLocked()) return
    const path = pathOf(names)
    for (const prefix of [keys.locksOf(path), keys.locksBelow(path)]) {
      for await (const { key } of this.#writes.range(prefix)) this.#writes.remove(key)
    }
  }

  // -- places -----------------------------------------------------------------------------------------

  async #place(names: Names): Promise<Place> {
    checkNames(names)
    const name = names.at(-1)
    if (name === undefined || names.length < 2)
      throw new Problem('forbidden', 'this collection cannot be changed')
    const trail: DirectoryRecord[] = [superRoot]
    for (const step of names.slice(0, -1)) {
      const value = await this.#writes.get(keys.entry((trail.at(-1) as DirectoryRecord).node, step))
      const record = value === undefined ? undefined : decodeJson<TreeRecord>(value)
      if (record?.kind !== 'directory')
        throw new Problem('conflict', 'the collection that it is in does not exist')
      trail.push(record)
    }
    const parent = trail.at(-1) as DirectoryRecord
    const value = await this.#writes.get(keys.entry(parent.node, name))
    return {
      trail,
      parent,
      parentName: names.at(-2),
      name,
      record: value === undefined ? undefined : decodeJson<TreeRecord>(value),
    }
  }

  /** A place where things can be put. */
  async #placeIn(names: Names): Promise<Place> {
    if (names[0]?.toString() !== 'tree') throw new Problem('forbidden', 'only the tree takes new things')
    return await this.#place(names)
  }

  async #existing(names: Names): Promise<{ place: Place; record: TreeRecord }> {
    // The tree itself has properties too; it stands in node 0.
    const place: Place =
      names.length === 1
        ? { ...atTop, name: names[0] as Buffer, record: await this.find(names) }
        : await this.#placeIn(names)
    if (place.record === undefined) throw new Problem('not-found', 'there is nothing at this path')
    return { place, record: place.record }
  }

  /** Writes the entry, notes the change, and all that follows from it further up. */
  #write(place: Place, record: TreeRecord): void {
    const { parent, name, record: old } = place
    this.#writes.put(keys.entry(parent.node, name), encodeJson(record))
    this.#note(parent.node, name, old, record.changed)
    this.#touch(place, old === undefined)
  }

  /** Takes the entry out of its directory. */
  async #detach(names: Names, place: Place, record: TreeRecord): Promise<void> {
    const { parent, name } = place
    this.#writes.remove(keys.entry(parent.node, name))
    if (parent.node !== nodes.trash) {
      this.#writes.remove(keys.change(parent.node, record.changed))
      this.#writes.put(keys.removal(parent.node, this.#nextChange()), name)
    }
    this.#touch(place, true)
    await this.#dropLocks(names)
  }

  #note(directory: number, name: Buffer, old: TreeRecord | undefined, change: number): void {
    if (directory === nodes.root || directory === nodes.trash) return
    if (old !== undefined) this.#writes.remove(keys.change(directory, old.changed))
    this.#writes.put(keys.change(directory, change), name)
  }

  #touch({ trail, parent, parentName }: Place, isNewOrGone: boolean): void {
    for (const { node } of trail) {
      this.#writes.remove(keys.frozen(node))
      this.#watch.dirtied(node)
    }
    const grandparent = trail.at(-2)
    if (!isNewOrGone || grandparent === undefined || parentName === undefined) return
    // A directory's time is that of the last change of its names.
    const renewed: DirectoryRecord = { ...parent, mtimeNs: nowNs() }
    this.#writes.put(keys.entry(grandparent.node, parentName), encodeJson(renewed))
  }

  // -- the trash --------------------------------------------------------------------------------------

  async #discard(names: Names, record: TreeRecord, reason: TrashReason): Promise<void> {
    const item = this.#nextItem()
    const directory = this.#newDirectory(nowNs())
    this.#writes.put(keys.entry(nodes.trash, Buffer.from(String(item))), encodeJson(directory))
    this.#writes.put(keys.entry(directory.node, names.at(-1) as Buffer), encodeJson(record))
    const path = pathOf(names.slice(1))
    this.#writes.put(keys.trash(item), encodeNote({ path, deletedAt: new Date(), reason }))
  }

  /** After the only thing in an item was moved out of it. */
  async #dropEmptyItem([, item]: Names): Promise<void> {
    if (item === undefined) return
    const directory = await this.find([Buffer.from('trash'), item])
    if (directory === undefined) return
    for await (const _ of membersOf(this.#writes, directory.node)) return
    this.#writes.remove(keys.entry(nodes.trash, item))
    this.#writes.remove(keys.trash(Number(item.toString('latin1'))))
    this.#doom(directory)
  }

  /** Hands it to the removal for good. */
  #doom(record: TreeRecord): void {
    this.#watch.doomed()
    this.#writes.put(keys.entry(nodes.doomed, stagedName(record)), encodeJson(record))
  }

  // -- numbers ----------------------------------------------------------------------------------------

  #newDirectory(now: string): DirectoryRecord {
    const change = this.#nextChange()
    const times = { mtimeNs: now, createdNs: now }
    return {
      kind: 'directory',
      node: this.#nextNode(),
      version: change,
      changed: change,
      placed: change,
      ...times,
    }
  }

  #nextNode(): number {
    this.#tookNumbers = true
    return this.#state.node++
  }

  #nextChange(): number {
    this.#tookNumbers = true
    return this.#state.change++
  }

  #nextItem(): number {
    this.#tookNumbers = true
    return this.#state.item++
  }

  /**
   * At the end of each change: numbers that it gave out are not given out again after a stop, not even those of
   * what nobody sees. What is being cleared away would take new things of the same number with it.
   */
  finish(): void {
    if (this.#tookNumbers) this.#writes.put(keys.state, encodeJson(this.#state))
  }
}

/** The record of what comes to a new place by this change. */
function arrived(record: TreeRecord, change: number): TreeRecord {
  return { ...record, changed: change, ...(record.kind === 'directory' && { placed: change }) }
}

/** What is being copied or removed stands under its number: its name may be there twice. */
function stagedName({ node }: TreeRecord): Buffer {
  return Buffer.from(String(node))
}

function isInTrash([area]: Names): boolean {
  return area?.toString() === 'trash'
}

function nowNs(): string {
  return `${Date.now()}000000`
}

/** Problem `invalid-request` for a path that nothing in the tree can have. */
export function checkNames(names: Names): void {
  for (const name of names) {
    const fault = name.length > maxNameBytes ? `a name has more than ${maxNameBytes} bytes` : nameFault(name)
    if (fault !== undefined) throw new Problem('invalid-request', `in the path ${fault}`)
  }
  if (pathOf(names).length > maxPathBytes) {
    throw new Problem('invalid-request', `a path has at most ${maxPathBytes} bytes`)
  }
}
