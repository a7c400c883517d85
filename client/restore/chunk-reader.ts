/** Chunks from a receiver, each hashed before anybody sees it. */
import { type Block, decodeBlock, discard, sliceRow } from '../../protocol/block.ts'
import { hashInSlices } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { isProblem, Problem, type ProblemCode } from '../../protocol/problem.ts'
import type { ReceiverClient } from '../receiver-client.ts'

/** A chunk's plain bytes, or why there are none. */
export type ChunkOrProblem = Buffer | Problem

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined
  /** Stops after about this many bytes; what was not reached is not in the result. */
  readonly stopAfterBytes?: number
  /** Is shown chunks that came along unasked; returns whether to hash this one and hand it over. */
  readonly wantsNeighbour?: (bytes: Buffer) => boolean
}

/** What is wrong with one chunk and no other: the work goes on without it. */
const chunkFaults: readonly ProblemCode[] = [
  'chunk-not-found',
  'chunk-corrupt',
  'digest-mismatch',
  'not-found',
]

export class ChunkReader {
  readonly #client: ReceiverClient
  /** Plain bytes handed out so far. */
  bytesRead = 0

  constructor(client: ReceiverClient) {
    this.#client = client
  }

  /**
   * These chunks, each asked for once, verified. A chunk that the receiver lacks, has damaged or sends
   * falsely stands as its Problem (`chunk-not-found`, `chunk-corrupt`, `digest-mismatch`); whatever else
   * goes wrong rejects. Holds all of them in memory: the caller bounds the request.
   */
  async read(ids: Iterable<Id>, options: ReadOptions = {}): Promise<Map<Id, ChunkOrProblem>> {
    const wanted = new Set(ids)
    const found = new Map<Id, ChunkOrProblem>()
    if (wanted.size === 0) return found
    let bytes = 0
    for await (const block of this.#client.fetch(wanted, { signal: options.signal, room: ownBuffer })) {
      for (const [id, chunk] of await openBlock(block, wanted, options.wantsNeighbour)) {
        if (!found.has(id)) bytes += chunk.length
        found.set(id, chunk)
      }
      if (bytes >= (options.stopAfterBytes ?? Number.POSITIVE_INFINITY)) break
    }
    const stopped = bytes >= (options.stopAfterBytes ?? Number.POSITIVE_INFINITY)
    for (const id of stopped ? [] : wanted) {
      if (!found.has(id)) found.set(id, await this.#readAlone(id, options.signal))
    }
    this.bytesRead += bytes
    return found
  }

  /** What fetch left out: asked for alone, the receiver says why, or has it after all. */
  async #readAlone(id: Id, signal: AbortSignal | undefined): Promise<ChunkOrProblem> {
    try {
      const bytes = await this.#client.getChunk(id, { signal })
      const actual = await hashInSlices(bytes, id)
      if (actual === id) return bytes
      throw new Problem('digest-mismatch', `the receiver's chunk ${id} hashes to ${actual}`, {
        extensions: { id, actual },
      })
    } catch (error) {
      if (!isProblem(error) || !chunkFaults.includes(error.code)) throw error
      const text = `chunk ${id} is missing or damaged on the receiver; back the file up again to bring it back`
      return new Problem(error.code, text, { extensions: { ...error.extensions, id }, cause: error })
    }
  }
}

async function ownBuffer(bytes: number): Promise<Buffer> {
  return Buffer.allocUnsafeSlow(bytes)
}

/** The wanted chunks of a block that hash to their ids. False ones are left out, as if they had not come. */
async function openBlock(
  block: Block,
  wanted: ReadonlySet<Id>,
  wantsNeighbour: ((bytes: Buffer) => boolean) | undefined,
): Promise<[Id, Buffer][]> {
  let plain: Buffer
  try {
    plain = await decodeBlock(block)
  } catch (error) {
    if (isProblem(error, 'invalid-encoding') || isProblem(error, 'body-too-large')) return []
    throw error
  }
  const chosen = block.header.rows.filter(
    (row) => wanted.has(row.id) || (wantsNeighbour?.(sliceRow(plain, row)) ?? false),
  )
  const chosenBytes = chosen.reduce((sum, row) => sum + row.length, 0)
  // A view keeps the whole block in memory: not for the sake of a small part of it.
  const copies = chosenBytes * 2 < plain.length
  const chunks: [Id, Buffer][] = []
  for (const row of chosen) {
    const view = sliceRow(plain, row)
    if ((await hashInSlices(view, row.id)) !== row.id) continue
    chunks.push([row.id, copies ? Buffer.from(view) : view])
  }
  // Left to the collector, this would be most of what a restore holds in memory (measured).
  if (copies) discard(plain)
  if (block.header.encoding !== 'identity') discard(block.bytes)
  return chunks
}
