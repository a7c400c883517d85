/**
 * The few file calls that whatever must survive a crash is made of: packs, checkpoints, settings. A test can stand
 * between them and the disk and fail a call, or drop what was not synced. LevelDB's folders are its own.
 */
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, stat, unlink } from 'node:fs/promises'

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

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC } = constants
const flagsOf = {
  read: O_RDONLY,
  write: O_RDWR,
  create: O_RDWR | O_CREAT | O_EXCL,
  replace: O_RDWR | O_CREAT | O_TRUNC,
} as const

/** What is used of Node's FileHandle. */
export type Handle = Pick<FileHandle, 'read' | 'writev' | 'datasync' | 'truncate' | 'stat' | 'close'>

/** A file of the operating system; short reads and writes are gone on with. */
export class NodeFile implements StoreFile {
  readonly #handle: Handle

  constructor(handle: Handle) {
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

/** The real file system, with files opened as `openFile` does it. */
export function filesOver(openFile: (path: string, flags: number) => Promise<Handle>): FileLayer {
  return { ...namesOfFiles, open: async (path, mode) => new NodeFile(await openFile(path, flagsOf[mode])) }
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
