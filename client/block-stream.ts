/** A batch read as it arrives: one block in memory at a time. */
import {
  type Block,
  blockHeaderBytes,
  headerLength,
  parseHeader,
  payloadIsIntact,
} from '../protocol/block.ts'
import { limits } from '../protocol/limits.ts'
import { Problem } from '../protocol/problem.ts'

const maxHeaderBytes = blockHeaderBytes + limits.maxBlockChunks * 37
/** zstd's worst case is far below this much above the plain bytes. */
const maxPayloadBytes = limits.maxBlockBytes + limits.maxBlockBytes / 8

/**
 * The blocks of a batch whose bytes come in pieces of any size, each in a buffer that `room` gives, by default one of its
 * own. With `room` the pieces' memory is freed as they are taken: each must be of a buffer that nobody else looks at.
 * Problem `protocol-violation` when the framing is wrong, `transport-failed` when the stream ends within
 * a block. Takes no more from the stream than the current block needs.
 */
export async function* readBlocks(
  stream: AsyncIterable<Buffer>,
  room?: (bytes: number) => Promise<Buffer>,
): AsyncIterable<Block> {
  const reader = new PieceReader(stream[Symbol.asyncIterator](), room !== undefined)
  try {
    while (await reader.fill(1)) {
      await need(reader, blockHeaderBytes)
      const length = headerLength(reader.peek(blockHeaderBytes)) as number
      if (length > maxHeaderBytes) throw violation('a block claims too many chunks')
      await need(reader, length)
      const header = parseHeader(reader.peek(length))
      if (header === undefined) throw violation('a block header is damaged')
      if (header.payloadBytes > maxPayloadBytes) throw violation('a block claims too long a payload')
      const bytes = (await room?.(header.totalBytes)) ?? Buffer.allocUnsafeSlow(header.totalBytes)
      await reader.take(bytes)
      const block = { header, bytes }
      // In the room of somebody who hashes every chunk nothing more can be found.
      if (room === undefined && !payloadIsIntact(block)) throw violation("a block's checksum is wrong")
      yield block
    }
  } finally {
    await reader.end()
  }
}

function violation(what: string): Problem {
  return new Problem('protocol-violation', `in the receiver's batch ${what}`)
}

async function need(reader: PieceReader, bytes: number): Promise<void> {
  if (!(await reader.fill(bytes))) throw cutShort()
}

function cutShort(): Problem {
  return new Problem('transport-failed', 'the answer ended within a block; run the command again')
}

/** Pieces as they came, and how many of their bytes are taken already. */
class PieceReader {
  readonly #pieces: AsyncIterator<Buffer>
  #held: Buffer[] = []
  #heldBytes = 0
  /** Of the piece that came last. */
  #taken: ArrayBufferLike | undefined
  readonly #frees: boolean

  constructor(pieces: AsyncIterator<Buffer>, frees: boolean) {
    this.#pieces = pieces
    this.#frees = frees
  }

  /** Holds `bytes` at least; false when the stream ends before. */
  async fill(bytes: number): Promise<boolean> {
    while (this.#heldBytes < bytes) {
      const next = await this.#pieces.next()
      if (next.done) return false
      if (this.#held.length === 0) this.#free(next.value)
      if (next.value.length > 0) this.#held.push(next.value)
      this.#heldBytes += next.value.length
    }
    return true
  }

  /** The first `bytes`, which are held; they stay. */
  peek(bytes: number): Buffer {
    if ((this.#held[0] as Buffer).length < bytes) this.#held = [Buffer.concat(this.#held)]
    return (this.#held[0] as Buffer).subarray(0, bytes)
  }

  /** Fills `taken`; copies each byte once, whatever the pieces' sizes. */
  async take(taken: Buffer): Promise<void> {
    let filled = 0
    while (filled < taken.length) {
      if (!(await this.fill(1))) throw cutShort()
      const piece = this.#held[0] as Buffer
      const count = piece.copy(taken, filled, 0, Math.min(piece.length, taken.length - filled))
      filled += count
      this.#heldBytes -= count
      if (count === piece.length) this.#held.shift()
      else this.#held[0] = piece.subarray(count)
    }
  }

  /** What was taken is let go at once where the next piece is of other memory: collecting it takes longer (measured). */
  #free({ buffer }: Buffer): void {
    const done = this.#taken
    this.#taken = buffer
    if (this.#frees && done instanceof ArrayBuffer && done !== buffer) done.transfer(0)
  }

  async end(): Promise<void> {
    await this.#pieces.return?.()
  }
}
