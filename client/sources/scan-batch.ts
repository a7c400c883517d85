/**
 * How a walk travels from its thread: a batch of messages in one buffer. Names are their own bytes, stats are packed
 * (engine/packed-stat.ts), lengths little-endian:
 *
 *     'enter'     u8 1, packed stat, u16 length of the name, name
 *     'entry'     u8 2, as above; a symlink's is u8 3, as above, then u16 length of the target, target
 *     'listed'    u8 4
 *     'leave'     u8 5
 *     'problem'   u8 6, u32 length, JSON
 */
import { PackedStat, packedStatBytes, packStat, type StatToPack } from '../engine/packed-stat.ts'
import type { EntryKind, ScanEvent, ScannedEntry } from '../engine/source.ts'

type Problem = Extract<ScanEvent, { type: 'problem' }>

const enter = 1
const entry = 2
const symlink = 3
const listed = 4
const leave = 5
const problem = 6

const batchMessages = 256
const batchBytes = 64 * 1024

/** Writes messages and sends them, many at once. Names, targets and paths are byte strings (latin1). */
export class ScanBatchWriter {
  readonly #send: (batch: Uint8Array) => void
  #bytes = Buffer.allocUnsafeSlow(batchBytes)
  #view = new DataView(this.#bytes.buffer)
  #at = 0
  #messages = 0

  constructor(send: (batch: Uint8Array) => void) {
    this.#send = send
  }

  enter(name: string, stat: StatToPack): void {
    this.#named(enter, 'directory', stat, name, 0)
    this.#done()
  }

  /** `target` is a symlink's. */
  entry(name: string, kind: EntryKind, stat: StatToPack, target?: string): void {
    this.#named(target === undefined ? entry : symlink, kind, stat, name, 2 + (target?.length ?? 0))
    if (target !== undefined) this.#text(target)
    this.#done()
  }

  listed(): void {
    this.#mark(listed)
  }

  leave(): void {
    this.#mark(leave)
  }

  problem(path: string, { code, detail }: Omit<Problem, 'type' | 'path'>): void {
    const json = Buffer.from(JSON.stringify({ path, code, detail }))
    this.#room(5 + json.length)
    this.#at = this.#bytes.writeUInt8(problem, this.#at)
    this.#at = this.#bytes.writeUInt32LE(json.length, this.#at)
    this.#at += json.copy(this.#bytes, this.#at)
    this.#done()
  }

  /** Sends a copy, since a message carries all of the memory that a view is of. */
  flush(): void {
    if (this.#messages > 0) this.#send(new Uint8Array(this.#bytes.subarray(0, this.#at)))
    this.#at = 0
    this.#messages = 0
  }

  #named(type: number, kind: EntryKind, stat: StatToPack, name: string, more: number): void {
    this.#room(1 + packedStatBytes + 2 + name.length + more)
    this.#view.setUint8(this.#at, type)
    packStat(this.#view, this.#at + 1, kind, stat)
    this.#at += 1 + packedStatBytes
    this.#text(name)
  }

  #text(text: string): void {
    this.#view.setUint16(this.#at, text.length, true)
    this.#at += 2 + this.#bytes.write(text, this.#at + 2, 'latin1')
  }

  #mark(type: number): void {
    this.#room(1)
    this.#view.setUint8(this.#at++, type)
    this.#done()
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return
    this.flush()
    if (bytes <= this.#bytes.length) return
    this.#bytes = Buffer.allocUnsafeSlow(bytes)
    this.#view = new DataView(this.#bytes.buffer)
  }

  #done(): void {
    this.#messages++
    if (this.#messages >= batchMessages) this.flush()
  }
}

/** The events in a batch, with runs of entries gathered. They refer to its memory. */
export function scanEvents(batch: Uint8Array): ScanEvent[] {
  const reader = new BatchReader(batch)
  const events: ScanEvent[] = []
  let entries: ScannedEntry[] | undefined
  while (!reader.isAtEnd) {
    const type = reader.byte()
    if (type === entry || type === symlink) {
      if (entries === undefined) {
        entries = []
        events.push({ type: 'entries', entries })
      }
      entries.push(reader.entry(type === symlink))
      continue
    }
    entries = undefined
    if (type === enter) events.push({ type: 'enter', stat: reader.stat(), name: reader.text() })
    else if (type === listed) events.push({ type: 'listed' })
    else if (type === leave) events.push({ type: 'leave' })
    else events.push(reader.problem())
  }
  return events
}

class BatchReader {
  readonly #bytes: Buffer
  readonly #view: DataView
  #at = 0

  constructor({ buffer, byteOffset, length }: Uint8Array) {
    this.#bytes = Buffer.from(buffer, byteOffset, length)
    this.#view = new DataView(buffer, byteOffset, length)
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  byte(): number {
    return this.#view.getUint8(this.#at++)
  }

  stat(): PackedStat {
    const at = this.#at
    this.#at += packedStatBytes
    return new PackedStat(this.#view, at)
  }

  text(): Buffer {
    const from = this.#at + 2
    this.#at = from + this.#view.getUint16(this.#at, true)
    return this.#bytes.subarray(from, this.#at)
  }

  entry(isSymlink: boolean): ScannedEntry {
    const stat = this.stat()
    const { kind } = stat
    const name = this.text()
    return isSymlink ? { name, kind, stat, target: this.text() } : { name, kind, stat }
  }

  problem(): Problem {
    const from = this.#at + 4
    this.#at = from + this.#view.getUint32(this.#at, true)
    const { path, code, detail } = JSON.parse(this.#bytes.toString('utf8', from, this.#at))
    return { type: 'problem', path: Buffer.from(path, 'latin1'), code, detail }
  }
}
