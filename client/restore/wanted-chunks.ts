/**
 * What files still want: by chunk, so that whoever gets one serves all, and in the order in which chunks are to be asked for.
 *
 * A want counts from `add` to `done`. Between them `take` hands it out when its chunk has come; `putBack` is for a chunk
 * that was not what its id says.
 */
import type { Piece } from './tree-content.ts'

/** A place in a file where a chunk must go. */
export interface Want<File> {
  readonly file: File
  readonly offset: number
  readonly size: number
}

const MiB = 1024 * 1024
/** So far the list of files is read ahead of what is written. */
const horizonBytes = 64 * MiB
const horizonWants = 8192
const requestBytes = 16 * MiB
const requestPieces = 2048
/** Less would leave most of a block behind, to be asked for again. */
const fewestBytes = MiB

export class WantedChunks<File> {
  readonly #wants = new Map<string, Want<File>[]>()
  readonly #queue: Piece[] = []
  #queuedBytes = 0
  #bytes = 0
  #count = 0

  /** Wants that are not done. */
  get count(): number {
    return this.#count
  }

  get isFull(): boolean {
    return this.#bytes >= horizonBytes || this.#count >= horizonWants
  }

  get isQueued(): boolean {
    return this.#queue.length > 0
  }

  get isRequestFull(): boolean {
    return this.#queuedBytes >= requestBytes || this.#queue.length >= requestPieces
  }

  /** Whether it is worth while to ask already, where nothing else is under way. */
  get isWorthRequest(): boolean {
    return this.#queuedBytes >= fewestBytes
  }

  add(chunk: Piece, want: Want<File>): void {
    this.#count++
    this.#bytes += want.size
    const others = this.#wants.get(chunk.id)
    if (others !== undefined) {
      others.push(want)
      return
    }
    this.#wants.set(chunk.id, [want])
    this.#queue.push(chunk)
    this.#queuedBytes += chunk.size
  }

  has(id: string): boolean {
    return this.#wants.has(id)
  }

  /** All who want this chunk; undefined when nobody does. */
  take(id: string): Want<File>[] | undefined {
    const wants = this.#wants.get(id)
    this.#wants.delete(id)
    return wants
  }

  putBack(id: string, wants: readonly Want<File>[]): void {
    this.#wants.set(id, [...(this.#wants.get(id) ?? []), ...wants])
  }

  done({ size }: Want<File>): void {
    this.#count--
    this.#bytes -= size
  }

  /** The chunks to ask for next; none when all that was queued has come along with others. */
  nextRequest(): Piece[] {
    const pieces: Piece[] = []
    let count = 0
    let bytes = 0
    for (const piece of this.#queue) {
      if (pieces.length === requestPieces || (bytes > 0 && bytes + piece.size > requestBytes)) break
      count++
      this.#queuedBytes -= piece.size
      // What came along with others need not be asked for.
      if (!this.#wants.has(piece.id)) continue
      pieces.push(piece)
      bytes += piece.size
    }
    this.#queue.splice(0, count)
    return pieces
  }
}
