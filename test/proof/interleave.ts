/**
 * Runs tasks one step at a time, in an order that somebody chooses: what a scheduler could do to them, as a function of
 * the choices. A task stops at each of its gates until it is chosen again. Nothing runs but the chosen one.
 */
import { setTimeout as sleep } from 'node:timers/promises'

export interface Task {
  readonly name: string
  run(gate: Gate): Promise<void>
}

/** Where a task lets others go first. */
export type Gate = () => Promise<void>

/** Which of the tasks that can go on does: an index below `count`. */
export type Choose = (count: number) => number

/** A task that does not come to its next gate by then waits for what another holds: that one goes on. */
const blockedMs = 2000
/** When none comes to a gate in this time, they wait for each other. */
const deadlockMs = 30_000

/** One task on its way. */
class Running {
  readonly task: Task
  /** It has come to a gate, or its end. */
  #stopped = Promise.withResolvers<void>()
  #goOn: (() => void) | undefined
  isOver = false
  failure: { cause: unknown } | undefined

  constructor(task: Task) {
    this.task = task
    const gate: Gate = () =>
      new Promise((resolve) => {
        this.#goOn = resolve
        this.#stopped.resolve()
      })
    gate()
      .then(() => task.run(gate))
      .catch((cause: unknown) => {
        this.failure = { cause }
      })
      .finally(() => {
        this.isOver = true
        this.#stopped.resolve()
      })
  }

  /** At a gate. */
  get isAble(): boolean {
    return this.#goOn !== undefined
  }

  /** Lets it go on to its next gate; returns early when it does not come there. */
  async go(): Promise<void> {
    this.#stopped = Promise.withResolvers<void>()
    const goOn = this.#goOn
    this.#goOn = undefined
    goOn?.()
    await this.stopped(blockedMs)
  }

  async stopped(withinMs: number): Promise<void> {
    const enough = new AbortController()
    const { signal } = enough
    await Promise.race([this.#stopped.promise, sleep(withinMs, undefined, { signal }).catch(() => {})])
    enough.abort()
  }
}

/** Runs all tasks to their ends; returns the names in the order in which they were chosen. The first failure of a task rejects. */
export async function interleave(tasks: readonly Task[], choose: Choose): Promise<string[]> {
  const chosen: string[] = []
  const running = tasks.map((task) => new Running(task))
  for (;;) {
    const failure = running.find(({ failure }) => failure !== undefined)?.failure
    if (failure !== undefined) throw failure.cause
    const able = running.filter(({ isAble }) => isAble)
    const blocked = running.filter(({ isAble, isOver }) => !isAble && !isOver)
    if (able.length === 0 && blocked.length === 0) return chosen
    if (able.length === 0) {
      await Promise.race(blocked.map((each) => each.stopped(deadlockMs)))
      if (blocked.every(({ isAble, isOver }) => !isAble && !isOver))
        throw new Error('they wait for each other')
      continue
    }
    const next = able[choose(able.length)] as Running
    chosen.push(next.task.name)
    await next.go()
  }
}

/** All orders of choices, one after the other: each call of `next` begins another run; false when there are no more. */
export class Exhaustive {
  #path: { taken: number; count: number }[] = []
  #at = 0
  #hasBegun = false

  readonly choose: Choose = (count) => {
    const known = this.#path[this.#at]
    if (known === undefined) this.#path.push({ taken: 0, count })
    const step = this.#path[this.#at++] as { taken: number; count: number }
    if (step.count !== count) throw new Error('the tasks do not do the same each time')
    return step.taken
  }

  next(): boolean {
    this.#at = 0
    if (!this.#hasBegun) {
      this.#hasBegun = true
      return true
    }
    for (let last = this.#path.at(-1); last !== undefined; last = this.#path.at(-1)) {
      if (last.taken + 1 < last.count) {
        last.taken++
        return true
      }
      this.#path.pop()
    }
    return false
  }
}

/** Choices drawn from a seed: mulberry32. */
export function seeded(seed: number): Choose {
  let state = seed >>> 0
  return (count) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % count
  }
}
