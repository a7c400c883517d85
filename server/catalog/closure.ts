/**
 * What a root reaches, and what of it is missing.
 *
 * The walk is iterative. A frame holds the objects that are still to be entered on one level, in groups
 * of a few that are read at once; what a group refers to becomes the next frame. Chunks are looked up in
 * batches and not kept. So memory is bounded by the depth times a few objects, whatever the tree's size.
 *
 * The memo holds objects known to be whole: everything below them was present when it was looked up, and
 * nothing has been lost since. The last part is what `losses` tells: when it moves, the memo is void, and
 * what a walk under way concludes is not added any more. So a memo entry never outlives a loss.
 */
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { type Reference, referencesOfDirectory, referencesOfFile } from '../../protocol/objects.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, FileObject, MissingChunk } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { decodeObject, type ObjectKind } from './objects.ts'

/** Objects that are read at once. */
const groupObjects = 8
const statBatch = 1000
/** Directories in one another. Paths of file systems end at a few thousand bytes, so at half as many levels. */
const maxDepth = 8192
/** About 40 MB when full. */
const memoEntries = 200_000
const seenEntries = 100_000

/** Something that must be there. `within` is the entry that needs it. */
export interface Wanted extends Reference {
  readonly within: Id
  /** Nesting of list parts so far. */
  readonly partDepth?: number
}

interface ObjectWanted extends Wanted {
  readonly as: ObjectKind
}

interface Frame {
  readonly objects: readonly ObjectWanted[]
  next: number
  /** The objects whose references this frame's objects are: whole when the frame ends sound. */
  readonly owners: readonly { wanted: ObjectWanted; size: number }[]
  sound: boolean
}

/** The walks over one vault, and what they remember. */
export class Closure {
  private readonly reader: ChunkReader
  private readonly memo = new LRUCache<string, number>({ max: memoEntries })
  private memoLosses: number

  constructor(reader: ChunkReader) {
    this.reader = reader
    this.memoLosses = reader.losses
  }

  /**
   * What is missing of everything that `wanted` reaches, each id once, at most `limit` of them; the walk
   * ends there. Damaged chunks count as missing. Problem `invalid-object` for what is not what a
   * reference says.
   */
  async missing(
    wanted: Iterable<readonly Wanted[]> | AsyncIterable<readonly Wanted[]>,
    limit: number = limits.maxListedMissing,
  ): Promise<MissingChunk[]> {
    const walk = new Walk(this, this.reader, limit)
    for await (const page of wanted) {
      await walk.explore(page)
      if (walk.isFull) break
    }
    return [...walk.missing.values()]
  }

  /** Of these direct references, the ids that are absent or not whole, in order, at most `limit`. */
  async incomplete(references: readonly Wanted[], limit: number = limits.maxListedMissing): Promise<Id[]> {
    const found = new Set<Id>()
    for (let start = 0; start < references.length && found.size < limit; start += statBatch) {
      const batch = references.slice(start, start + statBatch)
      const sizes = await this.reader.stat(batch.map(({ id }) => id))
      for (const [position, wanted] of batch.entries()) {
        if (found.size >= limit) break
        if (found.has(wanted.id)) continue
        const whole = sizes[position] !== undefined && (await this.isWhole(wanted, sizes[position]))
        if (!whole) found.add(wanted.id)
      }
    }
    return [...found]
  }

  private async isWhole(wanted: Wanted, storedBytes: number): Promise<boolean> {
    if (wanted.as === 'chunk') {
      checkSize(wanted, storedBytes)
      return true
    }
    if (this.recall(wanted as ObjectWanted)) return true
    return (await this.missing([[wanted]], 1)).length === 0
  }

  /** Whether this object is known to be whole. */
  recall(wanted: ObjectWanted): boolean {
    if (this.reader.losses !== this.memoLosses) {
      this.memo.clear()
      this.memoLosses = this.reader.losses
    }
    const size = this.memo.get(memoKey(wanted))
    if (size === undefined) return false
    if (wanted.as === 'file') checkSize(wanted, size)
    return true
  }

  /** Notes that an object was found whole by somebody who began when `losses` was `since`. */
  remember(wanted: ObjectWanted, size: number, since: number): void {
    if (this.reader.losses === since && this.memoLosses === since) this.memo.set(memoKey(wanted), size)
  }
}

function memoKey({ as, id }: ObjectWanted): string {
  return (as === 'file' ? 'f' : 'd') + id
}

function checkSize(wanted: Wanted, actual: number): void {
  if (wanted.size === undefined || wanted.size === actual) return
  throw invalid(wanted, `${wanted.id} has ${actual} bytes, what refers to it says ${wanted.size}`)
}

function invalid(wanted: Wanted, detail: string, cause?: unknown): Problem {
  return new Problem('invalid-object', detail, {
    cause,
    extensions: { id: wanted.id, within: wanted.within },
  })
}

/** One walk. */
class Walk {
  readonly missing = new Map<Id, MissingChunk>()
  private readonly closure: Closure
  private readonly reader: ChunkReader
  private readonly limit: number
  private readonly since: number
  /** Objects entered in this walk and not known whole: entering them again would tell nothing new. */
  private readonly seen = new LRUCache<string, true>({ max: seenEntries })

  constructor(closure: Closure, reader: ChunkReader, limit: number) {
    this.closure = closure
    this.reader = reader
    this.limit = limit
    this.since = reader.losses
  }

  get isFull(): boolean {
    return this.missing.size >= this.limit
  }

  async explore(wanted: readonly Wanted[]): Promise<void> {
    const frames = [await this.frame(wanted, [], true)]
    while (!this.isFull) {
      const top = frames.at(-1)
      if (top === undefined) return
      if (top.next < top.objects.length) {
        if (frames.length > maxDepth) throw new Problem('invalid-object', 'directories nest too deep')
        frames.push(await this.enter(top))
      } else {
        frames.pop()
        const below = frames.at(-1)
        if (!top.sound && below !== undefined) below.sound = false
        if (top.sound)
          for (const { wanted, size } of top.owners) this.closure.remember(wanted, size, this.since)
      }
    }
  }

  /** Reads the next objects of a frame; what they refer to is the frame above. */
  private async enter(frame: Frame): Promise<Frame> {
    const group = frame.objects.slice(frame.next, frame.next + groupObjects)
    frame.next += group.length
    const objects = await Promise.all(group.map((wanted) => this.read(wanted)))
    const owners: { wanted: ObjectWanted; size: number }[] = []
    const references: Wanted[] = []
    for (const [position, wanted] of group.entries()) {
      const object = objects[position]
      if (object === undefined) {
        this.miss(wanted)
        frame.sound = false
        continue
      }
      owners.push({ wanted, size: object.type === 'file' ? object.size : 0 })
      for (const reference of referencesFrom(wanted, object)) references.push(reference)
    }
    return await this.frame(references, owners, true)
  }

  private async read(wanted: ObjectWanted): Promise<FileObject | DirectoryObject | undefined> {
    let bytes: Buffer | undefined
    try {
      bytes = await this.reader.get(wanted.id)
    } catch (error) {
      // The store has forgotten it: it can be sent again.
      if (isProblem(error, 'chunk-corrupt')) return undefined
      throw error
    }
    if (bytes === undefined) return undefined
    try {
      const object = decodeObject(wanted.as, bytes)
      if (object.type === 'file') checkSize(wanted, object.size)
      return object
    } catch (error) {
      if (!isProblem(error, 'invalid-object')) throw error
      throw invalid(wanted, `${wanted.id} is no ${wanted.as} object: ${error.message}`, error)
    }
  }

  private async frame(wanted: readonly Wanted[], owners: Frame['owners'], sound: boolean): Promise<Frame> {
    const before = this.missing.size
    const chunks = wanted.filter(({ as }) => as === 'chunk')
    const misses = await this.statChunks(chunks)
    const objects: ObjectWanted[] = []
    let isSound = sound && misses === 0 && this.missing.size === before
    for (const reference of wanted) {
      if (reference.as === 'chunk') continue
      const object = reference as ObjectWanted
      if (this.closure.recall(object)) continue
      const key = memoKey(object)
      if (this.seen.has(key)) {
        isSound = false
        continue
      }
      this.seen.set(key, true)
      objects.push(object)
    }
    return { objects, next: 0, owners, sound: isSound }
  }

  /** Looks chunks up and notes the absent ones; returns how many there are. */
  private async statChunks(chunks: readonly Wanted[]): Promise<number> {
    let misses = 0
    for (let start = 0; start < chunks.length && !this.isFull; start += statBatch) {
      const batch = chunks.slice(start, start + statBatch)
      const sizes = await this.reader.stat(batch.map(({ id }) => id))
      for (const [position, wanted] of batch.entries()) {
        const size = sizes[position]
        if (size === undefined) {
          misses++
          this.miss(wanted)
        } else {
          checkSize(wanted, size)
        }
      }
    }
    return misses
  }

  private miss({ id, within }: Wanted): void {
    if (!this.isFull && !this.missing.has(id)) this.missing.set(id, { id, within })
  }
}

/** What an object refers to, and within which entry each is needed. Problem `invalid-object` when parts nest too deep. */
export function referencesFrom(owner: Wanted, object: FileObject | DirectoryObject): Wanted[] {
  const inParts = object.type === 'file' || 'parts' in object
  const references = object.type === 'file' ? referencesOfFile(object) : referencesOfDirectory(object)
  // The entries of a directory are needed for themselves; parts are needed for what they are parts of.
  if (!inParts) return references.map((reference) => ({ ...reference, within: reference.id }))
  const partDepth = (owner.partDepth ?? 0) + 1
  if (partDepth > limits.maxPartDepth) throw invalid(owner, 'parts nest too deep')
  return references.map((reference) => ({ ...reference, within: owner.within, partDepth }))
}
