import { join } from 'node:path'
import { LRUCache } from 'lru-cache'
import { type Block, type BlockRow, decodeBlock, discard } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { mayBeObject } from '../../protocol/may-be-object.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { FileLayer, StoreFile } from '../file-layer.ts'
import { unpooled } from '../unpooled.ts'
import { type Location, packName, readRecord } from './pack-file.ts'

/** A record that cannot be read back. `ids` are its chunks, when its header still tells. */
export interface Damage {
  readonly damage: string
  readonly ids?: readonly Id[]
  /** The pack as a whole is gone. */
  readonly packIsGone?: boolean
  readonly cause?: unknown
}

/** A block's plain bytes and its table. */
export interface DecodedBlock {
  readonly plain: Buffer
  readonly rows: readonly BlockRow[]
}

interface OpenPack {
  readonly file: Promise<StoreFile>
  users: number
  evicted: boolean
}

export interface RecordReaderOptions {
  readonly files: FileLayer
  readonly folder: string
  /** Decoded bytes that are kept for the next reader. */
  readonly cacheBytes: number
  /** Packs that are held open at the same time. */
  readonly openPacks: number
}

/** What a row of a decoded block costs in memory, about. */
const rowCost = 200

/**
 * Reads records out of packs, each checked against its checksums. Keeps the blocks that were decoded last,
 * and a bounded number of open files. Concurrent readers of one block share one decoding.
 */
export class RecordReader {
  readonly #options: RecordReaderOptions
  readonly #packs: LRUCache<number, OpenPack>
  readonly #decoded: LRUCache<string, DecodedBlock>
  readonly #decoding = new Map<string, Promise<DecodedBlock | Damage>>()
  readonly #closing = new Set<Promise<void>>()
  /** Rises with `clear`, so that a decoding begun before it does not fill the cache after it. */
  #generation = 0

  constructor(options: RecordReaderOptions) {
    this.#options = options
    this.#packs = new LRUCache({
      max: options.openPacks,
      dispose: (pack) => {
        pack.evicted = true
        this.#closeIdle(pack)
      },
    })
    this.#decoded = new LRUCache({
      maxSize: options.cacheBytes,
      sizeCalculation: ({ plain, rows }) => plain.length + rows.length * rowCost + 1,
    })
  }

  /** The record as it is stored. Damage is a value; Problem `unavailable` when the disk cannot be asked. */
  async block(location: Location): Promise<Block | Damage> {
    try {
      const read = await this.#withPack(location.pack, (file) => readRecord(file, location))
      if ('block' in read) return read.block
      const ids = read.header?.rows.map(({ id }) => id)
      return ids === undefined ? { damage: read.damage } : { damage: read.damage, ids }
    } catch (cause) {
      return unreadable(cause, location)
    }
  }

  /** The record's plain bytes. They are shared: nobody may write into them. */
  async plain(location: Location): Promise<DecodedBlock | Damage> {
    const key = keyOf(location)
    const cached = this.#decoded.get(key)
    if (cached !== undefined) return cached
    let decoding = this.#decoding.get(key)
    if (decoding === undefined) {
      const begun = this.#decode(location)
      decoding = begun
      this.#decoding.set(key, begun)
      const done = (): void => {
        if (this.#decoding.get(key) === begun) this.#decoding.delete(key)
      }
      begun.then(done, done)
    }
    return decoding
  }

  /** Drops what is kept of a record. */
  forget(location: Location): void {
    this.#decoded.delete(keyOf(location))
  }

  /** To be called when a pack is gone: its file would keep its space while it is open. */
  closePack(pack: number): void {
    this.#packs.delete(pack)
  }

  /** Drops everything kept: records may have been cut off, and others may stand in their places soon. */
  clear(): void {
    this.#generation++
    this.#decoding.clear()
    this.#decoded.clear()
    this.#packs.clear()
  }

  /** Waits for reads under way. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#decoding.values())
    this.clear()
    await Promise.all(this.#closing)
  }

  async #decode(location: Location): Promise<DecodedBlock | Damage> {
    const generation = this.#generation
    const block = await this.block(location)
    if ('damage' in block) return block
    const { rows } = block.header
    try {
      const decoded = { plain: unpooled(await decodeBlock(block)), rows }
      if (block.header.encoding !== 'identity') discard(block.bytes)
      if (generation === this.#generation && !isLoneList(decoded)) this.#decoded.set(keyOf(location), decoded)
      return decoded
    } catch (cause) {
      if (!isProblem(cause)) throw cause
      return { damage: cause.message, ids: rows.map(({ id }) => id), cause }
    }
  }

  async #withPack<T>(pack: number, work: (file: StoreFile) => Promise<T>): Promise<T> {
    let open = this.#packs.get(pack)
    if (open === undefined) {
      const path = join(this.#options.folder, packName(pack))
      open = { file: this.#options.files.open(path, 'read'), users: 0, evicted: false }
      this.#packs.set(pack, open)
    }
    open.users++
    try {
      return await work(await open.file)
    } catch (error) {
      if (this.#packs.peek(pack) === open) this.#packs.delete(pack)
      throw error
    } finally {
      open.users--
      this.#closeIdle(open)
    }
  }

  #closeIdle(pack: OpenPack): void {
    if (!pack.evicted || pack.users > 0) return
    // A pack that never opened has nothing to close, and its reader was told why.
    const closing = pack.file.then(
      (file) => file.close(),
      () => undefined,
    )
    this.#closing.add(closing)
    void closing.finally(() => this.#closing.delete(closing))
  }
}

/**
 * What looks like a file or directory object, alone in its block. Walks read each once and remember what they found; a
 * commit of a million chunks filled 32 MiB with them, for nobody (measured).
 */
function isLoneList({ plain, rows }: DecodedBlock): boolean {
  return rows.length === 1 && mayBeObject(plain)
}

function keyOf({ pack, offset }: Location): string {
  return `${pack}:${offset}`
}

function unreadable(cause: unknown, { pack }: Location): Damage {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  // A sector that cannot be read is as gone as one with wrong bits in it.
  if (code === 'EIO') return { damage: 'the disk cannot read it', cause }
  if (code === 'ENOENT') return { damage: 'its pack is gone', packIsGone: true, cause }
  if (cause instanceof TypeError) throw cause
  throw new Problem('unavailable', `${packName(pack)} cannot be read: ${String(cause)}`, { cause })
}
