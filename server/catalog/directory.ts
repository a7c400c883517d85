/** Directories read by name. */
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { nameBytes, nameFault } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { DirectoryEntry, Entry } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { findEntry } from './find-entry.ts'
import { readObject } from './objects.ts'
import { takeTurn } from './turn.ts'

interface Reading {
  readonly reader: ChunkReader
  readonly signal: AbortSignal | undefined
  /** The last name so far. */
  last: Buffer | undefined
}

/**
 * Every entry of directory `id`, in order; one part of a long list is in memory per level. Ends with
 * Problem `not-found`; `invalid-object` where parts do not hold what they are said to hold, so that no
 * more is read than the object announces; `unavailable` when `signal` is aborted.
 */
export async function* entriesOf(reader: ChunkReader, id: Id, signal?: AbortSignal): AsyncGenerator<Entry> {
  yield* entriesBelow({ reader, signal, last: undefined }, id, 0)
}

async function* entriesBelow(
  reading: Reading,
  id: Id,
  depth: number,
  stated?: number,
): AsyncGenerator<Entry> {
  if (depth > limits.maxPartDepth) throw invalid(id, 'parts nest too deep')
  await takeTurn(reading.signal)
  const object = await readObject(reading.reader, 'directory', id)
  const entries =
    'entries' in object ? object.entries.length : object.parts.reduce((sum, part) => sum + part.entries, 0)
  if (stated !== undefined && entries !== stated) {
    throw invalid(id, `it has ${entries} entries, what refers to it says ${stated}`)
  }
  if ('parts' in object) {
    for (const part of object.parts) {
      if (part.entries > 0) yield* entriesBelow(reading, part.id, depth + 1, part.entries)
    }
    return
  }
  const [first] = object.entries
  if (first === undefined) return
  if (reading.last !== undefined && Buffer.compare(reading.last, nameBytes(first)) >= 0) {
    throw invalid(id, 'its names stand out of order, or twice')
  }
  yield* object.entries
  reading.last = nameBytes(object.entries.at(-1) as Entry)
}

function invalid(id: Id, detail: string): Problem {
  return new Problem('invalid-object', detail, { extensions: { id } })
}

/**
 * What stands at a path below directory `root`; undefined for the empty path, which is the root itself.
 * Problem `not-found` when there is no such entry, or one on the way is no directory; `invalid-request`
 * for a name that no entry can have; those of `entriesOf`.
 */
export async function resolvePath(
  reader: ChunkReader,
  root: Id,
  names: readonly Buffer[],
  signal?: AbortSignal,
): Promise<Entry | undefined> {
  let found: Entry | undefined
  for (const name of names) {
    const fault = nameFault(name)
    if (fault !== undefined) throw new Problem('invalid-request', `in the path ${fault}`)
    if (found !== undefined && found.kind !== 'directory') throw nothingThere(name)
    found = await findEntry(reader, found === undefined ? root : (found as DirectoryEntry).id, name, signal)
    if (found === undefined) throw nothingThere(name)
  }
  return found
}

function nothingThere(name: Buffer): Problem {
  return new Problem('not-found', `there is nothing at "${name.toString('utf8').slice(0, 200)}"`)
}
