/**
 * A set of ids that may say yes to one that was never added, and never no to one that was: a Bloom filter (B. H.
 * Bloom, Space/time trade-offs in hash coding with allowable errors, 1970). Each filter draws its own seed, so what
 * one collection keeps by mistake the next does not.
 */
import { randomBytes } from 'node:crypto'
import { type Id, idBytes, idToBytes } from '../../protocol/id.ts'

/** With six probes about one id in 3,000 is kept by mistake. */
const bitsPerId = 20
const probes = 6
const minBits = 2 ** 16
const maxBits = 2 ** 32

export class IdFilter {
  readonly #words: Uint32Array
  readonly #bits: number
  readonly #seed = randomBytes(8)

  /** For about `expected` ids; more of them make more mistakes. 2.5 bytes for each, at most 512 MiB. */
  constructor(expected: number) {
    this.#bits = Math.min(maxBits, Math.max(minBits, 32 * Math.ceil((expected * bitsPerId) / 32)))
    this.#words = new Uint32Array(this.#bits / 32)
  }

  add(id: Id): void {
    this.addBytes(idToBytes(id))
  }

  has(id: Id): boolean {
    return this.hasBytes(idToBytes(id))
  }

  /** An id in its binary form. */
  addBytes(bytes: Buffer): void {
    const [first, step] = this.#hashes(bytes)
    for (let i = 0; i < probes; i++) {
      const bit = (first + i * step) % this.#bits
      this.#words[bit >>> 5] = (this.#words[bit >>> 5] as number) | (1 << (bit & 31))
    }
  }

  hasBytes(bytes: Buffer): boolean {
    const [first, step] = this.#hashes(bytes)
    for (let i = 0; i < probes; i++) {
      const bit = (first + i * step) % this.#bits
      if (((this.#words[bit >>> 5] as number) & (1 << (bit & 31))) === 0) return false
    }
    return true
  }

  /** Digests are spread evenly already; the seed makes each filter another function of them. */
  #hashes(bytes: Buffer): [number, number] {
    const a = mixed(bytes.readUInt32LE(idBytes - 32) ^ this.#seed.readUInt32LE(0), bytes.readUInt32LE(9))
    const b = mixed(bytes.readUInt32LE(17) ^ this.#seed.readUInt32LE(4), bytes.readUInt32LE(25))
    return [a, (b | 1) >>> 0]
  }
}

/** Both words in one, each bit depending on all: the finalizer of MurmurHash3. */
function mixed(a: number, b: number): number {
  let hash = Math.imul(a ^ (a >>> 16), 0x85ebca6b) ^ b
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
