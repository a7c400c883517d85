/**
 * What a root reaches, and what of it is missing; what is known of that from one walk (walk.ts) to the next.
 *
 * The memo holds objects known to be whole: everything below them was present when it was looked up, and
 * nothing has been lost since. The last part is what `losses` tells: when it moves, the memo is void, and
 * what a walk under way concludes is not added any more. So a memo entry never outlives a loss.
 */
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import type { DirectoryObject, FileObject, MissingChunk } from '../../protocol/schema.ts'
import { Arrivals } from './arrivals.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { type ListSummary, summarize, summaryBytes } from './list-summary.ts'
import { Walk } from './walk.ts'
import { checkDepth, checkSize, memoKey, type ObjectWanted, referencesFrom, type Wanted } from './wanted.ts'

/** References that are looked up at once. */
const statBatch = 1000
/** More than 200,000 objects. */
const memoBytes = 64 * 1024 * 1024

/** Runs a walk when it is its turn: there are bounds for how many one client has at work. May reject instead. */
export type InTurn = <T>(walk: () => Promise<T>) => Promise<T>

const atOnce: InTurn = (walk) => walk()

/** The walks over one vault, and what they remember. */
export class Closure {
  private readonly reader: ChunkReader
  private readonly memo = new LRUCache<string, ListSummary>({
    maxSize: memoBytes,
    sizeCalculation: summaryBytes,
  })
  private memoLosses: number
  /** Objects that came lately. */
  readonly arrivals: Arrivals

  constructor(reader: ChunkReader) {
    this.reader = reader
    this.memoLosses = reader.losses
    this.arrivals = new Arrivals(this, reader)
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
    // It would enter the same objects, from above.
    await this.arrivals.settled()
    const walk = new Walk(this, this.reader, limit)
    for await (const page of wanted) {
      await walk.explore(page)
      if (walk.isFull) break
    }
    return await walk.end()
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
    this.conclude(wanted, object, since)
    return []
  }

  /**
   * Remembers an object, everything that it refers to having been found whole by somebody who began when `losses` was
   * `since`; false when its parts are not remembered any more. Problem `invalid-object` when they do not fit together.
   */
  conclude(wanted: ObjectWanted, object: FileObject | DirectoryObject, since: number): boolean {
    const summary = summarize(wanted, object, (id) => this.memo.get(memoKey({ as: wanted.as, id })))
    if (summary === undefined) return false
    checkDepth(wanted, summary.height)
    this.remember(wanted, summary, since)
    return true
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
    this.forgetLost()
    const summary = this.memo.get(memoKey(wanted))
    if (summary === undefined) return undefined
    if (wanted.as === 'file') checkSize(wanted, summary.size)
    checkDepth(wanted, summary.height)
    return summary
  }

  /** Notes that an object was found whole by somebody who began when `losses` was `since`. */
  remember(wanted: ObjectWanted, summary: ListSummary, since: number): void {
    this.forgetLost()
    if (this.memoLosses === since) this.memo.set(memoKey(wanted), summary)
  }

  private forgetLost(): void {
    if (this.reader.losses === this.memoLosses) return
    this.memo.clear()
    this.memoLosses = this.reader.losses
  }
}
