/**
 * The content index of one vault: from a chunk's id to the record that holds it.
 *
 * Rows of synced records are in LevelDB; rows of records that are written but not synced are in memory
 * only, so that LevelDB never points at bytes that are not on disk. Integers are little-endian.
 *
 *     key   33 bytes   the id's binary form (protocol/id.ts); begins with 1 or 2
 *     value 20 bytes   u32 pack, u32 offset of the record, u32 bytes of the record, u32 chunk length,
 *                      u32 CRC-32 of the key and the 16 bytes before (LevelDB checks none on a read)
 *
 *     key    1 byte    0: the state
 *     value 24 bytes   u32 format 1, u32 pack, u32 offset, u64 number of rows, u32 CRC-32 of the 20 bytes before
 *
 * State and rows change in one batch. The state's pack and offset are the mark: every record before it is
 * durable, and its chunks have rows unless they were found damaged. What stands behind the mark is found
 * again by scanning. An index without a sound state is no index: everything is scanned.
 */
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as yieldToEventLoop } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import { Level } from 'level'
import { type Id, idBytes, idToBytes, readId, writeId } from '../../protocol/id.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { diskFull, isDiskFull } from '../full-disk.ts'
import type { IdFilter } from './id-filter.ts'
import type { Location, Position } from './pack-file.ts'

/** Where a chunk is: its record, and its plain length. */
export interface IndexRow {
  readonly location: Location
  readonly length: number
}

/** A chunk of a record that is not synced yet. */
export interface NewRow extends IndexRow {
  readonly id: Id
  /** LevelDB has no row of this id. */
  readonly added: boolean
}

type Rows = Map<Id, NewRow>

/** What a lookup makes of a row: in memory, or of a value whose checksum was right. */
interface Reading<T> {
  ofRow(row: NewRow): T
  ofValue(value: Buffer): T
}

interface Lookup<T> {
  readonly ids: readonly Id[]
  /** Of all ids one behind the other, where there are many: those that memory knows need none. */
  readonly keys: Buffer | undefined
  readonly reading: Reading<T>
  readonly keeps: boolean
  readonly found: (T | undefined)[]
}

type Store = Level<Buffer, Buffer>

const stateKey = Buffer.of(0)
const firstIdKey = Buffer.of(1)
const rowBytes = 20
const stateBytes = 24
const format = 1
/** Rows read or looked up between two turns of the event loop: about a millisecond's work. */
const rowsAtOnce = 256
/** From so many on it pays to put ids in order, and to have two pages of them under way (measured). */
const manyIds = 4096
/** Ids that are put in order at once. */
const sortedAtOnce = 2 ** 16
/** Ids that are remembered as absent: some 3 MB. A client asks about a few thousand before it sends them. */
const absentAtMost = 20_000

const crcTable = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  return crc
})

export class ContentIndex {
  readonly #folder: string
  #db: Store
  #mark: Position | undefined
  #syncedRows = 0
  #fresh: Rows = new Map()
  /** Rows that a commit is under way for. */
  #frozen: Rows = new Map()
  /** Of the rows in memory, those that are `added`. */
  #added = 0
  /**
   * Ids that were looked for since the last commit, and LevelDB has no row of: it gets rows in commits only. Whoever asks
   * what is missing sends it next, and then it need not be looked for again.
   */
  readonly #absent = new Set<Id>()
  #commits = 0
  /** Told of every id that `find` finds: what a collection must keep. */
  keeper: IdFilter | undefined
  /** Ids of rows that are being removed and count as absent already. */
  #doomed = new Set<Id>()
  /** Rises when rows begin to go and when they are gone: what was read meanwhile is read again. */
  #removals = 0

  private constructor(folder: string, db: Store) {
    this.#folder = folder
    this.#db = db
  }

  /**
   * Opens the index, an empty one where there is none. Problem `in-use` when another process has it open,
   * `store-corrupt` when LevelDB cannot read its own files, `insufficient-storage` when the disk is full, `unavailable`
   * when it fails.
   */
  static async open(folder: string): Promise<ContentIndex> {
    const index = new ContentIndex(folder, await openLevel(folder))
    await index.#readState()
    return index
  }

  /** Removes the index's files, sound or not. Problem `in-use` while a process has it open. */
  static async remove(folder: string): Promise<void> {
    try {
      await (await openLevel(folder)).close()
    } catch (error) {
      if (!isProblem(error) || error.code === 'in-use') throw error
    }
    await rm(folder, { recursive: true, force: true })
  }

  /** Everything before it is durable and indexed; undefined when nothing is known yet. */
  get mark(): Position | undefined {
    return this.#mark
  }

  /** Chunks present, synced or not. */
  get chunks(): number {
    return this.#syncedRows + this.#added
  }

  get unsyncedRows(): number {
    return this.#fresh.size + this.#frozen.size
  }

  /**
   * The row of each id, in order; undefined where absent. What is found is kept by a collection under way: in the
   * same turn of the event loop in which it is looked up, so that none can go between.
   */
  async find(ids: readonly Id[]): Promise<(IndexRow | undefined)[]> {
    return await this.#look(ids, wholeRows, true)
  }

  /** The same of its length alone: for who asks about many. */
  async lengths(ids: readonly Id[]): Promise<(number | undefined)[]> {
    return await this.#look(ids, lengthsOnly, true)
  }

  /** As `find` for who concludes nothing from it: it protects nothing. */
  async peek(ids: readonly Id[]): Promise<(IndexRow | undefined)[]> {
    return await this.#look(ids, wholeRows, false)
  }

  async #look<T>(ids: readonly Id[], reading: Reading<T>, keeps: boolean): Promise<(T | undefined)[]> {
    const found: (T | undefined)[] = []
    for (let first = 0; first < ids.length; first += sortedAtOnce) {
      const some = ids.length <= sortedAtOnce ? ids : ids.slice(first, first + sortedAtOnce)
      for (const one of await this.#lookSorted(some, reading, keeps)) found.push(one)
    }
    return found
  }

  async #lookSorted<T>(ids: readonly Id[], reading: Reading<T>, keeps: boolean): Promise<(T | undefined)[]> {
    const keys = ids.length < manyIds ? undefined : keysOf(ids)
    const lookup = { ids, keys, reading, keeps, found: new Array<T | undefined>(ids.length) }
    const places = keys === undefined ? asTheyCame(ids.length) : inOrder(keys, ids.length)
    let next = 0
    const lane = async (): Promise<void> => {
      while (next < places.length) {
        const page = places.subarray(next, next + rowsAtOnce)
        next += rowsAtOnce
        while (!(await this.#lookPage(lookup, page))) {
          // Rows have gone meanwhile.
        }
      }
    }
    // While one page is decoded LevelDB is at the next.
    await (ids.length < manyIds ? lane() : Promise.all([lane(), lane()]))
    return lookup.found
  }

  /** Looks up the ids at these places; false when rows went meanwhile, so that it must be done again. */
  async #lookPage<T>({ ids, keys, reading, keeps, found }: Lookup<T>, page: Uint32Array): Promise<boolean> {
    // Memory first, then LevelDB: rows move only in that direction, so none is missed on the way.
    const places: number[] = []
    const sought: Buffer[] = []
    for (const place of page) {
      const id = ids[place] as Id
      const row = this.unsynced(id)
      found[place] = row && reading.ofRow(row)
      if (row !== undefined) {
        if (keeps) this.keeper?.add(id)
      } else if (!isIn(this.#absent, id) && !isIn(this.#doomed, id)) {
        places.push(place)
        sought.push(keys === undefined ? idToBytes(id) : keyAt(keys, place))
      }
    }
    if (sought.length === 0) return true
    const commits = this.#commits
    const removals = this.#removals
    const values = await this.#do((db) => db.getMany(sought))
    // From here to the end in one turn.
    if (removals !== this.#removals) return false
    for (let i = 0; i < places.length; i++) {
      const place = places[i] as number
      const value = values[i]
      if (value !== undefined) {
        const key = sought[i] as Buffer
        this.#checkRow(key, value)
        found[place] = reading.ofValue(value)
        if (keeps) this.keeper?.addBytes(key)
      } else if (commits === this.#commits) {
        this.#noteAbsent(ids[place] as Id)
      }
    }
    return true
  }

  #noteAbsent(id: Id): void {
    if (this.#absent.size >= absentAtMost) this.#absent.clear()
    this.#absent.add(id)
  }

  /** The row of an id in memory, if it is there. */
  unsynced(id: Id): NewRow | undefined {
    if (this.unsyncedRows === 0) return undefined
    return this.#fresh.get(id) ?? this.#frozen.get(id)
  }

  /** The ids of all rows in memory. */
  unsyncedIds(): Id[] {
    return [...this.#frozen.keys(), ...this.#fresh.keys()]
  }

  /** Keeps the row of an id that has none, as whoever adds rows has just found out. A collection under way keeps it too. */
  addNew(id: Id, length: number, location: Location): void {
    this.keeper?.add(id)
    this.#added++
    this.#fresh.set(id, { id, length, location, added: true })
  }

  /** Keeps a row in memory; it takes the place of an older row of the same id. A collection under way keeps it too. */
  add(row: NewRow): void {
    this.keeper?.add(row.id)
    const before = this.#fresh.get(row.id)
    if (before === undefined && row.added) this.#added++
    this.#fresh.set(row.id, before === undefined ? row : { ...row, added: before.added })
  }

  /** Sets apart the rows that the next `commit` makes durable; later ones wait for the commit after it. */
  freeze(): void {
    if (this.#frozen.size > 0) throw new TypeError('rows are frozen already')
    this.#frozen = this.#fresh
    this.#fresh = new Map()
  }

  /**
   * Writes the frozen rows and the mark, durably, in one batch. The records must be synced by then.
   * After it rejected, LevelDB's log may end in half a batch: call `reopen` and scan from the mark.
   */
  async commit(mark: Position): Promise<void> {
    const added = addedIn(this.#frozen)
    const rows = this.#syncedRows + added
    this.#commits++
    this.#absent.clear()
    await this.#do(async (db) => {
      await using batch = db.batch()
      let turn = 0
      for (const row of this.#frozen.values()) {
        const key = idToBytes(row.id)
        batch.put(key, encodeRow(key, row))
        if (++turn % rowsAtOnce === 0) await yieldToEventLoop()
      }
      await batch.put(stateKey, encodeState(mark, rows)).write({ sync: true })
    })
    this.#syncedRows = rows
    this.#added -= added
    this.#mark = mark
    this.#frozen = new Map()
    this.#commits++
  }

  /**
   * Forgets every row that points at a place that `doomed` names, durably; returns how many there were.
   * With `ids` only those are looked at, otherwise the whole index is read. Not while a commit is under way.
   */
  async removeRows(doomed: (location: Location) => boolean, ids?: readonly Id[]): Promise<number> {
    let removed = 0
    for (const [id, row] of [...this.#fresh]) {
      if (!doomed(row.location)) continue
      this.#fresh.delete(id)
      if (row.added) this.#added--
      // A synced row of the same id comes to light again and is looked at below.
      removed++
    }
    const keys: Buffer[] = []
    const candidates = ids === undefined ? this.#synced() : this.#syncedOf(ids)
    for await (const { key, row } of candidates) if (doomed(row.location)) keys.push(key)
    await this.#remove(keys)
    return removed + keys.length
  }

  /**
   * Forgets the synced rows of those of `ids` that the keeper does not keep and whose rows point into the pack,
   * durably; returns how many. From the moment of that judgement on they are absent. Not while a commit is under way.
   */
  async removeUnkept(pack: number, ids: readonly Id[]): Promise<number> {
    const { keeper } = this
    if (keeper === undefined) throw new TypeError('no collection is under way')
    const candidates: { id: Id; key: Buffer }[] = []
    // A block may hold a chunk twice; its row goes once.
    const asked = [...new Set(ids)]
    for (let first = 0; first < asked.length; first += rowsAtOnce) {
      const some = asked.slice(first, first + rowsAtOnce)
      const keys = some.map(idToBytes)
      const values = await this.#do((db) => db.getMany(keys))
      for (const [i, value] of values.entries()) {
        const key = keys[i] as Buffer
        if (value === undefined || this.#decodeRow(key, value).location.pack !== pack) continue
        candidates.push({ id: some[i] as Id, key })
      }
    }
    // In one turn of the event loop: whoever finds one before is seen here, whoever comes later finds none.
    const doomed = candidates.filter(({ id }) => !keeper.has(id))
    this.#doomed = new Set(doomed.map(({ id }) => id))
    this.#removals++
    try {
      await this.#remove(doomed.map(({ key }) => key))
    } finally {
      this.#doomed = new Set()
      this.#removals++
    }
    return doomed.length
  }

  async #remove(keys: readonly Buffer[]): Promise<void> {
    if (keys.length === 0) return
    const rows = this.#syncedRows - keys.length
    const batch = keys.map((key) => ({ type: 'del' as const, key }))
    const mark = this.#mark ?? { pack: 0, offset: 0 }
    const state = { type: 'put' as const, key: stateKey, value: encodeState(mark, rows) }
    await this.#do((db) => db.batch([...batch, state], { sync: true }))
    this.#syncedRows = rows
    this.#removals++
    // A row in memory that would have taken the place of one of these is a new one now.
    for (const key of keys) {
      const row = this.#fresh.get(readId(key) as Id)
      if (row === undefined) continue
      if (!row.added) this.#added++
      this.#fresh.set(row.id, { ...row, added: true })
    }
  }

  /** Every synced row, as of the call; 256 at a time. For surveys: it protects nothing. */
  async *rows(): AsyncGenerator<{ key: Buffer; row: IndexRow }[]> {
    let page: { key: Buffer; row: IndexRow }[] = []
    for await (const item of this.#synced()) {
      page.push(item)
      if (page.length < rowsAtOnce) continue
      yield page
      page = []
    }
    yield page
  }

  /** Every id and its length, in no particular order; at least those present at the call. */
  async *list(): AsyncGenerator<{ id: Id; length: number }> {
    const unsynced = new Map(this.#frozen)
    for (const [id, row] of this.#fresh) unsynced.set(id, row)
    const synced = this.#synced()
    for (const [id, { length }] of unsynced) yield { id, length }
    for await (const { key, row } of synced) {
      const id = readId(key)
      if (id !== undefined && !unsynced.has(id)) yield { id, length: row.length }
    }
  }

  /** Forgets the rows in memory, in preparation of a scan from the mark. */
  dropUnsynced(): void {
    this.#fresh = new Map()
    this.#frozen = new Map()
    this.#added = 0
  }

  /** Closes and opens LevelDB; the mark and the rows are then what is durable. */
  async reopen(): Promise<void> {
    await this.#db.close()
    this.#db = await openLevel(this.#folder)
    await this.#readState()
  }

  /** Starts over with no row and no mark. */
  async clear(): Promise<void> {
    await this.#db.close()
    await ContentIndex.remove(this.#folder)
    this.#db = await openLevel(this.#folder)
    await this.#readState()
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#db.close()
  }

  async #readState(): Promise<void> {
    // What was being written may be there or not.
    this.#absent.clear()
    this.#commits++
    const value = await this.#do((db) => db.get(stateKey))
    const state = value === undefined ? undefined : decodeState(value)
    this.#mark = state?.mark
    this.#syncedRows = state?.rows ?? 0
  }

  async *#syncedOf(ids: readonly Id[]): AsyncGenerator<{ key: Buffer; row: IndexRow }> {
    for (const id of new Set(ids)) {
      const key = idToBytes(id)
      const value = await this.#do((db) => db.get(key))
      if (value !== undefined) yield { key, row: this.#decodeRow(key, value) }
    }
  }

  async *#synced(): AsyncGenerator<{ key: Buffer; row: IndexRow }> {
    const iterator = this.#db.iterator({ gte: firstIdKey })
    try {
      for (;;) {
        const entries = await this.#do(() => iterator.nextv(rowsAtOnce))
        if (entries.length === 0) return
        for (const [key, value] of entries) yield { key, row: this.#decodeRow(key, value) }
      }
    } finally {
      await iterator.close()
    }
  }

  #decodeRow(key: Buffer, value: Buffer): IndexRow {
    this.#checkRow(key, value)
    return wholeRows.ofValue(value)
  }

  #checkRow(key: Buffer, value: Buffer): void {
    if (value.length === rowBytes && value.readUInt32LE(16) === rowCrc(key, value)) return
    throw corrupt(this.#folder, new Error(`the row ${key.toString('hex')} has a wrong checksum`))
  }

  async #do<T>(work: (db: Store) => Promise<T>): Promise<T> {
    try {
      return await work(this.#db)
    } catch (cause) {
      throw indexProblem(cause, this.#folder)
    }
  }
}

const wholeRows: Reading<IndexRow> = {
  ofRow: (row) => row,
  ofValue: (value) => {
    const location = {
      pack: value.readUInt32LE(0),
      offset: value.readUInt32LE(4),
      bytes: value.readUInt32LE(8),
    }
    return { location, length: value.readUInt32LE(12) }
  },
}

const lengthsOnly: Reading<number> = {
  ofRow: ({ length }) => length,
  ofValue: (value) => value.readUInt32LE(12),
}

/** The keys of all these ids, one behind the other. */
function keysOf(ids: readonly Id[]): Buffer {
  const keys = Buffer.allocUnsafe(ids.length * idBytes)
  let end = 0
  for (const id of ids) end = writeId(id, keys, end)
  return keys
}

function keyAt(keys: Buffer, place: number): Buffer {
  return keys.subarray(place * idBytes, (place + 1) * idBytes)
}

function asTheyCame(count: number): Uint32Array {
  const places = new Uint32Array(count)
  for (let place = 0; place < count; place++) places[place] = place
  return places
}

/**
 * The places of these keys in the order of the first bytes of their digests: what LevelDB has side by side it finds in
 * the same block. Of 16,384 random keys among a million that halves the time of each (measured).
 */
function inOrder(keys: Buffer, count: number): Uint32Array {
  const places = new Uint32Array(count)
  // A double holds both: 32 bits and 16.
  const both = new Float64Array(count)
  for (let place = 0; place < count; place++) {
    both[place] = keys.readUInt32BE(place * idBytes + 1) * sortedAtOnce + place
  }
  both.sort()
  for (let i = 0; i < count; i++) places[i] = (both[i] as number) % sortedAtOnce
  return places
}

/** An empty set would have the whole id hashed too. */
function isIn(set: ReadonlySet<Id>, id: Id): boolean {
  return set.size > 0 && set.has(id)
}

function addedIn(rows: Rows): number {
  let added = 0
  for (const row of rows.values()) if (row.added) added++
  return added
}

function encodeRow(key: Buffer, { location, length }: IndexRow): Buffer {
  const value = Buffer.allocUnsafe(rowBytes)
  value.writeUInt32LE(location.pack, 0)
  value.writeUInt32LE(location.offset, 4)
  value.writeUInt32LE(location.bytes, 8)
  value.writeUInt32LE(length, 12)
  value.writeUInt32LE(rowCrc(key, value), 16)
  return value
}

/** As `crc32` of node:zlib, in half of the time for so few bytes (measured), and without views of them. */
function rowCrc(key: Buffer, value: Buffer): number {
  let crc = -1
  for (let i = 0; i < idBytes; i++) {
    crc = (crcTable[(crc ^ (key[i] as number)) & 0xff] as number) ^ (crc >>> 8)
  }
  for (let i = 0; i < 16; i++) {
    crc = (crcTable[(crc ^ (value[i] as number)) & 0xff] as number) ^ (crc >>> 8)
  }
  return ~crc >>> 0
}

function encodeState({ pack, offset }: Position, rows: number): Buffer {
  const value = Buffer.allocUnsafe(stateBytes)
  value.writeUInt32LE(format, 0)
  value.writeUInt32LE(pack, 4)
  value.writeUInt32LE(offset, 8)
  value.writeBigUInt64LE(BigInt(rows), 12)
  value.writeUInt32LE(crc32(value.subarray(0, 20)), 20)
  return value
}

function decodeState(value: Buffer): { mark: Position; rows: number } | undefined {
  if (value.length !== stateBytes || value.readUInt32LE(20) !== crc32(value.subarray(0, 20))) return undefined
  if (value.readUInt32LE(0) !== format) return undefined
  return {
    mark: { pack: value.readUInt32LE(4), offset: value.readUInt32LE(8) },
    rows: Number(value.readBigUInt64LE(12)),
  }
}

async function openLevel(folder: string): Promise<Store> {
  try {
    await mkdir(folder, { recursive: true })
    await dropRemains(folder)
    // Ids and locations do not compress. It begins to open at once.
    const db: Store = new Level(folder, {
      keyEncoding: 'buffer',
      valueEncoding: 'buffer',
      compression: false,
    })
    await db.open()
    return db
  } catch (cause) {
    throw indexProblem(cause, folder)
  }
}

/**
 * Removes what a removal that was cut short has left. Without CURRENT LevelDB begins anew, but with what the logs say
 * that lie there: a mark that stands, and of the rows before it only the latest.
 */
async function dropRemains(folder: string): Promise<void> {
  const names = await readdir(folder)
  if (names.includes('CURRENT')) return
  for (const name of names)
    if (name !== 'LOCK') await rm(join(folder, name), { recursive: true, force: true })
}

/** What LevelDB's error means to whoever runs the receiver. */
function indexProblem(cause: unknown, folder: string): unknown {
  if (cause instanceof Problem || cause instanceof TypeError) return cause
  const codes = errorCodes(cause)
  if (codes.includes('LEVEL_LOCKED')) {
    return new Problem(
      'in-use',
      `${folder} is open in another process; is a receiver running on this data directory? Stop it first`,
      { cause },
    )
  }
  if (codes.includes('LEVEL_CORRUPTION')) return corrupt(folder, cause)
  if (isDiskFull(cause)) return diskFull(cause)
  return new Problem(
    'unavailable',
    `the content index ${folder} failed: ${rootOf(cause)}; if the disk is sound, "chunkdav reindex" rebuilds it`,
    { cause },
  )
}

/** The message at the bottom of a chain of causes: LevelDB's own. */
function rootOf(error: unknown): string {
  return error instanceof Error && error.cause !== undefined ? rootOf(error.cause) : String(error)
}

function corrupt(folder: string, cause: unknown): Problem {
  return new Problem(
    'store-corrupt',
    `the content index ${folder} is damaged; "chunkdav reindex" rebuilds it from the packs`,
    { cause },
  )
}

function errorCodes(error: unknown): unknown[] {
  const codes: unknown[] = []
  for (let at: unknown = error; at instanceof Error; at = at.cause) if ('code' in at) codes.push(at.code)
  return codes
}
