/**
 * One name in a directory of any length. Parts do not say which names they hold, so a list of parts is halved
 * by the first name of the one in the middle: a directory of 100,000 entries costs about eight objects.
 * Decoded objects are kept for a while: paths share their beginnings, and links lead to neighbours.
 */
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { nameBytes } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, DirectoryPart, Entry } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { decodeObject, readObjectBytes } from './objects.ts'
import { takeTurn } from './turn.ts'

/** Of the objects' bytes, per vault. Decoded they take about three times as much. */
const keptBytes = 8 * 1024 * 1024

/** By vault: one must not learn from another's. */
const kept = new WeakMap<ChunkReader, LRUCache<Id, DirectoryObject>>()

interface Search {
  readonly reader: ChunkReader
  readonly name: Buffer
  readonly signal: AbortSignal | undefined
}

/**
 * The entry of this name in directory `id`, or undefined. Problems `not-found` when there is no such
 * directory, `invalid-object` where parts are found not to hold what they are said to hold, `unavailable`
 * when `signal` is aborted.
 */
export async function findEntry(
  reader: ChunkReader,
  id: Id,
  name: Buffer,
  signal?: AbortSignal,
): Promise<Entry | undefined> {
  const search = { reader, name, signal }
  let object = await directoryObject(search, id)
  let owner = id
  for (let depth = 0; 'parts' in object; depth++) {
    if (depth >= limits.maxPartDepth) throw invalid(owner, 'parts nest too deep')
    const part = await partWith(search, owner, object.parts, depth)
    if (part === undefined) return undefined
    object = await partObject(search, part)
    owner = part.id
  }
  const { entries } = object
  const position = upperBound(entries.length, (at) => Buffer.compare(nameBytes(entries[at] as Entry), name))
  const entry = entries[position - 1]
  return entry !== undefined && nameBytes(entry).equals(name) ? entry : undefined
}

/** The part that holds the name, if any does: the last one whose first name is not behind it. */
async function partWith(
  search: Search,
  owner: Id,
  parts: readonly DirectoryPart[],
  depth: number,
): Promise<DirectoryPart | undefined> {
  const filled = parts.filter(({ entries }) => entries > 0)
  let [low, high] = [0, filled.length]
  let [lowName, highName]: (Buffer | undefined)[] = []
  while (low < high) {
    const middle = (low + high) >> 1
    const first = await firstName(search, filled[middle] as DirectoryPart, depth + 1)
    if (
      (lowName !== undefined && Buffer.compare(lowName, first) >= 0) ||
      (highName !== undefined && Buffer.compare(first, highName) >= 0)
    ) {
      throw invalid(owner, 'its names stand out of order, or twice')
    }
    if (Buffer.compare(first, search.name) <= 0) [low, lowName] = [middle + 1, first]
    else [high, highName] = [middle, first]
  }
  return filled[low - 1]
}

async function firstName(search: Search, part: DirectoryPart, depth: number): Promise<Buffer> {
  const object = await partObject(search, part)
  if ('entries' in object) return nameBytes(object.entries[0] as Entry)
  if (depth >= limits.maxPartDepth) throw invalid(part.id, 'parts nest too deep')
  const first = object.parts.find(({ entries }) => entries > 0) as DirectoryPart
  return await firstName(search, first, depth + 1)
}

/** The object of a part, which has as many entries as it is said to. */
async function partObject(search: Search, { id, entries: stated }: DirectoryPart): Promise<DirectoryObject> {
  const object = await directoryObject(search, id)
  const entries =
    'entries' in object ? object.entries.length : object.parts.reduce((sum, part) => sum + part.entries, 0)
  if (entries === stated) return object
  throw invalid(id, `it has ${entries} entries, what refers to it says ${stated}`)
}

async function directoryObject({ reader, signal }: Search, id: Id): Promise<DirectoryObject> {
  let objects = kept.get(reader)
  if (objects === undefined) {
    objects = new LRUCache({ maxSize: keptBytes })
    kept.set(reader, objects)
  }
  const known = objects.get(id)
  if (known !== undefined) return known
  await takeTurn(signal)
  const bytes = await readObjectBytes(reader, 'directory', id)
  const object = decodeObject('directory', bytes) as DirectoryObject
  objects.set(id, object, { size: bytes.length })
  return object
}

/** How many of `count` things in order are not behind what `compare` compares them with. */
function upperBound(count: number, compare: (at: number) => number): number {
  let [low, high] = [0, count]
  while (low < high) {
    const middle = (low + high) >> 1
    if (compare(middle) <= 0) low = middle + 1
    else high = middle
  }
  return low
}

function invalid(id: Id, detail: string): Problem {
  return new Problem('invalid-object', detail, { extensions: { id } })
}
