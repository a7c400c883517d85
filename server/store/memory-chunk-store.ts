import {
  assembleBlock,
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
import type { ChunkStoreUsage, PutOutcome, VerifiedBlock } from './chunk-store.ts'
import type { CollectableStore, Collection, Compacted, Garbage, Lease } from './collectable.ts'

interface Place {
  readonly block: Block
  readonly row: BlockRow
}

/**
 * Chunks in this process's memory, for tests and for whoever embeds a receiver. Nothing survives it.
 * It says what the contract says in the plainest way; where another store differs, one of the two is wrong.
 * To a collection each block is a pack.
 */
export class MemoryChunkStore implements CollectableStore {
  readonly capabilities = { durable: false } as const
  readonly #places = new Map<Id, Place>()
  #storedBytes = 0
  #losses = 0
  #collections = 0
  readonly #leases = new Set<Set<Id>>()
  /** Numbers of blocks, as packs. */
  readonly #blocks = new Map<number, Block>()
  #lastBlock = 0
  /** What the collection under way keeps. */
  #kept: Set<Id> | undefined
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

  get collections(): number {
    return this.#collections
  }

  async stat(ids: readonly Id[]): Promise<(number | undefined)[]> {
    this.#expectOpen()
    return ids.map((id) => this.#find(id)?.row.length)
  }

  async put(block: VerifiedBlock): Promise<PutOutcome[]> {
    this.#expectOpen()
    const bytes = Buffer.from(block.bytes)
    const kept: Block = { header: parseHeader(bytes) ?? block.header, bytes }
    const outcomes = kept.header.rows.map((row): PutOutcome => {
      if (this.#find(row.id) !== undefined) return 'known'
      this.#kept?.add(row.id)
      this.#places.set(row.id, { block: kept, row })
      return 'stored'
    })
    if (outcomes.includes('stored')) {
      this.#storedBytes += bytes.length
      this.#blocks.set(++this.#lastBlock, kept)
    }
    return outcomes
  }

  async get(id: Id): Promise<Buffer | undefined> {
    this.#expectOpen()
    const place = this.#find(id)
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
      const block = this.#find(id)?.block
      if (block === undefined || given.has(block)) continue
      given.add(block)
      if (payloadIsIntact(block)) yield { header: block.header, bytes: Buffer.from(block.bytes) }
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

  get isCollecting(): boolean {
    return this.#kept !== undefined
  }

  collect(): Collection {
    this.#expectOpen()
    if (this.#kept !== undefined) throw new TypeError('a collection is under way already')
    const kept = new Set<Id>([...this.#leases].flatMap((lease) => [...lease]))
    this.#kept = kept
    this.#losses++
    this.#collections++
    return {
      keep: (ids) => {
        for (const id of ids) kept.add(id)
      },
      survey: async () => [...this.#blocks].map(([pack, block]) => this.#garbageOf(pack, block, kept)),
      compact: async (pack) => await this.#compact(pack, kept),
      end: () => {
        if (this.#kept === kept) this.#kept = undefined
      },
    }
  }

  #garbageOf(pack: number, block: Block, kept: ReadonlySet<Id>): Garbage {
    const storedBytes = block.bytes.length
    const { rows, plainBytes } = block.header
    const live = rows.filter(({ id }) => this.#places.get(id)?.block === block && kept.has(id))
    const liveBytes = live.reduce((sum, { length }) => sum + length, 0)
    const share = live.length === 0 ? 0 : plainBytes === 0 ? 1 : liveBytes / plainBytes
    const least = live.length < rows.length ? 1 : 0
    return { pack, storedBytes, garbageBytes: Math.max(least, Math.round(storedBytes * (1 - share))) }
  }

  async #compact(pack: number, kept: ReadonlySet<Id>): Promise<Compacted> {
    this.#expectOpen()
    const block = this.#blocks.get(pack)
    if (block === undefined) throw new TypeError(`there is no pack ${pack}`)
    const plain = await decodeBlock(block)
    const live = block.header.rows.filter(({ id }) => this.#places.get(id)?.block === block && kept.has(id))
    for (const { id } of block.header.rows) {
      if (this.#places.get(id)?.block === block && !kept.has(id)) this.#places.delete(id)
    }
    let movedBytes = 0
    if (live.length > 0) {
      const copy = assembleBlock(live, 'identity', Buffer.concat(live.map((row) => sliceRow(plain, row))))
      for (const row of copy.header.rows) this.#places.set(row.id, { block: copy, row })
      this.#blocks.set(++this.#lastBlock, copy)
      movedBytes = copy.bytes.length
    }
    this.#blocks.delete(pack)
    this.#storedBytes += movedBytes - block.bytes.length
    return { freedBytes: block.bytes.length, movedBytes, isDamaged: false }
  }

  lease(): Lease {
    const ids = new Set<Id>()
    this.#leases.add(ids)
    return {
      add: (id) => {
        ids.add(id)
        this.#kept?.add(id)
      },
      release: () => void this.#leases.delete(ids),
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#places.clear()
  }

  #find(id: Id): Place | undefined {
    const place = this.#places.get(id)
    if (place !== undefined) this.#kept?.add(id)
    return place
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
