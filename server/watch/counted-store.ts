import type { ChunkStore, PutOutcome, VerifiedBlock } from '../store/chunk-store.ts'
import { withMethods } from '../store/with-methods.ts'

/** What came into a vault's store since the receiver started, whether the vault was open all the time or not. Bytes are plain. */
export interface StoreCounts {
  /** Sent to be stored, and found true. */
  receivedChunks: number
  receivedBytes: number
  /** Of these, what was not here yet. */
  storedChunks: number
  storedBytes: number
  /** Asked about, or announced, and here already: never sent. */
  sparedChunks: number
  sparedBytes: number
  /** When the store was last made durable, in ms. */
  syncedAt?: number
}

export function noCounts(): StoreCounts {
  return {
    receivedChunks: 0,
    receivedBytes: 0,
    storedChunks: 0,
    storedBytes: 0,
    sparedChunks: 0,
    sparedBytes: 0,
  }
}

/** The same store, which counts what is put and flushed. */
export function countedStore<S extends ChunkStore>(store: S, counts: StoreCounts): S {
  const counting: Partial<ChunkStore> = {
    put: async (block) => {
      const outcomes = await store.put(block)
      count(counts, block, outcomes)
      return outcomes
    },
    flush: async () => {
      await store.flush()
      counts.syncedAt = Date.now()
    },
  }
  return withMethods(store, counting as Partial<S>)
}

function count(counts: StoreCounts, { header }: VerifiedBlock, outcomes: readonly PutOutcome[]): void {
  for (const [place, { length }] of header.rows.entries()) {
    counts.receivedChunks++
    counts.receivedBytes += length
    if (outcomes[place] !== 'stored') continue
    counts.storedChunks++
    counts.storedBytes += length
  }
}
