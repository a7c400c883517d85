import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, unlink } from 'node:fs/promises'

/** One open file. Positions and lengths in bytes. Whoever opened it closes it. */
export interface StoreFile {
  /** Fills `target` from `position`; fewer bytes only at the end of the file. */
  read(target: Buffer, position: number): Promise<number>
  /** Writes all parts one behind the other; rejects when it cannot, and then part of it may be written. */
  write(parts: readonly Buffer[], position: number): Promise<void>
  /** On return the bytes and the length are on disk. After it rejected, the page cache proves nothing. */
  datasync(): Promise<void>
  truncate(length: number): Promise<void>
  size(): Promise<number>
  close(): Promise<void>
}

/**
 * The few file calls that the packs need, so that a test can stand between the store and the disk and
 * fail a call, or drop what was not synced. Errors carry the `code` of Node's (`ENOSPC`, `ENOENT`, …).
 */
export interface FileLayer {
  /** `create` fails with `EEXIST` when the file is there; `read` and `write` with `ENOENT` when it is not. */
  open(path: string, mode: 'read' | 'write' | 'create'): Promise<StoreFile>
  /** Makes a folder, and those above it, unless they are there. */
  makeFolder(path: string): Promise<void>
  /** The names in a folder, in no particular order. */
  names(folder: string): Promise<string[]>
  unlink(path: string): Promise<void>
  /** On return, files created in and removed from the folder stay so. */
  syncFolder(path: string): Promise<void>
}

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = constants
const flagsOf = { read: O_RDONLY, write: O_RDWR, create: O_RDWR | O_CREAT | O_EXCL } as const

/** A file of the operating system; short reads and writes are gone on with. */
export class NodeFile implements StoreFile {
  readonly #handle: Pick<FileHandle, 'read' | 'writev' | 'datasync' | 'truncate' | 'stat' | 'close'>

  constructor(handle: Pick<FileHandle, 'read' | 'writev' | 'datasync' | 'truncate' | 'stat' | 'close'>) {
    this.#handle = handle
  }

  async read(target: Buffer, position: number): Promise<number> {
    let filled = 0
    while (filled < target.length) {
      const { bytesRead } = await this.#handle.read(target, filled, target.length - filled, position + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return filled
  }

  async write(parts: readonly Buffer[], position: number): Promise<void> {
    let rest = parts
    let at = position
    while (rest.length > 0) {
      const { bytesWritten } = await this.#handle.writev(rest, at)
      if (bytesWritten === 0 && rest.some((part) => part.length > 0)) throw noProgress()
      at += bytesWritten
      rest = behind(rest, bytesWritten)
    }
  }

  datasync(): Promise<void> {
    return this.#handle.datasync()
  }

  truncate(length: number): Promise<void> {
    return this.#handle.truncate(length)
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

/** What is left of `parts` when their first `written` bytes are done: a short write goes on there. */
function behind(parts: readonly Buffer[], written: number): Buffer[] {
  const rest: Buffer[] = []
  let skip = written
  for (const part of parts) {
    if (skip >= part.length) skip -= part.length
    else {
      rest.push(part.subarray(skip))
      skip = 0
    }
  }
  return rest
}

function noProgress(): Error {
  return Object.assign(new Error('the file system took no byte of a write'), { code: 'EIO' })
}

/** The real file system. */
export const nodeFiles: FileLayer = {
  async open(path, mode) {
    return new NodeFile(await open(path, flagsOf[mode]))
  },
  async makeFolder(path) {
    await mkdir(path, { recursive: true })
  },
  names: (folder) => readdir(folder),
  unlink,
  async syncFolder(path) {
    const handle = await open(path, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
}
