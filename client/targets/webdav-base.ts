/** The base's manifest, beside the tree of the checkpoint that is made from it. */
import { Problem } from '../../protocol/problem.ts'
import type { ManifestEntry } from './webdav-manifest.ts'

/** Goes along the base's entries. */
export class BaseCursor {
  readonly #entries: AsyncIterator<ManifestEntry> | undefined
  #next: ManifestEntry | undefined
  #ended: boolean

  constructor(entries: AsyncIterator<ManifestEntry> | undefined) {
    this.#entries = entries
    this.#ended = entries === undefined
  }

  /** The base's entry at `path`, if there is one. Paths must be asked for in the order of the tree. */
  async at(path: Buffer): Promise<ManifestEntry | undefined> {
    for (;;) {
      if (this.#next === undefined) await this.#read()
      if (this.#next === undefined) return undefined
      const order = compareInTree(this.#next.path, path)
      if (order > 0) return undefined
      const found = this.#next
      this.#next = undefined
      if (order === 0) return found
    }
  }

  async #read(): Promise<void> {
    if (this.#ended) return
    try {
      const { value, done } = await (this.#entries as AsyncIterator<ManifestEntry>).next()
      if (done === true) this.#ended = true
      else this.#next = value
    } catch (error) {
      // What cannot be read any more cannot be taken over either.
      if (!(error instanceof Problem) || error.code !== 'invalid-object') throw error
      this.#ended = true
    }
  }

  async close(): Promise<void> {
    await this.#entries?.return?.()
  }
}

/** The order of a tree that tells each directory before what is in it: name by name along the path. */
export function compareInTree(a: Buffer, b: Buffer): number {
  const length = Math.min(a.length, b.length)
  let at = 0
  while (at < length && a[at] === b[at]) at++
  if (at === length) return a.length - b.length
  // A shorter name comes first, whatever follows the slash behind it.
  const [left, right] = [a[at] as number, b[at] as number]
  return (left === 0x2f ? -1 : left) - (right === 0x2f ? -1 : right)
}
