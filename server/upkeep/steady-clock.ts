/** It may be a day off before anybody doubts it. */
const toleratedMs = 24 * 3_600_000
/** For so long it is doubted. */
const doubtedMs = 24 * 3_600_000

/**
 * Whether the time of day can be gone by for what cannot be undone. When it has been set forward while this process runs, it may
 * have been set wrong: a checkpoint of that time would make all others old. So for a day after that it is doubtful, as
 * after a long sleep of the machine, which looks the same. A clock that was set back makes nothing old.
 */
export class SteadyClock {
  /** By how much the time of day is ahead of the running time of this process. */
  #offsetMs = Date.now() - performance.now()
  #doubtedUntil = Number.NEGATIVE_INFINITY

  isDoubtful(): boolean {
    const now = performance.now()
    const offsetMs = Date.now() - now
    if (offsetMs - this.#offsetMs > toleratedMs) this.#doubtedUntil = now + doubtedMs
    this.#offsetMs = offsetMs
    return now < this.#doubtedUntil
  }
}
