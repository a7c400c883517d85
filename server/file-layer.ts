/**
 * The few file calls that whatever must survive a crash is made of: packs, checkpoints, settings. A test can stand
 * between them and the disk and fail a call, or drop what was not synced. LevelDB's folders are its own.
 */
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, stat, unlink } from 'node:fs/promises'
import { behind, upTo } from './buffer-list.ts'
import { bytesToNextPage, DirectWrites } from './direct-writes.ts'

/** One open file. Positions and lengths in bytes. Whoever opened it closes it. */
export interface StoreFile {
  /** Fills `target` from `position`; fewer bytes only at the end of the file. */
  read(target: Buffer, position: number): Promise<number>
  /**
   * Writes all parts one behind the other; rejects when it cannot, and then part of it may be written. What is written
   * at the same time must not touch the same 4 KiB of the file.
   */
  write(parts: readonly Buffer[], position: number): Promise<void>
  /** On return the bytes and the length are on disk. After it rejected, the page cache proves nothing. */
  datasync(): Promise<void>
  truncate(length: number): Promise<void>
  size(): Promise<number>
  close(): Promise<void>
}

/**
 * `read` and `write` fail with `ENOENT` when the file is not there, `create` with `EEXIST` when it is; `replace`
 * begins with an empty file in both cases.
 */
export type OpenMode = 'read' | 'write' | 'create' | 'replace'

/** A name's file or folder. */
export interface FileStat {
  readonly isFolder: boolean
  /** Of a file, its length. */
  readonly bytes: number
}

/**
 * Files and folders by name. Errors carry the `code` of Node's (`ENOSPC`, `ENOENT`, …). What changes names is durable
 * after `syncFolder` of the folder around them, and not before.
 */
export interface FileLayer {
  open(path: string, mode: OpenMode): Promise<StoreFile>
  /** Undefined when nothing has this name. */
  stat(path: string): Promise<FileStat | undefined>
  /** Makes a folder in one that is there; false when there is something of this name already. */
  makeFolder(path: string): Promise<boolean>
  /** The names in a folder, in no particular order. */
  names(folder: string): Promise<string[]>
  /** Gives a file another name in the same folder, in place of the file that has it. */
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  /** On return, names that were given and removed in the folder stay so. */
  syncFolder(path: string): Promise<void>
}

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC } = constants
const flagsOf = {
  read: O_RDONLY,
  write: O_RDWR,
  create: O_RDWR | O_CREAT | O_EXCL,
  replace: O_RDWR | O_CREAT | O_TRUNC,
} as const

/** What is used of Node's FileHandle. */
export type Handle = Pick<FileHandle, 'read' | 'writev' | 'datasync' | 'truncate' | 'stat' | 'close'>

/**
 * A file of the operating system; short reads and writes are gone on with. Where it is told how to open the same file
 * with O_DIRECT, a write of a MiB or more goes past the page cache: what is seldom read again pushes nothing out of
 * memory and takes no fresh pages, and the next `datasync` finds it on the disk. Only whole pages of the file go that
 * way, each once, so that none is ever written in both ways.
 */
export class NodeFile implements StoreFile {
  readonly #handle: Handle
  readonly #direct: DirectWrites | undefined

  constructor(handle: Handle, openDirect?: () => Promise<Handle>) {
    this.#handle = handle
    if (openDirect !== undefined) this.#direct = new DirectWrites(handle, openDirect)
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
    let written = 0
    if (this.#direct?.areFor(parts)) {
      written = bytesToNextPage(position)
      await this.#writeCached(upTo(parts, written), position)
      written += await this.#direct.write(behind(parts, written), position + written)
    }
    await this.#writeCached(behind(parts, written), position + written)
  }

  async #writeCached(parts: readonly Buffer[], position: number): Promise<void> {
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

  async close(): Promise<void> {
    try {
      await this.#direct?.close()
    } finally {
      await this.#handle.close()
    }
  }
}

function noProgress(): Error {
  return Object.assign(new Error('the file system took no byte of a write'), { code: 'EIO' })
}

/** The real file system, with files opened as `openFile` does it. */
export function filesOver(openFile: (path: string, flags: number) => Promise<Handle>): FileLayer {
  // Only Linux has O_DIRECT.
  const flags = constants.O_DIRECT === undefined ? undefined : O_WRONLY | constants.O_DIRECT
  return {
    ...namesOfFiles,
    open: async (path, mode) => {
      const isDirect = flags !== undefined && mode !== 'read'
      return new NodeFile(
        await openFile(path, flagsOf[mode]),
        isDirect ? () => openFile(path, flags) : undefined,
      )
    },
  }
}

const namesOfFiles: Omit<FileLayer, 'open'> = {
  async stat(path) {
    try {
      const found = await stat(path)
      return { isFolder: found.isDirectory(), bytes: found.size }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
  },
  async makeFolder(path) {
    try {
      await mkdir(path)
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
      throw error
    }
  },
  names: (folder) => readdir(folder),
  rename,
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

/** The real file system. */
export const nodeFiles: FileLayer = filesOver(open)
