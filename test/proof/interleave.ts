/**
 * Runs tasks one step at a time, in an order that somebody chooses: what a scheduler could do to them, as a function of
 * the choices. A task stops at each of its gates until it is chosen again. Nothing runs but the chosen one.
 */
export interface Task {
  readonly name: string
  run(gate: Gate): Promise<void>
}

/** Where a task lets others go first. */
export type Gate = () => Promise<void>

/** Which of the tasks that can go on does: an index below `count`. */
export type Choose = (count: number) => number

/** Runs all tasks to their ends; returns the names in the order in which they were chosen. The first failure of a task rejects. */
export async function interleave(tasks: readonly Task[], choose: Choose): Promise<string[]> {
  const chosen: string[] = []
  const waiting = new Map<Task, () => void>()
  let failure: { cause: unknown } | undefined
  for (const task of tasks) {
    const gate: Gate = () =>
      new Promise((resolve) => {
        waiting.set(task, resolve)
        stopped.resolve()
      })
    let stopped = Promise.withResolvers<void>()
    const ended = gate().then(() => task.run(gate))
    runs.set(task, {
      async go() {
        stopped = Promise.withResolvers<void>()
        waiting.get(task)?.()
        waiting.delete(task)
        await Promise.race([stopped.promise, ended])
      },
    })
    ended.catch((cause: unknown) => {
      failure ??= { cause }
    })
  }
  while (waiting.size > 0 && failure === undefined) {
    const able = [...waiting.keys()]
    const task = able[choose(able.length)] as Task
    chosen.push(task.name)
    await runs.get(task)?.go()
  }
  if (failure !== undefined) throw failure.cause
  return chosen
}

const runs = new WeakMap<Task, { go(): Promise<void> }>()

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
