/** From what a source tells to what a directory object holds. */

import type { Id } from '../../protocol/id.ts'
import { encodeName, encodeTarget } from '../../protocol/objects.ts'
import type { Attributes, DirectoryEntry, Entry, FileEntry } from '../../protocol/schema.ts'
import type { ScannedEntry, SourceStat } from './source.ts'

/** How an entry names a file's content. */
export interface ContentReference {
  readonly id: Id
  readonly chunked: boolean
}

export function attributesOf(stat: SourceStat): Attributes {
  const { mode, uid, gid, mtimeNs } = stat
  return { mode, uid, gid, mtimeNs }
}

/** Hard links to one inode share this. Absent where there is only one name. */
function linkOf(stat: SourceStat): { link?: string } {
  return stat.links > 1 && stat.inode !== '' ? { link: stat.inode.slice(0, 64) } : {}
}

export function fileEntry(name: Buffer, stat: SourceStat, content: ContentReference): FileEntry {
  return {
    kind: 'file',
    ...encodeName(name),
    ...attributesOf(stat),
    ...linkOf(stat),
    id: content.id,
    size: stat.size,
    ...(content.chunked ? { chunked: true } : {}),
    ...(stat.sparse ? { sparse: true } : {}),
  }
}

export function directoryEntry(name: Buffer, stat: SourceStat, id: Id): DirectoryEntry {
  // The root has no name of its own; its entry never stands in a directory object.
  const named = name.length === 0 ? {} : encodeName(name)
  return { kind: 'directory', ...named, ...attributesOf(stat), id }
}

/** Everything that has no content to read. */
export function otherEntry({ name, kind, stat, target }: ScannedEntry): Entry {
  const inode = { ...encodeName(name), ...attributesOf(stat), ...linkOf(stat) }
  if (kind === 'symlink') return { kind, ...inode, ...encodeTarget(target ?? Buffer.alloc(0)) }
  if (kind === 'fifo' || kind === 'socket') return { kind, ...inode }
  if (kind === 'character-device' || kind === 'block-device') {
    return { kind, ...inode, major: stat.major, minor: stat.minor }
  }
  throw new TypeError(`a ${kind} has content`)
}

/** Whether two entries are the same to the receiver. Both were built here, so their keys are in one order. */
export function sameEntry(a: Entry | undefined, b: Entry | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}
