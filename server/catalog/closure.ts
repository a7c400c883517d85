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
 *
 * That parts fit together (their order, their counts, how deep they nest) is checked from below: when
 * everything below an object was seen, its summary follows from those of its parts. A frame collects the
 * summaries of its objects for those whose parts they are. So what is remembered is never entered for it.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, FileObject, MissingChunk } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { type ListSummary, summarize, summaryBytes } from './list-summary.ts'
import { decodeObject } from './objects.ts'
import { checkDepth, checkSize, invalid, type ObjectWanted, referencesFrom, type Wanted } from './wanted.ts'

/** Objects that are read at once. */
const groupObjects = 8
const statBatch = 1000
/** Directories in one another. Paths of file systems end at a few thousand bytes, so at half as many levels. */
const maxDepth = 8192
const memoEntries = 200_000
const memoBytes = 64 * 1024 * 1024
const seenEntries = 100_000
const seenBytes = 32 * 1024 * 1024

/** Runs a walk when it is its turn: there are bounds for how many one client has at work. May reject instead. */
export type InTurn = <T>(walk: () => Promise<T>) => Promise<T>

const atOnce: InTurn = (walk) => walk()

/** What a walk knows of an object: that it will be entered; what it amounts to; or that something below is missing. */
type Seen = ListSummary | 'pending' | 'incomplete'

/** An object whose references make up a frame. */
interface Owner {
  readonly wanted: ObjectWanted
  /** Left out when the summary does not depend on parts: then the object need not be kept. */
  readonly object?: FileObject | DirectoryObject
  readonly summary?: ListSummary
}

interface Frame {
  readonly objects: readonly ObjectWanted[]
  next: number
  /** The objects whose references this frame's objects are: whole when the frame ends sound. */
  readonly owners: readonly Owner[]
  /** Of the references, as far as they are known yet, by `memoKey`. */
  readonly summaries: Map<string, ListSummary>
  sound: boolean
}

/** The walks over one vault, and what they remember. */
export class Closure {
  private readonly reader: ChunkReader
  private readonly memo = new LRUCache<string, ListSummary>({
    max: memoEntries,
    maxSize: memoBytes,
    sizeCalculation: summaryBytes,
  })
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

  /**
   * Of these direct references, the ids that are absent or not whole, in order, at most `limit`. Each of them may take a
   * walk over a tree of any size, `inTurn`.
   */
  async incomplete(
    references: readonly Wanted[],
    limit: number = limits.maxListedMissing,
    inTurn: InTurn = atOnce,
  ): Promise<Id[]> {
    const found = new Set<Id>()
    for (let start = 0; start < references.length && found.size < limit; start += statBatch) {
      const batch = references.slice(start, start + statBatch)
      const sizes = await this.reader.stat(batch.map(({ id }) => id))
      for (const [position, wanted] of batch.entries()) {
        if (found.size >= limit) break
        if (found.has(wanted.id)) continue
        const whole = sizes[position] !== undefined && (await this.isWhole(wanted, sizes[position], inTurn))
        if (!whole) found.add(wanted.id)
      }
    }
    return [...found]
  }

  /**
   * Of an object that is here, the direct references that are absent or not whole; none when it is known to
   * be whole, which is then remembered. Problem `invalid-object` when what is here does not fit together. `inTurn` as above.
   */
  async lacking(
    wanted: ObjectWanted,
    object: FileObject | DirectoryObject,
    inTurn: InTurn = atOnce,
  ): Promise<Id[]> {
    if (this.recall(wanted) !== undefined) return []
    const since = this.reader.losses
    const references = referencesFrom(wanted, object)
    const incomplete = await this.incomplete(references, undefined, inTurn)
    if (incomplete.length > 0) return incomplete
    const summary = summarize(wanted, object, (id) => this.memo.get(memoKey({ as: wanted.as, id })))
    if (summary === undefined) return []
    checkDepth(wanted, summary.height)
    this.remember(wanted, summary, since)
    return []
  }

  private async isWhole(wanted: Wanted, storedBytes: number, inTurn: InTurn): Promise<boolean> {
    if (wanted.as === 'chunk') {
      checkSize(wanted, storedBytes)
      return true
    }
    if (this.recall(wanted as ObjectWanted) !== undefined) return true
    return (await inTurn(() => this.missing([[wanted]], 1))).length === 0
  }

  /** The summary of an object that is known to be whole. Problem `invalid-object` when it is not what is wanted. */
  recall(wanted: ObjectWanted): ListSummary | undefined {
    if (this.reader.losses !== this.memoLosses) {
      this.memo.clear()
      this.memoLosses = this.reader.losses
    }
    const summary = this.memo.get(memoKey(wanted))
    if (summary === undefined) return undefined
    if (wanted.as === 'file') checkSize(wanted, summary.size)
    checkDepth(wanted, summary.height)
    return summary
  }

  /** Notes that an object was found whole by somebody who began when `losses` was `since`. */
  remember(wanted: ObjectWanted, summary: ListSummary, since: number): void {
    if (this.reader.losses === since && this.memoLosses === since) this.memo.set(memoKey(wanted), summary)
  }
}

function decode(wanted: ObjectWanted, bytes: Buffer): FileObject | DirectoryObject {
  try {
    const object = decodeObject(wanted.as, bytes)
    if (object.type === 'file') checkSize(wanted, object.size)
    return object
  } catch (error) {
    if (!isProblem(error, 'invalid-object')) throw error
    // Not why: that would quote what is stored, to people who may only back up.
    throw invalid(wanted, `${wanted.id} is no ${wanted.as} object`, error)
  }
}

function memoKey({ as, id }: Pick<ObjectWanted, 'as' | 'id'>): string {
  return (as === 'file' ? 'f' : 'd') + id
}

/** Two references that state different sizes are two things to look at: one of them is wrong. */
function seenKey(wanted: ObjectWanted): string {
  return `${memoKey(wanted)} ${wanted.size ?? ''}`
}

function isPart({ partDepth = 0 }: Wanted): boolean {
  return partDepth > 0
}

/** One walk. */
class Walk {
  readonly missing = new Map<Id, MissingChunk>()
  private readonly closure: Closure
  private readonly reader: ChunkReader
  private readonly limit: number
  private readonly since: number
  /** Objects that this walk has met: entering them again would tell nothing new. */
  private readonly seen = new LRUCache<string, Seen>({
    max: seenEntries,
    maxSize: seenBytes,
    sizeCalculation: (seen) => (typeof seen === 'string' ? 200 : summaryBytes(seen)),
  })

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
    const frames = [await this.frame(wanted, [])]
    while (!this.isFull) {
      const top = frames.at(-1)
      if (top === undefined) return
      if (top.next < top.objects.length) {
        if (frames.length > maxDepth) throw new Problem('invalid-object', 'directories nest too deep')
        frames.push(await this.enter(top))
      } else {
        frames.pop()
        this.leave(top, frames.at(-1))
      }
    }
  }

  /** Concludes from a frame that ended what its owners are, which are objects of the frame below. */
  private leave(frame: Frame, below: Frame | undefined): void {
    if (!frame.sound && below !== undefined) below.sound = false
    for (const { wanted, object, summary: own } of frame.owners) {
      const partOf = (id: Id) => frame.summaries.get(memoKey({ as: wanted.as, id }))
      const summary = own ?? (object && summarize(wanted, object, partOf))
      this.seen.set(seenKey(wanted), summary ?? 'incomplete')
      if (summary === undefined) continue
      checkDepth(wanted, summary.height)
      below?.summaries.set(memoKey(wanted), summary)
      if (frame.sound) this.closure.remember(wanted, summary, this.since)
    }
  }

  /** Reads the next objects of a frame; what they refer to is the frame above. */
  private async enter(frame: Frame): Promise<Frame> {
    const group = frame.objects
      .slice(frame.next, frame.next + groupObjects)
      .filter((wanted) => !this.wasEntered(frame, wanted))
    frame.next += groupObjects
    const read = await Promise.all(group.map((wanted) => this.read(wanted)))
    const owners: Owner[] = []
    const references: Wanted[] = []
    for (const [position, wanted] of group.entries()) {
      // Decoding a long list takes milliseconds; others have the event loop in between.
      await nextTurn()
      const bytes = read[position]
      const object = bytes === undefined ? undefined : decode(wanted, bytes)
      if (object === undefined) {
        this.miss(wanted)
        this.seen.set(seenKey(wanted), 'incomplete')
        frame.sound = false
        continue
      }
      const summary = summarize(wanted, object, () => undefined)
      owners.push(summary === undefined ? { wanted, object } : { wanted, summary })
      for (const reference of referencesFrom(wanted, object)) references.push(reference)
    }
    return await this.frame(references, owners)
  }

  /** Whether an object of `frame` was entered further up since the frame was made, as a part of something there. */
  private wasEntered(frame: Frame, wanted: ObjectWanted): boolean {
    const seen = this.seen.get(seenKey(wanted))
    if (seen === undefined || seen === 'pending') return false
    this.note(frame, wanted, seen)
    return true
  }

  /** Takes over what the walk found out about a reference before, sound or not. */
  private note(frame: Frame, wanted: ObjectWanted, seen: Seen): void {
    if (this.closure.recall(wanted) === undefined) frame.sound = false
    if (typeof seen === 'string') return
    checkDepth(wanted, seen.height)
    frame.summaries.set(memoKey(wanted), seen)
  }

  private async read({ id }: ObjectWanted): Promise<Buffer | undefined> {
    try {
      return await this.reader.get(id)
    } catch (error) {
      // The store has forgotten it: it can be sent again.
      if (isProblem(error, 'chunk-corrupt')) return undefined
      throw error
    }
  }

  private async frame(wanted: readonly Wanted[], owners: readonly Owner[]): Promise<Frame> {
    const misses = await this.statChunks(wanted.filter(({ as }) => as === 'chunk'))
    const objects: ObjectWanted[] = []
    const frame: Frame = { objects, next: 0, owners, summaries: new Map(), sound: misses === 0 }
    const own = new Set<string>()
    for (const reference of wanted) {
      if (reference.as === 'chunk') continue
      const object = reference as ObjectWanted
      const key = seenKey(object)
      // What this frame has already says the same for both, whole or not.
      const ownKey = `${key} ${isPart(object)}`
      if (own.has(ownKey)) continue
      own.add(ownKey)
      const known = this.closure.recall(object)
      const seen = known ?? this.seen.get(key)
      // Something below waits for this too. Whoever has it for a part cannot wait: it is entered here.
      const isOpen = seen === undefined || (seen === 'pending' && isPart(object))
      if (!isOpen) {
        this.note(frame, object, seen)
        continue
      }
      this.seen.set(key, 'pending')
      objects.push(object)
    }
    return frame
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
