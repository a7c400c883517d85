import { Semaphore } from 'async-mutex'
import { Problem } from '../../protocol/problem.ts'

/**
 * The semaphore counts in these units. Not in bytes: each release walks through all free weights one by
 * one, which for 2^27 of them would hold the event loop for a large part of a second.
 */
const unitBytes = 64 * 1024

/** What a caller holds of the budget. */
export interface Reservation {
  /** Gives back what is held beyond `bytes`. */
  shrinkTo(bytes: number): void
  /** Gives everything back. Idempotent. */
  release(): void
}

/**
 * Bounds how many bytes of request bodies and answers are in memory at once, over all vaults and
 * clients. Whoever wants to buffer reserves first and waits in order of arrival; when too many wait,
 * `reserve` rejects with Problem `unavailable`. Nobody may wait for a second reservation while holding
 * one: that could deadlock.
 */
export class MemoryBudget {
  readonly totalBytes: number
  private readonly semaphore: Semaphore
  private readonly units: number
  private readonly maxWaiting: number
  private waitingNow = 0
  private heldUnits = 0
  private peakUnits = 0

  constructor(totalBytes: number, maxWaiting = 256) {
    this.totalBytes = totalBytes
    this.units = Math.max(1, Math.floor(totalBytes / unitBytes))
    this.maxWaiting = maxWaiting
    this.semaphore = new Semaphore(this.units)
  }

  /** Bytes held now, the most that were ever held, and callers that wait. */
  get usage(): { heldBytes: number; peakBytes: number; waiting: number } {
    return {
      heldBytes: this.heldUnits * unitBytes,
      peakBytes: this.peakUnits * unitBytes,
      waiting: this.waitingNow,
    }
  }

  /** Waits until `bytes` are free and holds them. More than the whole budget counts as the whole. */
  async reserve(bytes: number): Promise<Reservation> {
    let held = this.weightOf(bytes)
    if (this.waitingNow >= this.maxWaiting) {
      throw new Problem('unavailable', 'too many requests wait for memory; try again in a second')
    }
    this.waitingNow++
    try {
      await this.semaphore.acquire(held)
    } finally {
      this.waitingNow--
    }
    this.heldUnits += held
    this.peakUnits = Math.max(this.peakUnits, this.heldUnits)
    const keep = (weight: number): void => {
      if (weight >= held) return
      const excess = held - weight
      held = weight
      this.heldUnits -= excess
      this.semaphore.release(excess)
    }
    return { shrinkTo: (less) => keep(this.weightOf(less)), release: () => keep(0) }
  }

  private weightOf(bytes: number): number {
    return Math.min(this.units, Math.max(1, Math.ceil(bytes / unitBytes)))
  }
}
