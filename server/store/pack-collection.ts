/**
 * One collection in a pack store: what is kept, how much of each pack is not, and how a pack is given back.
 *
 * What is kept is a filter of ids that may keep a few too many (id-filter.ts). It grows while the collection is under
 * way: the index adds every id that it finds for somebody.
 *
 * A pack is given back in this order, so that at any moment each kept chunk has a row that points at bytes on disk:
 *
 * 1. Each record that rows point at is verified and appended again at the end of the log, as it is when all of its
 *    chunks are kept, else without the others. Its rows point there as soon as it is written.
 * 2. Rows of what is not kept are removed, durably. Between the judgement and the removal nobody finds them any more;
 *    what somebody found before is spared.
 * 3. When something was spared, or rows in memory went meanwhile by a recovery or by damage (then older ones, which point
 *    here, come to light), once more.
 * 4. The copies and their rows are made durable.
 * 5. The file is removed; unless something in it could not be read that rows still point at. One bad read must not
 *    destroy what is sound, and what is damaged is for scrub to look at twice, to put aside and to tell of.
 *
 * A stop anywhere between leaves copies that no row points at, or a pack that no row points into: garbage for the
 * next collection. After a reindex, rows of what was removed may be back as long as their pack is: garbage again.
 */
import { join } from 'node:path'
import { type Block, blockHeaderBytes, encodeBlock, sliceRow, verifyBlock } from '../../protocol/block.ts'
import { type Id, readId } from '../../protocol/id.ts'
import { isProblem } from '../../protocol/problem.ts'
import type { FileLayer } from '../file-layer.ts'
import type { Collection, Compacted, Garbage, Pacing } from './collectable.ts'
import { IdFilter } from './id-filter.ts'
import type { Leases } from './leases.ts'
import { packsIn } from './pack-audit.ts'
import { type Location, packHeaderBytes, packName, peekRecordLengths, scanRecords } from './pack-file.ts'
import type { Move, PackLog } from './pack-log.ts'
import { readableFile } from './readable-file.ts'
import type { RecordReader } from './record-reader.ts'

/** Bytes that are appended again with one system call. */
const movedAtOnce = 4 * 1024 * 1024
/** Ways through a pack until nothing in it is wanted any more: one is enough unless somebody asks just then. */
const maxPasses = 20
/** Rows that are removed in one batch. */
const removedAtOnce = 8192

/** What all records of a pack come to. */
export interface PackSums {
  readonly size: number
  /** Of the records, and of their chunks before they were encoded. */
  readonly recordBytes: number
  readonly plainBytes: number
  readonly rows: number
}

export interface PackCollectionOptions {
  readonly files: FileLayer
  readonly folder: string
  readonly log: PackLog
  readonly reader: RecordReader
  readonly leases: Leases
  /** What is known of packs that do not change any more, from one collection to the next. */
  readonly sums: Map<number, PackSums>
  readonly onEnd: () => void
}

export class PackCollection implements Collection {
  readonly #options: PackCollectionOptions
  readonly #filter: IdFilter
  #hasEnded = false

  /** Begins: from here on whatever is found is kept. */
  constructor(options: PackCollectionOptions) {
    const { log, leases } = options
    this.#options = options
    // What comes meanwhile is kept too.
    this.#filter = new IdFilter(log.usage.chunks * 1.25)
    log.index.keeper = this.#filter
    leases.filter = this.#filter
    leases.addTo(this.#filter)
    log.voidConclusions()
  }

  keep(ids: Iterable<Id>): void {
    for (const id of ids) this.#filter.add(id)
  }

  end(): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    const { log, leases, onEnd } = this.#options
    log.index.keeper = undefined
    leases.filter = undefined
    onEnd()
  }

  async survey(pacing: Pacing): Promise<Garbage[]> {
    const { files, folder, log } = this.#options
    await log.flush()
    // What is written from here on belongs to nobody's rows yet.
    const { mark } = log.index
    const packs = (await packsIn(files, folder)).filter(({ pack }) => mark === undefined || pack <= mark.pack)
    const kept = new Map<number, { rows: number; plainBytes: number }>()
    for await (const page of log.index.rows()) {
      for (const { key, row } of page) {
        if (!this.#filter.hasBytes(key)) continue
        const { pack } = row.location
        const sum = kept.get(pack) ?? { rows: 0, plainBytes: 0 }
        kept.set(pack, { rows: sum.rows + 1, plainBytes: sum.plainBytes + row.length })
      }
      await pacing.step()
    }
    const garbage: Garbage[] = []
    for (const { pack, bytes } of packs) {
      const sums = await this.#sumsOf(pack, pack === mark?.pack ? mark.offset : bytes, pacing)
      garbage.push(garbageOf(pack, sums, kept.get(pack)))
    }
    return garbage
  }

  async compact(pack: number, pacing: Pacing): Promise<Compacted> {
    this.#expectUnderWay()
    const { log, reader, sums } = this.#options
    const mark = log.index.mark
    // The index's mark must not be in a pack that goes, nor may anybody append to it.
    if (pack >= log.openPack || mark === undefined || mark.pack <= pack) await log.seal()
    else await log.flush()
    let movedBytes = 0
    try {
      for (let passes = 0; ; passes++) {
        // Whatever keeps making it go on, a disk that fails again and again among it: later, perhaps.
        if (passes === maxPasses) return { freedBytes: 0, movedBytes, isDamaged: true }
        const { recoveries, losses } = log
        const pass = new Pass(this.#options, this.#filter, pack, pacing)
        await pass.run()
        movedBytes += pass.movedBytes
        this.#expectUnderWay()
        await log.flush()
        // A recovery drops rows in memory, and so does damage to a copy: then older rows, which point here, come to light.
        if (pass.spared > 0 || log.recoveries !== recoveries || log.losses !== losses) continue
        if (!pass.isDamaged) break
        if (await this.#isReferred(pack, pacing)) return { freedBytes: 0, movedBytes, isDamaged: true }
        break
      }
      reader.closePack(pack)
      const freedBytes = await log.removePack(pack)
      // A reader may have opened it once more.
      reader.closePack(pack)
      sums.delete(pack)
      return { freedBytes, movedBytes, isDamaged: false }
    } finally {
      log.endMoves()
    }
  }

  /**
   * Whether something is kept that could not be read: a row points at it still. That is for scrub to judge. Rows of what is
   * not kept are removed.
   */
  async #isReferred(pack: number, pacing: Pacing): Promise<boolean> {
    const { log } = this.#options
    for await (const page of log.index.rows()) {
      const here = page.filter(({ row }) => row.location.pack === pack)
      if (here.some(({ key }) => this.#filter.hasBytes(key))) return true
      const dead = here.map(({ key }) => readId(key) as Id)
      if (dead.length > 0 && (await log.removeUnkept(pack, dead)) < dead.length) return true
      await pacing.step()
    }
    return false
  }

  #expectUnderWay(): void {
    if (this.#hasEnded) throw new TypeError('the collection has ended')
  }

  /** Of its first `size` bytes. What cannot be read counts as no record. */
  async #sumsOf(pack: number, size: number, pacing: Pacing): Promise<PackSums> {
    const { files, folder, log, sums } = this.#options
    const known = sums.get(pack)
    if (known?.size === size) return known
    const file = readableFile(await files.open(join(folder, packName(pack)), 'read'))
    try {
      let recordBytes = 0
      let plainBytes = 0
      let rows = 0
      for await (const lengths of peekRecordLengths(file, size)) {
        recordBytes += lengths.totalBytes
        plainBytes += lengths.plainBytes
        rows += lengths.rows
        await pacing.step(blockHeaderBytes)
      }
      const summed = { size, recordBytes, plainBytes, rows }
      if (pack < log.openPack) sums.set(pack, summed)
      return summed
    } finally {
      await file.close()
    }
  }
}

/**
 * An estimate: chunks of one pack are taken to compress alike. Exact where all is kept, or nothing. What holds no record
 * is garbage too.
 */
function garbageOf(
  pack: number,
  { size, recordBytes, plainBytes, rows }: PackSums,
  kept: { rows: number; plainBytes: number } | undefined,
): Garbage {
  const share = kept === undefined ? 0 : plainBytes === 0 ? 1 : Math.min(1, kept.plainBytes / plainBytes)
  const keptBytes = packHeaderBytes + Math.round(recordBytes * share)
  // Where something is not kept, however short, there is garbage.
  const least = (kept?.rows ?? 0) < rows ? 1 : 0
  return { pack, storedBytes: size, garbageBytes: Math.max(least, size - keptBytes) }
}

/** One way through a pack, from front to back. */
class Pass {
  readonly #options: PackCollectionOptions
  readonly #filter: IdFilter
  readonly #pack: number
  readonly #pacing: Pacing
  #moves: Move[] = []
  #moveBytes = 0
  #dead: Id[] = []
  movedBytes = 0
  /** Ids that were to go, and that somebody found just before. */
  spared = 0
  /** There is something in the pack that is no sound record. */
  isDamaged = false

  constructor(options: PackCollectionOptions, filter: IdFilter, pack: number, pacing: Pacing) {
    this.#options = options
    this.#filter = filter
    this.#pack = pack
    this.#pacing = pacing
  }

  async run(): Promise<void> {
    const { files, folder } = this.#options
    const file = readableFile(await files.open(join(folder, packName(this.#pack)), 'read'))
    try {
      const range = { start: packHeaderBytes, size: await file.size(), verify: false }
      for await (const step of scanRecords(file, range)) {
        if ('damage' in step) this.isDamaged = true
        else await this.#record(step.block, step.offset)
      }
    } finally {
      await file.close()
    }
    await this.#move()
    await this.#remove()
  }

  async #record(block: Block, offset: number): Promise<void> {
    const { rows, totalBytes } = block.header
    const from: Location = { pack: this.#pack, offset, bytes: totalBytes }
    const found = await this.#options.log.index.peek(rows.map(({ id }) => id))
    // A chunk may stand twice in a block: once is enough.
    const seen = new Set<Id>()
    const here = rows.filter(({ id }, i) => {
      const at = found[i]?.location
      const isFirst = !seen.has(id)
      seen.add(id)
      return isFirst && at?.pack === this.#pack && at.offset === offset
    })
    const kept = here.filter(({ id }) => this.#filter.has(id))
    for (const { id } of here) if (!this.#filter.has(id)) this.#dead.push(id)
    if (kept.length > 0) await this.#take(block, kept, from)
    if (this.#moveBytes >= movedAtOnce) await this.#move()
    if (this.#dead.length >= removedAtOnce) await this.#remove()
    await this.#pacing.step(totalBytes)
  }

  /** Nothing is copied that is not true; what is false stays where it is, with its rows. */
  async #take(block: Block, kept: Block['header']['rows'], from: Location): Promise<void> {
    let plain: Buffer
    try {
      plain = await verifyBlock(block)
    } catch (error) {
      if (!isProblem(error)) throw error
      this.isDamaged = true
      return
    }
    const isWhole = kept.length === block.header.rows.length
    // Bytes of its own: those that were read keep a window of megabytes.
    const copy = isWhole ? { ...block, bytes: Buffer.from(block.bytes) } : await without(plain, kept)
    this.#moves.push({ block: copy, from })
    this.#moveBytes += copy.bytes.length
  }

  async #move(): Promise<void> {
    const moves = this.#moves
    this.movedBytes += this.#moveBytes
    this.#moves = []
    this.#moveBytes = 0
    if (moves.length > 0) await this.#options.log.relocate(moves)
  }

  async #remove(): Promise<void> {
    const dead = this.#dead
    this.#dead = []
    if (dead.length === 0) return
    this.spared += dead.length - (await this.#options.log.removeUnkept(this.#pack, dead))
  }
}

/** A block of these rows only. */
async function without(plain: Buffer, kept: Block['header']['rows']): Promise<Block> {
  const bytes = Buffer.concat(kept.map((row) => sliceRow(plain, row)))
  return await encodeBlock(kept, bytes, { encoding: 'zstd' })
}
