/**
 * Takes a file's content of any length into the store: cut by content, hashed, without what is here already,
 * compressed, in bounded memory.
 *
 * A content that cannot have more than one chunk is done in one go. A longer one goes through a window
 * (cutting-window.ts): this side lays bytes down, a thread cuts and hashes them, and this side stores the
 * chunks right from the window. All three at the same time; the body waits when the window is full.
 *
 * Invariants:
 * - What is in memory was reserved before the first byte was asked for, and is given back when nobody
 *   uses it any more: also the thread, and the compressing of chunks whose upload has failed meanwhile.
 * - A file object is put only after everything that it refers to. An upload that fails leaves chunks, and
 *   perhaps inner lists, that nothing refers to.
 */
import { createHash } from 'node:crypto'
import { cutParameters } from '../../protocol/cut.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { FileListBuilder } from '../../protocol/list-builder.ts'
import type { Problem } from '../../protocol/problem.ts'
import type { Part } from '../../protocol/schema.ts'
import type { ChunkStore } from './chunk-store.ts'
import type { Lease } from './collectable.ts'
import type { ContentDigests, CutChunk } from './content-cutter.ts'
import type { CutListener, Cutting, CuttingThreads } from './cutting-thread.ts'
import { placeOf, ringBytes, windowBytes } from './cutting-window.ts'
import { storeHashed } from './receive.ts'

export interface IncomingFile {
  /** What a directory entry says of the content: one chunk, or a file object. */
  readonly part: Part
  /** Of the whole content, in hex. */
  readonly md5: string
  readonly sha1: string
}

/** Memory that many uploads share. */
export interface UploadMemory {
  /** Resolves when `bytes` are held. Rejects when `gone` is aborted first. */
  reserve(bytes: number, gone?: AbortSignal): Promise<{ release(): void }>
}

export interface IncomingOptions {
  readonly memory: UploadMemory
  /** The length that was announced: a short content then needs less memory. The body must have no more. */
  readonly announcedBytes?: number | undefined
  /** Told of every id before it is looked for or stored, so that garbage collection leaves it alone. */
  readonly lease?: Lease | undefined
  /** Gives the upload up. */
  readonly signal?: AbortSignal | undefined
}

/** Up to here a content is one chunk. */
export const smallFileBytes = cutParameters.minChunkBytes
/** So much at a time is told to the thread. */
const stretchBytes = 1024 * 1024
/** Plain bytes of chunks that are compressed and written at the same time, or one chunk. */
const storingBytes = cutParameters.maxChunkBytes
/** The compressed form of what is being stored, and the block that is made of it. */
const encodedBytes = 2 * storingBytes

/** What an upload of `announcedBytes` holds in memory, at most. */
export function uploadMemoryBytes(announcedBytes = Number.POSITIVE_INFINITY): number {
  if (announcedBytes > ringBytes) return windowBytes + encodedBytes
  return announcedBytes + 2 * Math.min(announcedBytes, storingBytes)
}

/**
 * Stores the content that `body` gives. On return all of it is in the store, as by `put`: `flush` makes it
 * durable. The body is asked for nothing before its memory is reserved, and no faster than chunks are
 * stored. On any failure no outermost file object is stored, the body's iterator is closed, and everything is given back.
 * Problems: those of the body, of `ChunkStore.put`, of `memory.reserve`; `internal-error` when a thread
 * dies; `unavailable` when the threads are closed; the signal's reason. The pieces are borrowed until the next is asked for.
 */
export async function receiveFile(
  store: ChunkStore,
  body: AsyncIterable<Buffer>,
  cutting: Pick<CuttingThreads, 'begin'>,
  options: IncomingOptions,
): Promise<IncomingFile> {
  const { memory, announcedBytes, signal } = options
  const reservation = await memory.reserve(uploadMemoryBytes(announcedBytes), signal)
  try {
    return await receiveReserved(store, body, cutting, options)
  } finally {
    reservation.release()
  }
}

async function receiveReserved(
  store: ChunkStore,
  body: AsyncIterable<Buffer>,
  cutting: Pick<CuttingThreads, 'begin'>,
  { announcedBytes = Number.POSITIVE_INFINITY, signal, lease }: IncomingOptions,
): Promise<IncomingFile> {
  const head = Buffer.allocUnsafe(Math.min(smallFileBytes, announcedBytes))
  let headBytes = 0
  let seen = 0
  let upload: Upload | undefined
  try {
    for await (const piece of body) {
      signal?.throwIfAborted()
      seen += piece.length
      if (seen > announcedBytes) throw new TypeError('the body is longer than was announced')
      if (seen <= head.length) {
        headBytes += piece.copy(head, headBytes)
        continue
      }
      if (upload === undefined) {
        upload = new Upload(store, cutting, lease)
        await upload.write(head.subarray(0, headBytes))
      }
      await upload.write(piece)
    }
    signal?.throwIfAborted()
    if (upload === undefined) return await receiveSmallFile(store, head.subarray(0, headBytes), lease)
    return await upload.finish()
  } finally {
    await upload?.close()
  }
}

/**
 * The same for at most `smallFileBytes` that are in memory, on this thread: hashing so little takes less
 * than half a millisecond. The bytes must stay as they are until this returns.
 */
export async function receiveSmallFile(
  store: ChunkStore,
  bytes: Buffer,
  lease?: Lease,
): Promise<IncomingFile> {
  if (bytes.length > smallFileBytes) throw new TypeError(`${bytes.length} bytes may be more than one chunk`)
  const id = hashId(bytes)
  const md5 = createHash('md5').update(bytes).digest('hex')
  const sha1 = createHash('sha1').update(bytes).digest('hex')
  lease?.add(id)
  await storeHashed(store, id, bytes)
  return { part: { id, size: bytes.length }, md5, sha1 }
}

/** Something to be stored. */
interface Item {
  readonly id: Id
  readonly bytes: Buffer
  /** An object waits until everything before it is stored. */
  readonly isObject: boolean
  done: boolean
}

/** One upload that goes through a thread. */
class Upload implements CutListener {
  readonly #store: ChunkStore
  readonly #lease: Lease | undefined
  readonly #cutting: Cutting
  readonly #window: Buffer
  readonly #list = new FileListBuilder()
  #parts = 0
  #lastPart: Part | undefined
  #digests: ContentDigests | undefined
  /** Bytes that were laid down, of which the thread was told, and that may be written over again. */
  #written = 0
  #told = 0
  #released = 0
  /** In the order of the content: what is being stored or waits for it. The first is not done. */
  #items: Item[] = []
  /** Index in `#items` of the first that was not begun. */
  #next = 0
  #storingBytes = 0
  #storing = 0
  #failure: { readonly cause: unknown } | undefined
  #change = Promise.withResolvers<void>()

  constructor(store: ChunkStore, cutting: Pick<CuttingThreads, 'begin'>, lease: Lease | undefined) {
    this.#store = store
    this.#lease = lease
    this.#cutting = cutting.begin(this)
    this.#window = Buffer.from(this.#cutting.window)
  }

  /** Lays bytes down; waits while there is no room. */
  async write(piece: Buffer): Promise<void> {
    let from = 0
    while (from < piece.length) {
      await this.#until(() => this.#written - this.#released < ringBytes)
      const free = ringBytes - (this.#written - this.#released)
      const { offset, room } = placeOf(this.#written)
      const length = Math.min(free, room, piece.length - from)
      piece.copy(this.#window, offset, from, from + length)
      from += length
      this.#written += length
      // What fills the window is told in any case: only chunks that end make room.
      if (this.#written - this.#told >= stretchBytes || length === free) this.#tell()
    }
  }

  #tell(): void {
    if (this.#written > this.#told) this.#cutting.more(this.#written - this.#told)
    this.#told = this.#written
  }

  /** The content has ended: waits until all of it, and its lists, are stored. */
  async finish(): Promise<IncomingFile> {
    this.#tell()
    this.#cutting.finish()
    await this.#until(() => this.#digests !== undefined)
    const { digest, md5, sha1 } = this.#digests as ContentDigests
    let part = this.#lastPart as Part
    if (this.#parts > 1) {
      const list = this.#list.finish(digest)
      for (const { id, bytes } of list.objects) this.#add({ id, bytes, isObject: true, done: false })
      part = list.reference
    }
    this.#storeMore()
    await this.#until(() => this.#items.length === 0)
    return { part, md5, sha1 }
  }

  /** Gives the upload up unless it is finished; resolves when nobody uses its memory any more. Never rejects. */
  async close(): Promise<void> {
    this.#fail(new TypeError('the upload is closed'))
    while (this.#storing > 0) await this.#change.promise
    await this.#cutting.close()
  }

  onCut(chunks: readonly CutChunk[], digests: ContentDigests | undefined): void {
    for (const { id, offset, length } of chunks) {
      this.#add({ id, bytes: this.#window.subarray(offset, offset + length), isObject: false, done: false })
      this.#lastPart = { id, size: length }
      this.#parts++
      const inner = this.#list.add(this.#lastPart)
      for (const object of inner) this.#add({ ...object, isObject: true, done: false })
    }
    this.#digests = digests
    this.#storeMore()
    this.#changed()
  }

  onFailure(problem: Problem): void {
    this.#fail(problem)
  }

  #add(item: Item): void {
    this.#items.push(item)
  }

  /** Begins to store what may be, in order. */
  #storeMore(): void {
    while (this.#failure === undefined && this.#next < this.#items.length) {
      const item = this.#items[this.#next] as Item
      const isTooMuch = this.#storingBytes + item.bytes.length > storingBytes
      if (this.#storing > 0 && (isTooMuch || item.isObject)) return
      this.#next++
      this.#storing++
      this.#storingBytes += item.bytes.length
      void this.#storeItem(item)
    }
  }

  async #storeItem(item: Item): Promise<void> {
    try {
      this.#lease?.add(item.id)
      // An equal chunk is found to be here: so long content of one kind is not compressed again and again.
      await storeHashed(this.#store, item.id, item.bytes)
      item.done = true
      this.#release()
    } catch (cause) {
      this.#fail(cause)
    }
    this.#storing--
    this.#storingBytes -= item.bytes.length
    this.#storeMore()
    this.#changed()
  }

  /** What is done at the front is done with. */
  #release(): void {
    let count = 0
    for (const item of this.#items) {
      if (!item.done) break
      count++
      if (!item.isObject) this.#released += item.bytes.length
    }
    this.#items.splice(0, count)
    this.#next -= count
  }

  #fail(cause: unknown): void {
    this.#failure ??= { cause }
    this.#changed()
  }

  #changed(): void {
    this.#change.resolve()
    this.#change = Promise.withResolvers<void>()
  }

  /** Waits for `condition`; throws what the upload failed with. */
  async #until(condition: () => boolean): Promise<void> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure.cause
      if (condition()) return
      await this.#change.promise
    }
  }
}
