/** Bounds how many bytes are under way at once: a weighted semaphore (package async-mutex). */
import { Semaphore } from 'async-mutex'

/** The semaphore looks at every weight up to its value when it is released: weights are units of this many bytes. */
const unitBytes = 64 * 1024

export class ByteBudget {
  readonly #semaphore: Semaphore
  readonly #units: number

  constructor(totalBytes: number) {
    this.#units = Math.max(1, Math.floor(totalBytes / unitBytes))
    this.#semaphore = new Semaphore(this.#units)
  }

  /** Resolves, in order of the calls, when `bytes` are free; the function gives them back, once. */
  async take(bytes: number): Promise<() => void> {
    // What is larger than all there is goes alone.
    const units = Math.min(Math.max(1, Math.ceil(bytes / unitBytes)), this.#units)
    const [, release] = await this.#semaphore.acquire(units)
    return release
  }
}
