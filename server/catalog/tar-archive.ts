/**
 * A directory as a tar archive: what a restore makes of it, for whoever has nothing but tar.
 *
 * Depth first, each directory before what is in it. The first name of an inode carries the content, later ones
 * are hard links to it. Left out: sockets, which tar cannot hold. Holes are sent as the zeros that they read as.
 *
 * Memory: the entries of one part for each level of the tree; a path for each group of hard links, up to
 * `maxLinkBytes`: beyond that the group seen longest ago is forgotten, and a later name of it is a file of its own.
 */
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { nameBytes, targetBytes } from '../../protocol/objects.ts'
import type { Attributes, DeviceEntry, Entry, Part } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { entriesOf } from './directory.ts'
import { encodeTarHeader, type TarHeader, tarEnd, tarPadding } from './tar-header.ts'

const maxLinkBytes = 32 * 1024 * 1024
/** Short pieces are put together up to this. */
const pieceBytes = 256 * 1024

/** What stands in an archive. */
export interface Archived {
  /** Below the archived directory; empty for that itself. */
  readonly path: Buffer
  readonly entry: Entry | ({ readonly kind: 'directory' } & Attributes)
}

interface Level {
  readonly path: Buffer
  readonly entries: AsyncGenerator<Entry>
}

/** The directory itself, where its attributes are known, and all below it. */
export async function* walkDirectory(
  reader: ChunkReader,
  id: Id,
  attributes: Attributes | undefined,
  signal: AbortSignal,
): AsyncGenerator<Archived> {
  if (attributes !== undefined)
    yield { path: Buffer.alloc(0), entry: { ...attributes, kind: 'directory' as const } }
  const open: Level[] = [{ path: Buffer.alloc(0), entries: entriesOf(reader, id, signal) }]
  for (let level = open.at(-1); level !== undefined; level = open.at(-1)) {
    const { done, value: entry } = await level.entries.next()
    if (done === true) {
      open.pop()
      continue
    }
    const name = nameBytes(entry)
    const path = level.path.length === 0 ? name : Buffer.concat([level.path, Buffer.from('/'), name])
    yield { path, entry }
    if (entry.kind === 'directory') open.push({ path, entries: entriesOf(reader, entry.id, signal) })
  }
}

/**
 * The archive in pieces. Whatever cannot be read ends it with a Problem, in the middle of the archive:
 * `chunk-not-found`, `chunk-corrupt`, `not-found`, `invalid-object`, or `unavailable` when `signal` is aborted.
 */
export async function* tarArchive(
  archived: AsyncIterable<Archived>,
  content: (part: Part) => AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  const links = new LRUCache<string, Buffer>({ maxSize: maxLinkBytes })
  let pending: Buffer[] = []
  let bytes = 0
  const add = (piece: Buffer): void => {
    pending.push(piece)
    bytes += piece.length
  }
  const taken = (): Buffer => {
    const piece = pending.length === 1 ? (pending[0] as Buffer) : Buffer.concat(pending)
    pending = []
    bytes = 0
    return piece
  }
  for await (const one of archived) {
    const header = headerOf(one, links)
    if (header === undefined) continue
    add(encodeTarHeader(header))
    if (header.size > 0) {
      let sent = 0
      for await (const piece of content(one.entry as Part)) {
        // A view would keep all of its chunk in memory, and large ones need not be copied.
        if (piece.length >= pieceBytes && bytes > 0) yield taken()
        add(piece)
        sent += piece.length
        if (bytes >= pieceBytes) yield taken()
      }
      if (sent !== header.size) throw new TypeError('content of another size than its entry says')
      add(tarPadding(header.size))
    }
    if (bytes >= pieceBytes) yield taken()
  }
  add(tarEnd)
  yield taken()
}

/** Undefined for what tar cannot hold. */
function headerOf({ path, entry }: Archived, links: LRUCache<string, Buffer>): TarHeader | undefined {
  if (entry.kind === 'socket') return undefined
  const { mode, uid, gid, mtimeNs } = entry
  const archivePath = Buffer.concat([Buffer.from('./'), path])
  const common = { path: archivePath, mode, uid, gid, mtimeNs, size: 0 }
  if (entry.kind === 'directory') {
    const slashed = path.length === 0 ? archivePath : Buffer.concat([archivePath, Buffer.from('/')])
    return { ...common, type: 'directory', path: slashed }
  }
  const first = firstOfGroup(entry, archivePath, links)
  if (first !== undefined) return { ...common, type: 'hardLink', target: first }
  if (entry.kind === 'file') return { ...common, type: 'file', size: entry.size }
  if (entry.kind === 'symlink') return { ...common, type: 'symlink', target: targetBytes(entry) }
  if (entry.kind === 'fifo') return { ...common, type: 'fifo' }
  const { kind: type, major, minor } = entry as DeviceEntry
  return { ...common, type, major, minor }
}

/**
 * The path under which the inode stands in the archive already, or undefined; then this one is noted. Names whose
 * entries differ in content were changed while they were backed up: each of them is a file of its own.
 */
function firstOfGroup(
  entry: Exclude<Entry, { kind: 'directory' }>,
  path: Buffer,
  links: LRUCache<string, Buffer>,
): Buffer | undefined {
  if (entry.link === undefined) return undefined
  const key = JSON.stringify([entry.link, entry.kind, ...contentOf(entry)])
  const first = links.get(key)
  if (first === undefined) links.set(key, path, { size: key.length + path.length + 200 })
  return first
}

function contentOf(entry: Entry): unknown[] {
  if (entry.kind === 'file') return [entry.id, entry.size]
  if (entry.kind === 'symlink') return [entry.target, entry.target64]
  return 'major' in entry ? [entry.major, entry.minor] : []
}
