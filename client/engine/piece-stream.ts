/**
 * Bytes on their way from one who is lent them to one who takes them in his own time. What is taken is a
 * copy: the lender has his bytes back as soon as the taker has asked for them, however long a socket needs.
 */
export class PieceStream implements AsyncIterable<Buffer> {
  readonly #waiting: { bytes: Buffer; taken: () => void }[] = []
  #ended = false
  #failure: { reason: unknown } | undefined
  #closed = false
  #wake: () => void = () => {}

  /** Resolves when `bytes` are needed no longer. */
  push(bytes: Buffer): Promise<void> {
    if (this.#closed) return Promise.resolve()
    return new Promise((resolve) => {
      this.#waiting.push({ bytes, taken: resolve })
      this.#wake()
    })
  }

  /** Nothing more comes. */
  end(): void {
    this.#ended = true
    this.#wake()
  }

  /** It breaks off here: whoever takes is thrown `reason`. */
  fail(reason: unknown): void {
    this.#failure ??= { reason }
    this.#wake()
  }

  /** Nobody takes anything any more. Idempotent. */
  close(): void {
    this.#closed = true
    for (const { taken } of this.#waiting.splice(0)) taken()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    try {
      for (;;) {
        if (this.#failure !== undefined) throw this.#failure.reason
        const next = this.#waiting.shift()
        if (next !== undefined) {
          const copy = Buffer.from(next.bytes)
          next.taken()
          yield copy
        } else if (this.#ended) {
          return
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve
          })
        }
      }
    } finally {
      this.close()
    }
  }
}
