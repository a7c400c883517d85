// Suite: test/conformance/chunk-store-suite.ts
import type { Block } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'

declare const verified: unique symbol
/** A block whose every chunk was found to hash to its id. Only `receive.ts` makes them. */
export type VerifiedBlock = Block & {
  readonly [verified]: true
}

export type PutOutcome = 'stored' | 'known'

export interface ChunkStoreCapabilities {
  /** What `flush` promised survives the end of the process, and a power cut. */
  readonly durable: boolean
}

export interface ChunkStoreUsage {
  readonly chunks: number
  /** Bytes on disk (or in memory), headers and garbage included. */
  readonly storedBytes: number
}

/**
 * Where one vault's chunks are kept. Ids are unique; a chunk never changes. Stores trust that a
 * VerifiedBlock is what it says. After `close` every method rejects with Problem `unavailable`.
 */
export interface ChunkStore {
  readonly capabilities: ChunkStoreCapabilities
  readonly usage: ChunkStoreUsage
  /**
   * Rises whenever an id that was present no longer is (a damaged record, a failed fsync). Whoever
   * concluded something from presence keeps the number that it saw and concludes anew when it moved.
   */
  readonly losses: number

  /** Plain length in bytes of each id, in order; undefined where absent. Reads no chunk. */
  stat(ids: readonly Id[]): Promise<(number | undefined)[]>

  /**
   * Keeps a block as it came. On return its chunks can be read, and survive kill -9 of this process;
   * a power cut only after `flush`. One outcome per row, in order; a block whose chunks are all known is
   * not written. Concurrent puts of one id: one is `stored`. A failed put changes nothing.
   * The block's bytes are copied or written before return. Problems `insufficient-storage`, `unavailable`.
   */
  put(block: VerifiedBlock): Promise<PutOutcome[]>

  /**
   * The plain bytes of a chunk, hashed again before they are returned; undefined when absent.
   * They may be shared with other readers: whoever wants to change them copies them.
   * Problem `chunk-corrupt` (extensions id, pack, offset) when the record is damaged: it is then
   * forgotten, durably, so that `stat` says absent and a later put heals it.
   */
  get(id: Id): Promise<Buffer | undefined>

  /**
   * The blocks that hold these ids, each block once, in the order in which they are first needed.
   * Payload checksums are verified, chunks are not hashed: that is left to who reads them. Absent ids and damaged blocks (forgotten as in `get`) are left out.
   * One block is held in memory at a time. Its bytes are the caller's.
   */
  blocks(ids: readonly Id[]): AsyncIterable<Block>

  /**
   * Makes durable every put that returned before the call. Concurrent callers share one fsync. When it
   * rejects, what was not durable yet may be gone: `losses` has risen and `stat` tells the truth.
   */
  flush(): Promise<void>

  /** Every id present, in no particular order, with its plain length. Sees at least what was there at the call. */
  list(): AsyncIterable<{ id: Id; length: number }>

  /** Flushes and releases. Idempotent. Waits for calls under way. */
  close(): Promise<void>
}
