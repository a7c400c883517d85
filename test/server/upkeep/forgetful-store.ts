/** A store that can lose chunks, as garbage collection or a damaged disk would. */
import type { Block } from '../../../protocol/block.ts'
import type { Id } from '../../../protocol/id.ts'
import type { ChunkStoreUsage, PutOutcome, VerifiedBlock } from '../../../server/store/chunk-store.ts'
import type { CollectableStore, Collection, Lease } from '../../../server/store/collectable.ts'
import { MemoryChunkStore } from '../../../server/store/memory-chunk-store.ts'

export class ForgetfulStore implements CollectableStore {
  readonly capabilities = { durable: false } as const
  readonly #lost = new Set<Id>()
  readonly #store: MemoryChunkStore
  #losses = 0
  /** Ids in the order in which they were stored, or stored again. */
  readonly stored: Id[] = []

  private constructor(store: MemoryChunkStore) {
    this.#store = store
  }

  static async open(): Promise<ForgetfulStore> {
    return new ForgetfulStore(await MemoryChunkStore.open())
  }

  lose(...ids: Id[]): void {
    for (const id of ids) this.#lost.add(id)
    this.#losses++
  }

  get usage(): ChunkStoreUsage {
    return this.#store.usage
  }

  get losses(): number {
    return this.#store.losses + this.#losses
  }

  get collections(): number {
    return this.#store.collections
  }

  async stat(ids: readonly Id[]): Promise<(number | undefined)[]> {
    const found = await this.#store.stat(ids)
    return found.map((length, i) => (this.#lost.has(ids[i] as Id) ? undefined : length))
  }

  async put(block: VerifiedBlock): Promise<PutOutcome[]> {
    const outcomes = await this.#store.put(block)
    return outcomes.map((outcome, i) => {
      const { id } = block.header.rows[i] as { id: Id }
      const isNew = this.#lost.delete(id) || outcome === 'stored'
      if (isNew) this.stored.push(id)
      return isNew ? 'stored' : 'known'
    })
  }

  async get(id: Id): Promise<Buffer | undefined> {
    return this.#lost.has(id) ? undefined : await this.#store.get(id)
  }

  blocks(ids: readonly Id[]): AsyncIterable<Block> {
    return this.#store.blocks(ids.filter((id) => !this.#lost.has(id)))
  }

  get isCollecting(): boolean {
    return this.#store.isCollecting
  }

  collect(): Collection {
    return this.#store.collect()
  }

  lease(): Lease {
    return this.#store.lease()
  }

  async flush(): Promise<void> {
    await this.#store.flush()
  }

  list(): AsyncIterable<{ id: Id; length: number }> {
    return this.#store.list()
  }

  async close(): Promise<void> {
    await this.#store.close()
  }
}
