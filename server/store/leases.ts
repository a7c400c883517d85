import { type Id, idBytes, idToBytes, writeId } from '../../protocol/id.ts'
import type { Lease } from './collectable.ts'
import type { IdFilter } from './id-filter.ts'

const firstBytes = 64 * idBytes

/** The leases of a store: 33 bytes for each id that is held. */
export class Leases {
  readonly #open = new Set<HeldIds>()
  /** Told of ids that are leased while a collection is under way. */
  filter: IdFilter | undefined

  begin(): Lease {
    const held = new HeldIds()
    this.#open.add(held)
    return {
      add: (id) => {
        held.add(id)
        this.filter?.add(id)
      },
      release: () => void this.#open.delete(held),
    }
  }

  /** Adds every id that is held. */
  addTo(filter: IdFilter): void {
    for (const held of this.#open) held.addTo(filter)
  }
}

/** Ids in their binary form, one behind the other. */
class HeldIds {
  #bytes = Buffer.alloc(0)
  #length = 0
  #only: Id | undefined

  add(id: Id): void {
    // Most uploads are one chunk.
    if (this.#length === 0 && this.#only === undefined) {
      this.#only = id
      return
    }
    if (this.#length + idBytes > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(firstBytes, 2 * this.#bytes.length))
      this.#bytes.copy(larger, 0, 0, this.#length)
      this.#bytes = larger
    }
    this.#length = writeId(id, this.#bytes, this.#length)
  }

  addTo(filter: IdFilter): void {
    if (this.#only !== undefined) filter.addBytes(idToBytes(this.#only))
    for (let at = 0; at < this.#length; at += idBytes) filter.addBytes(this.#bytes.subarray(at, at + idBytes))
  }
}
