/**
 * One walk over what a root reaches.
 *
 * It is iterative. A frame holds the objects that are still to be entered on one level, in groups of a few
 * that are read at once; what a group refers to becomes the next frame. So memory is bounded by the depth
 * times a few objects, whatever the tree's size.
 *
 * Chunks are gathered over all frames and looked up by the thousands, since the index finds many at once in
 * half the time of few, and the walk goes on meanwhile. So a frame may end before its chunks were looked up:
 * what is concluded from that is remembered only when all were there that were gathered before. When one was
 * not, nothing is that was concluded since the lookup before, and no frame that is open is taken for sound.
 *
 * That parts fit together (their order, their counts, how deep they nest) is checked from below: when
 * everything below an object was seen, its summary follows from those of its parts. A frame collects the
 * summaries of its objects for those whose parts they are. So what is remembered is never entered for it.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, FileObject, MissingChunk } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import type { Closure } from './closure.ts'
import { type ListSummary, summarize, summaryBytes } from './list-summary.ts'
import { decodeObject } from './objects.ts'
import {
  checkDepth,
  checkSize,
  invalid,
  memoKey,
  type ObjectWanted,
  referencesFrom,
  type Wanted,
} from './wanted.ts'

/** Objects that are read at once. */
const groupObjects = 8
/** Chunks that are looked up at once, and conclusions that wait for that. */
const gatheredAtOnce = 16_384
/** Directories in one another. Paths of file systems end at a few thousand bytes, so at half as many levels. */
const maxDepth = 8192
/** Some 100,000 objects. */
const seenBytes = 32 * 1024 * 1024

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

/** Chunks that are to be looked up, and what holds if all of them are there. */
class Gathered {
  readonly ids: Id[] = []
  /** Of each. */
  readonly sizes: (number | undefined)[] = []
  readonly within: Id[] = []
  readonly concluded = new Map<string, { readonly wanted: ObjectWanted; readonly summary: ListSummary }>()

  get isFull(): boolean {
    return Math.max(this.ids.length, this.concluded.size) >= gatheredAtOnce
  }

  add(id: Id, size: number | undefined, within: Id): void {
    this.ids.push(id)
    this.sizes.push(size)
    this.within.push(within)
  }

  at(place: number): Wanted {
    const [id, size, within] = [this.ids[place] as Id, this.sizes[place], this.within[place] as Id]
    return { id, as: 'chunk', ...(size !== undefined && { size }), within }
  }
}

/** See above. */
export class Walk {
  private readonly missing = new Map<Id, MissingChunk>()
  private readonly closure: Closure
  private readonly reader: ChunkReader
  private readonly limit: number
  private readonly since: number
  /** Objects that this walk has met: entering them again would tell nothing new. */
  private readonly seen = new LRUCache<string, Seen>({
    maxSize: seenBytes,
    sizeCalculation: (seen) => (typeof seen === 'string' ? 200 : summaryBytes(seen)),
  })
  private frames: Frame[] = []
  private gathered = new Gathered()
  /** What is being looked up. */
  private sought = new Gathered()
  private lookup: Promise<void> = Promise.resolve()

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
    this.frames = [this.frame(wanted, [])]
    while (!this.isFull) {
      if (this.gathered.isFull) await this.lookUp()
      const top = this.frames.at(-1)
      if (top === undefined) return
      if (top.next < top.objects.length) {
        if (this.frames.length > maxDepth) throw new Problem('invalid-object', 'directories nest too deep')
        await this.enter(top)
      } else {
        this.frames.pop()
        this.leave(top, this.frames.at(-1))
      }
    }
  }

  /** What is missing. */
  async end(): Promise<MissingChunk[]> {
    await this.lookUp()
    await this.lookup
    return [...this.missing.values()]
  }

  /** Begins to look up what is gathered, when that of before is looked up. */
  private async lookUp(): Promise<void> {
    await this.lookup
    if (this.isFull) return
    this.sought = this.gathered
    this.gathered = new Gathered()
    this.lookup = this.settle(this.sought)
    // Whoever waits for it is told. When the walk fails before, nobody does.
    this.lookup.catch(() => undefined)
  }

  /** Looks chunks up, notes the absent ones, and remembers what was concluded when there are none. */
  private async settle(gathered: Gathered): Promise<void> {
    const { ids, sizes, concluded } = gathered
    const found = ids.length === 0 ? [] : await this.reader.stat(ids)
    let misses = 0
    for (let place = 0; place < ids.length; place++) {
      const size = found[place]
      if (size !== undefined && size === sizes[place]) continue
      const wanted = gathered.at(place)
      if (size !== undefined) {
        checkSize(wanted, size)
        continue
      }
      misses++
      this.miss(wanted)
    }
    if (misses === 0) {
      for (const { wanted, summary } of concluded.values()) {
        this.closure.remember(wanted, summary, this.since)
      }
      return
    }
    concluded.clear()
    // These may rest on it too.
    this.gathered.concluded.clear()
    for (const frame of this.frames) frame.sound = false
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
      if (frame.sound) this.gathered.concluded.set(memoKey(wanted), { wanted, summary })
    }
  }

  /** Reads the next objects of a frame; what they refer to is the frame above. */
  private async enter(frame: Frame): Promise<void> {
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
    // At once: a lookup that ends finds it among those that are open.
    this.frames.push(this.frame(references, owners))
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
    if (this.closure.recall(wanted) === undefined && !this.isConcluded(wanted)) frame.sound = false
    if (typeof seen === 'string') return
    checkDepth(wanted, seen.height)
    frame.summaries.set(memoKey(wanted), seen)
  }

  private isConcluded(wanted: ObjectWanted): boolean {
    const key = memoKey(wanted)
    return this.gathered.concluded.has(key) || this.sought.concluded.has(key)
  }

  private async read({ id }: ObjectWanted): Promise<Buffer | undefined> {
    try {
      return this.closure.arrivals.take(id) ?? (await this.reader.get(id))
    } catch (error) {
      // The store has forgotten it: it can be sent again.
      if (isProblem(error, 'chunk-corrupt')) return undefined
      throw error
    }
  }

  private frame(wanted: readonly Wanted[], owners: readonly Owner[]): Frame {
    const objects: ObjectWanted[] = []
    const frame: Frame = { objects, next: 0, owners, summaries: new Map(), sound: true }
    const own = new Set<string>()
    for (const reference of wanted) {
      if (reference.as === 'chunk') {
        this.gathered.add(reference.id, reference.size, reference.within)
        continue
      }
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

  private miss({ id, within }: Wanted): void {
    if (!this.isFull && !this.missing.has(id)) this.missing.set(id, { id, within })
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

/** Two references that state different sizes are two things to look at: one of them is wrong. */
function seenKey(wanted: ObjectWanted): string {
  return `${memoKey(wanted)} ${wanted.size ?? ''}`
}

function isPart({ partDepth = 0 }: Wanted): boolean {
  return partDepth > 0
}
