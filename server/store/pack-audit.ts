/**
 * Packs and index read as they stand on disk, to find what rots before somebody needs it. Changes nothing but by
 * `forget`, which is the store's own.
 *
 * Whoever else is at work goes on: packs may vanish while they are read (their chunks were moved first), and more may be
 * appended. So what looks wrong is looked at again before it counts: a row is asked for anew, a record read anew.
 */
import { join } from 'node:path'
import {
  type Block,
  type BlockHeader,
  blockHeaderBytes,
  blockRowBytes,
  headerLength,
  parseHeader,
} from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import type { FileLayer, StoreFile } from '../file-layer.ts'
import { pagesOf } from '../pages.ts'
import type { IndexRow } from './content-index.ts'
import {
  type Location,
  type Position,
  packHeaderBytes,
  packHeaderIsRight,
  packName,
  packNumber,
  readRecord,
  type ScanStep,
  scanRecords,
} from './pack-file.ts'
import { readableFile } from './readable-file.ts'

/** What the audit needs of the store that it looks at. */
export interface AuditedStore {
  readonly files: FileLayer
  /** The packs' folder. */
  readonly folder: string
  /** Makes durable what was put; everything before the place that it returns has rows, unless it was found damaged. */
  settle(): Promise<Position>
  list(): AsyncIterable<{ readonly id: Id }>
  find(ids: readonly Id[]): Promise<(IndexRow | undefined)[]>
  /** Forgets the rows of these ids that point at a place that `doomed` names, durably; `losses` rises. */
  forget(doomed: (location: Location) => boolean, ids: readonly Id[]): Promise<void>
}

/** A stretch of a pack that holds no whole record. `ids` are the chunks that stood there, as far as a header tells. */
export interface BadStretch extends Location {
  readonly damage: string
  readonly ids?: readonly Id[]
}

/** A row of the index that points at no record that holds its chunk. */
export interface StrayRow {
  readonly id: Id
  readonly location: Location
  readonly damage: string
}

export interface RowsChecked {
  readonly rows: number
  readonly stray: readonly StrayRow[]
}

/** Rows that are sorted by place and looked at together: about 6 MiB of memory. */
const rowsAtOnce = 20_000
const idsAtOnce = 1000

const noPackHeader = { offset: 0, damagedBytes: packHeaderBytes, damage: 'the pack has no header' } as const

export class PackAudit {
  readonly #store: AuditedStore

  constructor(store: AuditedStore) {
    this.#store = store
  }

  /** Everything before it is to be found by its id. */
  end(): Promise<Position> {
    return this.#store.settle()
  }

  /** The packs that are there, in order, with their lengths. */
  packs(): Promise<{ pack: number; bytes: number }[]> {
    return packsIn(this.#store.files, this.#store.folder)
  }

  /** Reads a pack from `start`, at most up to `end`, hashing every chunk. A pack that is gone ends it. */
  async *scan(pack: number, start: number, end: number): AsyncGenerator<ScanStep> {
    const file = await this.#open(pack)
    if (file === undefined) return
    try {
      const size = Math.min(end, await file.size())
      if (start <= packHeaderBytes && !(await packHeaderIsRight(file, packName(pack)))) yield noPackHeader
      yield* scanRecords(file, { start: Math.max(start, packHeaderBytes), size, verify: true })
    } finally {
      await file.close()
    }
  }

  /** Reads the stretch again; undefined when it is sound after all, or its pack is gone. */
  async again({ pack, offset, bytes }: Location): Promise<BadStretch | undefined> {
    const file = await this.#open(pack)
    if (file === undefined) return undefined
    try {
      let damage: string | undefined
      if (offset === noPackHeader.offset) {
        return (await packHeaderIsRight(file, packName(pack)))
          ? undefined
          : { pack, offset, bytes, damage: noPackHeader.damage, ids: [] }
      }
      for await (const step of scanRecords(file, { start: offset, size: offset + bytes, verify: true })) {
        if ('damage' in step) damage ??= step.damage
      }
      if (damage === undefined) return undefined
      const header = await headerOf(file, offset, Number.POSITIVE_INFINITY)
      // A longer stretch may hold more records than the one whose header is right.
      const isOne = header !== undefined && header.totalBytes >= bytes
      const ids = isOne ? header.rows.map(({ id }) => id) : undefined
      return { pack, offset, bytes, damage, ...(ids && { ids }) }
    } finally {
      await file.close()
    }
  }

  /** The bytes of a stretch, the first `most` of them; none when its pack is gone. */
  async bytesOf({ pack, offset, bytes }: Location, most: number): Promise<Buffer> {
    const file = await this.#open(pack)
    if (file === undefined) return Buffer.alloc(0)
    try {
      const buffer = Buffer.allocUnsafe(Math.min(bytes, most))
      return buffer.subarray(0, await file.read(buffer, offset))
    } finally {
      await file.close()
    }
  }

  /**
   * The ids whose rows point into the stretch. Without a header that tells them every row of the index is looked at;
   * `step` is awaited between pieces of that.
   */
  async rowsIn(stretch: BadStretch, step: () => Promise<void>): Promise<Id[]> {
    const found: Id[] = []
    const inside = ({ pack, offset }: Location): boolean =>
      pack === stretch.pack && offset >= stretch.offset && offset < stretch.offset + stretch.bytes
    for await (const ids of pagesOf(stretch.ids ?? this.#ids(), idsAtOnce)) {
      const rows = await this.#store.find(ids)
      for (const [i, row] of rows.entries()) if (row && inside(row.location)) found.push(ids[i] as Id)
      await step()
    }
    return found
  }

  /** Forgets these ids where their rows point at a place that `doomed` names. Durable on return. */
  async forget(doomed: (location: Location) => boolean, ids: readonly Id[]): Promise<void> {
    await this.#store.forget(doomed, ids)
  }

  /** Looks whether each row of the index points at a whole record that has its chunk; reads headers, no payload. */
  async *rows(): AsyncGenerator<RowsChecked> {
    const { files, folder } = this.#store
    for await (const ids of pagesOf(this.#ids(), rowsAtOnce)) {
      const stray = await strayRows(files, folder, await this.#located(ids))
      if (stray.length === 0) {
        yield { rows: ids.length, stray }
        continue
      }
      // What was moved, forgotten or sent again meanwhile is elsewhere now.
      const now = await this.#located(stray.map(({ id }) => id))
      yield { rows: ids.length, stray: await strayRows(files, folder, now) }
    }
  }

  /** Whole records, of those that headers tell of, which hold one of these chunks. Their payloads are not verified. */
  async *copiesOf(wanted: ReadonlySet<Id>): AsyncGenerator<Block> {
    for (const { pack } of await this.packs()) {
      const file = await this.#open(pack)
      if (file === undefined) continue
      try {
        for await (const step of walkHeaders(file, await file.size())) {
          if (!('header' in step) || !step.header.rows.some(({ id }) => wanted.has(id))) continue
          const read = await readRecord(file, { pack, offset: step.offset, bytes: step.header.totalBytes })
          if ('block' in read) yield read.block
        }
      } finally {
        await file.close()
      }
    }
  }

  async *#ids(): AsyncGenerator<Id> {
    for await (const { id } of this.#store.list()) yield id
  }

  async #located(ids: readonly Id[]): Promise<LocatedRow[]> {
    const found: LocatedRow[] = []
    for (let first = 0; first < ids.length; first += idsAtOnce) {
      const some = ids.slice(first, first + idsAtOnce)
      const rows = await this.#store.find(some)
      for (const [i, row] of rows.entries()) if (row !== undefined) found.push({ id: some[i] as Id, ...row })
    }
    return found
  }

  async #open(pack: number): Promise<StoreFile | undefined> {
    const file = await openPack(this.#store.files, this.#store.folder, pack)
    return file && readableFile(file)
  }
}

export interface LocatedRow extends IndexRow {
  readonly id: Id
}

/** The packs in a folder, in order, with their lengths. None where there is no folder. */
export async function packsIn(files: FileLayer, folder: string): Promise<{ pack: number; bytes: number }[]> {
  const found: { pack: number; bytes: number }[] = []
  for (const name of await unlessGone(files.names(folder), [])) {
    const pack = packNumber(name)
    const stat = pack === undefined ? undefined : await files.stat(join(folder, name))
    if (pack !== undefined && stat !== undefined) found.push({ pack, bytes: stat.bytes })
  }
  return found.sort((a, b) => a.pack - b.pack)
}

/** Those of the rows that point at no whole record with their chunk, by its header. In the order of their places. */
export async function strayRows(
  files: FileLayer,
  folder: string,
  rows: readonly LocatedRow[],
): Promise<StrayRow[]> {
  const stray: StrayRow[] = []
  const inOrder = [...rows].sort(
    (a, b) => a.location.pack - b.location.pack || a.location.offset - b.location.offset,
  )
  let pack: number | undefined
  let file: StoreFile | undefined
  let record: { offset: number; header: BlockHeader | undefined } | undefined
  try {
    for (const { id, location, length } of inOrder) {
      if (location.pack !== pack) {
        await file?.close()
        pack = location.pack
        const opened = await openPack(files, folder, pack)
        file = opened && readableFile(opened)
        record = undefined
      }
      if (file === undefined) {
        stray.push({ id, location, damage: 'its pack is gone' })
        continue
      }
      if (record?.offset !== location.offset) {
        const { offset } = location
        record = { offset, header: await headerOf(file, offset, await file.size()) }
      }
      const damage = faultOfRow(record.header, location, id, length)
      if (damage !== undefined) stray.push({ id, location, damage })
    }
  } finally {
    await file?.close()
  }
  return stray
}

function faultOfRow(
  header: BlockHeader | undefined,
  { bytes }: Location,
  id: Id,
  length: number,
): string | undefined {
  if (header === undefined || header.totalBytes !== bytes) return 'there is no whole record where it points'
  const holds = header.rows.some((row) => row.id === id && row.length === length)
  return holds ? undefined : 'the record where it points does not hold the chunk'
}

/** A record's header, or where there should be one and is none. */
export type HeaderStep =
  | { readonly offset: number; readonly header: BlockHeader }
  | { readonly offset: number; readonly damage: string }

/** The headers of a pack one behind the other, without the payloads; ends where there is none, and tells so. */
export async function* walkHeaders(file: StoreFile, size: number): AsyncGenerator<HeaderStep> {
  let offset = packHeaderBytes
  while (offset < size) {
    const header = await headerOf(file, offset, Number.POSITIVE_INFINITY)
    if (header === undefined) {
      yield { offset, damage: 'there is no record' }
      return
    }
    if (offset + header.totalBytes > size) {
      yield { offset, damage: 'the record is cut short' }
      return
    }
    yield { offset, header }
    offset += header.totalBytes
  }
}

/** The header at `offset`, when it is right and its record ends at or before `end`. */
async function headerOf(file: StoreFile, offset: number, end: number): Promise<BlockHeader | undefined> {
  // Most tables are short: one read has them.
  let buffer = Buffer.alloc(1024)
  let read = await file.read(buffer, offset)
  const length = headerLength(buffer.subarray(0, read))
  if (length === undefined || length > blockHeaderBytes + limits.maxBlockChunks * blockRowBytes)
    return undefined
  if (length > read) {
    buffer = Buffer.alloc(length)
    read = await file.read(buffer, offset)
  }
  const header = parseHeader(buffer.subarray(0, read))
  return header !== undefined && offset + header.totalBytes <= end ? header : undefined
}

async function openPack(files: FileLayer, folder: string, pack: number): Promise<StoreFile | undefined> {
  return await unlessGone(files.open(join(folder, packName(pack)), 'read'), undefined)
}

async function unlessGone<T, U>(work: Promise<T>, otherwise: U): Promise<T | U> {
  try {
    return await work
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return otherwise
  }
}
