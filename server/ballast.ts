/**
 * `{data}/ballast/`: a few files that hold space for the day on which the disk is full, filled by somebody else.
 *
 * LevelDB writes whenever it is opened: a new manifest, a new log, and what was in the old one as a table. So on a disk
 * that is full to the last byte no receiver could start, and no vault be opened, not even to be read or to give space
 * back. Then one file after the other is given up until it can. They are made again when there is room beside the reserve.
 */
import { randomFillSync } from 'node:crypto'
import { open, readdir, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { isProblem } from '../protocol/problem.ts'
import { makeFolderDurably } from './catalog/durable-file.ts'
import { isDiskFull } from './full-disk.ts'

const pieces = 8
const MiB = 1024 * 1024
const refillEveryMs = 60_000

export type BallastUse = 'open' | 'collect'

export interface BallastOptions {
  /** Of each of the eight files. Default 1 MiB, less on a small disk. */
  readonly pieceBytes?: number | undefined
  /** What has to be free beside them. */
  readonly reserveBytes: number
  readonly onFault?: (error: unknown) => void
}

export class Ballast {
  readonly #folder: string
  readonly #options: BallastOptions
  readonly #timer: NodeJS.Timeout
  #working: Promise<unknown> = Promise.resolve()
  #isClosed = false

  /** The files are made soon, and again whenever some are gone, as long as there is room. */
  constructor(dataDir: string, options: BallastOptions) {
    this.#folder = join(dataDir, 'ballast')
    this.#options = options
    this.#timer = setInterval(() => void this.refill(), refillEveryMs).unref()
  }

  /**
   * Gives up one file, to open something, or for a collection of garbage; false when there is none left for that. A
   * collection leaves half of them: what it wants may be more than there is.
   */
  async release(use: BallastUse): Promise<boolean> {
    return await this.#alone(() => releasePiece(this.#folder, use === 'collect' ? pieces / 2 : 0))
  }

  /** Makes what is missing, as far as there is room beside the reserve. Never rejects. */
  async refill(): Promise<void> {
    await this.#alone(async () => {
      try {
        await this.#refill()
      } catch (error) {
        if (!isDiskFull(error)) this.#options.onFault?.(error)
      }
    })
  }

  async #refill(): Promise<void> {
    const { blocks, bsize } = await statfs(join(this.#folder, '..'))
    const pieceBytes = this.#options.pieceBytes ?? Math.min(MiB, Math.floor((blocks * bsize) / 200))
    if (pieceBytes === 0) return
    await makeFolderDurably(this.#folder)
    const names = new Set(await readdir(this.#folder))
    for (let piece = 1; piece <= pieces && !this.#isClosed; piece++) {
      if (names.has(String(piece))) continue
      const { bavail } = await statfs(this.#folder)
      if (bavail * bsize < this.#options.reserveBytes + 2 * pieceBytes) return
      await makePiece(join(this.#folder, String(piece)), pieceBytes)
    }
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#working.then(work)
    this.#working = result.catch(() => undefined)
    return await result
  }

  /** Idempotent. The files stay. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearInterval(this.#timer)
    await this.#working
  }
}

/** Does `work`, and again each time that it fails on a full disk and `release` can give some space up. */
export async function withBallast<T>(release: () => Promise<boolean>, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      const isFull = isProblem(error, 'insufficient-storage') || isDiskFull(error)
      if (!isFull || !(await release())) throw error
    }
  }
}

/** The same for a data directory that is not claimed yet. */
export function releaseBallast(dataDir: string): Promise<boolean> {
  return releasePiece(join(dataDir, 'ballast'))
}

async function releasePiece(folder: string, left = 0): Promise<boolean> {
  let names: string[]
  try {
    names = await readdir(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  const [name] = names
  if (name === undefined || names.length <= left) return false
  await rm(join(folder, name), { force: true })
  return true
}

/** Of bytes that no file system can make less of. */
async function makePiece(path: string, bytes: number): Promise<void> {
  try {
    const handle = await open(path, 'w', 0o600)
    try {
      await handle.writeFile(randomFillSync(Buffer.allocUnsafe(bytes)))
      await handle.datasync()
    } finally {
      await handle.close()
    }
  } catch (error) {
    // A part of one is no help.
    await rm(path, { force: true })
    throw error
  }
}
