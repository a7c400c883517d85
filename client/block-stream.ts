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
 * The blocks of a batch whose bytes come in pieces of any size. A block's bytes are a buffer of its own.
 * Problem `protocol-violation` when the framing is wrong, `transport-failed` when the stream ends within
 * a block. Takes no more from the stream than the current block needs.
 */
export async function* readBlocks(stream: AsyncIterable<Buffer>): AsyncIterable<Block> {
  const reader = new PieceReader(stream[Symbol.asyncIterator]())
  try {
    while (await reader.fill(1)) {
      await need(reader, blockHeaderBytes)
      const length = headerLength(reader.peek(blockHeaderBytes)) as number
      if (length > maxHeaderBytes) throw violation('a block claims too many chunks')
      await need(reader, length)
      const header = parseHeader(reader.peek(length))
      if (header === undefined) throw violation('a block header is damaged')
      if (header.payloadBytes > maxPayloadBytes) throw violation('a block claims too long a payload')
      const block = { header, bytes: await reader.take(header.totalBytes) }
      if (!payloadIsIntact(block)) throw violation("a block's checksum is wrong")
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

  constructor(pieces: AsyncIterator<Buffer>) {
    this.#pieces = pieces
  }

  /** Holds `bytes` at least; false when the stream ends before. */
  async fill(bytes: number): Promise<boolean> {
    while (this.#heldBytes < bytes) {
      const next = await this.#pieces.next()
      if (next.done) return false
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

  /** The first `bytes` in a buffer of their own; copies each once, whatever the pieces' sizes. */
  async take(bytes: number): Promise<Buffer> {
    const taken = Buffer.allocUnsafeSlow(bytes)
    let filled = 0
    while (filled < bytes) {
      if (!(await this.fill(1))) throw cutShort()
      const piece = this.#held[0] as Buffer
      const count = piece.copy(taken, filled, 0, Math.min(piece.length, bytes - filled))
      filled += count
      this.#heldBytes -= count
      if (count === piece.length) this.#held.shift()
      else this.#held[0] = piece.subarray(count)
    }
    return taken
  }

  async end(): Promise<void> {
    await this.#pieces.return?.()
  }
}
