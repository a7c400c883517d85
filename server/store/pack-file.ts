/**
 * A pack: one append-only file of records, `packs/%08d.pack`, numbered from 1. Integers are little-endian.
 *
 *     offset  size  field
 *          0     8  magic "CDAVPACK"
 *          8     4  version, 1
 *         12     4  CRC-32 of bytes 0..11
 *         16     …  records, one behind the other; each is a block (protocol/block.ts), byte for byte
 *
 * How a pack is read from front to back (`scanRecords`), whatever happened to it:
 *
 * - A record whose header and payload have the right checksums is whole.
 * - A right header with a wrong payload is a damaged record. The header's length tells where the next begins.
 * - A right header that reaches beyond the end of the file is a torn tail: nothing follows.
 * - Where no right header stands, the next one is searched by its magic. A chunk's bytes may look like a
 *   record (somebody backs up a pack), so from there to the end of the pack a record counts only when
 *   every chunk in it hashes to its id: then it is true, wherever it came from.
 */
import { crc32 } from 'node:zlib'
import {
  type Block,
  type BlockHeader,
  blockHeaderBytes,
  blockMagic,
  blockRowBytes,
  headerLength,
  parseHeader,
  payloadIsIntact,
  verifyBlock,
} from '../../protocol/block.ts'
import { limits } from '../../protocol/limits.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { StoreFile } from '../file-layer.ts'

export const packHeaderBytes = 16
const magic = Buffer.from('CDAVPACK', 'latin1')
const version = 1

/** A place between records. Offset 0 is in front of the pack's header: the pack does not exist yet. */
export interface Position {
  readonly pack: number
  readonly offset: number
}

/** Where a record stands, and how long it is. */
export interface Location extends Position {
  readonly bytes: number
}

/** Whether `a` lies before `b`. */
export function isBefore(a: Position, b: Position): boolean {
  return a.pack < b.pack || (a.pack === b.pack && a.offset < b.offset)
}

export function packName(pack: number): string {
  return `${String(pack).padStart(8, '0')}.pack`
}

/** The number in a pack's file name, or undefined when it is no pack. */
export function packNumber(name: string): number | undefined {
  const digits = /^([0-9]{8,10})\.pack$/.exec(name)?.[1]
  return digits === undefined || Number(digits) === 0 ? undefined : Number(digits)
}

/** The first bytes of every pack. */
export function packHeader(): Buffer {
  const header = Buffer.alloc(packHeaderBytes)
  magic.copy(header)
  header.writeUInt32LE(version, 8)
  header.writeUInt32LE(crc32(header.subarray(0, 12)), 12)
  return header
}

/**
 * Whether a pack begins as it must. Records can be found without a right header, so damage is no reason
 * to stop; Problem `store-corrupt` only for a sound header of a later version.
 */
export async function packHeaderIsRight(file: StoreFile, name: string): Promise<boolean> {
  const header = Buffer.alloc(packHeaderBytes)
  const read = await file.read(header, 0)
  const sound = read === packHeaderBytes && header.readUInt32LE(12) === crc32(header.subarray(0, 12))
  if (!sound || !header.subarray(0, 8).equals(magic)) return false
  if (header.readUInt32LE(8) === version) return true
  throw new Problem(
    'store-corrupt',
    `${name} has version ${header.readUInt32LE(8)}; a later chunkdav wrote it`,
  )
}

/** What a read of one record came to; `header` is there when at least that part is sound. */
export type RecordRead =
  | { readonly block: Block }
  | { readonly damage: string; readonly header?: BlockHeader; readonly cause?: unknown }

/** The record at a location, header and payload checked against their checksums. */
export async function readRecord(file: StoreFile, { offset, bytes }: Location): Promise<RecordRead> {
  const buffer = Buffer.allocUnsafe(bytes)
  const read = await file.read(buffer, offset)
  const header = parseHeader(buffer.subarray(0, read))
  if (header === undefined || header.totalBytes !== bytes) return { damage: 'its header is damaged' }
  if (read < bytes) return { damage: 'it is cut short', header }
  const block = { header, bytes: buffer }
  return payloadIsIntact(block) ? { block } : { damage: 'its payload is damaged', header }
}

/**
 * What the records of a pack come to, from the first part of their headers, which is not checked; it ends where none
 * stands any more. For estimates.
 */
export async function* peekRecordLengths(
  file: StoreFile,
  size: number,
): AsyncGenerator<{ totalBytes: number; plainBytes: number; rows: number }> {
  const start = Buffer.alloc(blockHeaderBytes)
  for (let offset = packHeaderBytes; offset + blockHeaderBytes <= size; ) {
    await file.read(start, offset)
    const headerBytes = headerLength(start) ?? 0
    const totalBytes = headerBytes + start.readUInt32LE(16)
    if (!start.subarray(0, 4).equals(blockMagic) || offset + totalBytes > size) return
    yield { totalBytes, plainBytes: start.readUInt32LE(12), rows: start.readUInt32LE(8) }
    offset += totalBytes
  }
}

/** A whole record, or a stretch of bytes that is none. */
export type ScanStep =
  | { readonly offset: number; readonly block: Block }
  | { readonly offset: number; readonly damagedBytes: number; readonly damage: string }

/**
 * Every record from `start` to the end of the file at `size`, and every damaged stretch between, in order.
 * With `verify` a record whose chunks do not hash to their ids counts as damaged. Holds one record at a time.
 */
export async function* scanRecords(
  file: StoreFile,
  { start, size, verify }: { start: number; size: number; verify: boolean },
): AsyncGenerator<ScanStep> {
  const window = new Window(file, size)
  let offset = start
  while (offset < size) {
    const header = await headerAt(window, offset)
    if (header === undefined) break
    const end = offset + header.totalBytes
    if (end > size) {
      yield { offset, damagedBytes: size - offset, damage: 'the record is cut short' }
      return
    }
    const block = { header, bytes: await window.bytes(offset, header.totalBytes) }
    const damage = await faultOf(block, verify)
    if (damage === undefined) yield { offset, block }
    else yield { offset, damagedBytes: header.totalBytes, damage }
    offset = end
  }
  if (offset < size) yield* searchRecords(window, offset, size)
}

/** The second half of a scan: behind a place where a header should stand and none does. */
async function* searchRecords(window: Window, start: number, size: number): AsyncGenerator<ScanStep> {
  let damagedFrom = start
  let offset = start
  while (offset < size) {
    const header = await headerAt(window, offset)
    const end = offset + (header?.totalBytes ?? 0)
    if (header !== undefined && end <= size) {
      const block = { header, bytes: await window.bytes(offset, header.totalBytes) }
      if ((await faultOf(block, true)) === undefined) {
        if (damagedFrom < offset) yield noHeader(damagedFrom, offset)
        yield { offset, block }
        damagedFrom = end
        offset = end
        continue
      }
    }
    offset = await window.find(blockMagic, offset + 1)
  }
  if (damagedFrom < size) yield noHeader(damagedFrom, size)
}

function noHeader(offset: number, end: number): ScanStep {
  return { offset, damagedBytes: end - offset, damage: 'there is no record' }
}

async function headerAt(window: Window, offset: number): Promise<BlockHeader | undefined> {
  const length = headerLength(await window.bytes(offset, blockHeaderBytes))
  if (length === undefined || length > blockHeaderBytes + limits.maxBlockChunks * blockRowBytes)
    return undefined
  return parseHeader(await window.bytes(offset, length))
}

async function faultOf(block: Block, verify: boolean): Promise<string | undefined> {
  if (!payloadIsIntact(block)) return 'the payload is damaged'
  if (!verify) return undefined
  try {
    await verifyBlock(block)
    return undefined
  } catch (error) {
    if (!isProblem(error)) throw error
    return error.message
  }
}

/** How much a scan reads at once. */
const windowBytes = 4 * 1024 * 1024

/** A file read front to back in large pieces. What it gives out stays valid: pieces are never reused. */
class Window {
  readonly #file: StoreFile
  readonly #size: number
  #start = 0
  #piece = Buffer.alloc(0)

  constructor(file: StoreFile, size: number) {
    this.#file = file
    this.#size = size
  }

  /** `length` bytes from `offset`, or as many as the file has. */
  async bytes(offset: number, length: number): Promise<Buffer> {
    const wanted = Math.min(length, this.#size - offset)
    const inside = offset >= this.#start && offset + wanted <= this.#start + this.#piece.length
    if (!inside) {
      const piece = Buffer.allocUnsafe(Math.min(Math.max(wanted, windowBytes), this.#size - offset))
      this.#piece = piece.subarray(0, await this.#file.read(piece, offset))
      this.#start = offset
    }
    return this.#piece.subarray(offset - this.#start, offset - this.#start + wanted)
  }

  /** The first place from `offset` on where `needle` stands, or the file's size. */
  async find(needle: Buffer, offset: number): Promise<number> {
    let at = offset
    while (at + needle.length <= this.#size) {
      await this.bytes(at, needle.length)
      const found = this.#piece.indexOf(needle, at - this.#start)
      if (found >= 0) return this.#start + found
      const next = this.#start + this.#piece.length - needle.length + 1
      if (next <= at) break
      at = next
    }
    return this.#size
  }
}
