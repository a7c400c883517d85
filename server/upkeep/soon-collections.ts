/**
 * When the garbage of vaults from which something was removed is collected: a while later, so that several removals
 * share a collection, and not before the vault has rested from the last one. A collection makes clients conclude anew
 * what they had concluded; somebody who deletes again and again must not keep them at that.
 */

/** Several removals share a collection. */
const collectAfterMs = 30_000
/** Between two collections of a vault. */
const restMs = 600_000
/** The rest is so many times as long as the collection was. */
const restFactor = 10
/** By then the scheduled one has come. */
const maxRestMs = 24 * 3_600_000

interface Removals {
  /** By `performance.now()`, as all times here but the next. */
  readonly dueAt: number
  /** The last of them, by the clock that jobs tell their beginning by. */
  lastAt: number
}

/** One timer for all vaults. */
export class SoonCollections {
  readonly #collect: (vaults: string[]) => void
  readonly #removals = new Map<string, Removals>()
  /** Until when a vault rests; Infinity from when its collection is due until that has ended. */
  readonly #rests = new Map<string, number>()
  #timer: NodeJS.Timeout | undefined
  #isStopped = false

  /** `collect` is told of vaults whose collection is due, and calls `begin` and `end` for each. */
  constructor(collect: (vaults: string[]) => void) {
    this.#collect = collect
  }

  /** Something was removed from the vault. */
  add(vault: string): void {
    const dueAt = this.#removals.get(vault)?.dueAt ?? performance.now() + collectAfterMs
    this.#removals.set(vault, { dueAt, lastAt: Date.now() })
    this.#plan()
  }

  /** A collection of the vault begins. What was removed until now counts as collected; returns when the last of it was. */
  begin(vault: string): number | undefined {
    const removals = this.#removals.get(vault)
    this.#removals.delete(vault)
    this.#rests.set(vault, Number.POSITIVE_INFINITY)
    return removals?.lastAt
  }

  /** It has ended, or failed, and took so long. */
  end(vault: string, lengthMs: number): void {
    const rest = Math.min(maxRestMs, Math.max(restMs, restFactor * lengthMs))
    this.#rests.set(vault, performance.now() + rest)
    this.#plan()
  }

  #plan(): void {
    if (this.#isStopped) return
    clearTimeout(this.#timer)
    const now = performance.now()
    for (const [vault, until] of this.#rests) if (until <= now) this.#rests.delete(vault)
    const next = Math.min(...[...this.#removals.keys()].map((vault) => this.#dueAt(vault)))
    if (next < Number.POSITIVE_INFINITY) this.#timer = setTimeout(() => this.#run(), next - now).unref()
  }

  #dueAt(vault: string): number {
    const { dueAt = Number.POSITIVE_INFINITY } = this.#removals.get(vault) ?? {}
    return Math.max(dueAt, this.#rests.get(vault) ?? 0)
  }

  #run(): void {
    const now = performance.now()
    const due = [...this.#removals.keys()].filter((vault) => this.#dueAt(vault) <= now)
    for (const vault of due) this.#rests.set(vault, Number.POSITIVE_INFINITY)
    if (due.length > 0) this.#collect(due)
    this.#plan()
  }

  /** Nothing is due any more. */
  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#timer)
  }
}
