/** Directories read by name. */
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { nameBytes, nameFault } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { DirectoryEntry, Entry } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { readObject } from './objects.ts'

/** Every entry of directory `id`, in order; one part of a long list is in memory per level. Problem `not-found`. */
export async function* entriesOf(reader: ChunkReader, id: Id, depth = 0): AsyncGenerator<Entry> {
  if (depth > limits.maxPartDepth) throw new Problem('invalid-object', 'parts nest too deep')
  const object = await readObject(reader, 'directory', id)
  if ('entries' in object) yield* object.entries
  else for (const part of object.parts) yield* entriesOf(reader, part.id, depth + 1)
}

/** The entry of this name, or undefined. */
async function findEntry(reader: ChunkReader, id: Id, name: Buffer): Promise<Entry | undefined> {
  for await (const entry of entriesOf(reader, id)) {
    const order = Buffer.compare(nameBytes(entry), name)
    if (order === 0) return entry
    if (order > 0) return undefined
  }
  return undefined
}

/**
 * What stands at a path below directory `root`; undefined for the empty path, which is the root itself.
 * Problem `not-found` when there is no such entry, or one on the way is no directory; `invalid-request`
 * for a name that no entry can have.
 */
export async function resolvePath(
  reader: ChunkReader,
  root: Id,
  names: readonly Buffer[],
): Promise<Entry | undefined> {
  let found: Entry | undefined
  for (const name of names) {
    const fault = nameFault(name)
    if (fault !== undefined) throw new Problem('invalid-request', `in the path ${fault}`)
    if (found !== undefined && found.kind !== 'directory') throw nothingThere(name)
    found = await findEntry(reader, found === undefined ? root : (found as DirectoryEntry).id, name)
    if (found === undefined) throw nothingThere(name)
  }
  return found
}

function nothingThere(name: Buffer): Problem {
  return new Problem('not-found', `there is nothing at "${name.toString('utf8').slice(0, 200)}"`)
}
