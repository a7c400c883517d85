/**
 * The first station of a restore: walks the tree of a checkpoint, makes directories, links and special
 * files as it goes, and lists what the files need for the station behind it (file-writer.ts). It is read only as
 * far ahead as that allows.
 *
 * Invariants: a directory's attributes are set when all below it is done. The first of a group of hard
 * links is restored as a file; the others are linked to it once it stands (hard-links.ts). What exists at
 * the destination is compared before it is touched: equal is kept, different is a problem unless `overwrite`
 * says otherwise.
 */
import { closeSync, linkSync, readlinkSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import type { Id } from '../../protocol/id.ts'
import { nameBytes, targetBytes } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { Attributes, Entry, FileEntry, Part } from '../../protocol/schema.ts'
import { deviceNumber, makeDevice, makeFifo } from '../posix.ts'
import { fsPath, reach } from '../sources/reachable-path.ts'
import { cancelledBy } from '../transport-problem.ts'
import { isRoot, setAttributes } from './attributes.ts'
import type { FileJob, FileStep, FileSteps } from './file-steps.ts'
import { HardLinks, type Heir, type LinkableEntry, type LinkPlace } from './hard-links.ts'
import type { IncludeFilter } from './include-filter.ts'
import type { Soon } from './kept-objects.ts'
import { lookAt, openRegular, partName } from './part-file.ts'
import type { RestoreLog } from './restore-log.ts'
import type { RestoredDirectory } from './restored-directory.ts'
import type { Piece, TreeContent } from './tree-content.ts'

type Node = Exclude<LinkableEntry, { kind: 'file' }>
type Existing = NonNullable<ReturnType<typeof lookAt>>

/** Where no link can be made: another file system is mounted there, or there are enough, or it knows none. */
const noLinkCodes = ['EXDEV', 'EMLINK', 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']

interface Frame {
  readonly directory: RestoredDirectory
  readonly pages: AsyncIterator<readonly Entry[]>
  readonly filter: IncludeFilter
  page: readonly Entry[]
  next: number
}

export class TreeRestore {
  readonly #content: TreeContent
  readonly #log: RestoreLog
  readonly #overwrite: boolean
  readonly #links: HardLinks
  readonly #kept: (bytes: number) => void
  readonly #signal: AbortSignal | undefined

  /** `kept` is told of content that is at the destination already. */
  constructor(options: {
    content: TreeContent
    log: RestoreLog
    overwrite: boolean
    kept: (bytes: number) => void
    signal?: AbortSignal | undefined
  }) {
    this.#content = options.content
    this.#log = options.log
    this.#overwrite = options.overwrite
    this.#kept = options.kept
    this.#signal = options.signal
    this.#links = new HardLinks((place, source) => this.#link(place, source))
  }

  /** Walks the tree below `id` into `root`, in order of names, directories where they stand. */
  async *steps(root: RestoredDirectory, id: Id, filter: IncludeFilter): AsyncIterable<FileSteps> {
    const stack: Frame[] = [this.#frame(root, id, filter, undefined)]
    for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
      this.#checkSignal()
      if (await this.#hasMore(frame)) {
        yield* this.#page(frame, stack)
      } else {
        stack.pop()
        frame.directory.done()
      }
    }
  }

  /** What is left of a page, up to a directory, which is entered. */
  async *#page(frame: Frame, stack: Frame[]): AsyncIterable<FileSteps> {
    let simple: FileStep[] = []
    while (frame.next < frame.page.length) {
      const entry = frame.page[frame.next++] as Entry
      const name = nameBytes(entry)
      const inside = frame.filter.within(name, entry.kind === 'directory')
      if (inside === undefined) continue
      if (entry.kind === 'directory') {
        const directory = this.#enter(frame.directory, name, entry)
        if (directory === undefined) continue
        stack.push(this.#frame(directory, entry.id, inside, frame))
        break
      }
      const step = entry.kind === 'file' ? this.#simpleStep(frame.directory, name, entry) : undefined
      if (step !== undefined) simple.push(step)
      else {
        if (simple.length > 0) yield simple
        simple = []
        yield* this.#entry(frame, name, entry)
      }
    }
    if (simple.length > 0) yield simple
  }

  /** Of a file of one chunk, where there is nothing that has to be looked at: most are like that. */
  #simpleStep(directory: RestoredDirectory, name: Buffer, entry: FileEntry): FileStep | undefined {
    if (!directory.fresh || entry.link !== undefined) return undefined
    const chunk = this.#content.onlyPieceOf(entry)
    if (chunk === undefined) return undefined
    directory.begin()
    return { kind: 'whole', job: jobOf(directory, name, entry), chunk }
  }

  #frame(directory: RestoredDirectory, id: Id, filter: IncludeFilter, parent: Frame | undefined): Frame {
    const soon = soonWanted(parent, filter)
    const pages = this.#content.pages(id, soon)[Symbol.asyncIterator]()
    return { directory, pages, filter, page: [], next: 0 }
  }

  /** Whether there are entries left; what cannot be listed ends the directory, and is noted. */
  async #hasMore(frame: Frame): Promise<boolean> {
    try {
      while (frame.next >= frame.page.length) {
        const page = await frame.pages.next()
        if (page.done) return false
        frame.page = page.value
        frame.next = 0
      }
      return true
    } catch (error) {
      this.#log.failed(frame.directory.shownPath, error)
      return false
    }
  }

  #enter(parent: RestoredDirectory, name: Buffer, attributes: Attributes): RestoredDirectory | undefined {
    try {
      const { mode, uid, gid, mtimeNs } = attributes
      const directory = parent.enter(name, { mode, uid, gid, mtimeNs })
      this.#log.counts.directories++
      return directory
    } catch (error) {
      this.#log.failed(parent.shownPathOf(name), error)
      return undefined
    }
  }

  async *#entry(
    frame: Frame,
    name: Buffer,
    entry: Exclude<Entry, { kind: 'directory' }>,
  ): AsyncIterable<FileSteps> {
    const { directory } = frame
    if (entry.kind === 'socket' || (isDevice(entry) && !isRoot())) {
      this.#log.counts.skipped++
      if (isDevice(entry)) {
        const error = new Problem('destination-failed', 'only root can make devices; run the restore as root')
        this.#log.failed(directory.shownPathOf(name), error)
      }
      return
    }
    const place = { directory, name }
    if (entry.link !== undefined && !this.#links.claim(entry, place)) return
    yield* this.#restoreAt(place, entry, soonWanted(frame, frame.filter))
  }

  async *#restoreAt(place: LinkPlace, entry: LinkableEntry, soon?: Soon): AsyncIterable<FileSteps> {
    const { directory, name } = place
    const finished = (problem?: Problem) => {
      if (entry.link !== undefined) this.#links.settle(entry, problem)
    }
    try {
      const existing = directory.fresh ? undefined : lookAt(directory.pathOf(name))
      if (entry.kind === 'file') yield* this.#file(place, entry, existing, finished, soon)
      else {
        this.#node(place, entry, existing)
        finished()
      }
    } catch (error) {
      finished(this.#log.failed(directory.shownPathOf(name), error))
    }
  }

  /**
   * What is left when all steps so far have been written: further names of files whose first name could not
   * be restored where it was to go. Undefined when nothing is; to be asked until then.
   */
  leftover(): AsyncIterable<FileSteps> | undefined {
    const first = this.#links.nextHeir()
    return first === undefined ? undefined : this.#leftover(first)
  }

  async *#leftover(first: Heir): AsyncIterable<FileSteps> {
    for (let heir: Heir | undefined = first; heir !== undefined; heir = this.#links.nextHeir()) {
      this.#checkSignal()
      yield* this.#restoreAt(heir.place, heir.entry)
      heir.place.directory.done()
    }
  }

  async *#file(
    { directory, name }: LinkPlace,
    entry: FileEntry,
    existing: Existing | undefined,
    finished: FileJob['finished'] & {},
    soon: Soon | undefined,
  ): AsyncIterable<FileSteps> {
    const path = directory.pathOf(name)
    if (existing !== undefined && (await this.#isEqual(path, entry, existing, soon))) {
      setAttributes(path, 'file', entry)
      this.#log.counts.filesKept++
      this.#log.counts.bytes += entry.size
      this.#kept(entry.size)
      finished()
      return
    }
    this.#mayReplace(existing)
    const job = { ...jobOf(directory, name, entry), finished }
    const chunk = this.#content.onlyPieceOf(entry)
    if (chunk !== undefined) {
      directory.begin()
      yield [{ kind: 'whole', job, chunk }]
      return
    }
    const part = directory.fresh ? undefined : openRegular(directory.pathOf(partName(name, entry.id)))
    try {
      const digest = await this.#content.digestOf(entry, soon)
      directory.begin()
      const pieces = this.#content.piecesOf(entry)
      yield* fileSteps({ ...job, digest, resume: part !== undefined }, this.#content, pieces, part)
    } finally {
      if (part !== undefined) closeSync(part)
    }
  }

  /** Whether the very same file stands there. Reads it, unless size or time tell already. */
  async #isEqual(path: Buffer, entry: FileEntry, existing: Existing, soon?: Soon): Promise<boolean> {
    if (!existing.isFile() || Number(existing.size) !== entry.size) return false
    if (String(existing.mtimeNs) !== entry.mtimeNs) return false
    const fd = openRegular(path)
    if (fd === undefined) return false
    try {
      return await this.#content.isIn(fd, entry, soon)
    } finally {
      closeSync(fd)
    }
  }

  #checkSignal(): void {
    if (this.#signal?.aborted) throw cancelledBy(this.#signal)
  }

  #mayReplace(existing: Existing | undefined): void {
    if (existing === undefined) return
    if (existing.isDirectory()) {
      throw new Problem('destination-exists', 'a directory stands where this must go; remove it first')
    }
    if (!this.#overwrite) {
      throw new Problem('destination-exists', 'something else stands there; --overwrite replaces it')
    }
  }

  #node({ directory, name }: LinkPlace, entry: Node, existing: Existing | undefined): void {
    const path = directory.pathOf(name)
    if (existing !== undefined && nodeIsEqual(path, entry, existing)) {
      setAttributes(path, entry.kind, entry)
    } else {
      this.#mayReplace(existing)
      const made = existing === undefined ? path : directory.pathOf(partName(name, entry.kind))
      if (existing !== undefined) rmSync(made, { force: true })
      makeNode(made, entry)
      setAttributes(made, entry.kind, entry)
      if (existing !== undefined) renameSync(made, path)
    }
    if (entry.kind === 'symlink') this.#log.counts.symlinks++
    else this.#log.counts.specials++
  }

  /** Makes a further name of a file that stands, or notes why there is none; false where no link can be made. */
  #link({ directory, name }: LinkPlace, source: Buffer | Problem): boolean {
    try {
      if (source instanceof Problem) throw source
      const path = directory.pathOf(name)
      const reached = reach(source.toString('latin1'))
      try {
        const existing = directory.fresh ? undefined : lookAt(path)
        if (existing === undefined) linkSync(fsPath(reached.path), path)
        else if (!this.#replaceByLink({ directory, name }, existing, fsPath(reached.path))) return false
      } finally {
        reached.close()
      }
      this.#log.counts.hardLinks++
    } catch (error) {
      if (noLinkCodes.includes((error as NodeJS.ErrnoException).code ?? '')) return false
      this.#log.failed(directory.shownPathOf(name), error)
    }
    return true
  }

  #replaceByLink({ directory, name }: LinkPlace, existing: Existing, source: Buffer): boolean {
    const first = lookAt(source)
    // An earlier run could not link over here: what it made may be right.
    if (existing.dev !== first?.dev) return false
    if (existing.ino === first.ino) return true
    this.#mayReplace(existing)
    const made = directory.pathOf(partName(name, 'link'))
    rmSync(made, { force: true })
    linkSync(source, made)
    renameSync(made, directory.pathOf(name))
    return true
  }
}

/**
 * The steps of one file. `part` is what an interrupted run left of it: chunks that stand there rightly
 * are not fetched. A list of chunks that breaks off becomes a step, so that it fails in its turn.
 */
export async function* fileSteps(
  job: FileJob,
  content: Pick<TreeContent, 'hasPiece'>,
  pieces: AsyncIterable<Piece>,
  part: number | undefined,
): AsyncIterable<FileSteps> {
  let offset = 0
  try {
    for await (const chunk of pieces) {
      const isThere = part !== undefined && (await content.hasPiece(part, offset, chunk))
      yield [{ job, kind: 'chunk', offset, chunk, isThere }]
      offset += chunk.size
    }
  } catch (error) {
    yield [{ job, kind: 'broken', error }]
    return
  }
  yield [{ job, kind: 'end' }]
}

/** A file that is new there, all of which has to come. */
function jobOf(directory: RestoredDirectory, name: Buffer, entry: FileEntry): FileJob {
  const { id, size, sparse = false, mode, uid, gid, mtimeNs } = entry
  const attributes = { mode, uid, gid, mtimeNs }
  return { directory, name, key: id, size, sparse, digest: undefined, attributes, resume: false }
}

/** What the walk will want after the next entry of `frame`, where all below that is wanted as `filter` says. */
function soonWanted(frame: Frame | undefined, { isAll }: IncludeFilter): Soon {
  return { ids: () => (frame === undefined ? [] : objectsBehind(frame)), below: isAll }
}

/** Directories and lists of chunks. */
function* objectsBehind({ page, next, filter }: Frame): Iterable<Id> {
  for (let index = next; index < page.length; index++) {
    const entry = page[index] as Entry
    if (entry.kind !== 'directory' && !(entry.kind === 'file' && entry.chunked)) continue
    if (filter.within(nameBytes(entry), entry.kind === 'directory') !== undefined) yield (entry as Part).id
  }
}

function isDevice(entry: Entry): boolean {
  return entry.kind === 'character-device' || entry.kind === 'block-device'
}

function nodeIsEqual(path: Buffer, entry: Node, existing: Existing): boolean {
  switch (entry.kind) {
    case 'symlink':
      return existing.isSymbolicLink() && readlinkSync(path, 'buffer').equals(targetBytes(entry))
    case 'fifo':
      return existing.isFIFO()
    case 'socket':
      return false
    case 'character-device':
    case 'block-device': {
      const sameKind = entry.kind === 'block-device' ? existing.isBlockDevice() : existing.isCharacterDevice()
      return sameKind && existing.rdev === deviceNumber(entry.major, entry.minor)
    }
  }
}

function makeNode(path: Buffer, entry: Node): void {
  if (entry.kind === 'symlink') symlinkSync(targetBytes(entry), path)
  else if (entry.kind === 'fifo') makeFifo(path, 0o600)
  else if ('major' in entry) makeDevice(path, 0o600, entry.kind, entry.major, entry.minor)
}
