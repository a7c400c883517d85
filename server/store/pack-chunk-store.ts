/**
 * The chunk store on disk: append-only packs and a LevelDB content index, in one vault's folder.
 *
 *     {vaultDir}/packs/00000001.pack …   pack-file.ts has the format
 *     {vaultDir}/index/                  content-index.ts; may be deleted, the next opening rebuilds it
 *
 * This file is the face that readers see; what changes the packs is in pack-log.ts, what happens after a
 * crash or a failed write in recovery.ts.
 */
import { join } from 'node:path'
import { type Block, sliceRow } from '../../protocol/block.ts'
import { hashInSlices } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import type { ChunkStoreUsage, PutOutcome, VerifiedBlock } from './chunk-store.ts'
import type { CollectableStore, Collection, Lease } from './collectable.ts'
import type { IndexRow } from './content-index.ts'
import { Leases } from './leases.ts'
import { PackAudit } from './pack-audit.ts'
import { PackCollection, type PackSums } from './pack-collection.ts'
import { type Location, packName } from './pack-file.ts'
import { PackLog } from './pack-log.ts'
import { type Damage, type DecodedBlock, RecordReader } from './record-reader.ts'
import type { RecoveryReport } from './recovery.ts'

export interface PackChunkStoreOptions {
  /** A pack that has this many bytes is not appended to. Default 256 MiB, at most 2 GiB. */
  readonly packBytes?: number
  /** Unsynced bytes and chunks that make a flush begin by itself. Default 64 MiB and 50,000. */
  readonly flushBytes?: number
  readonly flushRows?: number
  /** Decoded bytes kept for readers of single chunks. Default 32 MiB. */
  readonly cacheBytes?: number
  /** Packs held open for reading. Default 64. */
  readonly openPacks?: number
  /** Hash every chunk that the opening scans. For `reindex`. */
  readonly verify?: boolean
  /** Told of every failure of the disk, also of those that no caller hears of. For the log. */
  readonly onFault?: (problem: Problem) => void
  readonly files?: FileLayer
}

const MiB = 1024 * 1024
/** Offsets in the index have 32 bits; a record may begin just below the limit. */
const maxPackBytes = 2048 * MiB
/** Ids that `blocks` looks up at once. */
const idsAtOnce = 1000

export class PackChunkStore implements CollectableStore {
  readonly capabilities = { durable: true } as const
  readonly #files: FileLayer
  readonly #folder: string
  readonly #log: PackLog
  readonly #reader: RecordReader
  readonly #leases = new Leases()
  readonly #sums = new Map<number, PackSums>()
  #collection: Collection | undefined
  #collections = 0
  #closing: Promise<void> | undefined
  /** Calls under way, and who waits for the last of them. */
  #calls = 0
  #idle: (() => void) | undefined

  private constructor(files: FileLayer, folder: string, log: PackLog, reader: RecordReader) {
    this.#files = files
    this.#folder = folder
    this.#log = log
    this.#reader = reader
  }

  /**
   * Opens the store in `vaultDir`, an empty one where there is none, and recovers what a crash left.
   * Problems: `in-use` when another process has it open; `store-corrupt` when the index is damaged
   * (`chunkdav reindex` rebuilds it); `unavailable`, `insufficient-storage` when the disk fails.
   */
  static async open(vaultDir: string, options: PackChunkStoreOptions = {}): Promise<PackChunkStore> {
    const { files = nodeFiles, packBytes = 256 * MiB } = options
    if (!(packBytes > 0 && packBytes <= maxPackBytes)) {
      throw new TypeError(`packBytes must be positive and at most ${maxPackBytes}`)
    }
    const folder = join(vaultDir, 'packs')
    const reader = new RecordReader({
      files,
      folder,
      cacheBytes: options.cacheBytes ?? 32 * MiB,
      openPacks: options.openPacks ?? 64,
    })
    const log = await PackLog.open({
      files,
      vaultDir,
      packBytes,
      flushBytes: options.flushBytes ?? 64 * MiB,
      flushRows: options.flushRows ?? 50_000,
      verify: options.verify ?? false,
      onRecovered: () => reader.clear(),
      onFault: options.onFault ?? (() => {}),
    })
    return new PackChunkStore(files, folder, log, reader)
  }

  get usage(): ChunkStoreUsage {
    return this.#log.usage
  }

  get losses(): number {
    return this.#log.losses
  }

  get collections(): number {
    return this.#collections
  }

  /** What the last recovery scanned: of the opening, or after a failure since. */
  get recovered(): RecoveryReport | undefined {
    return this.#log.report
  }

  /** For scrub: the packs and the index as they stand on the disk. */
  audit(): PackAudit {
    return new PackAudit({
      files: this.#files,
      folder: this.#folder,
      settle: async () => {
        await this.flush()
        // Whoever took the pack away that is written to would take along what comes from now on.
        if (!(await this.#endStands())) await this.#call(() => this.#log.seal())
        return this.#log.index.mark ?? { pack: 0, offset: 0 }
      },
      list: () => this.list(),
      find: (ids) => this.#call(() => this.#log.index.peek(ids)),
      forget: (doomed, ids) =>
        this.#call(async () => {
          this.#reader.clear()
          await this.#log.forget(doomed, ids)
        }),
    })
  }

  /** Whether the pack that is written to is there as far as it was written. */
  async #endStands(): Promise<boolean> {
    const { mark } = this.#log.index
    if (mark === undefined || mark.offset === 0) return true
    const found = await this.#files.stat(join(this.#folder, packName(mark.pack)))
    return found !== undefined && found.bytes >= mark.offset
  }

  stat(ids: readonly Id[]): Promise<(number | undefined)[]> {
    return this.#call(() => this.#log.index.lengths(ids))
  }

  put(block: VerifiedBlock): Promise<PutOutcome[]> {
    return this.#call(() => this.#log.put(block))
  }

  get(id: Id): Promise<Buffer | undefined> {
    return this.#call(async () => {
      for (let row = await this.#find(id); row !== undefined; ) {
        const read = await this.#read(id, row)
        if (Buffer.isBuffer(read)) return read
        // It may stand elsewhere by now: then the damage is that of bytes that are given up.
        const again = await this.#find(id)
        if (isSameRow(again, row)) throw await this.#damaged(id, row, read)
        row = again
      }
      return undefined
    })
  }

  async *blocks(ids: readonly Id[]): AsyncGenerator<Block> {
    const given = new Set<string>()
    for (let first = 0; first < ids.length; first += idsAtOnce) {
      yield* this.#blocksOf(ids.slice(first, first + idsAtOnce), given)
    }
  }

  async *#blocksOf(ids: readonly Id[], given: Set<string>): AsyncGenerator<Block> {
    const rows = await this.#call(() => this.#log.index.find(ids))
    /** By record: of one that has moved, the chunks may stand in several by now. */
    const wanted = new Map<string, { location: Location; ids: Id[] }>()
    for (const [i, row] of rows.entries()) {
      if (row === undefined) continue
      const key = `${row.location.pack}:${row.location.offset}`
      const record = wanted.get(key) ?? { location: row.location, ids: [] }
      record.ids.push(ids[i] as Id)
      wanted.set(key, record)
    }
    for (const [key, { location, ids }] of wanted) {
      if (given.has(key)) continue
      given.add(key)
      const block = await this.#call(() => this.#reader.block(location))
      if (!('damage' in block)) {
        yield block
        continue
      }
      const now = await this.#call(() => this.#log.index.find(ids))
      const isHere = (i: number): boolean => now[i] !== undefined && isSamePlace(now[i].location, location)
      // Of those that are gone meanwhile nothing is to be forgotten.
      if (ids.some((_, i) => isHere(i))) await this.#call(() => this.#forget(location, block))
      const moved = ids.filter((_, i) => now[i] !== undefined && !isHere(i))
      yield* this.#blocksOf(moved, given)
    }
  }

  get isCollecting(): boolean {
    return this.#collection !== undefined
  }

  collect(): Collection {
    if (this.#collection !== undefined) throw new TypeError('a collection is under way already')
    if (this.#closing !== undefined) throw closed()
    const collection = new PackCollection({
      files: this.#files,
      folder: this.#folder,
      log: this.#log,
      reader: this.#reader,
      leases: this.#leases,
      sums: this.#sums,
      onEnd: () => {
        this.#collection = undefined
      },
    })
    this.#collection = collection
    this.#collections++
    return {
      keep: (ids) => collection.keep(ids),
      survey: (pacing) => this.#call(() => collection.survey(pacing)),
      compact: (pack, pacing) => this.#call(() => collection.compact(pack, pacing)),
      end: () => collection.end(),
    }
  }

  lease(): Lease {
    return this.#leases.begin()
  }

  flush(): Promise<void> {
    return this.#call(() => this.#log.flush())
  }

  async *list(): AsyncGenerator<{ id: Id; length: number }> {
    await this.#call(async () => {})
    const items = this.#log.index.list()
    try {
      for (;;) {
        const next = await this.#call(() => items.next())
        if (next.done) return
        yield next.value
      }
    } finally {
      await items.return(undefined)
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    if (this.#calls > 0) await new Promise<void>((resolve) => (this.#idle = resolve))
    try {
      await this.#log.close()
    } finally {
      await this.#reader.close()
    }
  }

  /** Every public method runs in here: not after `close`, not while the log is broken. */
  async #call<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) throw closed()
    this.#calls++
    try {
      await this.#log.ready()
      return await work()
    } finally {
      this.#calls--
      if (this.#calls === 0) this.#idle?.()
    }
  }

  async #find(id: Id): Promise<IndexRow | undefined> {
    return (await this.#log.index.find([id]))[0]
  }

  /** The chunk, or why it cannot be read there. */
  async #read(id: Id, row: IndexRow): Promise<Buffer | Damage> {
    const { location } = row
    let decoded = await this.#reader.plain(location)
    if (!('damage' in decoded)) {
      const bytes = await chunkOf(decoded, id, row)
      if (bytes !== undefined) return bytes
      // Was it the disk, or the copy in memory? Only the disk counts.
      this.#reader.forget(location)
      decoded = await this.#reader.plain(location)
    }
    if ('damage' in decoded) return decoded
    const bytes = await chunkOf(decoded, id, row)
    if (bytes !== undefined) return bytes
    return { damage: 'the bytes do not hash to the id', ids: decoded.rows.map((other) => other.id) }
  }

  /** Forgets the damaged record and says so. */
  async #damaged(id: Id, { location }: IndexRow, damage: Damage): Promise<Problem> {
    await this.#forget(location, { ...damage, ...(damage.ids && { ids: [...damage.ids, id] }) })
    const { pack, offset } = location
    return new Problem(
      'chunk-corrupt',
      `${id} in ${packName(pack)} at byte ${offset} is damaged: ${damage.damage}. It is forgotten; the next backup that has it sends it again`,
      { extensions: { id, pack, offset }, cause: damage.cause },
    )
  }

  /** Every row that points into a damaged record goes; without its table the whole index is searched. */
  async #forget(location: Location, { ids, packIsGone = false }: Damage): Promise<void> {
    this.#reader.forget(location)
    const { pack, offset } = location
    await this.#log.forget((at) => at.pack === pack && (packIsGone || at.offset === offset), ids)
  }
}

function closed(): Problem {
  return new Problem('unavailable', 'the chunk store is closed')
}

function isSamePlace(a: Location, b: Location): boolean {
  return a.pack === b.pack && a.offset === b.offset
}

function isSameRow(a: IndexRow | undefined, b: IndexRow): boolean {
  return a !== undefined && isSamePlace(a.location, b.location)
}

/** The chunk in a decoded block, or undefined when it is not there or does not hash to its id. */
async function chunkOf({ plain, rows }: DecodedBlock, id: Id, row: IndexRow): Promise<Buffer | undefined> {
  const place = rows.find((other) => other.id === id)
  if (place === undefined || place.length !== row.length) return undefined
  const bytes = sliceRow(plain, place)
  return (await hashInSlices(bytes, id)) === id ? bytes : undefined
}
