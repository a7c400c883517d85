import { FairBudget, type FairBudgetOptions } from './fair-budget.ts'
import { MemoryBudget } from './memory-budget.ts'

const MiB = 1024 * 1024
/** For JSON and XML bodies in memory at once. */
const questionBytes = 16 * MiB
/** What is listed waits for its client in pieces of 64 KiB; a directory of a snapshot is read whole. */
const listingBytes = 32 * MiB

/** Of the four walks that a vault has at a time, so many are one client's: one is left for others. */
const clientWalks = 3

/** What clients share, by what it is for: what one kind waits for must not stop another. */
export interface Budgets {
  /** For bodies of chunks, batches, objects and short files: each is there within a bounded time. */
  readonly uploads: MemoryBudget
  /** For what is decoded of them. Apart, so that it is not held while a body is still coming. */
  readonly decoding: MemoryBudget
  /** For long files, which take as long as they take. Apart, so that nobody waits for the end of them but their like. */
  readonly streams: MemoryBudget
  /** For other bodies, all short. Apart, so that uploads do not stop what ends them, such as a commit. */
  readonly questions: MemoryBudget
  /** For what is read from the store and waits to be sent. Apart, so that slow readers do not stop uploads. */
  readonly downloads: MemoryBudget
  /** For listings that wait to be sent: little each. Apart, so that slow readers of content do not hide what there is. */
  readonly listings: MemoryBudget
  /** Walks over what a checkpoint reaches, by vault and client. */
  readonly walks: FairBudget
}

export function budgetsOf(memoryBytes: number): Budgets {
  return {
    uploads: new MemoryBudget(memoryBytes),
    // A batch decodes a block at a time: of 16 MiB at most, of 1 MiB most often.
    decoding: new MemoryBudget(memoryBytes / 4),
    // By default two long uploads of 80 MiB each, so that one client never has both unless it is alone.
    streams: new MemoryBudget(memoryBytes * 1.25),
    questions: new MemoryBudget(Math.min(memoryBytes, questionBytes)),
    downloads: new MemoryBudget(memoryBytes),
    listings: new MemoryBudget(Math.min(memoryBytes, listingBytes)),
    walks: turnsOf(clientWalks),
  }
}

/** A bound for each client by itself, whatever others have. */
export function turnsOf(share: number, options: Omit<FairBudgetOptions, 'share' | 'spare'> = {}): FairBudget {
  const total = Number.MAX_SAFE_INTEGER
  return new FairBudget(total, { ...options, share, spare: total - share })
}
