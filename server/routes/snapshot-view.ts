/**
 * Committed checkpoints as WebDAV shows them: sources, their numbers and `latest`, and below these the tree.
 *
 * WebDAV knows files and collections only. A relative symlink is shown as the file or directory that it leads to,
 * when that is inside of the snapshot; any other link, and devices, pipes and sockets, are left out (a tar has
 * them). A link to a directory is left out, too, where the path already leads through that directory, and where
 * it leads through `maxLinks` links: or those who list everything would never come to an end.
 */
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { nameBytes } from '../../protocol/objects.ts'
import { isProblem } from '../../protocol/problem.ts'
import type { Attributes, CheckpointState, Entry, FileEntry, Part } from '../../protocol/schema.ts'
import { parseCheckpointNumber } from '../../protocol/url.ts'
import { readContent } from '../catalog/content.ts'
import { entriesOf } from '../catalog/directory.ts'
import { findEntry } from '../catalog/find-entry.ts'
import { readItemContent } from '../catalog/item-content.ts'
import { followLink, type Place } from '../catalog/symlinks.ts'
import { type Archived, tarArchive, walkDirectory } from '../catalog/tar-archive.ts'
import type { PropertyName, PropertyValue } from '../http/dav-xml.ts'
import type { Vault } from '../vaults.ts'
import type { DavView, Names, Shown } from './dav-view.ts'

const maxLinks = 4
const latest = 'latest'
const nothing = Buffer.alloc(0)

/** What stands behind a thing that is shown. */
type Behind =
  | { readonly is: 'sources' }
  | { readonly is: 'numbers'; readonly source: string }
  | { readonly is: 'stream'; readonly state: CheckpointState }
  | { readonly is: 'content'; readonly state: CheckpointState }
  | {
      readonly is: 'directory'
      readonly place: Place
      /** Known of all but some roots. */
      readonly attributes: Attributes | undefined
      readonly path: Visited
      readonly links: number
    }
  | { readonly is: 'file' }

type Directory = Behind & { is: 'directory' }

/** The directories that a path leads through. */
interface Visited {
  readonly id: Id
  readonly before: Visited | undefined
}

export class SnapshotView implements DavView {
  private readonly catalog: Vault['catalog']

  constructor({ catalog }: Vault) {
    this.catalog = catalog
  }

  async find([source, number, ...rest]: Names, signal: AbortSignal): Promise<Shown | undefined> {
    if (source === undefined) return await this.all()
    const name = source.toString('utf8')
    if (number === undefined) return await this.source(name)
    let shown = await this.snapshot(name, number.toString('latin1'))
    for (const next of rest) {
      if (shown?.kind !== 'directory') return undefined
      shown = await this.member(shown, next, signal)
    }
    return shown
  }

  private async all(): Promise<Shown> {
    let mtimeNs = '0'
    for (const source of await this.catalog.checkpoints.listSources()) {
      const shown = await this.source(source)
      if (shown !== undefined && BigInt(shown.mtimeNs) > BigInt(mtimeNs)) mtimeNs = shown.mtimeNs
    }
    return collection(nothing, mtimeNs, { is: 'sources' })
  }

  /** A source with a committed checkpoint. */
  private async source(source: string): Promise<Shown | undefined> {
    const last = await this.catalog.checkpoints.latest(source)
    if (last === undefined) return undefined
    return collection(Buffer.from(source), committedNs(last), { is: 'numbers', source })
  }

  private async snapshot(source: string, text: string): Promise<Shown | undefined> {
    const { checkpoints } = this.catalog
    if (text === latest) {
      const last = await checkpoints.latest(source)
      return last === undefined ? undefined : snapshotOf(last, text)
    }
    const number = parseCheckpointNumber(text)
    if (number === undefined) return undefined
    try {
      const state = await checkpoints.state({ source, number })
      return state.state === 'committed' ? snapshotOf(state, text) : undefined
    } catch (error) {
      if (isProblem(error, 'checkpoint-not-found')) return undefined
      throw error
    }
  }

  private async member(shown: Shown, name: Buffer, signal: AbortSignal): Promise<Shown | undefined> {
    const behind = behindOf(shown)
    if (behind.is === 'stream') {
      return name.toString('utf8') === behind.state.source ? await this.stream(behind.state) : undefined
    }
    const directory = behind as Directory
    const entry = await findEntry(this.catalog.reader, directory.place.id, name, signal)
    return entry === undefined ? undefined : await this.entry(directory, entry, signal)
  }

  async *members(shown: Shown, signal: AbortSignal): AsyncGenerator<Shown> {
    const behind = behindOf(shown)
    if (behind.is === 'sources') yield* this.sources()
    else if (behind.is === 'numbers') yield* this.numbers(behind.source)
    else if (behind.is === 'stream') yield await this.stream(behind.state)
    else if (behind.is === 'directory') yield* this.entries(behind, signal)
  }

  private async *sources(): AsyncGenerator<Shown> {
    for (const name of await this.catalog.checkpoints.listSources()) {
      const shown = await this.source(name)
      if (shown !== undefined) yield shown
    }
  }

  private async *numbers(source: string): AsyncGenerator<Shown> {
    let last: CheckpointState | undefined
    for (const state of await this.catalog.checkpoints.list(source)) {
      if (state.state !== 'committed') continue
      last = state
      yield snapshotOf(state, String(state.number))
    }
    if (last !== undefined) yield snapshotOf(last, latest)
  }

  private async *entries(directory: Directory, signal: AbortSignal): AsyncGenerator<Shown> {
    for await (const entry of entriesOf(this.catalog.reader, directory.place.id, signal)) {
      const shown = await this.entry(directory, entry, signal)
      if (shown !== undefined) yield shown
    }
  }

  /** An entry as it is shown; undefined when it is not. */
  private async entry(directory: Directory, entry: Entry, signal: AbortSignal): Promise<Shown | undefined> {
    const { place, path, links } = directory
    const name = nameBytes(entry)
    if (entry.kind === 'file') return fileShown(name, entry)
    if (entry.kind === 'directory') {
      const { id, mode, uid, gid, mtimeNs } = entry
      return collection(name, mtimeNs, {
        is: 'directory',
        place: { id, mtimeNs, above: place },
        attributes: { mode, uid, gid, mtimeNs },
        path: { id, before: path },
        links,
      })
    }
    if (entry.kind !== 'symlink') return undefined
    const end = await followLink(this.catalog.reader, place, entry, signal)
    if (end === undefined) return undefined
    if ('kind' in end) return fileShown(name, end)
    if (links >= maxLinks || leadsThrough(path, end.id)) return undefined
    return collection(name, end.mtimeNs, {
      is: 'directory',
      place: end,
      attributes: undefined,
      path: { id: end.id, before: path },
      links: links + 1,
    })
  }

  /** The one file of a checkpoint that holds no tree, named after its source. */
  private async stream(state: CheckpointState): Promise<Shown> {
    const { items = 0, itemBytes = 0, source, number } = state
    const [only] = items === 1 ? (await this.catalog.checkpoints.items({ source, number }, 0, 1)).items : []
    // Numbers are never given twice, so this stands for the content as well as its own hash would.
    const id = only?.id ?? hashId(Buffer.from(`${source}/${number}`))
    return {
      kind: 'file',
      name: Buffer.from(source),
      mtimeNs: committedNs(state),
      etag: `"${id}"`,
      part: only ?? { id, size: itemBytes },
      extra: { is: only === undefined ? 'content' : 'file', state } satisfies Behind | { state: unknown },
    }
  }

  content(
    { extra, part }: Shown,
    range: { start: number; end: number },
    signal: AbortSignal,
  ): AsyncIterable<Buffer> {
    const behind = extra as Behind
    const { reader, checkpoints } = this.catalog
    if (behind.is !== 'content') return readContent(reader, part as Part, range, signal)
    return readItemContent(reader, checkpoints, behind.state, range, signal)
  }

  /** The time that was backed up: a snapshot is shown with that of the backup. */
  ownMtimeNs(shown: Shown): string {
    const behind = behindOf(shown)
    return behind.is === 'directory' ? behind.place.mtimeNs : shown.mtimeNs
  }

  /** Whether the content of a file stands in the store under the id of its part. */
  isStored(file: Shown): boolean {
    return behindOf(file).is === 'file'
  }

  async properties(): Promise<ReadonlyMap<PropertyName, PropertyValue>> {
    return new Map()
  }

  /** A directory of a snapshot as a tar, with everything that the backup holds of it. Undefined above snapshots. */
  archive(shown: Shown, signal: AbortSignal): AsyncIterable<Buffer> | undefined {
    const behind = behindOf(shown)
    const { reader } = this.catalog
    if (behind.is === 'directory') {
      const { place, attributes } = behind
      return tarArchive(walkDirectory(reader, place.id, attributes, signal), (part) =>
        readContent(reader, part, { start: 0, end: part.size }, signal),
      )
    }
    if (behind.is !== 'stream') return undefined
    return this.streamArchive(behind.state, signal)
  }

  private async *streamArchive(state: CheckpointState, signal: AbortSignal): AsyncGenerator<Buffer> {
    const shown = await this.stream(state)
    const { id, size } = shown.part as Part
    const attributes = { mode: 0o600, uid: 0, gid: 0, mtimeNs: shown.mtimeNs }
    const entry: FileEntry = { kind: 'file', name: state.source, ...attributes, id, size }
    async function* one(): AsyncGenerator<Archived> {
      yield { path: shown.name, entry }
    }
    yield* tarArchive(one(), () => this.content(shown, { start: 0, end: size }, signal))
  }
}

function behindOf({ extra }: Shown): Behind {
  return extra as Behind
}

function collection(name: Buffer, mtimeNs: string, extra: Behind): Shown {
  return { kind: 'directory', name, mtimeNs, extra }
}

/** Shown with the time of the backup, which is what people look for in a list of them. */
function snapshotOf(state: CheckpointState, name: string): Shown {
  const { root, attributes } = state
  const mtimeNs = attributes?.mtimeNs ?? committedNs(state)
  const behind: Behind =
    root === undefined
      ? { is: 'stream', state }
      : {
          is: 'directory',
          place: { id: root, mtimeNs, above: undefined },
          attributes,
          path: { id: root, before: undefined },
          links: 0,
        }
  return collection(Buffer.from(name), committedNs(state), behind)
}

function fileShown(name: Buffer, { id, size, chunked, mtimeNs }: FileEntry): Shown {
  const part = { id, size, ...(chunked === true && { chunked }) }
  return { kind: 'file', name, mtimeNs, etag: `"${id}"`, part, extra: { is: 'file' } satisfies Behind }
}

function leadsThrough(path: Visited, id: Id): boolean {
  for (let visited: Visited | undefined = path; visited !== undefined; visited = visited.before) {
    if (visited.id === id) return true
  }
  return false
}

function committedNs({ committedAt, openedAt }: CheckpointState): string {
  return `${Date.parse(committedAt ?? openedAt)}000000`
}
