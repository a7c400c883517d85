/** Picks a number from 0 up to, not including, `bound`. */
export type Pick = (bound: number) => number

/** Random choices that a seed repeats. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** A fraction from 0 up to 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  readonly pick: Pick = (bound) => Math.floor(this.next() * bound)

  /** True once in `times`. */
  once(times: number): boolean {
    return this.pick(times) === 0
  }

  of<T>(choices: readonly T[]): T {
    const choice = choices[this.pick(choices.length)]
    if (choice === undefined) throw new TypeError('there is nothing to choose from')
    return choice
  }

  /** Of `choices`, `count` different ones at most. */
  some<T>(choices: readonly T[], count: number): T[] {
    const left = [...choices]
    const taken: T[] = []
    while (taken.length < count && left.length > 0) taken.push(...left.splice(this.pick(left.length), 1))
    return taken
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length)
    for (let at = 0; at < length; at++) bytes[at] = this.pick(256)
    return bytes
  }
}
