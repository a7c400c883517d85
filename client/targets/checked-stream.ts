import { Problem } from '../../protocol/problem.ts'

/**
 * A file's stream, which must be as long as it says. The last piece is held back until that is known: a server
 * never gets the whole of a body that is given up, so what it makes of it cannot come behind a later one's.
 */
export class CheckedStream implements AsyncIterable<Buffer> {
  readonly #stream: AsyncIterable<Buffer>
  readonly #size: number | undefined
  bytes = 0

  constructor({ stream, size }: { stream: AsyncIterable<Buffer>; size: number | undefined }) {
    this.#stream = stream
    this.#size = size
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    let held: Buffer | undefined
    for await (const piece of this.#stream) {
      if (piece.length === 0) continue
      this.bytes += piece.length
      if (this.#size !== undefined && this.bytes > this.#size) throw this.#changed()
      if (held !== undefined) yield held
      held = piece
    }
    if (this.#size !== undefined && this.bytes !== this.#size) throw this.#changed()
    if (held !== undefined) yield held
  }

  #changed(): Problem {
    return new Problem('source-changed', `it has another length than the ${this.#size} bytes that it had`)
  }
}
