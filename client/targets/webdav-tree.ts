/**
 * Makes the files of an open checkpoint those that its tree says, on the server's side wherever that can be.
 * One pass over the tree, with the base's manifest beside it; both come in the same order, so that neither
 * is held in memory.
 *
 *     a directory whose id is that of the base's there   one COPY of all of it
 *     a file that was put in this checkpoint             is there
 *     a file that is in the base at the same path        COPY
 *     a further name of an inode                         COPY of the name that is there
 *     anything else                                      lost: it must be put again
 *
 * What an earlier run has left in the folder is looked at, a directory at a time: files that are there in
 * another size than was put are not there, and what does not belong there is deleted.
 */
import { Semaphore } from 'async-mutex'
import { LRUCache } from 'lru-cache'
import { nameBytes } from '../../protocol/objects.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { DirectoryEntry, FileEntry } from '../../protocol/schema.ts'
import { encodeSegment } from '../../protocol/url.ts'
import type { TreeEntry } from '../engine/file-target.ts'
import type { WebDavClient } from './webdav-client.ts'
import type { DavMember } from './webdav-listing.ts'
import type { ManifestEntry } from './webdav-manifest.ts'
import { storedName } from './webdav-names.ts'

const maxKnownCollections = 20_000

/** Collections that are there, or being made. A parent is made before what is in it. */
export class Collections {
  readonly #client: WebDavClient
  readonly #made = new LRUCache<string, Promise<void>>({ max: maxKnownCollections })
  /** An interrupted run may have left a file where a collection must be now. */
  leftovers = false

  constructor(client: WebDavClient) {
    this.#client = client
  }

  /** Resolves when the collection at `path`, below the collection `top`, is there. `top` itself is. */
  async ensure(top: string, path: string): Promise<void> {
    if (path === top) return
    const known = this.#made.get(path)
    if (known !== undefined) return known
    const making = this.#make(top, path)
    this.#made.set(path, making)
    // Whoever comes next shall try it again.
    making.catch(() => this.#made.delete(path))
    return making
  }

  async #make(top: string, path: string): Promise<void> {
    await this.ensure(top, path.slice(0, path.lastIndexOf('/', path.length - 2) + 1))
    try {
      if ((await this.#client.makeCollection(path)) || !this.leftovers) return
      if (!(await this.#clearWay(path))) return
    } catch (error) {
      // Apache has another status than 405 for it.
      if (!this.leftovers || !isRefusal(error) || !(await this.#clearWay(path))) throw error
    }
    await this.#client.makeCollection(path)
  }

  /** Removes a file that stands where a collection must be; false when none does. */
  async #clearWay(path: string): Promise<boolean> {
    const file = path.slice(0, -1)
    return (await this.#client.kindAt(file)) === 'file' && this.#client.remove(file)
  }

  /** It is there, without our doing. */
  add(path: string): void {
    this.#made.set(path, Promise.resolve())
  }

  /** It, and what is below it, may be gone. */
  forget(path: string): void {
    for (const key of this.#made.keys()) if (key.startsWith(path)) this.#made.delete(key)
  }
}

export interface TreeSettings {
  readonly client: WebDavClient
  readonly collections: Collections
  /** Where the files go and where those of the base are: both end in a slash. */
  readonly folder: string
  readonly baseFolder: string
  /** The folder that `folder` stands in, which is there. */
  readonly top: string
  /** The base's root and its entries; absent when nothing can be taken over. */
  readonly base:
    | { readonly root: string | undefined; readonly entries: AsyncIterator<ManifestEntry> }
    | undefined
  /** Earlier runs have left something in the folder. */
  readonly leftovers: boolean
  /** Copies under way at once. */
  readonly lanes: number
  readonly signal: AbortSignal
}

/** A directory that the walk is in. */
interface Frame {
  readonly path: Buffer
  /** Below the checkpoint's files, percent-encoded; ends in a slash, or is empty. */
  readonly stored: string
  /**
   * `whole`: all of it was copied, there is nothing to do below. `refused`: the server does not take the
   * directory, so nothing below can be there.
   */
  readonly state: 'open' | 'whole' | 'refused'
  /** What stands there and is not accounted for yet, by its stored name as a byte string; absent when it was empty. */
  readonly left: Map<string, DavMember> | undefined
}

/** What may be had once more from where it is: names of one inode. */
interface LinkGroup {
  at: string | undefined
  readonly waiting: { readonly to: string; readonly entry: TreeEntry }[]
}

export class WebDavTree {
  readonly #set: TreeSettings
  readonly #turns: Semaphore
  readonly #frames: Frame[] = []
  readonly #links = new Map<string, LinkGroup>()
  readonly #base: BaseCursor
  readonly #running = new Set<Promise<void>>()
  #failure: { error: unknown } | undefined
  /** The server has no COPY after all. */
  #copies = true
  lost = 0

  constructor(settings: TreeSettings) {
    this.#set = settings
    this.#turns = new Semaphore(settings.lanes)
    this.#base = new BaseCursor(settings.base?.entries)
  }

  /** Takes the next entry of the tree, the root first. Copies of files may still be under way on return. */
  async add(entry: TreeEntry): Promise<void> {
    this.#check()
    if (entry.path.length === 0) {
      const { root } = this.#set.base ?? {}
      await this.#directory(
        entry,
        entry.entry as DirectoryEntry,
        '',
        root === undefined ? undefined : { id: root, stored: '' },
      )
      return
    }
    const name = nameBytes(entry.entry)
    const parent = entry.path.subarray(0, Math.max(0, entry.path.length - name.length - 1))
    while (this.#frames.length > 0 && !this.#frames.at(-1)?.path.equals(parent)) await this.#leave()
    const frame = this.#frames.at(-1)
    if (frame === undefined) throw new TypeError('the tree is told out of order')
    const known = await this.#base.at(entry.path)
    const { kind } = entry.entry
    if (kind !== 'directory' && kind !== 'file') return
    const stored = storedName(name)
    const place = frame.stored + encodeSegment(stored)
    if (kind === 'directory') {
      const base =
        known?.entry.kind === 'directory' ? { id: known.entry.id, stored: known.stored } : undefined
      await this.#directory(entry, entry.entry, `${place}/`, base, frame, stored)
    } else if (frame.state === 'open') {
      await this.#file(entry, entry.entry, place, known, frame, stored)
    } else if (frame.state === 'refused') {
      this.#lose(entry)
    } else {
      this.#isThere(entry.entry, place)
    }
  }

  /** Resolves when everything is there, but for what is lost. */
  async finish(): Promise<void> {
    while (this.#frames.length > 0) await this.#leave()
    await this.#idle()
    for (const { waiting } of this.#links.values())
      for (const { entry } of waiting.splice(0)) this.#lose(entry)
  }

  /** Gives up; resolves when nothing is under way any more. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#running)
    await this.#base.close()
  }

  #check(): void {
    this.#set.signal.throwIfAborted()
    if (this.#failure !== undefined) throw this.#failure.error
  }

  async #idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
    this.#check()
  }

  async #directory(
    entry: TreeEntry,
    { id }: DirectoryEntry,
    stored: string,
    base: { id: string; stored: string } | undefined,
    parent?: Frame,
    name: Buffer = Buffer.alloc(0),
  ): Promise<void> {
    const { path } = entry
    if (parent !== undefined && parent.state !== 'open') {
      this.#frames.push({ path, stored, state: parent.state, left: undefined })
      return
    }
    const found = claim(parent, name)
    if (found !== undefined && !found.isCollection) await this.#remove(stored.slice(0, -1))
    const unchanged = base !== undefined && base.id === id
    const whole = unchanged && (await this.#copyWhole(entry, base.stored, stored))
    if (whole) this.#frames.push({ path, stored, state: 'whole', left: undefined })
    else this.#frames.push({ path, stored, ...(await this.#enter(stored)) })
  }

  /** Copies a directory with all that is in it; false when that must be gone through instead. */
  async #copyWhole(entry: TreeEntry, from: string, to: string): Promise<boolean> {
    if (!this.#copies) return false
    const { client, collections, folder, baseFolder, top, signal } = this.#set
    const target = folder + to
    await collections.ensure(top, target.slice(0, target.lastIndexOf('/', target.length - 2) + 1))
    try {
      const first = await client.copy(baseFolder + from, target, { overwrite: false, signal })
      if (first === 'done') return true
      // Nothing of this checkpoint is in what stands there: an earlier run may have begun to copy it.
      if (await entry.isSent()) return false
      collections.forget(target)
      return (await client.copy(baseFolder + from, target, { overwrite: true, signal })) === 'done'
    } catch (error) {
      this.#noCopy(error)
      if (!(await entry.isSent())) await this.#remove(to)
      return false
    }
  }

  /** The collection is there on return, unless the server refuses it; tells what stands in it. */
  async #enter(stored: string): Promise<Pick<Frame, 'state' | 'left'>> {
    const { client, collections, folder, top, leftovers, signal } = this.#set
    const path = folder + stored
    if (leftovers) {
      const members = await client.list(path, { signal })
      if (members !== undefined) {
        collections.add(path)
        const left = new Map(members.map((member) => [member.name.toString('latin1'), member]))
        return { state: 'open', left }
      }
      collections.forget(path)
    }
    try {
      await collections.ensure(top, path)
      return { state: 'open', left: undefined }
    } catch (error) {
      // The files in it could not be put either: each of them has been, or will be, told.
      if (stored === '' || !isRefusal(error)) throw error
      return { state: 'refused', left: undefined }
    }
  }

  async #leave(): Promise<void> {
    const frame = this.#frames.pop()
    for (const { name, isCollection } of frame?.left?.values() ?? []) {
      await this.#remove(`${(frame as Frame).stored}${encodeSegment(name)}${isCollection ? '/' : ''}`)
    }
  }

  async #remove(stored: string): Promise<void> {
    const { client, collections, folder, signal } = this.#set
    collections.forget(folder + stored)
    await client.remove(folder + stored, { signal })
  }

  async #file(
    tree: TreeEntry,
    entry: FileEntry,
    stored: string,
    known: ManifestEntry | undefined,
    frame: Frame,
    name: Buffer,
  ): Promise<void> {
    const found = claim(frame, name)
    if (found?.isCollection) await this.#remove(`${stored}/`)
    const isThere = frame.left === undefined || isWhole(found, entry)
    if (isThere && (await tree.isSent())) {
      this.#isThere(entry, stored)
      return
    }
    const same =
      known?.entry.kind === 'file' && known.entry.id === entry.id && known.entry.size === entry.size
    if (same && this.#copies) {
      const from = this.#set.baseFolder + known.stored
      await this.#start(async () => {
        if (await this.#copyFile(from, stored)) this.#isThere(entry, stored)
        else this.#lose(tree)
      })
    } else if (entry.link !== undefined && this.#copies) {
      await this.#link(tree, entry, stored)
    } else {
      this.#lose(tree)
    }
  }

  /** A further name of an inode: a copy of one that is there, as soon as one is. */
  async #link(tree: TreeEntry, entry: FileEntry, stored: string): Promise<void> {
    const group = this.#groupOf(entry)
    if (group.at === undefined) group.waiting.push({ to: stored, entry: tree })
    else await this.#start(() => this.#copyLink(group.at as string, stored, tree))
  }

  async #copyLink(from: string, to: string, tree: TreeEntry): Promise<void> {
    if (!(await this.#copyFile(this.#set.folder + from, to))) this.#lose(tree)
  }

  #groupOf({ link, id }: FileEntry): LinkGroup {
    const key = JSON.stringify([link, id])
    const group = this.#links.get(key) ?? { at: undefined, waiting: [] }
    this.#links.set(key, group)
    return group
  }

  /** A file stands at its place: further names of it can be made from it. */
  #isThere(entry: FileEntry, stored: string): void {
    if (entry.link === undefined) return
    const group = this.#groupOf(entry)
    group.at ??= stored
    for (const { to, entry: tree } of group.waiting.splice(0)) {
      this.#launch(() => this.#copyLink(stored, to, tree))
    }
  }

  async #copyFile(from: string, to: string): Promise<boolean> {
    const { client, folder, signal } = this.#set
    try {
      return (await client.copy(from, folder + to, { overwrite: true, signal })) === 'done'
    } catch (error) {
      this.#noCopy(error)
      return false
    }
  }

  /** Takes note of a copy that failed; throws what has nothing to do with copying. */
  #noCopy(error: unknown): void {
    const status = isProblem(error) ? error.extensions.status : undefined
    if (typeof status !== 'number' || status === 401 || status === 507) throw error
    if (status === 405 || status === 501) this.#copies = false
  }

  #lose(entry: TreeEntry): void {
    this.lost++
    entry.lose()
  }

  /** Starts work when there is a free turn, without waiting for its end. */
  async #start(work: () => Promise<void>): Promise<void> {
    await this.#turns.waitForUnlock()
    this.#check()
    this.#launch(work)
  }

  #launch(work: () => Promise<void>): void {
    const running = this.#turns
      .runExclusive(work)
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => this.#running.delete(running))
    this.#running.add(running)
  }
}

/** Whether this is the file, as far as a listing can tell. Some servers tell no sizes. */
function isWhole(found: DavMember | undefined, { size }: FileEntry): boolean {
  return found?.isCollection === false && (found.size === undefined || found.size === size)
}

/** What the server has against one path, and no other. */
function isRefusal(error: unknown): boolean {
  const status = isProblem(error) ? error.extensions.status : undefined
  return typeof status === 'number' && status >= 400 && status < 500 && status !== 401 && status !== 429
}

/** What stands in the frame under this stored name; it is accounted for now. */
function claim(frame: Frame | undefined, name: Buffer): DavMember | undefined {
  const key = name.toString('latin1')
  const found = frame?.left?.get(key)
  frame?.left?.delete(key)
  return found
}

/** Goes along the base's entries. */
class BaseCursor {
  readonly #entries: AsyncIterator<ManifestEntry> | undefined
  #next: ManifestEntry | undefined
  #ended: boolean

  constructor(entries: AsyncIterator<ManifestEntry> | undefined) {
    this.#entries = entries
    this.#ended = entries === undefined
  }

  /** The base's entry at `path`, if there is one. Paths must be asked for in the order of the tree. */
  async at(path: Buffer): Promise<ManifestEntry | undefined> {
    for (;;) {
      if (this.#next === undefined) await this.#read()
      if (this.#next === undefined) return undefined
      const order = compareInTree(this.#next.path, path)
      if (order > 0) return undefined
      const found = this.#next
      this.#next = undefined
      if (order === 0) return found
    }
  }

  async #read(): Promise<void> {
    if (this.#ended) return
    try {
      const { value, done } = await (this.#entries as AsyncIterator<ManifestEntry>).next()
      if (done === true) this.#ended = true
      else this.#next = value
    } catch (error) {
      // What cannot be read any more cannot be taken over either.
      if (!(error instanceof Problem) || error.code !== 'invalid-object') throw error
      this.#ended = true
    }
  }

  async close(): Promise<void> {
    await this.#entries?.return?.()
  }
}

/** The order of a tree that tells each directory before what is in it: name by name along the path. */
export function compareInTree(a: Buffer, b: Buffer): number {
  const length = Math.min(a.length, b.length)
  let at = 0
  while (at < length && a[at] === b[at]) at++
  if (at === length) return a.length - b.length
  // A shorter name comes first, whatever follows the slash behind it.
  const [left, right] = [a[at] as number, b[at] as number]
  return (left === 0x2f ? -1 : left) - (right === 0x2f ? -1 : right)
}
