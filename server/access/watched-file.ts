import { stat } from 'node:fs/promises'

/** Tells when a file was changed, by its inode, length and times: replaced, written into, made or removed. */
export class WatchedFile {
  readonly path: string
  readonly #settleMs: number
  #seen: string | undefined

  /** `settleMs`: for how long nobody may have written into it, for programs that write a file piece by piece. */
  constructor(path: string, settleMs = 0) {
    this.path = path
    this.#settleMs = settleMs
  }

  /** Whether it is another file than when this was last asked; it counts as seen then. */
  async hasChanged(): Promise<boolean> {
    const { stamp, mtimeMs } = await stampOf(this.path)
    if (stamp === this.#seen) return false
    if (this.#seen !== undefined && Math.abs(Date.now() - mtimeMs) < this.#settleMs) return false
    this.#seen = stamp
    return true
  }

  /** Makes it count as changed. */
  forget(): void {
    this.#seen = undefined
  }
}

async function stampOf(path: string): Promise<{ stamp: string; mtimeMs: number }> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs, mtimeMs } = await stat(path, { bigint: true })
    return { stamp: [dev, ino, size, mtimeNs, ctimeNs].join(' '), mtimeMs: Number(mtimeMs) }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return { stamp: 'absent', mtimeMs: 0 }
  }
}
