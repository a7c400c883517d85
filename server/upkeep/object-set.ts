/**
 * Objects that a walk has entered, so that it enters none twice. Exact, since what it denies by mistake is not kept: by
 * 126 bits of the digest, of which nobody can make two alike. Open addressing; 16 bytes for each place. In 256 tables by
 * a byte of the digest, so that none takes long to grow: a millisecond at some millions of objects.
 */
import { type Id, idBytes, idToBytes } from '../../protocol/id.ts'

const wordsPerPlace = 4
const tables = 256
const firstPlaces = 16
const maxLoad = 0.6

export class ObjectSet {
  readonly #tables: Table[]

  /** Beyond `maxBytes` no more are remembered: those are entered again each time. */
  constructor(maxBytes: number) {
    this.#tables = Array.from({ length: tables }, () => new Table(maxBytes / tables))
  }

  get size(): number {
    return this.#tables.reduce((sum, table) => sum + table.size, 0)
  }

  /** Whether it was not in it. */
  add(as: 'file' | 'directory', id: Id): boolean {
    const key = keyOf(as, id)
    return (this.#tables[(key[3] as number) >>> 24] as Table).add(key)
  }
}

class Table {
  readonly #maxPlaces: number
  #words = new Uint32Array(firstPlaces * wordsPerPlace)
  #size = 0

  constructor(maxBytes: number) {
    this.#maxPlaces = 2 ** Math.floor(Math.log2(maxBytes / (4 * wordsPerPlace)))
  }

  get size(): number {
    return this.#size
  }

  add(key: Uint32Array): boolean {
    const place = find(this.#words, key)
    if (this.#words.subarray(place, place + wordsPerPlace).some((word) => word !== 0)) return false
    if (this.#size + 1 > (this.#words.length / wordsPerPlace) * maxLoad) {
      if (this.#words.length / wordsPerPlace >= this.#maxPlaces) return true
      this.#grow()
      return this.add(key)
    }
    this.#words.set(key, place)
    this.#size++
    return true
  }

  #grow(): void {
    const before = this.#words
    this.#words = new Uint32Array(before.length * 2)
    for (let at = 0; at < before.length; at += wordsPerPlace) {
      const key = before.subarray(at, at + wordsPerPlace)
      if (key.some((word) => word !== 0)) this.#words.set(key, find(this.#words, key))
    }
  }
}

/** Never all zero, in practice as in theory: the lowest bit of the first word tells the kinds apart, another is always set. */
function keyOf(as: 'file' | 'directory', id: Id): Uint32Array {
  const bytes = idToBytes(id)
  const key = new Uint32Array(wordsPerPlace)
  for (let i = 0; i < wordsPerPlace; i++) key[i] = bytes.readUInt32LE(idBytes - 32 + 4 * i)
  key[0] = (((key[0] as number) & ~3) | (as === 'file' ? 2 : 3)) >>> 0
  return key
}

/** Where the key stands, or may. */
function find(words: Uint32Array, key: Uint32Array): number {
  const places = words.length / wordsPerPlace
  let place = (key[1] as number) & (places - 1)
  for (;;) {
    const at = place * wordsPerPlace
    const isFree = (words[at] as number) === 0
    if (isFree) return at
    if (
      words[at] === key[0] &&
      words[at + 1] === key[1] &&
      words[at + 2] === key[2] &&
      words[at + 3] === key[3]
    )
      return at
    place = (place + 1) & (places - 1)
  }
}
