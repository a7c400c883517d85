/**
 * Something of which there is a bounded amount, such as memory, divided fairly between clients.
 *
 * - Never more than `total` is held.
 * - Who waits is admitted in turns over the clients, and within a client in order of arrival. While a request could be
 *   admitted as far as its own client goes, each other client is admitted once at most before it.
 * - Nobody overtakes a request for which only the total is too small: so a large one is not starved by small ones.
 * - A client holds at most `share`, beyond its first request. Only while no other client waits it may hold more, and
 *   then it leaves `spare` to whoever comes next.
 *
 * Nobody may wait for a second reservation while holding one of the same budget: that could deadlock.
 */
import { Problem } from '../../protocol/problem.ts'

export interface FairBudgetOptions {
  /** What one client may hold beside others. Default: half of the total. */
  readonly share?: number
  /** What a client that is alone leaves free. Default: an eighth of the total. */
  readonly spare?: number
  /** How many requests of one client may wait; `take` refuses further ones. Default 256. */
  readonly maxWaiting?: number
  /** Told to a client of which too many wait. */
  readonly refusal?: () => Problem
}

/** What somebody holds. */
export interface Holding {
  /** Gives back what is held beyond `units`. */
  shrinkTo(units: number): void
  /** Gives everything back. Idempotent. */
  release(): void
}

/** Numbers to look at. */
export interface BudgetUsage {
  /** Units held now, and the most that were ever held. */
  readonly held: number
  readonly peak: number
  /** Requests that wait, and those that were refused so far because too many of their client waited. */
  readonly waiting: number
  readonly refused: number
}

interface Waiting {
  readonly units: number
  readonly since: number
  readonly admit: () => void
}

interface Client {
  readonly name: string
  held: number
  /** In order of arrival. */
  readonly queue: Set<Waiting>
  /** When it was last given something, or gave something back. */
  movedAt: number
}

export class FairBudget {
  readonly total: number
  readonly #share: number
  readonly #spare: number
  readonly #maxWaiting: number
  readonly #refusal: () => Problem
  /** Those that hold something or wait. */
  readonly #clients = new Map<string, Client>()
  /** Those that wait, by their turn. */
  readonly #turns = new Set<Client>()
  #held = 0
  #peak = 0
  #waiting = 0
  #refused = 0

  constructor(total: number, options: FairBudgetOptions = {}) {
    this.total = total
    this.#share = options.share ?? total / 2
    this.#spare = options.spare ?? total / 8
    this.#maxWaiting = options.maxWaiting ?? 256
    this.#refusal = options.refusal ?? tooManyWait
  }

  get usage(): BudgetUsage {
    return { held: this.#held, peak: this.#peak, waiting: this.#waiting, refused: this.#refused }
  }

  /** For how long, in ms, somebody has been waiting for what others hold; 0 when nobody does. */
  get pressedMs(): number {
    const now = performance.now()
    let longest = 0
    for (const client of this.#turns) {
      const next = headOf(client)
      if (!this.#isWithinShare(client, next.units)) continue
      longest = Math.max(longest, now - Math.max(next.since, client.movedAt))
    }
    return longest
  }

  /**
   * Waits until `units` are there for this client, and holds them. More than the total counts as the total. When `gone`
   * is aborted first, the place in the queue is given up: Problem `unavailable`. The refusal, by default
   * `unavailable` too, when too many of the client wait already.
   */
  async take(units: number, client: string, gone?: AbortSignal): Promise<Holding> {
    if (gone?.aborted === true) throw abandoned()
    let held = Math.min(this.total, units)
    const holder = this.#clients.get(client) ?? { name: client, held: 0, queue: new Set(), movedAt: 0 }
    if (holder.queue.size >= this.#maxWaiting) {
      this.#refused++
      throw this.#refusal()
    }
    this.#clients.set(client, holder)
    await this.#turn(holder, held, gone)
    const keep = (less: number): void => {
      if (less >= held) return
      this.#move(holder, less - held)
      held = less
      this.#forgetIdle(holder)
      this.#admitNext()
    }
    return { shrinkTo: (less) => keep(Math.max(0, less)), release: () => keep(0) }
  }

  /** Resolves with `units` taken. */
  #turn(client: Client, units: number, gone: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#dequeue(client, waiting)
        this.#forgetIdle(client)
        reject(abandoned())
        this.#admitNext()
      }
      const waiting: Waiting = {
        units,
        since: performance.now(),
        admit: () => {
          gone?.removeEventListener('abort', leave)
          resolve()
        },
      }
      client.queue.add(waiting)
      this.#turns.add(client)
      this.#waiting++
      this.#admitNext()
      // Most have not to wait.
      if (client.queue.has(waiting)) gone?.addEventListener('abort', leave, { once: true })
    })
  }

  #admitNext(): void {
    for (;;) {
      const client = this.#nextClient()
      if (client === undefined) return
      const next = headOf(client)
      if (this.#held + next.units > this.total) return
      this.#dequeue(client, next)
      // Behind the others.
      if (this.#turns.delete(client)) this.#turns.add(client)
      this.#move(client, next.units)
      next.admit()
    }
  }

  /** A client that waits for what it holds itself is passed over, and keeps its turn. */
  #nextClient(): Client | undefined {
    for (const client of this.#turns) if (this.#isWithinShare(client, headOf(client).units)) return client
    return undefined
  }

  /** Whether the client may have so much more, as far as it depends on what it has already. */
  #isWithinShare(client: Client, units: number): boolean {
    if (client.held === 0 || client.held + units <= this.#share) return true
    const isAlone = this.#turns.size === 1
    return isAlone && this.#held + units <= this.total - this.#spare
  }

  #dequeue(client: Client, waiting: Waiting): void {
    if (!client.queue.delete(waiting)) return
    this.#waiting--
    if (client.queue.size === 0) this.#turns.delete(client)
  }

  #move(client: Client, units: number): void {
    client.held += units
    client.movedAt = performance.now()
    this.#held += units
    this.#peak = Math.max(this.#peak, this.#held)
  }

  #forgetIdle(client: Client): void {
    if (client.held === 0 && client.queue.size === 0) this.#clients.delete(client.name)
  }
}

function headOf(client: Client): Waiting {
  const [head] = client.queue
  return head as Waiting
}

function abandoned(): Problem {
  return new Problem('unavailable', 'the client left before its request had its turn')
}

function tooManyWait(): Problem {
  return new Problem('unavailable', 'too many requests of this client wait for memory; try again in a second')
}
