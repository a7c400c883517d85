/**
 * A store that takes nothing new when that would exceed a quota, or eat up what is kept free on the disk. What is there
 * already can be put again, read and given back. Bytes are those of the blocks as they are written; the index, which
 * comes to a few in a hundred, and what the store itself writes to give space back are not counted.
 *
 * Puts that are under way count as if they were stored. One that fits only when they turn out to be known waits for them.
 */
import { Problem } from '../../protocol/problem.ts'
import type { ChunkStore, PutOutcome, VerifiedBlock } from './chunk-store.ts'
import { withMethods } from './with-methods.ts'

/** What is left of a disk that several stores share. */
export interface Room {
  /** Kept free of new content, in bytes. */
  readonly reserveBytes: number
  /** Sets bytes aside for a write; false when there is not that much beside the reserve. Each true is followed by one `settle`. */
  take(bytes: number): Promise<boolean>
  /** The write has ended; `written` says whether it took the space. */
  settle(bytes: number, written: boolean): void
}

export interface Bounds {
  /** What `usage.storedBytes` and `otherBytes` may come to; undefined when only the disk bounds it. Asked for each put: it may change. */
  readonly quotaBytes: () => number | undefined
  /** What else in the vault counts against the quota, in bytes. */
  readonly otherBytes?: () => number
  readonly room?: Room | undefined
}

/**
 * The same store within bounds: `put` rejects with Problem `insufficient-storage` (extensions `quotaBytes` and
 * `storedBytes`, or `reserveBytes`) before anything is written. */
export function boundedStore<S extends ChunkStore>(store: S, bounds: Bounds): S {
  const gate = new Gate(store, bounds)
  const bounded: Partial<ChunkStore> = {
    put: (block) => gate.put(block),
    close: () => gate.close(),
  }
  return withMethods(store, bounded as Partial<S>)
}

interface Held {
  release(): void
}

interface Refusal {
  readonly text: string
  readonly facts: Record<string, unknown>
}

class Gate {
  readonly #store: ChunkStore
  readonly #bounds: Bounds
  /** Ends of the puts under way that count against the quota, and what they come to. */
  readonly #pending = new Set<Promise<void>>()
  #pendingBytes = 0
  /** All puts under way. */
  readonly #calls = new Set<Promise<unknown>>()
  #closing: Promise<void> | undefined

  constructor(store: ChunkStore, bounds: Bounds) {
    this.#store = store
    this.#bounds = bounds
  }

  put(block: VerifiedBlock): Promise<PutOutcome[]> {
    if (this.#closing !== undefined) {
      return Promise.reject(new Problem('unavailable', 'the chunk store is closed'))
    }
    const put = this.#put(block)
    const call: Promise<unknown> = put.catch(() => undefined).finally(() => this.#calls.delete(call))
    this.#calls.add(call)
    return put
  }

  /** What was asked for before may not have come to the store yet. */
  close(): Promise<void> {
    this.#closing ??= Promise.all(this.#calls).then(() => this.#store.close())
    return this.#closing
  }

  async #put(block: VerifiedBlock): Promise<PutOutcome[]> {
    const bytes = block.bytes.length
    const { room } = this.#bounds
    if (room !== undefined && !(await room.take(bytes))) {
      const text = 'the disk of the receiver is nearly full: what is left is kept for what must go on'
      return await this.#putKnown(block, { text, facts: { reserveBytes: room.reserveBytes } })
    }
    let isWritten = false
    try {
      const held = await this.#hold(bytes)
      if ('text' in held) return await this.#putKnown(block, held)
      try {
        const outcomes = await this.#store.put(block)
        isWritten = outcomes.includes('stored')
        return outcomes
      } finally {
        held.release()
      }
    } finally {
      room?.settle(bytes, isWritten)
    }
  }

  /** Counts so much against the quota, or says why it is too much. */
  async #hold(bytes: number): Promise<Held | Refusal> {
    for (;;) {
      const quotaBytes = this.#bounds.quotaBytes()
      const storedBytes = this.#store.usage.storedBytes + (this.#bounds.otherBytes?.() ?? 0)
      // From here to the sum no turn of the event loop: nobody else is counted in between.
      if (quotaBytes === undefined || storedBytes + this.#pendingBytes + bytes <= quotaBytes) {
        return this.#count(bytes)
      }
      if (storedBytes + bytes > quotaBytes || this.#pending.size === 0) {
        const text = `the vault is full: its quota is ${quotaBytes} bytes, and it holds ${storedBytes}`
        return { text, facts: { quotaBytes, storedBytes } }
      }
      await Promise.race(this.#pending)
    }
  }

  #count(bytes: number): Held {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#pending.add(promise)
    this.#pendingBytes += bytes
    return {
      release: () => {
        this.#pending.delete(promise)
        this.#pendingBytes -= bytes
        resolve()
      },
    }
  }

  /** A block of which nothing is new takes no space. */
  async #putKnown(block: VerifiedBlock, { text, facts: extensions }: Refusal): Promise<PutOutcome[]> {
    const lengths = await this.#store.stat(block.header.rows.map(({ id }) => id))
    if (lengths.includes(undefined)) throw new Problem('insufficient-storage', text, { extensions })
    return await this.#store.put(block)
  }
}
