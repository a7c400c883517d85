import type { Id } from '../../protocol/id.ts'

/** Of one generation; there are two, each some 2 MB beside the ids themselves. */
const rowsAtMost = 20_000

/**
 * What was written to the index lately, in memory: a commit asks for all that its backup has sent, and a lookup in LevelDB
 * takes ten times as long. When a generation is full, the one before it is forgotten.
 */
export class RecentRows<Row> {
  #rows = new Map<Id, Row>()
  #older = new Map<Id, Row>()

  get(id: Id): Row | undefined {
    // An empty map would have the whole id hashed too.
    if (this.#rows.size === 0 && this.#older.size === 0) return undefined
    return this.#rows.get(id) ?? this.#older.get(id)
  }

  set(id: Id, row: Row): void {
    if (this.#rows.size >= rowsAtMost) {
      this.#older = this.#rows
      this.#rows = new Map()
    }
    this.#rows.set(id, row)
  }

  clear(): void {
    this.#rows.clear()
    this.#older.clear()
  }
}
