import {
  type Block,
  type BlockRow,
  decodeBlock,
  parseHeader,
  payloadIsIntact,
  sliceRow,
} from '../../protocol/block.ts'
import { hashInSlices } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import type { ChunkStore, ChunkStoreUsage, PutOutcome, VerifiedBlock } from './chunk-store.ts'

interface Place {
  readonly block: Block
  readonly row: BlockRow
}

/**
 * Chunks in this process's memory, for tests and for whoever embeds a receiver. Nothing survives it.
 * It says what the contract says in the plainest way; where another store differs, one of the two is wrong.
 */
export class MemoryChunkStore implements ChunkStore {
  readonly capabilities = { durable: false } as const
  readonly #places = new Map<Id, Place>()
  #storedBytes = 0
  #losses = 0
  #closed = false

  static async open(): Promise<MemoryChunkStore> {
    return new MemoryChunkStore()
  }

  get usage(): ChunkStoreUsage {
    return { chunks: this.#places.size, storedBytes: this.#storedBytes }
  }

  get losses(): number {
    return this.#losses
  }

  async stat(ids: readonly Id[]): Promise<(number | undefined)[]> {
    this.#expectOpen()
    return ids.map((id) => this.#places.get(id)?.row.length)
  }

  async put(block: VerifiedBlock): Promise<PutOutcome[]> {
    this.#expectOpen()
    const bytes = Buffer.from(block.bytes)
    const kept: Block = { header: parseHeader(bytes) ?? block.header, bytes }
    const outcomes = kept.header.rows.map((row): PutOutcome => {
      if (this.#places.has(row.id)) return 'known'
      this.#places.set(row.id, { block: kept, row })
      return 'stored'
    })
    if (outcomes.includes('stored')) this.#storedBytes += bytes.length
    return outcomes
  }

  async get(id: Id): Promise<Buffer | undefined> {
    this.#expectOpen()
    const place = this.#places.get(id)
    if (place === undefined) return undefined
    if (payloadIsIntact(place.block)) {
      const bytes = sliceRow(await decodeBlock(place.block), place.row)
      if ((await hashInSlices(bytes, id)) === id) return bytes
    }
    this.#forget(place.block)
    throw new Problem('chunk-corrupt', `${id} was damaged in memory`, { extensions: { id } })
  }

  async *blocks(ids: readonly Id[]): AsyncIterable<Block> {
    const given = new Set<Block>()
    for (const id of ids) {
      this.#expectOpen()
      const block = this.#places.get(id)?.block
      if (block === undefined || given.has(block)) continue
      given.add(block)
      if (payloadIsIntact(block)) yield block
      else this.#forget(block)
    }
  }

  async flush(): Promise<void> {
    this.#expectOpen()
  }

  async *list(): AsyncIterable<{ id: Id; length: number }> {
    this.#expectOpen()
    for (const [id, { row }] of this.#places) {
      yield { id, length: row.length }
      this.#expectOpen()
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#places.clear()
  }

  #forget(block: Block): void {
    for (const { id } of block.header.rows) {
      if (this.#places.get(id)?.block === block) this.#places.delete(id)
    }
    this.#losses++
  }

  #expectOpen(): void {
    if (this.#closed) throw new Problem('unavailable', 'the chunk store is closed')
  }
}
