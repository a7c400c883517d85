/** Where symlinks of a backed up tree lead, without leaving it. */
import type { Id } from '../../protocol/id.ts'
import { targetBytes } from '../../protocol/objects.ts'
import type { FileEntry, SymlinkEntry } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { findEntry } from './find-entry.ts'

/** A directory and those that it is in, up to the root. */
export interface Place {
  readonly id: Id
  readonly mtimeNs: string
  readonly above: Place | undefined
}

/** Links that are followed for one, as in Linux. */
const maxHops = 40

/**
 * What a symlink in directory `from` leads to: undefined when that is nothing, neither file nor directory, or
 * outside of the root; for an absolute target; and where links go in circles.
 */
export async function followLink(
  reader: ChunkReader,
  from: Place,
  link: SymlinkEntry,
  signal: AbortSignal,
): Promise<FileEntry | Place | undefined> {
  let hops = 0
  const follow = async (start: Place, { target, target64 }: SymlinkEntry) => {
    const path = targetBytes({
      ...(target !== undefined && { target }),
      ...(target64 !== undefined && { target64 }),
    })
    hops++
    if (hops > maxHops || path.length === 0 || path[0] === 0x2f) return undefined
    return await walk(start, path)
  }
  const walk = async (start: Place, path: Buffer): Promise<FileEntry | Place | undefined> => {
    let place: Place = start
    const names = path.toString('latin1').split('/')
    for (const [position, name] of names.entries()) {
      if (name === '' || name === '.') continue
      if (name === '..') {
        if (place.above === undefined) return undefined
        place = place.above
        continue
      }
      const entry = await findEntry(reader, place.id, Buffer.from(name, 'latin1'), signal)
      const found = entry?.kind === 'symlink' ? await follow(place, entry) : entry
      if (found === undefined) return undefined
      if (!('kind' in found)) place = found
      else if (found.kind === 'directory') place = { id: found.id, mtimeNs: found.mtimeNs, above: place }
      else return found.kind === 'file' && position === names.length - 1 ? found : undefined
    }
    return place
  }
  return await follow(from, link)
}
