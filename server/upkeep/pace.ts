import { setTimeout as sleep } from 'node:timers/promises'
import { Problem } from '../../protocol/problem.ts'

export interface PaceOptions {
  /** Of the time, how much may be worked: above 0, up to 1. Default 0.5. */
  readonly share?: number
  /** Bytes read and written in a second, on average. Default: no bound but the share. */
  readonly bytesPerSecond?: number
  /** Ends the work: `step` throws Problem `unavailable`. */
  readonly signal?: AbortSignal | undefined
}

/** Work goes on for so long before it rests. */
const sliceMs = 20
/** What was not used in time is lost, beyond this: no burst after a pause. */
const maxCreditMs = 1000

/**
 * Keeps work in the background at a bounded share of the machine: whoever works calls `step` between pieces of a few
 * milliseconds, with the bytes of the piece, and is held up there as long as it takes.
 */
export class Pace {
  readonly #share: number
  readonly #bytesPerSecond: number
  readonly #signal: AbortSignal | undefined
  #workedSince = performance.now()
  #bytesAt = performance.now()

  constructor({ share = 0.5, bytesPerSecond = Number.POSITIVE_INFINITY, signal }: PaceOptions = {}) {
    if (!(share > 0 && share <= 1)) throw new TypeError('share must be above 0 and at most 1')
    if (!(bytesPerSecond > 0)) throw new TypeError('bytesPerSecond must be positive')
    this.#share = share
    this.#bytesPerSecond = bytesPerSecond
    this.#signal = signal
  }

  /** After a piece of work. Problem `unavailable` once the signal is aborted. */
  async step(bytes = 0): Promise<void> {
    this.#expectWanted()
    const now = performance.now()
    this.#bytesAt = Math.max(this.#bytesAt, now - maxCreditMs) + (bytes / this.#bytesPerSecond) * 1000
    const worked = now - this.#workedSince
    const restMs = Math.max(worked < sliceMs ? 0 : worked * (1 / this.#share - 1), this.#bytesAt - now)
    if (restMs < 1 && worked < sliceMs) return
    try {
      await sleep(restMs, undefined, this.#signal === undefined ? {} : { signal: this.#signal })
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'AbortError') throw error
    }
    this.#workedSince = performance.now()
    this.#expectWanted()
  }

  #expectWanted(): void {
    if (this.#signal?.aborted) throw new Problem('unavailable', 'the work was stopped')
  }
}
