/**
 * What the client remembers between runs, in LevelDB on its own disk: one database per source and vault.
 *
 *     key                                    value
 *     "state"                                JSON State
 *     "reserved"                             decimal: directory numbers from here on are free
 *     "d" directory number (6 bytes, BE) name bytes    JSON EntryRecord
 *
 * Directories are numbered; the record of a thing stands under its directory's number and its name, so
 * that a directory's records are neighbours in the order of their names. The root's own record stands
 * under directory 0 with an empty name.
 *
 * Invariants:
 * - A record's `entry` names content that the receiver had acknowledged when the record was written.
 * - A directory's record is `dirty` from before its first changed record until its object has been
 *   acknowledged; who finds it dirty builds the object anew. So a run may end at any write.
 * - Writes reach LevelDB in the order of the calls. They are not synced: losing the last ones to a
 *   power cut loses work, never truth, since the commit verifies everything.
 *
 * One process at a time: LevelDB's lock. Problem `in-use` otherwise.
 */
import { mkdir, rm } from 'node:fs/promises'
import { Level } from 'level'
import type { Id } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import type { Entry, Part } from '../../protocol/schema.ts'

export interface EntryRecord {
  /** As it stands in the directory object; absent in a directory's record while it is dirty. */
  entry?: Entry
  /** ctime and device:inode when it was read: a match means unread content is unchanged. Absent: unknown. */
  ctimeNs?: string
  inode?: string
  /** A directory's number. */
  number?: number
  dirty?: true
  /** In a database of a `chunks` target: the list of a directory's files' chunks and of its own objects. */
  list?: Part
}

export interface State {
  /** An open checkpoint to go on with. */
  open?: number
  /** The last checkpoint that this database saw committed. */
  committed?: number
  /** In a database of a `chunks` target: the list of the whole tree below this root. */
  whole?: { root: Id; list: Part }
}

const stateKey = Buffer.from('state')
const reservedKey = Buffer.from('reserved')
/** Directory numbers are given out in runs of this many, so that giving one costs no write. */
const reserveNumbers = 1024
const keyPrefixBytes = 7
/** Writes gathered before they go to LevelDB in one batch. */
const batchWrites = 1000
/** What a killed process may forget, in ms. */
const batchMs = 200

type Write = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer }

export class CheckpointDatabase {
  readonly #level: Level<Buffer, Buffer>
  #pending: Write[] = []
  #timer: NodeJS.Timeout | undefined
  #written: Promise<void> = Promise.resolve()
  #nextNumber: number
  /** Numbers below this are written down as given. */
  #reserved: number

  private constructor(level: Level<Buffer, Buffer>, nextNumber: number) {
    this.#level = level
    this.#nextNumber = nextNumber
    this.#reserved = nextNumber
  }

  /** Opens the database in `folder`, made if need be. A damaged one is thrown away: it only saves work. */
  static async open(folder: string): Promise<CheckpointDatabase> {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const level = await openLevel(folder)
    return new CheckpointDatabase(level, Number((await level.get(reservedKey)) ?? 1))
  }

  async close(): Promise<void> {
    if (this.#level.status === 'closed') return
    await this.flush()
    await this.#level.close()
  }

  async state(): Promise<State> {
    const value = await this.#level.get(stateKey)
    return value === undefined ? {} : (JSON.parse(value.toString('utf8')) as State)
  }

  /** On return the state, and every record written before, is with LevelDB. */
  async setState(state: State): Promise<void> {
    this.#write({ type: 'put', key: stateKey, value: Buffer.from(JSON.stringify(state)) })
    await this.flush()
  }

  /** Whether nothing is remembered of any file. */
  async isEmpty(): Promise<boolean> {
    return (await this.get(0, Buffer.alloc(0))) === undefined
  }

  /** Forgets everything. */
  async clear(): Promise<void> {
    await this.flush()
    await this.#level.clear()
    this.#nextNumber = 1
    this.#reserved = 1
  }

  /** A number that no directory has. */
  newNumber(): number {
    if (this.#nextNumber >= this.#reserved) {
      this.#reserved += reserveNumbers
      this.#write({ type: 'put', key: reservedKey, value: Buffer.from(String(this.#reserved)) })
    }
    return this.#nextNumber++
  }

  put(directory: number, name: Buffer, record: EntryRecord): void {
    this.#write({ type: 'put', key: recordKey(directory, name), value: Buffer.from(JSON.stringify(record)) })
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

  /** Sees what was flushed. */
  async get(directory: number, name: Buffer): Promise<EntryRecord | undefined> {
    const value = await this.#level.get(recordKey(directory, name))
    return value === undefined ? undefined : parseRecord(value)
  }

  /** The records of a directory in the order of their names; sees what was written before the call. */
  async *records(directory: number): AsyncGenerator<{ name: Buffer; record: EntryRecord }, void, undefined> {
    await this.flush()
    const none = Buffer.alloc(0)
    const iterator = this.#level.iterator({
      gte: recordKey(directory, none),
      lt: recordKey(directory + 1, none),
    })
    try {
      for (;;) {
        const page = await iterator.nextv(1000)
        if (page.length === 0) return
        for (const [key, value] of page)
          yield { name: key.subarray(keyPrefixBytes), record: parseRecord(value) }
      }
    } finally {
      await iterator.close()
    }
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
    this.#written = this.#written.then(() => this.#level.batch(writes))
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
  return JSON.parse(value.toString('utf8')) as EntryRecord
}

async function openLevel(folder: string): Promise<Level<Buffer, Buffer>> {
  const options = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
  for (let attempt = 1; ; attempt++) {
    const level = new Level<Buffer, Buffer>(folder, options)
    try {
      await level.open()
      return level
    } catch (error) {
      const { code, message } = (error as Error).cause as NodeJS.ErrnoException
      if (code === 'LEVEL_LOCKED') {
        throw new Problem(
          'in-use',
          'another backup of this source to this vault is running; wait for it to end',
          { cause: error },
        )
      }
      if (attempt === 2)
        throw new Problem('store-corrupt', `cannot open the database in ${folder}: ${message}`, {
          cause: error,
        })
      if (code === 'LEVEL_CORRUPTION') await rm(folder, { recursive: true })
    }
  }
}
