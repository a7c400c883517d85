import type { StatsFs } from 'node:fs'
import { statfs } from 'node:fs/promises'
import type { Room } from './store/bounded-store.ts'

/** What statfs(2) says is believed for so long, corrected by what was written since. */
const freshMs = 1000
/** Kept free of inodes, in parts of all: every checkpoint, lock and pack needs some, and a file system may run out of them first. */
const inodeReserve = 1 / 1000
const maxInodeReserve = 10_000
/** Before anything is refused it is asked again, unless it was just now. */
const leastMs = 50

const MiB = 1024 * 1024

/** What is kept free when nobody says: enough for checkpoints, the index, deletions, and to give space back. */
export function defaultReserveBytes(diskBytes: number): number {
  return Math.min(256 * MiB, Math.floor(diskBytes / 20))
}

type Look = (path: string) => Promise<Pick<StatsFs, 'blocks' | 'bsize' | 'bavail' | 'files' | 'ffree'>>

/**
 * The free space of the disk that the data directory is on, shared by all vaults. New content is not let into the last
 * of it, so that checkpoints can still be committed and deleted, and garbage collected. Other programs fill disks as well.
 */
export class DiskRoom implements Room {
  readonly reserveBytes: number
  readonly #path: string
  readonly #look: Look
  #freeBytes = 0
  #isShortOfInodes = false
  #askedAt = Number.NEGATIVE_INFINITY
  #asking: Promise<void> | undefined
  /** Of writes that ended since it was asked, and of those under way. */
  #writtenBytes = 0
  #heldBytes = 0

  private constructor(path: string, reserveBytes: number, look: Look) {
    this.#path = path
    this.#look = look
    this.reserveBytes = reserveBytes
  }

  /** `path` is on the disk. Default reserve: see above; 0 keeps nothing free. */
  static async open(path: string, reserveBytes?: number, look: Look = statfs): Promise<DiskRoom> {
    const { blocks, bsize } = await look(path)
    return new DiskRoom(path, reserveBytes ?? defaultReserveBytes(blocks * bsize), look)
  }

  async take(bytes: number): Promise<boolean> {
    if (this.reserveBytes === 0) return true
    await this.#ask(freshMs)
    if (!this.#fits(bytes)) await this.#ask(leastMs)
    if (!this.#fits(bytes)) return false
    this.#heldBytes += bytes
    return true
  }

  #fits(bytes: number): boolean {
    return this.#freeBytes - this.#writtenBytes - this.#heldBytes - bytes >= this.reserveBytes
  }

  settle(bytes: number, written: boolean): void {
    if (this.reserveBytes === 0) return
    this.#heldBytes -= bytes
    if (written) this.#writtenBytes += bytes
  }

  /** Free for new content, in bytes: never less than 0. */
  async freeBytes(): Promise<number> {
    await this.#ask(leastMs)
    return Math.max(0, this.#freeBytes - this.#writtenBytes - this.reserveBytes)
  }

  /** What may be written to give space back, in bytes: all there is, since more comes back. */
  async freeForUpkeep(): Promise<number> {
    await this.#ask(leastMs)
    return Math.max(0, this.#freeBytes - this.#writtenBytes)
  }

  /**
   * Whether even half of the reserve is gone, or hardly any inode is left. Then nothing more is noted for clients either, such as the lists of their open
   * checkpoints: the rest is for what ends them, and for giving space back.
   */
  async isShort(): Promise<boolean> {
    if (this.reserveBytes === 0) return false
    await this.#ask(freshMs)
    return this.#isShortOfInodes || this.#freeBytes - this.#writtenBytes < this.reserveBytes / 2
  }

  async #ask(maxAgeMs: number): Promise<void> {
    if (performance.now() - this.#askedAt < maxAgeMs) return
    this.#asking ??= this.#statfs().finally(() => {
      this.#asking = undefined
    })
    await this.#asking
  }

  async #statfs(): Promise<void> {
    // What ends while it is asked counts twice until the next time: that errs on the side of the reserve.
    const before = this.#writtenBytes
    const { bavail, bsize, files, ffree } = await this.#look(this.#path)
    this.#freeBytes = bavail * bsize
    // Some file systems, such as btrfs, have as many as they want, and say 0.
    this.#isShortOfInodes = files > 0 && ffree < Math.min(maxInodeReserve, files * inodeReserve)
    this.#writtenBytes -= before
    this.#askedAt = performance.now()
  }
}
