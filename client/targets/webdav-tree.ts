/**
 * Makes the files of an open checkpoint those that its tree says, on the server's side wherever that can be.
 * One pass over the tree, with the base's manifest beside it; both come in the same order, so that neither
 * is held in memory.
 *
 *     a directory whose id is that of the base's there   one COPY of all of it
 *     a directory of many files of which few were put    one COPY, and those over it (webdav-merge.ts)
 *     a file that was put in this checkpoint             is there
 *     a file that is in the base at the same path        COPY
 *     a further name of an inode                         COPY of the name that is there
 *     anything else                                      lost: it must be put again
 *
 * What this checkpoint has not put itself is looked at, a directory at a time: what an earlier run has left in
 * the folder, what was copied whole, and what of the base is to be copied. It has stood where anybody could
 * change it. A file that is there in another size than it should be is not there, and what does not belong there is
 * deleted. Whether the bytes are the right ones, only a restore can tell.
 *
 * One class, though it is long: what becomes of an entry depends on the folders that are open around it.
 */
import { Semaphore } from 'async-mutex'
import { nameBytes } from '../../protocol/objects.ts'
import { isProblem } from '../../protocol/problem.ts'
import type { DirectoryEntry, FileEntry } from '../../protocol/schema.ts'
import { encodeSegment } from '../../protocol/url.ts'
import type { TreeEntry } from '../engine/file-target.ts'
import { BaseCursor } from './webdav-base.ts'
import type { WebDavClient } from './webdav-client.ts'
import { type Collections, isRefusal } from './webdav-collections.ts'
import { areApart, FolderMembers } from './webdav-folder.ts'
import type { DavMember } from './webdav-listing.ts'
import type { ManifestEntry } from './webdav-manifest.ts'
import { FolderMerger } from './webdav-merge.ts'
import { storedName } from './webdav-names.ts'

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
   * `copied`: all of it was copied from the base, whose content it has. `merged`: it was copied, and what was put
   * stands over it. `refused`: the server does not take the directory, so nothing below can be there.
   */
  readonly state: 'open' | 'copied' | 'merged' | 'refused'
  /** What stood there; absent when that was only what this run has put, or cannot be told. */
  readonly members: FolderMembers | undefined
  /** Where the same directory is in the base. */
  readonly base: string | undefined
  /** Sizes of the base's files, by their stored names percent-encoded; asked for when one is to be copied. */
  baseSizes: Promise<ReadonlyMap<string, DavMember>> | undefined
  /** Folders in one that was copied: still to be listed, the last one first, and being listed. */
  readonly upcoming: string[]
  readonly asked: Map<string, Promise<DavMember[] | 'untold' | undefined>>
}

type Entered = Pick<Frame, 'state' | 'members'>

function frameOf(path: Buffer, stored: string, base: string | undefined, { state, members }: Entered): Frame {
  const folders = state === 'copied' ? (members?.folders() ?? []) : []
  const upcoming = folders.reverse().map((name) => `${stored}${encodeSegment(name)}/`)
  return { path, stored, base, state, members, baseSizes: undefined, upcoming, asked: new Map() }
}

/** What may be had once more from where it is: names of one inode. */
interface LinkGroup {
  at: string | undefined
  readonly waiting: { readonly to: string; readonly entry: TreeEntry }[]
}

export class WebDavTree {
  readonly #set: TreeSettings
  readonly #turns: Semaphore
  readonly #merger: FolderMerger
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
    const { client, top, lanes, signal } = settings
    this.#turns = new Semaphore(lanes)
    this.#merger = new FolderMerger({ client, top, turns: this.#turns, signal })
    this.#base = new BaseCursor(settings.base?.entries)
  }

  /** Takes the next entry of the tree, the root first. Copies of files may still be under way on return. */
  async add(entry: TreeEntry): Promise<void> {
    this.#check()
    if (entry.path.length === 0) {
      if (this.#set.leftovers) await this.#merger.tidy()
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
    } else if (frame.state === 'refused') {
      this.#lose(entry)
    } else {
      await this.#file(entry, entry.entry, place, known, frame, stored)
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
    if (parent?.state === 'refused') {
      this.#frames.push(frameOf(path, stored, undefined, { state: 'refused', members: undefined }))
      return
    }
    const found = parent?.members?.claim(name)
    if (found !== undefined && !found.isCollection) await this.#remove(stored.slice(0, -1))
    const unchanged = base !== undefined && base.id === id
    const copied =
      parent?.state === 'copied' || (unchanged && (await this.#copyWhole(entry, base.stored, stored)))
    const merged = copied || base === undefined ? undefined : await this.#merge(entry, base.stored, stored)
    const entered = copied ? await this.#enterCopied(stored, parent) : (merged ?? (await this.#enter(stored)))
    const frame = frameOf(path, stored, base?.stored, entered)
    this.#frames.push(frame)
    this.#askAhead(frame)
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

  /** Copies what did not change in a directory at once; undefined where that is not to be had. */
  async #merge(entry: TreeEntry, from: string, to: string): Promise<Entered | undefined> {
    const { collections, folder, baseFolder, top, leftovers } = this.#set
    if (leftovers || !this.#copies) return undefined
    const target = folder + to
    const counts = await entry.members()
    if (counts.kept === 0) return undefined
    await collections.ensure(top, target.slice(0, target.lastIndexOf('/', target.length - 2) + 1))
    const members = await this.#merger.merge(baseFolder + from, target, counts)
    if (members === undefined) return undefined
    collections.add(target)
    return { state: 'merged', members: new FolderMembers(members) }
  }

  /** The collection is there on return, unless the server refuses it; tells what stands in it. */
  async #enter(stored: string): Promise<Entered> {
    const { client, collections, folder, top, leftovers, signal } = this.#set
    const path = folder + stored
    if (leftovers) {
      const members = await client.list(path, { signal })
      if (members !== undefined) {
        collections.add(path)
        return { state: 'open', members: new FolderMembers(members) }
      }
      collections.forget(path)
    }
    try {
      await collections.ensure(top, path)
      // Empty, whatever was put into it by an earlier run.
      return { state: 'open', members: leftovers ? new FolderMembers([]) : undefined }
    } catch (error) {
      // The files in it could not be put either: each of them has been, or will be, told.
      if (stored === '' || !isRefusal(error)) throw error
      return { state: 'refused', members: undefined }
    }
  }

  /** The same for a directory that was copied, by itself or with the one that it is in. */
  async #enterCopied(stored: string, parent: Frame | undefined): Promise<Entered> {
    const asked = parent?.asked.get(stored)
    parent?.asked.delete(stored)
    if (parent !== undefined) this.#askAhead(parent)
    const members = await (asked ?? this.#listed(stored))
    // Somebody has taken it out of the base.
    if (members === undefined) return this.#enter(stored)
    this.#set.collections.add(this.#set.folder + stored)
    return { state: 'copied', members: members === 'untold' ? undefined : new FolderMembers(members) }
  }

  /** Has a few folders listed before the walk comes to them: it is long, and each costs a round trip. */
  #askAhead({ upcoming, asked }: Frame): void {
    while (asked.size < this.#set.lanes) {
      const stored = upcoming.pop()
      if (stored === undefined) return
      const listing = this.#listed(stored)
      // Told to whoever comes to it.
      listing.catch(() => {})
      asked.set(stored, listing)
    }
  }

  /** `untold` where the server refuses to list this one. */
  async #listed(stored: string): Promise<DavMember[] | 'untold' | undefined> {
    const { client, folder, signal } = this.#set
    try {
      return await client.list(folder + stored, { signal })
    } catch (error) {
      if (!isRefusal(error)) throw error
      return 'untold'
    }
  }

  async #leave(): Promise<void> {
    const frame = this.#frames.pop() as Frame
    const { members, stored } = frame
    const strays = members?.strays() ?? []
    let listed: DavMember[] = []
    if (strays.some((stray) => members?.isDoubtful(stray))) {
      await this.#idle()
      const now = await this.#listed(stored)
      listed = Array.isArray(now) ? now : []
    }
    for (const stray of strays) {
      if (members?.isDoubtful(stray) && !areApart(stray, listed)) continue
      await this.#remove(`${stored}${encodeSegment(stray.name)}${stray.isCollection ? '/' : ''}`)
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
    const copied = frame.state === 'copied'
    const same =
      known?.entry.kind === 'file' && known.entry.id === entry.id && known.entry.size === entry.size
    const isMine = copied || (same && frame.state === 'merged') || (await tree.isSent())
    const found = await this.#found(frame, name, stored, isMine)
    if (found?.isCollection) await this.#remove(`${stored}/`)
    if (isMine && (frame.members === undefined || isWhole(found, entry))) {
      this.#isThere(entry, stored)
      return
    }
    // What the whole copy does not have, the base does not have either.
    if (
      same &&
      frame.state === 'open' &&
      this.#copies &&
      (await this.#isWholeInBase(frame, known.stored, entry))
    ) {
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

  /** What stands at a file's place. `expected`: if the listing does not have it, the server is asked for it by name. */
  async #found(
    { members }: Frame,
    name: Buffer,
    stored: string,
    expected: boolean,
  ): Promise<DavMember | undefined> {
    const listed = members?.claim(name)
    if (listed !== undefined || members === undefined || !expected) return listed
    const { client, folder, signal } = this.#set
    return client.look(folder + stored, { signal })
  }

  /** Whether the base has a file as it was left there, as far as a listing can tell. */
  async #isWholeInBase(frame: Frame, stored: string, entry: FileEntry): Promise<boolean> {
    if (frame.base === undefined) return true
    frame.baseSizes ??= this.#sizesIn(frame.base)
    const found = (await frame.baseSizes).get(stored.slice(stored.lastIndexOf('/') + 1))
    return found === undefined || isWhole(found, entry)
  }

  /** Empty where the server does not tell. */
  async #sizesIn(base: string): Promise<ReadonlyMap<string, DavMember>> {
    const { client, baseFolder, signal } = this.#set
    try {
      const members = (await client.list(baseFolder + base, { signal })) ?? []
      return new Map(members.map((member) => [encodeSegment(member.name), member]))
    } catch (error) {
      if (!isRefusal(error)) throw error
      return new Map()
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
