import { Problem } from '../../protocol/problem.ts'

interface Waiting {
  readonly start: () => void
}

/**
 * Lets a few hashings of passwords run at once, and a bounded number wait. Those that wait take turns by where they come from,
 * so that one address with a hundred guesses is as far from its next as everybody else is.
 */
export class HashingQueue {
  readonly #atOnce: number
  readonly #maxWaiting: number
  readonly #lines = new Map<string, Waiting[]>()
  #running = 0
  #waiting = 0

  constructor({ atOnce, maxWaiting }: { atOnce: number; maxWaiting: number }) {
    this.#atOnce = atOnce
    this.#maxWaiting = maxWaiting
  }

  /** Runs `work` when it is its turn. Problem `unavailable` when too many wait already. */
  async run<T>(from: string, work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#atOnce) await this.#wait(from)
    else this.#running++
    try {
      return await work()
    } finally {
      // The place goes from hand to hand: nobody who comes now gets in between.
      if (!this.#startNext()) this.#running--
    }
  }

  async #wait(from: string): Promise<void> {
    if (this.#waiting >= this.#maxWaiting) {
      throw new Problem('unavailable', 'too many passwords wait to be looked at; try again soon')
    }
    this.#waiting++
    await new Promise<void>((start) => {
      const line = this.#lines.get(from)
      if (line === undefined) this.#lines.set(from, [{ start }])
      else line.push({ start })
    })
  }

  #startNext(): boolean {
    const [next] = this.#lines
    if (next === undefined) return false
    const [from, line] = next
    const first = line.shift()
    // To the end of the round, if more wait there.
    this.#lines.delete(from)
    if (line.length > 0) this.#lines.set(from, line)
    this.#waiting--
    first?.start()
    return true
  }
}
