/**
 * The pack log of one vault: everything that changes packs and index.
 *
 * Layout: packs/ (pack-file.ts) and index/ (content-index.ts). Invariants:
 *
 * - LevelDB never points at bytes that are not on disk: rows go there only after their packs were synced.
 * - `#end` moves, and rows appear, in the same turn of the event loop, after write(2) returned. What stands
 *   behind `#end` belongs to nobody.
 * - After a failed fsync nothing behind the index's mark is trusted, whatever the page cache says.
 *
 * Concurrency: puts gather in a queue; one loop decides for each block what of it is new and writes all
 * that is waiting with one system call; `relocate` appends in the same way. `#turn` admits one of flush, forget, recovery,
 * and what else a compaction does (seal, removing rows and packs) at a time;
 * `#appending` keeps the loop and a recovery apart. Who needs both takes `#turn` first.
 *
 * Recovery rule: a failed write or fsync calls `#break`. From then on nothing is read or written until
 * `recover` (recovery.ts), the same that every opening runs, has succeeded; whoever comes next tries it.
 */
import { join } from 'node:path'
import { Mutex } from 'async-mutex'
import type { Block } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { FileLayer } from '../file-layer.ts'
import { diskFull, isDiskFull } from '../full-disk.ts'
import type { ChunkStoreUsage, PutOutcome } from './chunk-store.ts'
import { ContentIndex } from './content-index.ts'
import { isBefore, type Location, type Position, packName } from './pack-file.ts'
import { PackWriter } from './pack-writer.ts'
import { type RecoveryReport, recover } from './recovery.ts'

export interface PackLogOptions {
  readonly files: FileLayer
  readonly vaultDir: string
  /** A pack that has this many bytes is not appended to. */
  readonly packBytes: number
  /** A flush begins by itself once this much is not synced. */
  readonly flushBytes: number
  readonly flushRows: number
  /** Hash every chunk that an opening scans. */
  readonly verify: boolean
  /** Called when locations that were read from may hold something else from now on. */
  readonly onRecovered: () => void
  /** Told of every failure of the disk that no caller may hear of. */
  readonly onFault: (problem: Problem) => void
}

/** A block that is to stand at the end of the log, and the record whose chunks it holds again. */
export interface Move {
  readonly block: Block
  readonly from: Location
}

interface PendingPut {
  readonly block: Block
  readonly resolve: (outcomes: PutOutcome[]) => void
  readonly reject: (reason: unknown) => void
}

/** Puts wait when this many times more is unsynced than what begins a flush. */
const backPressureFactor = 4
/** One write takes this many blocks and bytes at most. */
const maxGroupBlocks = 512
const maxGroupBytes = 64 * 1024 * 1024

export class PackLog {
  readonly #options: PackLogOptions
  readonly #packs: string
  readonly index: ContentIndex
  readonly #turn = new Mutex()
  readonly #appending = new Mutex()
  #writer: PackWriter | undefined
  #end: Position = { pack: 1, offset: 0 }
  #report: RecoveryReport | undefined
  /** Set from a failure until a recovery has succeeded. */
  #fault: Problem | undefined
  #limit: Position | undefined
  #indexIsBroken = false
  /** Ids that were in memory when the log broke: those that do not come back are lost. */
  readonly #atStake = new Set<Id>()
  #firstPack = 1
  /** Where this process began to write. What stands before it is never cut off. */
  #ownStart: Position | undefined
  #losses = 0
  #queue: PendingPut[] = []
  #pumping: Promise<void> | undefined
  #unsyncedBytes = 0
  /** Of packs that were removed since the last recovery counted them. */
  #removedBytes = 0
  /** Written to give a pack back that is still there: nobody's quota is to pay for both. */
  #movingBytes = 0
  #recoveries = 0
  #nextFlush: Promise<void> | undefined

  private constructor(options: PackLogOptions, index: ContentIndex) {
    this.#options = options
    this.#packs = join(options.vaultDir, 'packs')
    this.index = index
  }

  /** Recovers and makes durable what was found. Problems `in-use`, `store-corrupt`, `insufficient-storage`, `unavailable`. */
  static async open(options: PackLogOptions): Promise<PackLog> {
    const index = await ContentIndex.open(join(options.vaultDir, 'index'))
    const log = new PackLog(options, index)
    try {
      await log.#recover()
      await options.files.syncFolder(options.vaultDir)
      await log.flush()
      return log
    } catch (error) {
      await log.#writer?.close()
      await index.close()
      throw storageProblem(error, 'the packs could not be opened')
    }
  }

  get usage(): ChunkStoreUsage {
    const writtenBytes = (this.#report?.storedBytes ?? 0) + (this.#writer?.writtenBytes ?? 0)
    const storedBytes = writtenBytes - this.#removedBytes - this.#movingBytes
    return { chunks: this.index.chunks, storedBytes }
  }

  get losses(): number {
    return this.#losses
  }

  /** How often the log was recovered: rows in memory were dropped then. */
  get recoveries(): number {
    return this.#recoveries
  }

  /** The pack that is appended to. */
  get openPack(): number {
    return this.#end.pack
  }

  /** To be called when whatever was concluded from presence must be concluded anew. */
  voidConclusions(): void {
    this.#losses++
  }

  /** What the last recovery scanned. */
  get report(): RecoveryReport | undefined {
    return this.#report
  }

  /** Resolves when the log is sound, after a recovery if need be; rejects when that fails. */
  async ready(): Promise<void> {
    if (this.#fault === undefined) return
    await this.#turn.runExclusive(() => this.#repair())
  }

  /** Appends what is new of a block. As `ChunkStore.put`. */
  async put(block: Block): Promise<PutOutcome[]> {
    while (this.#backlog() > backPressureFactor) await this.flush()
    return new Promise((resolve, reject) => {
      this.#queue.push({ block, resolve, reject })
      this.#pumping ??= this.#pump()
    })
  }

  /** As `ChunkStore.flush`. Whoever comes before a flush has begun shares it. */
  flush(): Promise<void> {
    this.#nextFlush ??= this.#turn.runExclusive(async () => {
      this.#nextFlush = undefined
      await this.#repair()
      await this.#sync()
    })
    return this.#nextFlush
  }

  /** Forgets every row that points at a place that `doomed` names, durably. `ids` limit the search. */
  async forget(doomed: (location: Location) => boolean, ids?: readonly Id[]): Promise<void> {
    await this.#turn.runExclusive(async () => {
      await this.#repair()
      try {
        if ((await this.index.removeRows(doomed, ids)) > 0) this.#losses++
      } catch (error) {
        this.#losses++
        throw this.#break(error, 'the content index could not be written', { indexIsBroken: true })
      }
    })
  }

  /** Waits for the puts under way, flushes, and releases everything even when that fails. */
  async close(): Promise<void> {
    await this.#pumping
    try {
      await this.flush()
    } finally {
      await this.#writer?.close()
      await this.index.close()
    }
  }

  /** How much is unsynced, as a multiple of what begins a flush. */
  #backlog(): number {
    const { flushBytes, flushRows } = this.#options
    return Math.max(this.#unsyncedBytes / flushBytes, this.index.unsyncedRows / flushRows)
  }

  async #pump(): Promise<void> {
    while (this.#queue.length > 0) {
      const group = this.#takeGroup()
      try {
        await this.ready()
        const outcomes = await this.#appending.runExclusive(() =>
          this.#append(group.map(({ block }) => block)),
        )
        for (const [i, put] of group.entries()) put.resolve(outcomes[i] as PutOutcome[])
      } catch (error) {
        const problem = storageProblem(error, 'the blocks could not be written')
        // Before the caller hears of it, what was half written is gone again.
        await this.ready().catch((again: unknown) => this.#tell(again))
        for (const put of group) put.reject(problem)
      }
      this.#flushSoon()
    }
    this.#pumping = undefined
  }

  #flushSoon(): void {
    if (this.#backlog() <= 1 || this.#nextFlush !== undefined) return
    this.flush().catch((error: unknown) => this.#tell(error))
  }

  #takeGroup(): PendingPut[] {
    let bytes = 0
    let count = 0
    for (const { block } of this.#queue) {
      bytes += block.bytes.length
      if (count > 0 && (bytes > maxGroupBytes || count === maxGroupBlocks)) break
      count++
    }
    return this.#queue.splice(0, count)
  }

  /** Decides and writes, alone: between the question what is known and the new rows nobody else adds any. */
  async #append(blocks: readonly Block[]): Promise<PutOutcome[][]> {
    const writer = this.#writer
    if (this.#fault !== undefined || writer === undefined) throw this.#fault ?? notReady()
    const outcomes = await this.#outcomes(blocks)
    const isFresh = (_: unknown, i: number): boolean => outcomes[i]?.includes('stored') === true
    const fresh = blocks.filter(isFresh)
    const freshOutcomes = outcomes.filter(isFresh)
    const locations = await this.#write(writer, fresh)
    this.#end = writer.position
    for (const [i, { header }] of fresh.entries()) {
      const location = locations[i] as Location
      const stored = freshOutcomes[i] as PutOutcome[]
      for (const [place, { id, length }] of header.rows.entries()) {
        if (stored[place] === 'stored') this.index.addNew(id, length, location)
      }
    }
    return outcomes
  }

  /** Of each block's rows. What stands in several of these blocks is stored with the first. */
  async #outcomes(blocks: readonly Block[]): Promise<PutOutcome[][]> {
    const ids: Id[] = []
    for (const { header } of blocks) for (const { id } of header.rows) ids.push(id)
    const found = await this.index.find(ids)
    const stored = new Set<Id>()
    let at = 0
    return blocks.map(({ header }) =>
      header.rows.map(({ id }): PutOutcome => {
        if (found[at++] !== undefined) return 'known'
        const { size } = stored
        return stored.add(id).size > size ? 'stored' : 'known'
      }),
    )
  }

  /** The caller moves the end and adds the rows in one turn: a flush between the two would set the mark behind records without rows. */
  async #write(writer: PackWriter, blocks: readonly Block[]): Promise<Location[]> {
    let locations: Location[]
    try {
      locations = await writer.append(blocks)
    } catch (error) {
      throw this.#break(error, 'the blocks could not be written', { limit: this.#end })
    }
    this.#unsyncedBytes += locations.reduce((sum, { bytes }) => sum + bytes, 0)
    return locations
  }

  // -- compaction -----------------------------------------------------------------------------------------

  /** On return nothing is appended any more to the packs there are, and all rows are in LevelDB. */
  async seal(): Promise<void> {
    await this.#turn.runExclusive(async () => {
      await this.#repair()
      await this.#appending.runExclusive(async () => {
        const writer = this.#writer as PackWriter
        try {
          await writer.seal()
        } catch (error) {
          throw this.#break(error, 'a pack could not be begun', { limit: this.#end })
        }
        this.#end = writer.position
      })
      await this.#sync()
    })
  }

  /**
   * Appends blocks that hold again what stands elsewhere, and points rows at them: those that still point to where the
   * block was made from. Survives kill -9 in any case, since what stood there stays.
   */
  async relocate(moves: readonly Move[]): Promise<void> {
    while (this.#backlog() > backPressureFactor) await this.flush()
    await this.ready()
    try {
      await this.#appending.runExclusive(() => this.#relocate(moves))
    } catch (error) {
      await this.ready().catch((again: unknown) => this.#tell(again))
      throw storageProblem(error, 'the blocks could not be written')
    }
    this.#flushSoon()
  }

  async #relocate(moves: readonly Move[]): Promise<void> {
    const writer = this.#writer
    if (this.#fault !== undefined || writer === undefined) throw this.#fault ?? notReady()
    const rows = moves.flatMap(({ block, from }) => block.header.rows.map((row) => ({ ...row, from })))
    const found = await this.index.peek(rows.map(({ id }) => id))
    const stands = rows.map(({ from }, i) => isSamePlace(from, found[i]?.location))
    const locations = await this.#write(
      writer,
      moves.map(({ block }) => block),
    )
    this.#movingBytes += locations.reduce((sum, { bytes }) => sum + bytes, 0)
    this.#end = writer.position
    let at = 0
    for (const [i, { block }] of moves.entries()) {
      for (const { id, length } of block.header.rows) {
        if (stands[at]) this.index.add({ id, length, location: locations[i] as Location, added: false })
        at++
      }
    }
  }

  /** The pack that was moved from is gone, or stays: what was moved counts as stored from now on. */
  endMoves(): void {
    this.#movingBytes = 0
  }

  /** As `ContentIndex.removeUnkept`. */
  async removeUnkept(pack: number, ids: readonly Id[]): Promise<number> {
    return await this.#turn.runExclusive(async () => {
      await this.#repair()
      try {
        return await this.index.removeUnkept(pack, ids)
      } catch (error) {
        // LevelDB may have it in its log all the same, and find it when it is opened again.
        this.#losses++
        throw this.#break(error, 'the content index could not be written', { indexIsBroken: true })
      }
    })
  }

  /** Removes a pack that no row points into; durable on return. Returns its bytes. It must not be the open one. */
  async removePack(pack: number): Promise<number> {
    return await this.#turn.runExclusive(async () => {
      await this.#repair()
      if (pack >= this.#end.pack) throw new TypeError('the pack is appended to')
      try {
        const path = join(this.#packs, packName(pack))
        const bytes = (await this.#options.files.stat(path))?.bytes ?? 0
        await this.#options.files.unlink(path)
        this.#removedBytes += bytes
        await this.#options.files.syncFolder(this.#packs)
        return bytes
      } catch (error) {
        throw storageProblem(error, `${packName(pack)} could not be removed`)
      }
    })
  }

  // -- durability and recovery ------------------------------------------------------------------------------

  /** fsync, then the index. Under `#turn`. */
  async #sync(): Promise<void> {
    const mark = this.#end
    const synced = this.index.mark
    const isSynced = synced === undefined ? mark.offset === 0 : !isBefore(synced, mark) || mark.offset === 0
    if (this.index.unsyncedRows === 0 && isSynced) return
    const bytes = this.#unsyncedBytes
    this.index.freeze()
    try {
      await this.#writer?.sync()
    } catch (error) {
      this.#losses++
      const problem = this.#break(error, 'the packs could not be synced', { limit: this.#trusted() })
      this.#firstPack = this.#end.pack + 1
      await this.#repair()
      throw problem
    }
    try {
      await this.index.commit(mark)
    } catch (error) {
      throw this.#break(error, 'the content index could not be written', { indexIsBroken: true })
    }
    this.#unsyncedBytes -= bytes
  }

  /** How far the packs are good after a failed fsync: up to the mark, and never less than was found at first. */
  #trusted(): Position {
    const { mark } = this.index
    const ownStart = this.#ownStart ?? this.#end
    return mark === undefined || isBefore(mark, ownStart) ? ownStart : mark
  }

  /** Notes a failure: from now on everybody waits for a recovery. Returns the Problem to throw. */
  #break(
    error: unknown,
    what: string,
    { limit, indexIsBroken = false }: { limit?: Position; indexIsBroken?: boolean },
  ): Problem {
    const problem = storageProblem(error, what)
    this.#fault = problem
    this.#indexIsBroken ||= indexIsBroken
    if (limit !== undefined && (this.#limit === undefined || isBefore(limit, this.#limit)))
      this.#limit = limit
    this.#tell(problem)
    return problem
  }

  /** Recovers if the log is broken. Under `#turn`. */
  async #repair(): Promise<void> {
    if (this.#fault === undefined) return
    try {
      await this.#appending.runExclusive(() => this.#recover())
    } catch (error) {
      throw storageProblem(error, 'the packs could not be recovered')
    }
  }

  async #recover(): Promise<void> {
    const { files, packBytes, flushRows, verify } = this.#options
    for (const id of this.index.unsyncedIds()) this.#atStake.add(id)
    await this.#writer?.close()
    this.#writer = undefined
    if (this.#indexIsBroken) await this.index.reopen()
    this.#indexIsBroken = false
    const report = await recover({
      files,
      folder: this.#packs,
      index: this.index,
      limit: this.#limit,
      firstPack: this.#firstPack,
      verify,
      commitRows: flushRows,
    })
    this.#writer = await PackWriter.open({ files, folder: this.#packs, position: report.end, packBytes })
    this.#report = report
    this.#end = report.end
    this.#ownStart ??= report.end
    this.#limit = undefined
    this.#unsyncedBytes = 0
    this.#removedBytes = 0
    this.#movingBytes = 0
    this.#recoveries++
    this.#options.onRecovered()
    const back = await this.index.find([...this.#atStake])
    if (back.includes(undefined)) this.#losses++
    this.#atStake.clear()
    this.#fault = undefined
  }

  #tell(error: unknown): void {
    this.#options.onFault(storageProblem(error, 'the store failed'))
  }
}

function isSamePlace(a: Location, b: Location | undefined): boolean {
  return b !== undefined && a.pack === b.pack && a.offset === b.offset
}

function notReady(): Problem {
  return new Problem('unavailable', 'the store is not open')
}

/**
 * What went wrong, for whoever runs the receiver. A defect of ours is one too, `internal-error`: others wait
 * to hear of it, and what was half done must be undone all the same.
 */
function storageProblem(cause: unknown, what: string): Problem {
  if (isProblem(cause)) return cause
  if (isDiskFull(cause)) return diskFull(cause)
  if (!(cause instanceof Error) || !('code' in cause)) return new Problem('internal-error', what, { cause })
  return new Problem('unavailable', `${what}: ${cause.message}`, { cause })
}
