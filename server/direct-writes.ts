/**
 * Writes past the page cache: open(2), O_DIRECT. What is written once and seldom read pushes nothing out of memory and takes
 * no fresh pages, and a sync finds it on the disk already. Only whole pages of a file, from memory that is aligned.
 */
import type { FileHandle } from 'node:fs/promises'
import { behind, fill, lengthOf } from './buffer-list.ts'

/** What is used of Node's FileHandle. */
type Handle = Pick<FileHandle, 'writev' | 'stat' | 'close'>

/** What O_DIRECT wants positions, lengths and memory aligned to; devices with larger sectors refuse it. */
const pageBytes = 4096
/** Less is left to the page cache, which makes one write to the disk of many. */
const directAtLeast = 1024 * 1024
/** Nobody needs to hear of these: the page cache takes what they refuse. */
const refusals: ReadonlySet<string | undefined> = new Set(['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'])

/** From `position` to where a page begins. */
export function bytesToNextPage(position: number): number {
  return (pageBytes - (position % pageBytes)) % pageBytes
}

/** The writes past the page cache of one open file, as long as its file system lets us. */
export class DirectWrites {
  readonly #file: Handle
  readonly #open: () => Promise<Handle>
  #handle: Promise<Handle | undefined> | undefined
  #isRefused = false

  /** `open` opens the same file for writing, with O_DIRECT; it is asked at the first write. */
  constructor(file: Handle, open: () => Promise<Handle>) {
    this.#file = file
    this.#open = open
  }

  /** Whether it is worth it, and nothing has refused it so far. */
  areFor(parts: readonly Buffer[]): boolean {
    return !this.#isRefused && lengthOf(parts) >= directAtLeast
  }

  /**
   * Writes whole pages of `parts`, from their front, to a position where a page begins; resolves to how many bytes that
   * was. The rest is for the page cache: less than a page, all that is refused, and what will show why a write was short.
   * Rejects as a write does.
   */
  async write(parts: readonly Buffer[], position: number): Promise<number> {
    this.#handle ??= this.#opened()
    const handle = await this.#handle
    const memory = handle === undefined ? undefined : (freeMemory.pop() ?? makeMemory())
    if (handle === undefined || memory === undefined) return 0
    let written = 0
    try {
      for (;;) {
        const pages = wholePages(fill(memory, behind(parts, written)))
        if (pages === 0) return written
        const { bytesWritten } = await handle.writev([memory.subarray(0, pages)], position + written)
        written += wholePages(bytesWritten)
        if (bytesWritten < pages) return written
      }
    } catch (error) {
      if (!refusals.has((error as NodeJS.ErrnoException).code)) throw error
      this.#isRefused = true
      return written
    } finally {
      freeMemory.push(memory)
    }
  }

  async #opened(): Promise<Handle | undefined> {
    let handle: Handle | undefined
    try {
      handle = await this.#open()
      const [direct, file] = await Promise.all([handle.stat(), this.#file.stat()])
      if (direct.ino === file.ino && direct.dev === file.dev) return handle
      // The name is another file's by now.
    } catch {
      // The page cache's way needs none of this.
    }
    this.#isRefused = true
    await handle?.close()
    return undefined
  }

  async close(): Promise<void> {
    const handle = await this.#handle
    await handle?.close()
  }
}

/** Large enough for a disk, and filled in half a millisecond. */
const memoryBytes = 4 * 1024 * 1024
/** Pieces of memory, for all files of the process: who finds none free does not wait. */
const piecesAtMost = 2
const freeMemory: Buffer[] = []
let pieces = 0

/** Memory that begins where a page does, which Node has only as WebAssembly's; undefined when there is none to be had. */
function makeMemory(): Buffer | undefined {
  if (pieces === piecesAtMost) return undefined
  const size = memoryBytes / (64 * 1024)
  try {
    const { buffer } = new WebAssembly.Memory({ initial: size, maximum: size })
    pieces++
    return Buffer.from(buffer)
  } catch {
    return undefined
  }
}

/** What is needed of WebAssembly, which TypeScript knows only together with a browser. */
const { WebAssembly } = globalThis as unknown as {
  WebAssembly: { Memory: new (pages: { initial: number; maximum: number }) => { buffer: ArrayBuffer } }
}

function wholePages(bytes: number): number {
  return bytes - (bytes % pageBytes)
}
