/**
 * Entries of the live tree that were read or written last, as they are in LevelDB. The way to a name is looked up
 * again and again, and each look at LevelDB is a task for another thread.
 *
 * There is one writer, and what it has written comes here when its batch is durable. What is read meanwhile may be
 * older than that: it is kept only when no batch ended between the start of the reading and its end.
 */
import { LRUCache } from 'lru-cache'
import { unpooled } from '../unpooled.ts'
import type { Overlay } from './tree-overlay.ts'
import { keys } from './tree-records.ts'

const maxBytes = 8 * 1024 * 1024
/** What a row takes besides its key and value, about. */
const rowBytes = 300
/** Stands for a row that is not there. */
const nothing = Buffer.alloc(0)

export class TreeCache {
  readonly #rows = new LRUCache<string, Buffer>({
    maxSize: maxBytes,
    sizeCalculation: (value, key) => rowBytes + key.length + value.length,
  })
  #batches = 0

  /** The row, from memory or by `read`. */
  async get(key: Buffer, read: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> {
    if (key[0] !== keys.allEntries[0]) return await read()
    const text = key.toString('latin1')
    const known = this.#rows.get(text)
    if (known !== undefined) return known === nothing ? undefined : known
    const batches = this.#batches
    const value = await read()
    if (batches === this.#batches) this.#keep(text, value)
    return value
  }

  /** A batch has become durable. */
  written({ rows }: Overlay): void {
    this.#batches++
    for (const [text, value] of rows) {
      if (text[0] === 'e') this.#keep(text, value)
    }
  }

  #keep(text: string, value: Buffer | undefined): void {
    this.#rows.set(text, value === undefined ? nothing : unpooled(value))
  }

  /** What LevelDB holds is not known any more. */
  clear(): void {
    this.#batches++
    this.#rows.clear()
  }
}
