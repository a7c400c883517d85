import { Problem } from '../../protocol/problem.ts'

interface Waiting {
  readonly start: () => void
  readonly giveUp: (why: Problem) => void
}

/** Those who wait, by where they come from; whose turn is next comes first. */
type Lines = Map<string, Waiting[]>

/** What is known of who comes, best first: they have logged in from there; nothing; there were failures from there. */
export const ranks = ['welcome', 'unknown', 'suspect'] as const
export type Rank = (typeof ranks)[number]

/**
 * Lets a few hashings of passwords run at once, and a bounded number wait. The better rank comes first. Of one rank they
 * take turns by where they come from, so that one address with a hundred guesses is as far from its next as
 * everybody else is. When the places are taken, a worse rank makes room for a better one, and an address
 * which has several more waiting than others gives one up.
 */
export class HashingQueue {
  readonly #atOnce: number
  readonly #maxWaiting: number
  readonly #lines: Readonly<Record<Rank, Lines>> = {
    welcome: new Map(),
    unknown: new Map(),
    suspect: new Map(),
  }
  #running = 0
  #waiting = 0

  constructor({ atOnce, maxWaiting }: { atOnce: number; maxWaiting: number }) {
    this.#atOnce = atOnce
    this.#maxWaiting = maxWaiting
  }

  /** Runs `work` when it is its turn. Problem `unavailable` when too many wait. */
  async run<T>(from: string, rank: Rank, work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#atOnce) await this.#wait(from, rank)
    else this.#running++
    try {
      return await work()
    } finally {
      // The place goes from hand to hand: nobody who comes now gets in between.
      if (!this.#startNext()) this.#running--
    }
  }

  async #wait(from: string, rank: Rank): Promise<void> {
    if (this.#waiting >= this.#maxWaiting) this.#makeRoom(from, rank)
    const lines = this.#lines[rank]
    this.#waiting++
    await new Promise<void>((start, giveUp) => {
      const line = lines.get(from)
      if (line === undefined) lines.set(from, [{ start, giveUp }])
      else line.push({ start, giveUp })
    })
  }

  /** Sends somebody away; Problem `unavailable` when nobody deserves it more. */
  #makeRoom(from: string, rank: Rank): void {
    const tooMany = new Problem('unavailable', 'too many passwords wait to be looked at; try again soon')
    const worst = ranks.findLast((each) => this.#lines[each].size > 0) ?? rank
    if (ranks.indexOf(worst) < ranks.indexOf(rank)) throw tooMany
    const lines = this.#lines[worst]
    const enough = worst === rank ? (lines.get(from)?.length ?? 0) + 1 : 0
    const [chosen, line] = [...lines].reduce((most, each) => (each[1].length > most[1].length ? each : most))
    if (line.length <= enough) throw tooMany
    line.pop()?.giveUp(tooMany)
    if (line.length === 0) lines.delete(chosen)
    this.#waiting--
  }

  #startNext(): boolean {
    for (const rank of ranks) {
      const lines = this.#lines[rank]
      const [next] = lines
      if (next === undefined) continue
      const [from, line] = next
      const first = line.shift()
      // To the end of the round, if more wait there.
      lines.delete(from)
      if (line.length > 0) lines.set(from, line)
      this.#waiting--
      first?.start()
      return true
    }
    return false
  }
}
