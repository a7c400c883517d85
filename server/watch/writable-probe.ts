import { open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDiskFull } from '../full-disk.ts'

/** `full` is no fault of the disk: what is there can be read, and it passes when somebody makes room. */
export type Writability = 'yes' | 'full' | 'no'

const keptMs = 10_000
/** A disk that takes longer for a few bytes is none that a backup could be sent to. */
const patienceMs = 5_000
const bytes = Buffer.from('chunkdav writes this to see whether it can\n')

/** Finds out whether a folder can be written, by writing and syncing a small file: once in ten seconds at most, one at a time. */
export class WritableProbe {
  readonly #path: string
  #known: { readonly is: Writability; readonly at: number } | undefined
  #asking: Promise<Writability> | undefined

  constructor(folder: string) {
    this.#path = join(folder, 'writable.probe')
  }

  /** Never rejects, and answers within 5 s: `no` for as long as a write hangs. */
  async ask(): Promise<Writability> {
    if (this.#known !== undefined && performance.now() - this.#known.at < keptMs) return this.#known.is
    this.#asking ??= this.#write().finally(() => {
      this.#asking = undefined
    })
    const stop = new AbortController()
    const late = sleep(patienceMs, 'no' as const, { signal: stop.signal, ref: false }).catch(
      () => 'no' as const,
    )
    const is = await Promise.race([this.#asking, late])
    stop.abort()
    return is
  }

  async #write(): Promise<Writability> {
    let is: Writability = 'yes'
    try {
      const handle = await open(this.#path, 'w', 0o600)
      try {
        await handle.writeFile(bytes)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await unlink(this.#path)
    } catch (error) {
      // Whatever it is, it kept us from writing, and that is the answer.
      is = isDiskFull(error) ? 'full' : 'no'
    }
    this.#known = { is, at: performance.now() }
    return is
  }
}
