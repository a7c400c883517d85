/**
 * Reads files once, cutting and hashing on the way. Runs on a worker thread.
 *
 * Content goes into buffers that both threads share (buffer-pool.ts); chunks are told as (offset, length)
 * in one. Files that fit beside others share a buffer; a large file fills one buffer after the other, and
 * only the uncut tail, less than a largest chunk, is copied to the front of the next.
 *
 * A file is what it was at `open`: its stat is taken then and again at the end. If they differ, it is
 * read once more, up to `maxTries` times in all, and told as changed if it never held still. It ends where
 * reading ends: procfs, sysfs and some FUSE file systems tell a size that is not that of the content.
 */
import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { cutLengthBy, cutParameters, type FindCut } from '../../protocol/cut.ts'
import { gearSearchIn } from '../../protocol/gear-search.ts'
import { createHasher, type Hasher, hashId } from '../../protocol/hash.ts'
import { type Id, idOfDigest } from '../../protocol/id.ts'
import type { ProblemCode } from '../../protocol/problem.ts'
import type { StatToPack } from '../engine/packed-stat.ts'
import { posixAvailable, waitReadable } from '../posix.ts'
import {
  bufferAt,
  giveBuffer,
  placeOf,
  readBufferBytes,
  type SharedBuffers,
  takeBuffer,
} from './buffer-pool.ts'
import { FillBatchWriter } from './fill-batch.ts'
import { kindOf, statToPack } from './lstat.ts'
import { OpenDirectories } from './open-directories.ts'
import { fsPath } from './reachable-path.ts'
import type { Outlet } from './stream-thread.ts'

export interface FillJob {
  /** Absolute byte strings, or a number: an open file descriptor that is read to its end. */
  readonly files: readonly (string | number)[]
  /** Block devices and pipes may be read too, and symlinks are followed: the user has named it. */
  readonly anyKind: boolean
}

/** The buffer is the consumer's from now on, to be given back. */
export interface FillMessage {
  readonly buffer: number
  /** What stands in it, and what else was found: fill-batch.ts. */
  readonly events: Uint8Array
}

/** Up to here a file is one chunk, which needs no looking for cuts. */
const smallBytes = cutParameters.minChunkBytes
/** Files below /proc/sys give their content to the first read or not at all, whatever size they tell. */
const firstReadBytes = 64 * 1024
const maxTries = 3
/** The kernel stamps files with its tick, at most 10 ms: two writes within one tick leave the same stamp. */
const youngMs = 20
/** How long a thread waits for a silent pipe before it looks whether anybody still wants the bytes. */
const pipePatienceMs = 100

/** A file failed for a reason that the caller reports and survives. */
class ReadFailure extends Error {
  readonly code: ProblemCode
  constructor(code: ProblemCode, detail: string, cause?: unknown) {
    super(detail, { cause })
    this.code = code
  }
}

/** The consumer gave the job up: unwinds to `readFiles`. */
class Cancelled extends Error {}

/** Serves jobs on a thread: each reads its files in order and sends what it finds, or returns early when the consumer gave up. */
export function fileReading(buffers: SharedBuffers): (job: FillJob, outlet: Outlet<FillMessage>) => void {
  const search = gearSearchIn(buffers.memory)
  return (job, outlet) => readFiles(new FileReader(job, outlet, buffers, search), job)
}

function readFiles(reader: FileReader, job: FillJob): void {
  try {
    for (let file = 0; file < job.files.length; file++) reader.read(file)
    reader.send()
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error
  } finally {
    reader.close()
  }
}

class FileReader {
  readonly #job: FillJob
  readonly #outlet: Outlet<FillMessage>
  readonly #buffers: SharedBuffers
  readonly #search: FindCut
  /** For this job only: what takes a directory's place shall be seen by the next. */
  readonly #directories = new OpenDirectories()
  /** The buffer at hand; none before the first file and after a send. */
  #index: number | undefined
  #buffer: Buffer = Buffer.alloc(0)
  #used = 0
  readonly #events = new FillBatchWriter()

  constructor(job: FillJob, outlet: Outlet<FillMessage>, buffers: SharedBuffers, search: FindCut) {
    this.#job = job
    this.#outlet = outlet
    this.#buffers = buffers
    this.#search = search
  }

  read(file: number): void {
    for (let attempt = 1; ; attempt++) {
      try {
        if (this.#readOnce(file, attempt === maxTries)) return
        this.#events.again(file)
      } catch (error) {
        if (!(error instanceof ReadFailure)) throw error
        this.#events.failed(file, error.code, error.message)
        return
      }
    }
  }

  /** Reads a file from front to end. False, and nothing but chunks told, when it changed meanwhile and `last` is not set. */
  #readOnce(file: number, last: boolean): boolean {
    const input = this.#openInput(this.#job.files[file] as string | number)
    try {
      const { digest, bytesRead } = this.#readContent(file, input)
      const changed = input.regular && !isSame(input.stats, statOf(input.fd))
      if (changed && !last) return false
      const stat = input.stat.size === bytesRead ? input.stat : { ...input.stat, size: bytesRead }
      this.#events.done({ file, digest, bytesRead, stat, changed, uncertain: input.uncertain })
      return true
    } finally {
      if (input.owned) closeSync(input.fd)
    }
  }

  #openInput(file: string | number): Input {
    if (typeof file === 'number') {
      const stats = statOf(file)
      return { fd: file, stats, stat: statToPack(stats), regular: false, uncertain: false, owned: false }
    }
    const { anyKind } = this.#job
    // The clock first: a write that comes after the stat is then younger than any moment compared with.
    const openedMs = Date.now()
    return asErrno(() => {
      const fd = anyKind
        ? openSync(fsPath(file), constants.O_RDONLY | streamFlags(file))
        : openRegular(file, this.#directories)
      try {
        const stats = fstatSync(fd, { bigint: true })
        if (!stats.isFile() && !(anyKind && !stats.isDirectory())) {
          throw new ReadFailure('source-vanished', `a ${kindOf(stats) ?? 'thing'} has taken its place`)
        }
        const regular = stats.isFile()
        const uncertain = regular && Number(stats.ctimeMs) > openedMs - youngMs
        return { fd, stats, stat: statToPack(stats), regular, uncertain, owned: true }
      } catch (error) {
        closeSync(fd)
        throw error
      }
    })
  }

  #readContent(file: number, input: Input): Content {
    const expected = input.regular ? input.stat.size : Number.POSITIVE_INFINITY
    if (expected <= smallBytes) return this.#readSmall(file, input, expected)
    return this.#readLarge(file, input)
  }

  /** One chunk beside those of other files, if the content is about as long as `expected`. */
  #readSmall(file: number, input: Input, expected: number): Content {
    // At least one byte more: that it stays empty shows the end, at the price of no further call.
    const room = Math.max(expected + 1, firstReadBytes)
    this.#ensureRoom(room)
    const start = this.#used
    const length = this.#fill(input, start, start + room, expected)
    const bytes = this.#buffer.subarray(start, start + length)
    if (length === room) return this.#readLarge(file, input, Buffer.from(bytes))
    this.#events.chunk(file, hashId(bytes), start, length)
    this.#used += length
    return { digest: undefined, bytesRead: length }
  }

  /** Chunk by chunk. `head` was read already. */
  #readLarge(file: number, input: Input, head = Buffer.alloc(0)): Content {
    // What fits beside other files stands beside them; anything longer begins a buffer.
    this.#ensureRoom(Math.min(readBufferBytes, Math.max(input.stat.size, head.length) + 1))
    let content: Hasher | undefined
    let bytesRead = 0
    let ahead = head.copy(this.#buffer, this.#used)
    /** Offset of the first byte in the buffer that is in no chunk yet. */
    let cut = this.#used
    try {
      for (;;) {
        const from = this.#used
        const expected = input.stat.size - bytesRead - ahead
        const length = ahead + this.#fill(input, from + ahead, this.#buffer.length, expected)
        ahead = 0
        const ended = length < this.#buffer.length - from
        this.#used += length
        bytesRead += length
        const told = this.#cutAll(file, cut, ended)
        if (bytesRead === 0) this.#events.chunk(file, hashId(Buffer.alloc(0)), 0, 0)
        if (ended && content === undefined && told.chunks <= 1) return { digest: undefined, bytesRead }
        content ??= createHasher()
        content.update(this.#buffer.subarray(from, from + length))
        if (ended) return { digest: idOfDigest('blake3', content.digest()), bytesRead }
        this.#carry(told.end)
        cut = 0
      }
    } finally {
      content?.dispose()
    }
  }

  /** Reads into [from, to) of the buffer until it is full or the file ends; returns how many bytes came. */
  #fill(input: Input, from: number, to: number, expected: number): number {
    let at = from
    while (at < to) {
      const length = asErrno(() => this.#read(input, at, to - at))
      at += length
      // Where a regular file is expected to end, a short read is its end: no need to ask again.
      if (length === 0 || (input.regular && at < to && at - from === expected)) break
    }
    return at - from
  }

  #read(input: Input, at: number, length: number): number {
    // Never EAGAIN, but from a kernel log that has nothing more to say: a failure, not worth waiting for.
    if (input.regular) return readSync(input.fd, this.#buffer, at, length, null)
    return this.#readStream(input.fd, at, length)
  }

  /** A pipe may be silent, or drip, for ever; a thread inside `read` could be neither cancelled nor ended. */
  #readStream(fd: number, at: number, length: number): number {
    for (;;) {
      if (this.#outlet.cancelled) throw new Cancelled()
      if (!asErrno(() => waitReadable(fd, pipePatienceMs))) continue
      try {
        return readSync(fd, this.#buffer, at, length, null)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      }
      // Somebody made it non-blocking, and there is nothing after all.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    }
  }

  /** Tells the chunks in the buffer from `from` on, and where the first unfinished one starts. */
  #cutAll(file: number, from: number, ended: boolean): { chunks: number; end: number } {
    const place = placeOf(this.#buffers, this.#index as number)
    let chunks = 0
    let offset = from
    while (offset < this.#used) {
      const length = cutLengthBy(this.#search, place + offset, place + this.#used, ended)
      if (length === 0) break
      const id = hashId(this.#buffer.subarray(offset, offset + length))
      this.#events.chunk(file, id, offset, length)
      offset += length
      chunks++
    }
    return { chunks, end: offset }
  }

  /** Sends what is cut and goes on in a new buffer that begins with the rest. */
  #carry(cut: number): void {
    const next = this.#take()
    const buffer = bufferAt(this.#buffers, next)
    const restBytes = this.#buffer.copy(buffer, 0, cut, this.#used)
    try {
      this.send()
    } catch (error) {
      giveBuffer(this.#buffers, next)
      throw error
    }
    this.#index = next
    this.#buffer = buffer
    this.#used = restBytes
  }

  /** A buffer in which `bytes` are free: the one at hand, or a new one. */
  #ensureRoom(bytes: number): void {
    if (this.#index !== undefined && this.#buffer.length - this.#used >= bytes) return
    this.send()
    this.#index ??= this.#take()
    this.#buffer = bufferAt(this.#buffers, this.#index)
    this.#used = 0
  }

  #take(): number {
    const index = takeBuffer(this.#buffers, () => this.#outlet.cancelled)
    if (index === undefined) throw new Cancelled()
    return index
  }

  /** Hands over what was found so far, and the buffer with it. */
  send(): void {
    if (this.#events.isEmpty) return
    this.#index ??= this.#take()
    if (!this.#outlet.send({ buffer: this.#index, events: this.#events.take() })) throw new Cancelled()
    this.#index = undefined
  }

  close(): void {
    if (this.#index !== undefined) giveBuffer(this.#buffers, this.#index)
    this.#directories.close()
  }
}

/** What a file held. `digest` is undefined where that is one chunk's, which was just told. */
interface Content {
  readonly digest: Id | undefined
  readonly bytesRead: number
}

interface Input {
  readonly fd: number
  readonly stats: BigIntStats
  readonly stat: StatToPack
  readonly regular: boolean
  /** Too young at `open` for its stat to show every later write. */
  readonly uncertain: boolean
  readonly owned: boolean
}

function openRegular(path: string, directories: OpenDirectories): number {
  const name = path.lastIndexOf('/')
  const reached = directories.base(path.slice(0, name)) + path.slice(name)
  // O_NONBLOCK: what was a file at the scan may be a fifo by now, and must not be waited for.
  return openSync(fsPath(reached), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
}

/**
 * Opening a fifo waits for a writer, and so could not be given up: without waiting, and then `poll`, which
 * on Linux tells a writer that has left from one that has not come yet.
 */
function streamFlags(path: string): number {
  const waits = process.platform === 'linux' && posixAvailable() && statSync(fsPath(path)).isFIFO()
  return waits ? constants.O_NONBLOCK : 0
}

/** Turns a system call's failure into one that is reported for the file. */
function asErrno<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === undefined || error instanceof ReadFailure) throw error
    // ELOOP: O_NOFOLLOW met a symlink where the scan saw a file.
    const vanished = code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP'
    throw new ReadFailure(
      vanished ? 'source-vanished' : 'source-unreadable',
      vanished ? code : message,
      error,
    )
  }
}

function statOf(fd: number): BigIntStats {
  return asErrno(() => fstatSync(fd, { bigint: true }))
}

function isSame(before: BigIntStats, after: BigIntStats): boolean {
  return before.size === after.size && before.mtimeNs === after.mtimeNs && before.ctimeNs === after.ctimeNs
}
