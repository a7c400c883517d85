import type { Id } from '../../protocol/id.ts'

/** 64 MiB: eight million ids. */
const maxSlots = 8 * 1024 * 1024
const firstSlots = 64 * 1024

/**
 * Ids that were met already, eight bytes each. Memory is bounded: when it is full, further ids are not remembered, and
 * whoever asks does what he does for new ones. Two ids that share their first 64 bits count as one; of eight million
 * the chance that any two do is one in half a million.
 */
export class SeenIds {
  /** Pairs of words; 0, 0 is a free slot. */
  #words = new Uint32Array(firstSlots * 2)
  #count = 0

  has(id: Id): boolean {
    const [high, low] = wordsOf(id)
    const at = this.#find(this.#words, high, low)
    return this.#words[at] === high && this.#words[at + 1] === low
  }

  /** Remembers it; false when it is there already, or cannot be remembered. */
  add(id: Id): boolean {
    const [high, low] = wordsOf(id)
    if (this.#count * 4 >= this.#words.length && !this.#grow()) return false
    const at = this.#find(this.#words, high, low)
    if (this.#words[at] !== 0 || this.#words[at + 1] !== 0) return false
    this.#words[at] = high
    this.#words[at + 1] = low
    this.#count++
    return true
  }

  #find(words: Uint32Array, high: number, low: number): number {
    const slots = words.length / 2
    let slot = low % slots
    for (;;) {
      const at = slot * 2
      const isFree = words[at] === 0 && words[at + 1] === 0
      if (isFree || (words[at] === high && words[at + 1] === low)) return at
      slot = (slot + 1) % slots
    }
  }

  #grow(): boolean {
    const slots = this.#words.length / 2
    if (slots >= maxSlots) return false
    const words = new Uint32Array(slots * 2 * 2)
    for (let at = 0; at < this.#words.length; at += 2) {
      const high = this.#words[at] as number
      const low = this.#words[at + 1] as number
      if (high === 0 && low === 0) continue
      const to = this.#find(words, high, low)
      words[to] = high
      words[to + 1] = low
    }
    this.#words = words
    return true
  }
}

function wordsOf(id: Id): [high: number, low: number] {
  const digits = id.slice(id.indexOf(':') + 1)
  // A digest of zeros would be a free slot.
  return [Number.parseInt(digits.slice(0, 8), 16), Number.parseInt(digits.slice(8, 16), 16) || 1]
}
