/** Cuts and hashes one upload's content in its window, as it grows. Synchronous: runs on a cutting thread. */
import { createHash } from 'node:crypto'
import { cutLength } from '../../protocol/cut.ts'
import { createHasher, hashId } from '../../protocol/hash.ts'
import { type Id, idOfDigest } from '../../protocol/id.ts'
import { type CuttingWindow, headroomBytes, placeOf } from './cutting-window.ts'

/** A chunk that stands at `offset` in the window. */
export interface CutChunk {
  readonly id: Id
  readonly offset: number
  readonly length: number
}

/** Digests of the whole content; those of old algorithms in hex. */
export interface ContentDigests {
  readonly digest: Id
  readonly md5: string
  readonly sha1: string
}

export class ContentCutter {
  readonly #bytes: Buffer
  readonly #content = createHasher()
  readonly #md5 = createHash('md5')
  readonly #sha1 = createHash('sha1')
  /** How much of the content was seen. */
  #seen = 0
  /** Where the open chunk stands in the window, and how much of it was searched for its end. */
  #start = headroomBytes
  #end = headroomBytes
  #searched = 0

  constructor(window: CuttingWindow) {
    this.#bytes = Buffer.from(window)
  }

  /** Takes the next `count` bytes, which are in the window; returns the chunks that end in them. */
  more(count: number): CutChunk[] {
    const chunks: CutChunk[] = []
    let left = count
    while (left > 0) {
      const { offset, room } = placeOf(this.#seen)
      if (offset === headroomBytes) this.#carry()
      const length = Math.min(left, room)
      this.#hash(this.#bytes.subarray(offset, offset + length))
      this.#seen += length
      this.#end = offset + length
      left -= length
      this.#cut(chunks, false)
    }
    return chunks
  }

  /** The content has ended: its last chunk, if one is open, and the digests. */
  finish(): { chunks: CutChunk[]; digests: ContentDigests } {
    const chunks: CutChunk[] = []
    this.#cut(chunks, true)
    const digest = idOfDigest('blake3', this.#content.digest())
    return { chunks, digests: { digest, md5: this.#md5.digest('hex'), sha1: this.#sha1.digest('hex') } }
  }

  /** To be called when the content will not be finished. */
  dispose(): void {
    this.#content.dispose()
  }

  /** Moves the open chunk to right in front of the ring. */
  #carry(): void {
    const openBytes = this.#end - this.#start
    this.#bytes.copy(this.#bytes, headroomBytes - openBytes, this.#start, this.#end)
    this.#start = headroomBytes - openBytes
    this.#end = headroomBytes
  }

  #hash(bytes: Buffer): void {
    this.#md5.update(bytes)
    this.#sha1.update(bytes)
    this.#content.update(bytes)
  }

  #cut(chunks: CutChunk[], final: boolean): void {
    while (this.#start < this.#end) {
      const length = cutLength(this.#bytes, this.#start, this.#end, final, this.#searched)
      this.#searched = length === 0 ? this.#end - this.#start : 0
      if (length === 0) return
      const id = hashId(this.#bytes.subarray(this.#start, this.#start + length))
      chunks.push({ id, offset: this.#start, length })
      this.#start += length
    }
  }
}
