/**
 * The temporary file that a file's content goes into: `.chunkdav-{hash}.part` beside its final name, which
 * it takes when everything is right. The hash is of name and id, so that an interrupted restore of the
 * same content finds it again, and of no other. A symlink of that name is never followed, and a file with
 * further hard links is not written to.
 */
import { hash } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  read,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { promisify } from 'node:util'

const readAsync = promisify(read)
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants

/** Where file systems keep holes. */
const holeBytes = 4096
const zeros = Buffer.alloc(holeBytes)

/** The temporary name for the file `name` with content `key`. */
export function partName(name: Buffer, key: string): Buffer {
  const digest = hash('sha256', Buffer.concat([name, Buffer.from(`\0${key}`)]))
  return Buffer.from(`.chunkdav-${digest.slice(0, 24)}.part`)
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

/** Opens the file of an interrupted run when `resume` says so and it is safe to; else makes a new one. */
export function openPart(path: Buffer, resume: boolean): { fd: number; resumed: boolean } {
  const fd = resume ? openToResume(path) : undefined
  return fd === undefined ? { fd: createAnew(path, 0o600), resumed: false } : { fd, resumed: true }
}

/**
 * Writes at `offset`. With `sparse` leaves blocks of zeros out where the file reads as zeros already: where it is
 * `resumed`, what it holds is looked at.
 */
export function writePart(
  fd: number,
  bytes: Buffer,
  offset: number,
  { sparse, resumed }: { readonly sparse: boolean; readonly resumed: boolean },
): void {
  if (!sparse) {
    writeAll(fd, bytes, offset)
    return
  }
  const present = Buffer.alloc(resumed ? bytes.length : 0)
  const held = present.subarray(0, readFrom(fd, present, offset))
  for (const [start, end] of dataRuns(bytes, offset, held)) {
    writeAll(fd, bytes.subarray(start, end), offset + start)
  }
}

function writeAll(fd: number, bytes: Buffer, offset: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, offset + done)
  }
}

/** Fills `buffer` from `offset`; returns how much there was. */
export function readFrom(fd: number, buffer: Buffer, offset: number): number {
  let filled = 0
  while (filled < buffer.length) {
    const length = readSync(fd, buffer, filled, buffer.length - filled, offset + filled)
    if (length === 0) break
    filled += length
  }
  return filled
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

/** A new file, empty; whatever has its name is removed. */
export function createAnew(path: Buffer, mode: number): number {
  const flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW
  try {
    return openSync(path, flags, mode)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    unlinkSync(path)
    return openSync(path, flags, mode)
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
