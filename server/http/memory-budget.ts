import { type BudgetUsage, FairBudget, type FairBudgetOptions, type Holding } from './fair-budget.ts'

/** What a caller holds of the budget, in bytes. */
export type Reservation = Holding

export interface Reserving {
  /**
   * Waits until `bytes` are free for this client and holds them. More than the whole budget counts as the whole. When
   * `gone` is aborted first, the place in the queue is given up: Problem `unavailable`, as when too many of the client
   * wait already.
   */
  reserve(bytes: number, gone?: AbortSignal): Promise<Reservation>
}

/** So long may somebody wait for memory before those who hold it, and are slow, are cut off. */
const pressedAfterMs = 5000

/**
 * Bounds how many bytes of request bodies and answers are in memory at once, over all vaults and clients, and divides
 * them fairly: fair-budget.ts. Whoever wants to buffer reserves first and waits for his turn; when too many requests of
 * the same client wait, `reserve` rejects with Problem `unavailable`.
 */
export class MemoryBudget {
  readonly #budget: FairBudget

  constructor(totalBytes: number, options: FairBudgetOptions = {}) {
    this.#budget = new FairBudget(totalBytes, options)
  }

  get totalBytes(): number {
    return this.#budget.total
  }

  /** Bytes held now, the most that were ever held, requests that wait, and those that were refused. */
  get usage(): { heldBytes: number; peakBytes: number } & Pick<BudgetUsage, 'waiting' | 'refused'> {
    const { held, peak, waiting, refused } = this.#budget.usage
    return { heldBytes: held, peakBytes: peak, waiting, refused }
  }

  /** Whether somebody has been waiting for long for what others hold. */
  get isPressed(): boolean {
    return this.#budget.pressedMs > pressedAfterMs
  }

  /** What a client may reserve. */
  of(client: string): Reserving {
    return {
      reserve: async (bytes, gone) => {
        const { shrinkTo, release } = await this.#budget.take(Math.max(1, Math.ceil(bytes)), client, gone)
        return { shrinkTo: (less) => shrinkTo(Math.max(1, Math.ceil(less))), release }
      },
    }
  }

  /** The same for the receiver itself, which counts as a client of its own. */
  reserve(bytes: number, gone?: AbortSignal): Promise<Reservation> {
    return this.of('').reserve(bytes, gone)
  }
}
