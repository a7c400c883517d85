/**
 * Reads files once, cutting and hashing on the way. Runs on a worker thread.
 *
 * Chunks are told as (offset, length) in a buffer that goes to the consumer by transfer. Files that fit
 * beside others share a buffer; a large file fills one buffer after the other, and only the uncut tail,
 * less than a largest chunk, is copied to the front of the next.
 *
 * A file is what it was at `open`: its stat is taken then and again at the end. If they differ, it is
 * read once more, up to `maxTries` times in all, and told as changed if it never held still.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { cutLength, cutParameters } from '../../protocol/cut.ts'
import { createHasher, hashId } from '../../protocol/hash.ts'
import { type Id, idOfDigest } from '../../protocol/id.ts'
import type { ProblemCode } from '../../protocol/problem.ts'
import type { SourceStat } from '../engine/source.ts'
import { kindOf, sourceStat } from './lstat.ts'
import { fsPath, reach } from './reachable-path.ts'
import type { Outlet } from './stream-thread.ts'

export interface FillJob {
  /** Absolute byte strings, or a number: an open file descriptor that is read to its end. */
  readonly files: readonly (string | number)[]
  /** Sizes that the scan saw: for planning buffers, not trusted. */
  readonly sizes: readonly number[]
  /** Block devices and pipes may be read too. */
  readonly anyKind: boolean
}

export type FillMessageEvent =
  | { type: 'chunk'; file: number; id: Id; offset: number; length: number }
  | { type: 'done'; file: number; digest: Id; bytesRead: number; stat: SourceStat; changed: boolean }
  | { type: 'failed'; file: number; code: ProblemCode; detail: string }
  | { type: 'again'; file: number }

export interface FillMessage {
  readonly buffer: ArrayBuffer
  readonly events: FillMessageEvent[]
}

/** A buffer holds two largest chunks, so that a tail and a fresh stretch fit. */
const bufferBytes = 2 * cutParameters.maxChunkBytes
/** Up to here a file is one chunk, which needs no looking for cuts. */
const smallBytes = cutParameters.minChunkBytes
const maxTries = 3

/** A file failed for a reason that the caller reports and survives. */
class ReadFailure extends Error {
  readonly code: ProblemCode
  constructor(code: ProblemCode, detail: string, cause?: unknown) {
    super(detail, { cause })
    this.code = code
  }
}

/** Reads all files of `job` in order and sends what it finds; returns early when the consumer gave up. */
export function readFiles(job: FillJob, outlet: Outlet<FillMessage>): void {
  const reader = new FileReader(job, outlet)
  for (let file = 0; file < job.files.length && !outlet.cancelled; file++) reader.read(file)
  reader.flush()
}

class FileReader {
  readonly #job: FillJob
  readonly #outlet: Outlet<FillMessage>
  #buffer: Buffer
  #used = 0
  #events: FillMessageEvent[] = []

  constructor(job: FillJob, outlet: Outlet<FillMessage>) {
    this.#job = job
    this.#outlet = outlet
    const planned = job.sizes.reduce((sum, size) => sum + Math.min(size, bufferBytes), 0)
    this.#buffer = newBuffer(Math.min(bufferBytes, planned + 1))
  }

  read(file: number): void {
    for (let attempt = 1; ; attempt++) {
      try {
        const unchanged = this.#readOnce(file, attempt === maxTries)
        if (unchanged || this.#outlet.cancelled) return
        this.#events.push({ type: 'again', file })
      } catch (error) {
        if (!(error instanceof ReadFailure)) throw error
        this.#events.push({ type: 'failed', file, code: error.code, detail: error.message })
        return
      }
    }
  }

  /** Reads a file from front to end. False, and nothing but chunks told, when it changed meanwhile and `last` is not set. */
  #readOnce(file: number, last: boolean): boolean {
    const input = openInput(this.#job.files[file] as string | number, this.#job.anyKind)
    try {
      const { digest, bytesRead } = this.#readContent(file, input)
      if (this.#outlet.cancelled) return true
      const after = sourceStat(asErrno(() => fstatSync(input.fd, { bigint: true })))
      const changed = input.regular && !(sameInode(input.stat, after) && bytesRead === input.stat.size)
      if (changed && !last) return false
      const stat = { ...input.stat, size: bytesRead }
      this.#events.push({ type: 'done', file, digest, bytesRead, stat, changed })
      return true
    } finally {
      if (input.owned) closeSync(input.fd)
    }
  }

  #readContent(file: number, input: Input): { digest: Id; bytesRead: number } {
    const expected = input.regular ? input.stat.size : Number.POSITIVE_INFINITY
    if (expected <= smallBytes) return this.#readSmall(file, input, expected)
    return this.#readLarge(file, input)
  }

  /** One chunk beside those of other files. Whatever comes behind the expected end is left: it shows in the stat. */
  #readSmall(file: number, input: Input, expected: number): { digest: Id; bytesRead: number } {
    if (this.#buffer.length - this.#used < expected) this.#replace(bufferBytes)
    const start = this.#used
    const length = fill(input.fd, this.#buffer, start, start + expected)
    const id = hashId(this.#buffer.subarray(start, start + length))
    this.#events.push({ type: 'chunk', file, id, offset: start, length })
    this.#used += length
    return { digest: id, bytesRead: length }
  }

  #readLarge(file: number, input: Input): { digest: Id; bytesRead: number } {
    if (this.#used > 0 || this.#buffer.length < bufferBytes) this.#replace(bufferBytes)
    const content = createHasher()
    let bytesRead = 0
    /** Offset of the first byte in the buffer that is in no chunk yet. */
    let cut = 0
    try {
      for (let ended = false; !ended; ) {
        const length = fill(input.fd, this.#buffer, this.#used, this.#buffer.length)
        ended = length < this.#buffer.length - this.#used
        content.update(this.#buffer.subarray(this.#used, this.#used + length))
        this.#used += length
        bytesRead += length
        cut = this.#cutAll(file, cut, ended && bytesRead > 0)
        if (!ended && !this.#carry(cut)) break
        if (!ended) cut = 0
      }
      if (bytesRead === 0)
        this.#events.push({ type: 'chunk', file, id: hashId(Buffer.alloc(0)), offset: 0, length: 0 })
      return { digest: idOfDigest('blake3', content.digest()), bytesRead }
    } finally {
      content.dispose()
    }
  }

  /** Tells the chunks in the buffer from `from` on; returns where the first unfinished one starts. */
  #cutAll(file: number, from: number, ended: boolean): number {
    let offset = from
    while (offset < this.#used) {
      const length = cutLength(this.#buffer, offset, this.#used, ended)
      if (length === 0) break
      const id = hashId(this.#buffer.subarray(offset, offset + length))
      this.#events.push({ type: 'chunk', file, id, offset, length })
      offset += length
    }
    return offset
  }

  /** Sends what is cut and goes on in a new buffer that begins with the rest. */
  #carry(cut: number): boolean {
    const rest = this.#buffer.subarray(cut, this.#used)
    const next = newBuffer(bufferBytes)
    rest.copy(next)
    const sent = this.#send()
    this.#buffer = next
    this.#used = rest.length
    return sent
  }

  #replace(bytes: number): void {
    this.#send()
    this.#buffer = newBuffer(bytes)
    this.#used = 0
  }

  flush(): void {
    this.#send()
  }

  #send(): boolean {
    if (this.#events.length === 0) return !this.#outlet.cancelled
    const buffer = this.#buffer.buffer as ArrayBuffer
    const events = this.#events
    this.#events = []
    return this.#outlet.send({ buffer, events }, [buffer])
  }
}

/** A buffer with memory of its own, so that it can be transferred. */
function newBuffer(bytes: number): Buffer {
  return Buffer.from(new ArrayBuffer(bytes))
}

interface Input {
  readonly fd: number
  readonly stat: SourceStat
  readonly regular: boolean
  readonly owned: boolean
}

function openInput(file: string | number, anyKind: boolean): Input {
  if (typeof file === 'number') {
    const stats = asErrno(() => fstatSync(file, { bigint: true }))
    return { fd: file, stat: sourceStat(stats), regular: false, owned: false }
  }
  return asErrno(() => {
    const reached = reach(file)
    let fd: number
    try {
      // O_NONBLOCK: what was a file at the scan may be a fifo by now, and must not be waited for.
      const flags = constants.O_RDONLY | (anyKind ? 0 : constants.O_NOFOLLOW | constants.O_NONBLOCK)
      fd = openSync(fsPath(reached.path), flags)
    } finally {
      reached.close()
    }
    try {
      const stats = fstatSync(fd, { bigint: true })
      if (!stats.isFile() && !(anyKind && !stats.isDirectory())) {
        throw new ReadFailure('source-vanished', `a ${kindOf(stats) ?? 'thing'} has taken its place`)
      }
      return { fd, stat: sourceStat(stats), regular: stats.isFile(), owned: true }
    } catch (error) {
      closeSync(fd)
      throw error
    }
  })
}

/** Reads into [from, to) until it is full or the file ends; returns how many bytes came. */
function fill(fd: number, buffer: Buffer, from: number, to: number): number {
  let at = from
  while (at < to) {
    const length = asErrno(() => readRetrying(fd, buffer, at, to - at))
    if (length === 0) break
    at += length
  }
  return at - from
}

/** A pipe whose other end made it non-blocking answers EAGAIN: wait a moment and ask again. */
function readRetrying(fd: number, buffer: Buffer, offset: number, length: number): number {
  for (;;) {
    try {
      return readSync(fd, buffer, offset, length, null)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    }
  }
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

function sameInode(before: SourceStat, after: SourceStat): boolean {
  return before.size === after.size && before.mtimeNs === after.mtimeNs && before.ctimeNs === after.ctimeNs
}
