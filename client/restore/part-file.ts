/**
 * The temporary file that a file's content goes into: `.chunkdav-{hash}.part` beside its final name, which
 * it takes when everything is right. The hash is of name and id, so that an interrupted restore of the
 * same content finds it again, and of no other. A symlink of that name is never followed, and a file with
 * further hard links is not written to.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  read,
  renameSync,
  unlinkSync,
  write,
  writeSync,
} from 'node:fs'
import { promisify } from 'node:util'

const readAsync = promisify(read)
const writeAsync = promisify(write)
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants

/** Below this a call costs less than a trip to another thread. */
const synchronousBytes = 64 * 1024
/** Where file systems keep holes. */
const holeBytes = 4096
const zeros = Buffer.alloc(holeBytes)

/** The temporary name for the file `name` with content `key`. */
export function partName(name: Buffer, key: string): Buffer {
  const hash = createHash('sha256').update(name).update('\0').update(key).digest('hex').slice(0, 24)
  return Buffer.from(`.chunkdav-${hash}.part`)
}

/** What is at `path` itself; undefined when nothing is. */
export function lookAt(path: Buffer) {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })
}

/** Reads `bytes` at `offset`, or up to the end of the file. */
export async function readAt(fd: number, offset: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(bytes)
  let filled = 0
  while (filled < bytes) {
    const { bytesRead } = await readAsync(fd, buffer, filled, bytes - filled, offset + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

/** Opens a regular file to read; undefined when it is none, or may not be read. */
export function openRegular(path: Buffer): number | undefined {
  let fd: number
  try {
    // Without O_NONBLOCK a fifo of that name would hold us up.
    fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    return undefined
  }
  if (fstatSync(fd).isFile()) return fd
  closeSync(fd)
  return undefined
}

export class PartFile {
  readonly #path: Buffer
  readonly #fd: number
  /** It was there: then what it holds may have to be overwritten with zeros. */
  readonly #resumed: boolean
  #open = true

  private constructor(path: Buffer, fd: number, resumed: boolean) {
    this.#path = path
    this.#fd = fd
    this.#resumed = resumed
  }

  /** Takes the file of an interrupted run when `resume` says so and it is safe to; else makes a new one. */
  static open(path: Buffer, resume: boolean): PartFile {
    const fd = resume ? openToResume(path) : undefined
    return fd === undefined ? new PartFile(path, createAnew(path), false) : new PartFile(path, fd, true)
  }

  get path(): Buffer {
    return this.#path
  }

  /** Writes at `offset`. With `sparse` leaves blocks of zeros out where the file reads as zeros already. */
  async write(bytes: Buffer, offset: number, sparse: boolean): Promise<void> {
    if (!sparse) {
      await this.#writeAll(bytes, offset)
      return
    }
    const present = this.#resumed ? await this.read(offset, bytes.length) : zeros.subarray(0, 0)
    for (const [start, end] of dataRuns(bytes, offset, present)) {
      await this.#writeAll(bytes.subarray(start, end), offset + start)
    }
  }

  async #writeAll(bytes: Buffer, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      if (bytes.length - done <= synchronousBytes) {
        done += writeSync(this.#fd, bytes, done, bytes.length - done, offset + done)
      } else {
        done += (await writeAsync(this.#fd, bytes, done, bytes.length - done, offset + done)).bytesWritten
      }
    }
  }

  read(offset: number, bytes: number): Promise<Buffer> {
    return readAt(this.#fd, offset, bytes)
  }

  /** Gives the file its length: holes at its end, or bytes of an older run behind it. */
  truncate(size: number): void {
    if (fstatSync(this.#fd).size !== size) ftruncateSync(this.#fd, size)
  }

  /** It takes its place; what stands there is replaced. */
  rename(path: Buffer): void {
    this.close()
    renameSync(this.#path, path)
  }

  /** Removes it. */
  discard(): void {
    this.close()
    unlinkSync(this.#path)
  }

  /** Leaves it for a later run. Idempotent. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    closeSync(this.#fd)
  }
}

function openToResume(path: Buffer): number | undefined {
  let fd: number
  try {
    fd = openSync(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK)
  } catch (error) {
    // Gone, a symlink, or given its final owner already: it is made anew.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    return undefined
  }
  const stats = fstatSync(fd)
  if (stats.isFile() && stats.nlink === 1) return fd
  closeSync(fd)
  return undefined
}

function createAnew(path: Buffer): number {
  const flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW
  try {
    return openSync(path, flags, 0o600)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    unlinkSync(path)
    return openSync(path, flags, 0o600)
  }
}

/**
 * The stretches of `bytes` that must be written: all but whole blocks of zeros (aligned in the file)
 * where `present`, what the file holds there, is zeros too or ended.
 */
function* dataRuns(bytes: Buffer, offset: number, present: Buffer): Iterable<[start: number, end: number]> {
  let start: number | undefined
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + holeBytes - ((offset + at) % holeBytes))
    const isHole =
      end - at === holeBytes && isZeros(bytes.subarray(at, end)) && isZeros(present.subarray(at, end))
    if (isHole && start !== undefined) {
      yield [start, at]
      start = undefined
    } else if (!isHole) {
      start ??= at
    }
    at = end
  }
  if (start !== undefined) yield [start, bytes.length]
}

function isZeros(block: Buffer): boolean {
  return block.compare(zeros, 0, block.length) === 0
}
