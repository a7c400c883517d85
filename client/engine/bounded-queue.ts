/** A first-in-first-out queue between the source thread and the target thread, with back-pressure. */
export class BoundedQueue<T> {
  readonly #capacity: number
  #items: T[] = []
  #head = 0
  #ended = false
  #failure: unknown
  #changed: (() => void)[] = []

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  get length(): number {
    return this.#items.length - this.#head
  }

  /** Resolves when there was room. Rejects with the reason of `fail`. */
  async push(item: T): Promise<void> {
    while (this.length >= this.#capacity && this.#failure === undefined) await this.#change()
    if (this.#failure !== undefined) throw this.#failure
    this.#items.push(item)
    this.#wake()
  }

  /**
   * The next items, as many as `fits` lets in (always one); what is there now is taken, nothing is waited
   * for but the first. Undefined when the queue has ended.
   */
  async take(fits: (item: T, taken: readonly T[]) => boolean): Promise<T[] | undefined> {
    while (this.length === 0) {
      if (this.#failure !== undefined) throw this.#failure
      if (this.#ended) return undefined
      await this.#change()
    }
    const taken: T[] = []
    while (this.#head < this.#items.length) {
      const item = this.#items[this.#head] as T
      if (taken.length > 0 && !fits(item, taken)) break
      taken.push(item)
      this.#head++
    }
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
    this.#wake()
    return taken
  }

  /** Nothing more comes; what is in may still be taken. */
  end(): void {
    this.#ended = true
    this.#wake()
  }

  /** Everybody who waits, or comes later, is rejected with `reason`. */
  fail(reason: unknown): void {
    this.#failure ??= reason
    this.#wake()
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#changed.push(resolve)
    })
  }

  #wake(): void {
    const waiting = this.#changed
    this.#changed = []
    for (const resolve of waiting) resolve()
  }
}
