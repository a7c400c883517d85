/**
 * What the client remembers between runs, in LevelDB on its own disk: one database per source and vault.
 *
 *     key                                              value
 *     "format"                                         "2": of anything else nothing is believed
 *     "state"                                          JSON State
 *     "reserved"                                       decimal: directory numbers from here on are free
 *     "d" directory number (6 bytes, BE) name bytes    length of the fingerprint (u8), fingerprint, JSON EntryRecord
 *
 * Each value but the first is followed by the CRC-32 of key and value (4 bytes, LE): LevelDB does not check its own when
 * it reads. Directories are numbered; the record of a thing stands under its directory's number and its
 * name, so that a directory's records are neighbours in the order of their names. The root's own record
 * stands under directory 0 with an empty name.
 *
 * Invariants:
 * - A record's `entry` names content that the receiver had acknowledged when the record was written.
 * - A directory's record is `dirty` from before its first changed record until its object has been
 *   acknowledged; who finds it dirty builds the object anew. So a run may end at any write.
 * - Writes reach LevelDB in the order of the calls. They are not synced: losing the last ones to a
 *   power cut loses work, never truth, since the commit verifies everything.
 *
 * Recovery: a database that cannot be opened is thrown away, and so is one that was found damaged by the
 * run before, which left the file `{folder}.damaged` for the next opening to find. It only saves work.
 *
 * One process at a time: LevelDB's lock. Problem `in-use` otherwise.
 */
import { rm, stat, writeFile } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { Level } from 'level'
import type { Id } from '../../protocol/id.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { Entry, Part } from '../../protocol/schema.ts'
import { errnoReason, isSystemError } from '../errno.ts'
import { makeFolder } from '../make-folder.ts'
import { fingerprintBytes, hasFingerprint } from './packed-stat.ts'
import { RecordReader, type Row, type RowIterator } from './record-reader.ts'
import type { EntryKind, SourceStat } from './source.ts'

export interface EntryRecord {
  /** As it stands in the directory object; absent in a directory's record while it is dirty, and in a lost file's. */
  entry?: Entry
  /** A directory's number. */
  number?: number
  dirty?: true
  /** In a database of a `chunks` target: the list of a directory's files' chunks and of its own objects. */
  list?: Part
  /** In a database of a `files` target: the checkpoint in whose name the file was put. */
  sent?: number
}

/** A record as it was read. It is parsed when it is asked for. */
export class NamedRecord {
  readonly name: Buffer
  readonly #value: Buffer

  constructor(name: Buffer, value: Buffer) {
    this.name = name
    this.#value = value
  }

  get record(): EntryRecord {
    return parseRecord(this.#value)
  }

  /** False of a record that came from the receiver. */
  get hasFingerprint(): boolean {
    return this.#value[0] !== 0
  }

  /** Whether it was remembered of a thing of this kind and with this stat: then nothing of it was changed. */
  isOf(kind: EntryKind, stat: SourceStat): boolean {
    return this.#value[0] === fingerprintBytes && hasFingerprint(kind, stat, this.#value, 1)
  }
}

export interface State {
  /** An open checkpoint to go on with. */
  open?: number
  /** The last checkpoint that this database saw committed. */
  committed?: number
  /** In a database of a `chunks` target: the list of the whole tree below this root. */
  whole?: { root: Id; list: Part }
}

const formatKey = Buffer.from('format')
const format = Buffer.from('2')
const stateKey = Buffer.from('state')
const reservedKey = Buffer.from('reserved')
/** Directory numbers are given out in runs of this many, so that giving one costs no write. */
const reserveNumbers = 1024
const keyPrefixBytes = 7
const maxDirectory = 2 ** 48 - 1
const none = Buffer.alloc(0)
/** Writes gathered before they go to LevelDB in one batch. */
const batchWrites = 1000
/**
 * LevelDB maps the tables that are open into memory, which counts as the process's: of a million files all of it, 200 MiB. These
 * are the least that it takes, 64 tables of 1 MiB.
 */
const tables = { maxOpenFiles: 74, maxFileSize: 1024 * 1024 }
/** What LevelDB hands over at once: with its own 16 KiB a page is 40 records. */
const pageBytes = 512 * 1024
/** What a killed process may forget, in ms. */
const batchMs = 200

type Write = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer }

export class CheckpointDatabase {
  readonly #folder: string
  readonly #level: Level<Buffer, Buffer>
  #pending: Write[] = []
  #timer: NodeJS.Timeout | undefined
  #written: Promise<void> = Promise.resolve()
  #nextNumber: number
  /** Numbers below this are written down as given. */
  #reserved: number

  private constructor(folder: string, level: Level<Buffer, Buffer>, nextNumber: number) {
    this.#folder = folder
    this.#level = level
    this.#nextNumber = nextNumber
    this.#reserved = nextNumber
  }

  /** Opens the database in `folder`, made if need be. Problems `in-use`, `destination-failed`. */
  static async open(folder: string): Promise<CheckpointDatabase> {
    try {
      if (await exists(markerOf(folder))) await rm(folder, { recursive: true, force: true })
      await rm(markerOf(folder), { force: true })
      makeFolder(folder, 0o700)
    } catch (cause) {
      throw unusable(folder, cause)
    }
    const level = await openLevel(folder)
    if ((await level.get(formatKey))?.equals(format) !== true) await empty(level)
    const reserved = await level.get(reservedKey)
    const text = reserved === undefined ? '1' : checkedValue(reservedKey, reserved)?.toString()
    // An unreadable number must not be given out again: start above all that a database can hold.
    return new CheckpointDatabase(folder, level, text === undefined ? 2 ** 40 : Number(text))
  }

  /** Releases the database, whatever became of its writes: who cared has been told by `flush`. Idempotent. */
  async close(): Promise<void> {
    if (this.#level.status === 'closed') return
    try {
      await this.flush()
    } catch (error) {
      if (!isProblem(error, 'destination-failed')) throw error
    } finally {
      await this.#level.close()
    }
  }

  async state(): Promise<State> {
    const value = await this.#read(stateKey)
    return value === undefined ? {} : (JSON.parse(value.toString('utf8')) as State)
  }

  /** On return the state, and every record written before, is with LevelDB. */
  async setState(state: State): Promise<void> {
    this.#put(stateKey, JSON.stringify(state))
    await this.flush()
  }

  /** Whether nothing is remembered of any file. */
  async isEmpty(): Promise<boolean> {
    return (await this.get(0, Buffer.alloc(0))) === undefined
  }

  /** Forgets everything. */
  async clear(): Promise<void> {
    await this.flush()
    await empty(this.#level)
    this.#nextNumber = 1
    this.#reserved = 1
  }

  /** A number that no directory has. */
  newNumber(): number {
    if (this.#nextNumber >= this.#reserved) {
      this.#reserved += reserveNumbers
      this.#put(reservedKey, String(this.#reserved))
    }
    return this.#nextNumber++
  }

  /** `fingerprint`: see packed-stat.ts; by it the thing is known as unchanged. */
  put(directory: number, name: Buffer, record: EntryRecord, fingerprint: Buffer = none): void {
    this.#put(recordKey(directory, name), JSON.stringify(record), fingerprint)
  }

  remove(directory: number, name: Buffer): void {
    this.#write({ type: 'del', key: recordKey(directory, name) })
  }

  /** Removes everything below directory `number`, and below the directories in it. */
  async removeBelow(number: number): Promise<void> {
    for await (const { name, record } of this.records(number)) {
      this.remove(number, name)
      if (record.number !== undefined) await this.removeBelow(record.number)
    }
  }

  /** Sees what was flushed. Problem `store-corrupt` when it is damaged. */
  async get(directory: number, name: Buffer): Promise<EntryRecord | undefined> {
    const value = await this.#read(recordKey(directory, name))
    return value === undefined ? undefined : parseRecord(value)
  }

  async #read(key: Buffer): Promise<Buffer | undefined> {
    try {
      const stored = await this.#level.get(key)
      if (stored === undefined) return undefined
      return checkedValue(key, stored) ?? (await this.#damaged())
    } catch (error) {
      return this.#unreadable(error)
    }
  }

  async #unreadable(error: unknown): Promise<never> {
    const { code } = ((error as Error).cause ?? error) as NodeJS.ErrnoException
    if (code === 'LEVEL_CORRUPTION') return this.#damaged(error)
    throw error
  }

  /** Leaves word for the next opening. */
  async #damaged(cause?: unknown): Promise<never> {
    await writeFile(markerOf(this.#folder), '')
    throw new Problem(
      'store-corrupt',
      `what was remembered of earlier backups in ${this.#folder} is damaged; run the backup again, it then starts from the receiver's last checkpoint`,
      { cause },
    )
  }

  /** The records of a directory in the order of their names; sees what was written before the call. */
  async *records(directory: number): AsyncGenerator<NamedRecord, void, undefined> {
    await this.flush()
    const iterator = this.#iterator({ gte: recordKey(directory, none), lt: recordKey(directory + 1, none) })
    try {
      for (;;) {
        const page = await iterator.nextv(1000)
        if (page.length === 0) return
        for (const row of page) yield await this.#recordOf(row)
      }
    } finally {
      await iterator.close()
    }
  }

  /** For a scan: what was flushed, as of the first record that is read. To be closed. */
  reader(): RecordReader<NamedRecord> {
    const range = { gte: recordKey(0, none), lt: recordKey(maxDirectory, none) }
    return new RecordReader(
      () => this.#iterator(range),
      (directory) => recordKey(directory, none),
      (row) => this.#recordOf(row),
    )
  }

  #iterator(range: { gte: Buffer; lt: Buffer }): RowIterator {
    const iterator = this.#level.iterator({ ...range, highWaterMarkBytes: pageBytes })
    return {
      nextv: (size) => iterator.nextv(size).catch((error: unknown) => this.#unreadable(error)),
      seek: (target) => iterator.seek(target),
      close: () => iterator.close(),
    }
  }

  #recordOf([key, stored]: Row): NamedRecord | Promise<never> {
    const value = checkedValue(key, stored)
    return value === undefined ? this.#damaged() : new NamedRecord(key.subarray(keyPrefixBytes), value)
  }

  #put(key: Buffer, text: string, fingerprint?: Buffer): void {
    const head = fingerprint === undefined ? 0 : 1 + fingerprint.length
    const length = head + Buffer.byteLength(text)
    const value = Buffer.allocUnsafe(length + 4)
    if (fingerprint !== undefined) {
      value[0] = fingerprint.length
      fingerprint.copy(value, 1)
    }
    value.write(text, head)
    value.writeUInt32LE(crc32(value.subarray(0, length), crc32(key)), length)
    this.#write({ type: 'put', key, value })
  }

  #write(write: Write): void {
    this.#pending.push(write)
    if (this.#pending.length >= batchWrites) this.#hand()
    else this.#timer ??= setTimeout(() => this.#hand(), batchMs)
  }

  #hand(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const writes = this.#pending
    this.#pending = []
    this.#written = this.#written.then(async () => {
      try {
        await this.#level.batch(writes)
      } catch (cause) {
        throw unusable(this.#folder, cause)
      }
    })
    // Whoever flushes next is told; until then this must not count as unhandled.
    this.#written.catch((error: unknown) => error)
  }

  /** Hands to LevelDB what was written so far. Rejects when any write since the start failed. */
  async flush(): Promise<void> {
    if (this.#pending.length > 0) this.#hand()
    await this.#written
  }
}

function recordKey(directory: number, name: Buffer): Buffer {
  const key = Buffer.allocUnsafe(keyPrefixBytes + name.length)
  key[0] = 0x64
  key.writeUIntBE(directory, 1, 6)
  name.copy(key, keyPrefixBytes)
  return key
}

function parseRecord(value: Buffer): EntryRecord {
  return JSON.parse(value.toString('utf8', 1 + (value[0] as number))) as EntryRecord
}

/** The value without its checksum; undefined when that is wrong. */
function checkedValue(key: Buffer, stored: Buffer): Buffer | undefined {
  const length = stored.length - 4
  if (length < 0) return undefined
  const value = stored.subarray(0, length)
  return stored.readUInt32LE(length) === crc32(value, crc32(key)) ? value : undefined
}

async function empty(level: Level<Buffer, Buffer>): Promise<void> {
  await level.clear()
  await level.put(formatKey, format)
}

function markerOf(folder: string): string {
  return `${folder}.damaged`
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return false
  }
}

function unusable(folder: string, cause: unknown): Problem {
  const inner = (cause as Error).cause ?? cause
  const reason = isSystemError(inner) ? errnoReason(inner.code) : (inner as Error).message
  return new Problem(
    'destination-failed',
    `cannot keep what is remembered of backups in ${folder}: ${reason}; CHUNKDAV_STATE_DIR may name another folder`,
    { cause },
  )
}

async function openLevel(folder: string): Promise<Level<Buffer, Buffer>> {
  const options = { keyEncoding: 'buffer', valueEncoding: 'buffer', ...tables } as const
  for (let attempt = 1; ; attempt++) {
    const level = new Level<Buffer, Buffer>(folder, options)
    try {
      await level.open()
      return level
    } catch (error) {
      const { code } = ((error as Error).cause ?? error) as NodeJS.ErrnoException
      if (code === 'LEVEL_LOCKED') {
        const detail = 'another backup of this source to this vault is running; wait for it to end'
        throw new Problem('in-use', detail, { cause: error })
      }
      if (attempt === 2 || code !== 'LEVEL_CORRUPTION') throw unusable(folder, error)
      await rm(folder, { recursive: true })
    }
  }
}
