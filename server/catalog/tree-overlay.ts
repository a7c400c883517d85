/** What changes of the live tree wrote that is not in LevelDB yet, and reading through it (tree-database.ts). */
import type { Row, TreeReads, TreeWrites } from './tree-database.ts'
import { endOf } from './tree-records.ts'

/** Most keys begin with a letter and a number of six bytes, and so does most of what is searched for. */
const nearBytes = 7

export class Overlay {
  /** Keys in latin1; undefined is a deletion. */
  readonly rows = new Map<string, Buffer | undefined>()
  /** The same keys by what they begin with: a change may search thousands of times among thousands of rows. */
  readonly #near = new Map<string, string[]>()

  set(text: string, value: Buffer | undefined): void {
    if (!this.rows.has(text)) {
      const start = text.slice(0, nearBytes)
      const near = this.#near.get(start)
      if (near === undefined) this.#near.set(start, [text])
      else near.push(text)
    }
    this.rows.set(text, value)
  }

  take(other: Overlay): void {
    for (const [text, value] of other.rows) this.set(text, value)
  }

  /** All keys that begin with `prefix`, and others, in no order. */
  keysNear(prefix: Buffer): Iterable<string> {
    if (prefix.length < nearBytes) return this.rows.keys()
    return this.#near.get(prefix.toString('latin1', 0, nearBytes)) ?? []
  }
}

/** One change: what it wrote itself, over what the group wrote before it, over the database. */
export class OverlaidChange implements TreeWrites {
  readonly written = new Overlay()
  losses: number | undefined
  readonly #below: TreeReads
  readonly #group: Overlay

  constructor(below: TreeReads, group: Overlay) {
    this.#below = below
    this.#group = group
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    const text = key.toString('latin1')
    for (const { rows } of [this.written, this.#group]) if (rows.has(text)) return rows.get(text)
    return await this.#below.get(key)
  }

  async *range(prefix: Buffer, after?: Buffer): AsyncGenerator<Row> {
    const start = (after ?? prefix).toString('latin1')
    const end = endOf(prefix).toString('latin1')
    const isIn = (text: string): boolean => (after === undefined ? text >= start : text > start) && text < end
    const ours = new Map<string, Buffer | undefined>()
    for (const overlay of [this.#group, this.written]) {
      for (const text of overlay.keysNear(prefix)) if (isIn(text)) ours.set(text, overlay.rows.get(text))
    }
    const keys = [...ours.keys()].sort()
    let next = 0
    for await (const row of this.#below.range(prefix, after)) {
      const text = row.key.toString('latin1')
      for (let key = keys[next]; key !== undefined && key < text; key = keys[++next]) yield* rowOf(ours, key)
      if (!ours.has(text)) yield row
    }
    for (; next < keys.length; next++) yield* rowOf(ours, keys[next] as string)
  }

  put(key: Buffer, value: Buffer): void {
    this.written.set(key.toString('latin1'), value)
  }

  remove(key: Buffer): void {
    this.written.set(key.toString('latin1'), undefined)
  }

  needsChunks(losses: number): void {
    this.losses = Math.min(losses, this.losses ?? losses)
  }
}

function* rowOf(rows: ReadonlyMap<string, Buffer | undefined>, text: string): Generator<Row> {
  const value = rows.get(text)
  if (value !== undefined) yield { key: Buffer.from(text, 'latin1'), value }
}
