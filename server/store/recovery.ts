/**
 * The one way back to a sound store: used by every opening, after a failed write or fsync, and where the
 * index is missing. Packs and index go in as they are; afterwards every whole record that may be trusted
 * has its rows, and the packs end behind a whole record.
 *
 * 1. Where the caller knows a limit (the end of what was written well, or of what was synced), everything
 *    behind it is cut off: later packs are removed, the pack at the limit is truncated.
 * 2. An index whose mark lies beyond its pack belongs to other packs. It is emptied.
 * 3. From the index's mark (without one: from the first pack) all packs are scanned. Whole records get
 *    rows; a later record takes the place of an earlier one. Damaged stretches are skipped and reported.
 * 4. The last pack is truncated behind its last whole record, the only place where anything is appended.
 *
 * The rows stay in memory until the next flush, like those of a put; after `commitRows` of them the packs
 * are synced and the mark moves, so that memory is bounded and an interrupted rebuild goes on from there.
 */
import { join } from 'node:path'
import type { BlockRow } from '../../protocol/block.ts'
import type { FileLayer, StoreFile } from '../file-layer.ts'
import type { ContentIndex } from './content-index.ts'
import {
  isBefore,
  type Location,
  type Position,
  packHeaderBytes,
  packHeaderIsRight,
  packName,
  packNumber,
  scanRecords,
} from './pack-file.ts'

export interface RecoveryOptions {
  readonly files: FileLayer
  /** The packs' folder. */
  readonly folder: string
  readonly index: ContentIndex
  /** Nothing behind it is to be trusted. */
  readonly limit: Position | undefined
  /** Packs with lower numbers are not appended to. */
  readonly firstPack: number
  /** Hash every chunk that is scanned. */
  readonly verify: boolean
  readonly commitRows: number
}

/** A stretch of a pack that holds no whole record. */
export interface DamagedStretch extends Location {
  readonly damage: string
}

export interface RecoveryReport {
  /** Where the next record goes. */
  readonly end: Position
  /** Bytes of all packs. */
  readonly storedBytes: number
  /** Packs and whole blocks that were scanned. */
  readonly packs: number
  readonly blocks: number
  readonly damaged: readonly DamagedStretch[]
}

/** Does it. The caller sees to it that nobody appends, flushes or forgets meanwhile. */
export async function recover(options: RecoveryOptions): Promise<RecoveryReport> {
  const { files, folder, index, limit } = options
  index.dropUnsynced()
  await files.makeFolder(folder)
  const numbers = await packNumbers(options)
  if (limit !== undefined) await cutBehind(options, numbers, limit)
  // What a flush vouches for includes the names of packs that an earlier process made.
  await files.syncFolder(folder)
  if (!(await markStands(options, numbers))) await index.clear()
  const scan = new Scan(options)
  const mark = index.mark ?? { pack: 0, offset: 0 }
  for (const pack of numbers) {
    if (pack < mark.pack) await scan.skip(pack)
    else {
      // The mark is at the very beginning when the pack was not made yet, or given up.
      const start = pack === mark.pack ? Math.max(mark.offset, packHeaderBytes) : packHeaderBytes
      await scan.scan(pack, start, pack === numbers.at(-1))
    }
  }
  return scan.report()
}

async function packNumbers({ files, folder }: RecoveryOptions): Promise<number[]> {
  const names = await files.names(folder)
  return names
    .map(packNumber)
    .filter((pack) => pack !== undefined)
    .sort((a, b) => a - b)
}

/** Cuts off what lies behind `limit`; takes the removed packs out of `numbers`. */
async function cutBehind(options: RecoveryOptions, numbers: number[], limit: Position): Promise<void> {
  const { files, folder } = options
  for (let last = numbers.at(-1); last !== undefined && last >= limit.pack; last = numbers.at(-1)) {
    const path = join(folder, packName(last))
    if (last === limit.pack && limit.offset >= packHeaderBytes) {
      await withFile(options, last, async (file) => {
        if ((await file.size()) > limit.offset) await file.truncate(limit.offset)
      })
      return
    }
    await files.unlink(path)
    numbers.pop()
  }
}

async function markStands(options: RecoveryOptions, numbers: readonly number[]): Promise<boolean> {
  const { mark } = options.index
  if (mark === undefined) return true
  if (!numbers.includes(mark.pack)) return false
  return (await withFile(options, mark.pack, (file) => file.size())) >= mark.offset
}

async function withFile<T>(
  { files, folder }: RecoveryOptions,
  pack: number,
  work: (file: StoreFile) => Promise<T>,
): Promise<T> {
  const file = await files.open(join(folder, packName(pack)), 'write')
  try {
    return await work(file)
  } finally {
    await file.close()
  }
}

interface FoundRecord {
  readonly location: Location
  readonly rows: readonly BlockRow[]
}

/** Rows gathered before LevelDB is asked which of them it has. */
const rowsAtOnce = 1000

/** The run over the packs, and what it has found so far. */
class Scan {
  readonly #options: RecoveryOptions
  readonly #damaged: DamagedStretch[] = []
  #found: FoundRecord[] = []
  #foundRows = 0
  #end: Position = { pack: 1, offset: 0 }
  #storedBytes = 0
  #packs = 0
  #blocks = 0

  constructor(options: RecoveryOptions) {
    this.#options = options
  }

  /** Counts a pack that the index knows wholly. */
  async skip(pack: number): Promise<void> {
    const size = await withFile(this.#options, pack, (file) => file.size())
    this.#storedBytes += size
    this.#end = { pack, offset: size }
  }

  async scan(pack: number, start: number, isLast: boolean): Promise<void> {
    const keep = await withFile(this.#options, pack, async (file) => {
      const size = await file.size()
      const headerIsRight = await packHeaderIsRight(file, packName(pack))
      if (!headerIsRight) this.#damage({ pack, offset: 0, bytes: packHeaderBytes }, 'the pack has no header')
      const wholeEnd = await this.#records(file, pack, start, size)
      await this.#addFound()
      this.#packs++
      if (!isLast) {
        // The mark will move past this pack: what it holds must be durable by then.
        await file.datasync()
        this.#storedBytes += size
        this.#end = { pack, offset: size }
        return true
      }
      if (size > wholeEnd) await file.truncate(wholeEnd)
      this.#storedBytes += wholeEnd
      this.#end = { pack, offset: wholeEnd }
      return headerIsRight || wholeEnd > packHeaderBytes
    })
    if (keep) return
    // A crash while the pack was made: it holds nothing, and is made again by the next append.
    await this.#options.files.unlink(join(this.#options.folder, packName(pack)))
    this.#storedBytes -= this.#end.offset
    this.#end = { pack, offset: 0 }
  }

  report(): RecoveryReport {
    const first = { pack: this.#options.firstPack, offset: 0 }
    const end = isBefore(this.#end, first) ? first : this.#end
    const [storedBytes, packs, blocks] = [this.#storedBytes, this.#packs, this.#blocks]
    return { end, storedBytes, packs, blocks, damaged: this.#damaged }
  }

  /** Takes in the records of one pack; returns the end of the last whole one. */
  async #records(file: StoreFile, pack: number, start: number, size: number): Promise<number> {
    const { index, commitRows, verify } = this.#options
    let wholeEnd = Math.min(start, size)
    for await (const step of scanRecords(file, { start, size, verify })) {
      if ('damage' in step) {
        this.#damage({ pack, offset: step.offset, bytes: step.damagedBytes }, step.damage)
        continue
      }
      const { rows, totalBytes } = step.block.header
      this.#blocks++
      this.#found.push({ location: { pack, offset: step.offset, bytes: totalBytes }, rows })
      this.#foundRows += rows.length
      wholeEnd = step.offset + totalBytes
      if (this.#foundRows >= rowsAtOnce) await this.#addFound()
      if (index.unsyncedRows + this.#foundRows >= commitRows) {
        await this.#addFound()
        await file.datasync()
        index.freeze()
        await index.commit({ pack, offset: wholeEnd })
      }
    }
    return wholeEnd
  }

  async #addFound(): Promise<void> {
    const { index } = this.#options
    const found = this.#found
    this.#found = []
    this.#foundRows = 0
    const known = await index.find(found.flatMap(({ rows }) => rows.map(({ id }) => id)))
    let place = 0
    for (const { location, rows } of found) {
      for (const { id, length } of rows) {
        index.add({ id, length, location, added: known[place] === undefined })
        place++
      }
    }
  }

  #damage(location: Location, damage: string): void {
    this.#damaged.push({ ...location, damage })
  }
}
