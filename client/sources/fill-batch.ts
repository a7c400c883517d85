/**
 * What a reading thread has found in one buffer, as it travels: events one behind the other, numbers little-endian, ids as
 * text. Cloning objects would take as long as reading small files does.
 *
 *     'chunk'   u8 1, u32 file, u32 offset in the buffer, u32 length, id
 *     'done'    u8 2, u32 file, u8 flags (1 changed, 2 uncertain, 4 one chunk, whose id is the digest), f64 bytes read,
 *               packed stat (engine/packed-stat.ts), digest unless 4
 *     'failed'  u8 3, u32 length, JSON
 *     'again'   u8 4, u32 file
 */
import type { Id } from '../../protocol/id.ts'
import { Problem, type ProblemCode } from '../../protocol/problem.ts'
import { PackedStat, packedStatBytes, packStat, type StatToPack } from '../engine/packed-stat.ts'
import type { FillEvent } from '../engine/source.ts'

const chunk = 1
const done = 2
const failed = 3
const again = 4

const changed = 1
const uncertain = 2
const ofOneChunk = 4

/** Letters of an id, whichever its algorithm. */
const idLength = 71
const chunkLength = 13 + idLength
const doneLength = 14 + packedStatBytes + idLength
const usualBytes = 64 * 1024

/** A file that was read to its end. */
export interface ReadFile {
  readonly file: number
  /** The id of the whole content; undefined where that is one chunk, which was just told. */
  readonly digest: Id | undefined
  readonly bytesRead: number
  readonly stat: StatToPack
  readonly changed: boolean
  readonly uncertain: boolean
}

export class FillBatchWriter {
  #bytes = Buffer.allocUnsafeSlow(usualBytes)
  #view = new DataView(this.#bytes.buffer)
  #at = 0

  get isEmpty(): boolean {
    return this.#at === 0
  }

  chunk(file: number, id: Id, offset: number, length: number): void {
    this.#begin(chunk, file, chunkLength)
    this.#view.setUint32(this.#at, offset, true)
    this.#view.setUint32(this.#at + 4, length, true)
    this.#at += 8
    this.#id(id)
  }

  done({ file, digest, bytesRead, stat, ...was }: ReadFile): void {
    this.#begin(done, file, doneLength)
    const flags = (was.changed ? changed : 0) | (was.uncertain ? uncertain : 0)
    this.#view.setUint8(this.#at, digest === undefined ? flags | ofOneChunk : flags)
    this.#view.setFloat64(this.#at + 1, bytesRead, true)
    packStat(this.#view, this.#at + 9, 'file', stat)
    this.#at += 9 + packedStatBytes
    if (digest !== undefined) this.#id(digest)
  }

  failed(file: number, code: ProblemCode, detail: string): void {
    const json = Buffer.from(JSON.stringify({ file, code, detail }))
    this.#begin(failed, json.length, 5 + json.length)
    this.#at += json.copy(this.#bytes, this.#at)
  }

  again(file: number): void {
    this.#begin(again, file, 5)
  }

  /** All events since the last time: a copy, since a message carries all of the memory that a view is of. */
  take(): Uint8Array {
    const events = new Uint8Array(this.#bytes.subarray(0, this.#at))
    this.#at = 0
    return events
  }

  #begin(type: number, number: number, length: number): void {
    this.#room(length)
    this.#view.setUint8(this.#at, type)
    this.#view.setUint32(this.#at + 1, number, true)
    this.#at += 5
  }

  #id(id: Id): void {
    this.#at += this.#bytes.write(id, this.#at, 'latin1')
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return
    const larger = Buffer.allocUnsafeSlow(2 * Math.max(this.#bytes.length, bytes))
    this.#bytes.copy(larger, 0, 0, this.#at)
    this.#bytes = larger
    this.#view = new DataView(larger.buffer)
  }
}

/** The events in a batch, which refer to its memory. `bytesAt` is what stands in the buffer. */
export function fillEvents(
  batch: Uint8Array,
  bytesAt: (offset: number, length: number) => Buffer,
): FillEvent[] {
  const events: FillEvent[] = []
  const bytes = Buffer.from(batch.buffer, batch.byteOffset, batch.length)
  const view = new DataView(batch.buffer, batch.byteOffset, batch.length)
  let told = '' as Id
  for (let at = 0; at < bytes.length; ) {
    const type = bytes[at]
    const number = view.getUint32(at + 1, true)
    at += 5
    if (type === chunk) {
      const content = bytesAt(view.getUint32(at, true), view.getUint32(at + 4, true))
      at += 8 + idLength
      told = bytes.toString('latin1', at - idLength, at) as Id
      events.push({ type: 'chunk', file: number, id: told, bytes: content })
    } else if (type === done) {
      const flags = bytes[at] as number
      const bytesRead = view.getFloat64(at + 1, true)
      const stat = new PackedStat(view, at + 9)
      at += 9 + packedStatBytes
      const isOne = (flags & ofOneChunk) !== 0
      const digest = isOne ? told : (bytes.toString('latin1', at, at + idLength) as Id)
      if (!isOne) at += idLength
      const was = { changed: (flags & changed) !== 0, uncertain: (flags & uncertain) !== 0 }
      events.push({ type: 'done', file: number, digest, bytesRead, stat, ...was })
    } else if (type === failed) {
      at += number
      const { file, code, detail } = JSON.parse(bytes.toString('utf8', at - number, at))
      events.push({ type: 'failed', file, problem: new Problem(code, detail) })
    } else {
      events.push({ type: 'again', file: number })
    }
  }
  return events
}
