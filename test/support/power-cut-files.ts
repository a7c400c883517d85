/**
 * A directory on a disk that the power can be cut to.
 *
 * The real directory below `root` is what processes see: the page cache. Beside it stands in memory what the disk
 * surely has: of each file the bytes at its last datasync, of each folder the names at its last sync. `cut` makes of
 * that, and of a random part of what came after, a directory of its own:
 *
 * - writes that were not synced are there, are not, end at any byte, or are there in part, sector by sector;
 *   a file is as long as any of that makes it, and what was not written of it is zeros or garbage;
 * - names that were given or removed and not synced are so or not: each for itself, or all up to a moment;
 * - a rename is there as a whole or not at all, as every journaling file system does it.
 *
 * LevelDB's folders do not go through the layer: power-cut-levels.ts says what is left of them.
 *
 * Several processes may follow each other: what a killed one leaves is in the page cache still.
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { type FileLayer, nodeFiles, type OpenMode, type StoreFile } from '../../server/file-layer.ts'
import type { Pick } from './dice.ts'
import { copyLevel, isLevelFolder, LevelWatch } from './power-cut-levels.ts'

interface Write {
  readonly at: number
  readonly bytes: Buffer
  /** It has returned: the next datasync covers it. */
  isDone: boolean
}

interface Truncation {
  readonly length: number
  readonly isDone: true
}

type Change = Write | Truncation

class FileNode {
  /** What the disk has. */
  synced: Buffer
  unsynced: Change[] = []

  constructor(synced: Buffer) {
    this.synced = synced
  }
}

class FolderNode {
  /** The names that the disk has. */
  readonly synced = new Map<string, Node>()
  unsynced: NameChange[] = []
}

type Node = FileNode | FolderNode

interface NameChange {
  /** Over all folders, as they came. */
  readonly place: number
  readonly added?: { readonly name: string; readonly node: Node }
  readonly removed?: string
}

export class PowerOff extends Error {
  readonly code = 'EIO'

  constructor() {
    super('EIO: the power is off')
  }
}

const sectorBytes = 512

export class PowerCutDisk {
  readonly root: string
  readonly levels: LevelWatch
  readonly #nodes = new Map<string, Node>()
  #changes = 0
  /** Paths of files that nobody has closed. */
  readonly openFiles: string[] = []

  private constructor(root: string) {
    this.root = root
    this.levels = new LevelWatch(root)
  }

  /** A disk that has what is below `root` now. */
  static async of(root: string): Promise<PowerCutDisk> {
    const disk = new PowerCutDisk(root)
    await disk.#load(root)
    return disk
  }

  async #load(path: string): Promise<FolderNode> {
    const folder = new FolderNode()
    this.#nodes.set(path, folder)
    for (const entry of await readdir(path, { withFileTypes: true })) {
      const below = join(path, entry.name)
      if (entry.isFile()) {
        const file = new FileNode(await readFile(below))
        this.#nodes.set(below, file)
        folder.synced.set(entry.name, file)
      } else if (await isLevelFolder(below)) {
        folder.synced.set(entry.name, new FolderNode())
        await this.levels.add(below)
      } else {
        folder.synced.set(entry.name, await this.#load(below))
      }
    }
    return folder
  }

  #folder(path: string): FolderNode {
    const node = this.#nodes.get(path)
    if (node instanceof FolderNode) return node
    const made = new FolderNode()
    this.#nodes.set(path, made)
    return made
  }

  #file(path: string): FileNode {
    const node = this.#nodes.get(path)
    if (node instanceof FileNode) return node
    throw new TypeError(`${path} was not made through the layer`)
  }

  #change(folder: string, change: Omit<NameChange, 'place'>): void {
    this.#folder(folder).unsynced.push({ place: this.#changes++, ...change })
  }

  added(path: string, node: 'file' | 'folder'): void {
    const made = node === 'file' ? new FileNode(Buffer.alloc(0)) : new FolderNode()
    this.#nodes.set(path, made)
    this.#change(dirname(path), { added: { name: basename(path), node: made } })
  }

  knows(path: string): boolean {
    return this.#nodes.has(path)
  }

  removed(path: string): void {
    this.#nodes.delete(path)
    this.#change(dirname(path), { removed: basename(path) })
  }

  renamed(from: string, to: string): void {
    const node = this.#file(from)
    this.#nodes.delete(from)
    this.#nodes.set(to, node)
    this.#change(dirname(from), { removed: basename(from), added: { name: basename(to), node } })
  }

  /** Notes a write that begins; the returned function, that it has ended. */
  writes(path: string, parts: readonly Buffer[], at: number): () => void {
    const write: Write = { at, bytes: Buffer.concat(parts), isDone: false }
    this.#file(path).unsynced.push(write)
    return () => {
      write.isDone = true
    }
  }

  truncates(path: string, length: number): void {
    this.#file(path).unsynced.push({ length, isDone: true })
  }

  /** Notes a datasync that begins; the returned function, that it went well. */
  syncs(path: string): () => void {
    const file = this.#file(path)
    const covered = new Set(file.unsynced.filter(({ isDone }) => isDone))
    return () => {
      for (const change of file.unsynced) if (covered.has(change)) file.synced = applied(file.synced, change)
      file.unsynced = file.unsynced.filter((change) => !covered.has(change))
    }
  }

  /** The same for a folder. */
  async syncsFolder(path: string): Promise<() => void> {
    const folder = this.#folder(path)
    const covered = new Set(folder.unsynced)
    const others = await this.#foreign(path)
    return () => {
      for (const change of folder.unsynced) if (covered.has(change)) rename(folder.synced, change)
      folder.unsynced = folder.unsynced.filter((change) => !covered.has(change))
      for (const name of others) folder.synced.set(name, new FolderNode())
    }
  }

  /** Folders that nobody made through the layer: LevelDB's. */
  async #foreign(path: string): Promise<string[]> {
    const entries = await readdir(path, { withFileTypes: true })
    return entries
      .filter((entry) => entry.isDirectory() && !this.#nodes.has(join(path, entry.name)))
      .map(({ name }) => name)
  }

  /** Makes what a power cut leaves, in `target`, which is not there. No process is alive. */
  async cut(target: string, pick: Pick): Promise<PowerCutDisk> {
    await this.levels.settled()
    const style = pick(4)
    const upTo = pick(this.#changes + 1)
    const survives = ({ place }: NameChange): boolean =>
      style === 0 || (style === 1 ? false : style === 2 ? place < upTo : pick(2) === 0)
    await this.#leave(this.root, this.#folder(this.root), target, { pick, survives })
    this.levels.forget()
    return await PowerCutDisk.of(target)
  }

  async #leave(
    path: string,
    folder: FolderNode,
    target: string,
    rules: { pick: Pick; survives: (change: NameChange) => boolean },
  ): Promise<void> {
    const { pick, survives } = rules
    await mkdir(target, { recursive: true })
    const names = new Map(folder.synced)
    for (const change of folder.unsynced) if (survives(change)) rename(names, change)
    for (const name of await this.#foreign(path)) {
      if (!names.has(name) && pick(2) === 0) names.set(name, new FolderNode())
    }
    for (const [name, node] of names) {
      const [from, to] = [join(path, name), join(target, name)]
      if (node instanceof FileNode) await writeFile(to, leftOf(node, pick))
      else if (this.levels.has(from)) await copyLevel(this.levels, from, to, pick)
      else await this.#leave(from, node, to, rules)
    }
  }

  /** The bytes on the disk and in the page cache, for the figures. */
  get bytes(): number {
    let bytes = 0
    for (const node of this.#nodes.values()) if (node instanceof FileNode) bytes += node.synced.length
    return bytes
  }
}

function rename(names: Map<string, Node>, { removed, added }: NameChange): void {
  if (removed !== undefined) names.delete(removed)
  if (added !== undefined) names.set(added.name, added.node)
}

function applied(before: Buffer, change: Change): Buffer {
  if ('length' in change) return resized(before, change.length)
  const after = resized(before, Math.max(before.length, change.at + change.bytes.length))
  change.bytes.copy(after, change.at)
  return after
}

function resized(bytes: Buffer, length: number): Buffer {
  const resized = Buffer.alloc(length)
  bytes.copy(resized)
  return resized
}

/** What is left of a file. */
function leftOf({ synced, unsynced }: FileNode, pick: Pick): Buffer {
  if (unsynced.length === 0) return synced
  const how = pick(5)
  if (how === 0) return synced
  if (how === 1) return unsynced.reduce(applied, synced)
  if (how === 2) return inOrder(synced, unsynced, pick)
  const left = unsynced.filter((change) => !('length' in change) || pick(2) === 0)
  const whole = left.flatMap((change): Change[] => ('length' in change ? [change] : someOf(change, pick)))
  const bytes = whole.reduce(applied, synced)
  const longest = unsynced.reduce(
    (most, change) => ('length' in change ? most : Math.max(most, change.at + change.bytes.length)),
    bytes.length,
  )
  // The length may be there before the bytes are.
  const longer = resized(bytes, bytes.length + pick(longest - bytes.length + 1))
  if (how === 4) for (let at = bytes.length; at < longer.length; at++) longer[at] = pick(256)
  return longer
}

/** Whatever came up to a moment; the last write of it ends at any byte. */
function inOrder(synced: Buffer, unsynced: readonly Change[], pick: Pick): Buffer {
  const upTo = pick(unsynced.length)
  const last = unsynced[upTo] as Change
  const torn =
    'length' in last ? last : { ...last, bytes: last.bytes.subarray(0, pick(last.bytes.length + 1)) }
  return [...unsynced.slice(0, upTo), torn].reduce(applied, synced)
}

/** Any of a write's sectors. */
function someOf({ at, bytes }: Write, pick: Pick): Write[] {
  const pieces: Write[] = []
  for (let start = at; start < at + bytes.length; ) {
    const end = Math.min(at + bytes.length, (Math.floor(start / sectorBytes) + 1) * sectorBytes)
    if (pick(2) === 0) pieces.push({ at: start, bytes: bytes.subarray(start - at, end - at), isDone: true })
    start = end
  }
  return pieces
}

/** What one process does to the disk. Every call, and every return of one, is a moment at which the power may go. */
export class ProcessFiles implements FileLayer {
  readonly disk: PowerCutDisk
  readonly #base: FileLayer
  readonly #onMoment: (what: string) => void
  readonly #busy = new Set<Promise<unknown>>()
  isAlive = true
  moments = 0
  /** What it called, for a failure's report. */
  readonly trace: string[] = []

  /** `onMoment` is told of each moment and may call `kill`. `base` does the real work. */
  constructor(disk: PowerCutDisk, onMoment: (what: string) => void = () => {}, base: FileLayer = nodeFiles) {
    this.disk = disk
    this.#onMoment = onMoment
    this.#base = base
    disk.levels.process = this
  }

  /** From now on nothing that it does reaches the disk. */
  kill(): void {
    this.isAlive = false
  }

  /** Also for what LevelDB does. */
  moment(what: string): void {
    if (this.isAlive) {
      this.moments++
      this.trace.push(what)
      this.#onMoment(what)
    }
    if (!this.isAlive) throw new PowerOff()
  }

  async #call<T>(what: string, work: () => Promise<T>): Promise<T> {
    this.moment(what)
    const working = work()
    this.#busy.add(working)
    try {
      const result = await working
      this.moment(`${what}, done`)
      return result
    } finally {
      this.#busy.delete(working)
    }
  }

  /** Resolves when no call is under way any more: the system ends those of a killed process. */
  async settled(): Promise<void> {
    await this.disk.levels.settled()
    while (this.#busy.size > 0) await Promise.allSettled(this.#busy)
  }

  async open(path: string, mode: OpenMode): Promise<StoreFile> {
    const { disk } = this
    const name = basename(path)
    let opened: StoreFile | undefined
    const close = async (): Promise<void> => {
      const place = disk.openFiles.indexOf(path)
      if (place >= 0) disk.openFiles.splice(place, 1)
      await opened?.close()
    }
    const file = await this.#call(`open ${name} to ${mode}`, async () => {
      opened = await this.#base.open(path, mode)
      disk.openFiles.push(path)
      if (mode === 'replace' && disk.knows(path)) disk.truncates(path, 0)
      else if (mode === 'create' || mode === 'replace') disk.added(path, 'file')
      return opened
    }).catch(async (error: unknown) => {
      await close()
      throw error
    })
    // Renaming an open file is nothing that anybody does.
    return {
      read: (target, position) => this.#call(`read ${name}`, () => file.read(target, position)),
      write: (parts, position) =>
        this.#call(`write ${name} at ${position}`, async () => {
          const isDone = disk.writes(path, parts, position)
          await file.write(parts, position)
          isDone()
        }),
      datasync: () =>
        this.#call(`datasync ${name}`, async () => {
          const isDone = disk.syncs(path)
          this.moment(`datasync ${name}, nearly`)
          isDone()
        }),
      truncate: (length) =>
        this.#call(`truncate ${name} to ${length}`, async () => {
          disk.truncates(path, length)
          await file.truncate(length)
        }),
      size: () => this.#call(`size of ${name}`, () => file.size()),
      close,
    }
  }

  stat(path: string): ReturnType<FileLayer['stat']> {
    return this.#call(`stat ${basename(path)}`, () => this.#base.stat(path))
  }

  makeFolder(path: string): Promise<boolean> {
    return this.#call(`make folder ${basename(path)}`, async () => {
      const isNew = await this.#base.makeFolder(path)
      if (isNew) this.disk.added(path, 'folder')
      return isNew
    })
  }

  names(folder: string): Promise<string[]> {
    return this.#call(`names in ${basename(folder)}`, () => this.#base.names(folder))
  }

  rename(from: string, to: string): Promise<void> {
    return this.#call(`rename to ${basename(to)}`, async () => {
      await this.#base.rename(from, to)
      this.disk.renamed(from, to)
    })
  }

  unlink(path: string): Promise<void> {
    return this.#call(`unlink ${basename(path)}`, async () => {
      await this.#base.unlink(path)
      this.disk.removed(path)
    })
  }

  syncFolder(path: string): Promise<void> {
    return this.#call(`sync folder ${basename(path)}`, async () => {
      const isDone = await this.disk.syncsFolder(path)
      this.moment(`sync folder ${basename(path)}, nearly`)
      isDone()
    })
  }
}
