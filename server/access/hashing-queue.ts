import { Problem } from '../../protocol/problem.ts'

interface Waiting {
  readonly start: () => void
  readonly giveUp: (why: Problem) => void
}

/**
 * Lets a few hashings of passwords run at once, and a bounded number wait. Those that wait take turns by where they come from,
 * so that one address with a hundred guesses is as far from its next as everybody else is. When the places are taken, who comes
 * gets that of an address which has several more than they have.
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
    if (this.#waiting >= this.#maxWaiting) this.#makeRoom(this.#lines.get(from)?.length ?? 0)
    this.#waiting++
    await new Promise<void>((start, giveUp) => {
      const line = this.#lines.get(from)
      if (line === undefined) this.#lines.set(from, [{ start, giveUp }])
      else line.push({ start, giveUp })
    })
  }

  /** Sends away the last of the longest line; Problem `unavailable` when it is hardly longer than `own`. */
  #makeRoom(own: number): void {
    const tooMany = new Problem('unavailable', 'too many passwords wait to be looked at; try again soon')
    const longest = [...this.#lines.values()].reduce(
      (most, line) => (line.length > most.length ? line : most),
      [],
    )
    if (longest.length <= own + 1) throw tooMany
    this.#waiting--
    longest.pop()?.giveUp(tooMany)
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
