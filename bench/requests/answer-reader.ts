/**
 * Reads the answers of one connection, one after the other, and keeps nothing of their bodies: as little work as
 * can be, since whoever measures a server must not be slower than it. Knows bodies of a length and chunked ones
 * without trailers, which is what the servers here send to who asks by HTTP/1.1.
 */
type Stage = 'head' | 'body' | 'size' | 'chunk' | 'end'

export class AnswerReader {
  readonly #done: (status: number, bodyBytes: number) => void
  #stage: Stage = 'head'
  /** What is there of a head, or of a line between chunks. */
  #text = ''
  /** Bytes that are yet to come of the body, or of the chunk and the line end behind it. */
  #left = 0
  #status = 0
  #bodyBytes = 0

  /** `done` is called once for each answer that is there whole. */
  constructor(done: (status: number, bodyBytes: number) => void) {
    this.#done = done
  }

  /** Takes what came. The bytes are looked at now, and not kept. Throws for what is no such answer. */
  read(bytes: Buffer): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#stage === 'body' || this.#stage === 'chunk') {
        const taken = Math.min(this.#left, bytes.length - at)
        at += taken
        this.#left -= taken
        if (this.#left > 0) return
        if (this.#stage === 'chunk') this.#stage = 'size'
        else this.#finish()
      } else {
        at = this.#readText(bytes, at)
      }
    }
  }

  /** Takes text up to what ends it; where it went on to. */
  #readText(bytes: Buffer, from: number): number {
    const end = this.#stage === 'head' ? '\r\n\r\n' : '\r\n'
    const before = this.#text.length
    // A head is short: 4 KiB have it whole, and what is too much is given back.
    this.#text += bytes.toString('latin1', from, from + 4096)
    const found = this.#text.indexOf(end, Math.max(0, before - 3))
    if (found === -1) {
      if (this.#text.length > 65_536) throw new Error('an answer without an end of its head')
      return from + this.#text.length - before
    }
    const next = from + found + end.length - before
    const text = this.#text.slice(0, found)
    this.#text = ''
    if (this.#stage === 'head') this.#begin(text)
    else if (this.#stage === 'size') this.#beginChunk(text)
    else this.#finish()
    return next
  }

  #begin(head: string): void {
    this.#status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1])
    if (Number.isNaN(this.#status)) throw new Error(`not an answer: ${head.slice(0, 100)}`)
    if (/\r\ntransfer-encoding: *chunked/i.test(head)) {
      this.#stage = 'size'
      return
    }
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1]
    if (length === undefined && this.#status !== 204) throw new Error('an answer without a length')
    this.#left = Number(length ?? 0)
    this.#bodyBytes = this.#left
    this.#stage = 'body'
    if (this.#left === 0) this.#finish()
  }

  #beginChunk(line: string): void {
    const size = Number.parseInt(line, 16)
    if (Number.isNaN(size)) throw new Error(`not the size of a chunk: ${line.slice(0, 100)}`)
    this.#bodyBytes += size
    this.#left = size + 2
    this.#stage = size === 0 ? 'end' : 'chunk'
  }

  #finish(): void {
    const [status, bodyBytes] = [this.#status, this.#bodyBytes]
    this.#stage = 'head'
    this.#bodyBytes = 0
    this.#done(status, bodyBytes)
  }
}
