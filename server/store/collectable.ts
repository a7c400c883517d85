// Suite: test/conformance/collectable-suite.ts
import type { Id } from '../../protocol/id.ts'
import type { ChunkStore } from './chunk-store.ts'

/** Ids that somebody relies on whom nothing else knows yet, such as an upload under way. */
export interface Lease {
  /** Kept from now on until `release`, whether or not they are here yet. To be called before it is asked for them. */
  add(id: Id): void
  /** Idempotent. */
  release(): void
}

/** How much of a part of the store, such as a pack, is not kept. */
export interface Garbage {
  /** Names the part. Higher ones are younger. */
  readonly pack: number
  /** Bytes stored, and of these, about, the ones that would be given back. */
  readonly storedBytes: number
  readonly garbageBytes: number
}

export interface Compacted {
  /** Bytes given back, and bytes that were written again elsewhere to do so. */
  readonly freedBytes: number
  readonly movedBytes: number
  /** It is left where it is, because something in it could not be read that is still wanted. */
  readonly isDamaged: boolean
}

/** What holds up work in the background: called between short pieces, with the bytes of each. Throws to end it. */
export interface Pacing {
  step(bytes?: number): Promise<void>
}

/**
 * One garbage collection, from mark to sweep. It keeps what was said to be kept, what is leased, and every id that was
 * found present, by whomever, since it began: whoever concluded something from presence may rely on it.
 */
export interface Collection {
  /** Keeps these, present or not. */
  keep(ids: Iterable<Id>): void

  /** How much is garbage, per pack. To be asked when all is marked: what is not kept by now is garbage. */
  survey(pacing: Pacing): Promise<Garbage[]>

  /**
   * Gives back what is not kept in a pack: kept chunks move to the end of the store, byte for byte where all of a
   * record is kept; the others are gone, durably, before the pack's file is. A pack with damage is left where it is. An interrupted one leaves every kept
   * chunk readable, and the rest for the next collection. Several, one after the other. Problems of `put`, `flush`,
   * and of `pacing`.
   */
  compact(pack: number, pacing: Pacing): Promise<Compacted>

  /** Nothing more is protected by it. Idempotent. */
  end(): void
}

/** A chunk store that can give space back. */
export interface Collectable {
  /** Collections begun since the store was opened: so often `losses` has risen and nothing was lost. */
  readonly collections: number

  /** Whether a collection is under way: then whoever relies on what was found before it began must find it again. */
  readonly isCollecting: boolean

  /**
   * Begins a collection; TypeError while another is under way. `losses` rises once, so that nothing counts that was
   * concluded from presence before. Returns in the same turn of the event loop.
   */
  collect(): Collection

  /** Ids that collections keep, also those that begin later, until the lease is released or the process ends. */
  lease(): Lease
}

export type CollectableStore = ChunkStore & Collectable
