import { Problem } from '../../protocol/problem.ts'

/** What a caller holds of the budget. */
export interface Reservation {
  /** Gives back what is held beyond `bytes`. */
  shrinkTo(bytes: number): void
  /** Gives everything back. Idempotent. */
  release(): void
}

interface Waiting {
  readonly bytes: number
  readonly admit: () => void
}

/**
 * Bounds how many bytes of request bodies and answers are in memory at once, over all vaults and
 * clients. Whoever wants to buffer reserves first and waits in order of arrival; when too many wait,
 * `reserve` rejects with Problem `unavailable`. Nobody may wait for a second reservation while holding
 * one: that could deadlock.
 */
export class MemoryBudget {
  readonly totalBytes: number
  private readonly maxWaiting: number
  /** In order of arrival. */
  private readonly queue = new Set<Waiting>()
  private heldBytes = 0
  private peakBytes = 0

  constructor(totalBytes: number, maxWaiting = 256) {
    this.totalBytes = totalBytes
    this.maxWaiting = maxWaiting
  }

  /** Bytes held now, the most that were ever held, and callers that wait. */
  get usage(): { heldBytes: number; peakBytes: number; waiting: number } {
    return { heldBytes: this.heldBytes, peakBytes: this.peakBytes, waiting: this.queue.size }
  }

  /**
   * Waits until `bytes` are free and holds them. More than the whole budget counts as the whole. When
   * `gone` is aborted first, the place in the queue is given up: Problem `unavailable`.
   */
  async reserve(bytes: number, gone?: AbortSignal): Promise<Reservation> {
    let held = Math.min(this.totalBytes, Math.max(1, Math.ceil(bytes)))
    if (gone?.aborted === true) throw abandoned()
    if (this.queue.size >= this.maxWaiting) {
      throw new Problem('unavailable', 'too many requests wait for memory; try again in a second')
    }
    await this.turn(held, gone)
    const keep = (less: number): void => {
      if (less >= held) return
      this.heldBytes -= held - less
      held = less
      this.admitNext()
    }
    return { shrinkTo: (less) => keep(Math.max(1, Math.ceil(less))), release: () => keep(0) }
  }

  /** Resolves with `bytes` taken. */
  private turn(bytes: number, gone: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.queue.delete(waiting)
        reject(abandoned())
        this.admitNext()
      }
      const waiting: Waiting = {
        bytes,
        admit: () => {
          gone?.removeEventListener('abort', leave)
          resolve()
        },
      }
      gone?.addEventListener('abort', leave, { once: true })
      this.queue.add(waiting)
      this.admitNext()
    })
  }

  private admitNext(): void {
    for (const waiting of this.queue) {
      if (this.heldBytes + waiting.bytes > this.totalBytes) return
      this.queue.delete(waiting)
      this.heldBytes += waiting.bytes
      this.peakBytes = Math.max(this.peakBytes, this.heldBytes)
      waiting.admit()
    }
  }
}

function abandoned(): Problem {
  return new Problem('unavailable', 'the client left before there was memory for its request')
}
