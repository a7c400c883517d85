import { type Id, idBytes, writeId } from '../../protocol/id.ts'
import type { Lease } from './collectable.ts'
import type { IdFilter } from './id-filter.ts'

/** So many are held as they came: their text is there anyway for as long as the request is. Few requests have more. */
const fewIds = 4096
const firstBytes = 1024 * idBytes

/** The leases of a store: 33 bytes for each id that is held, beside the first ones. */
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

/** The first ids as they came, further ones in their binary form, one behind the other. */
class HeldIds {
  readonly #few: Id[] = []
  #bytes = Buffer.alloc(0)
  #length = 0

  add(id: Id): void {
    if (this.#few.length < fewIds) {
      this.#few.push(id)
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
    for (const id of this.#few) filter.add(id)
    for (let at = 0; at < this.#length; at += idBytes) filter.addBytes(this.#bytes.subarray(at, at + idBytes))
  }
}
