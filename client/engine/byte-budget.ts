/** Bounds how many bytes are under way at once: a weighted semaphore (package async-mutex). */
import { Semaphore } from 'async-mutex'

export class ByteBudget {
  readonly #semaphore: Semaphore
  readonly #total: number

  constructor(totalBytes: number) {
    this.#semaphore = new Semaphore(totalBytes)
    this.#total = totalBytes
  }

  /** Resolves, in order of the calls, when `bytes` are free; the function gives them back, once. */
  async take(bytes: number): Promise<() => void> {
    // What is larger than all there is goes alone.
    const weight = Math.min(Math.max(1, bytes), this.#total)
    const [, release] = await this.#semaphore.acquire(weight)
    return release
  }
}
