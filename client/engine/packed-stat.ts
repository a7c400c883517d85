/**
 * A stat as bytes. A scan thread hands it over in these, and the database keeps the first 64 as the fingerprint of a thing: one
 * that has the same was not changed since, and nothing of it need be parsed to see that. All numbers little-endian.
 *
 *      0  f64  size
 *      8  u16  permission bits
 *     10  u8   kind: position in `kinds`
 *     11  u8   1 no inode known, 2 mtime and 4 ctime are unsigned (after the year 2262)
 *     12  u32  uid
 *     16  u32  gid
 *     20  u32  links
 *     24  u32  major
 *     28  u32  minor
 *     32  i64  mtime, ns
 *     40  i64  ctime, ns
 *     48  u64  device
 *     56  u64  inode
 *     64  u8   1 sparse. Of no account for the fingerprint: some file systems allocate long after a file was written
 */
import type { EntryKind, SourceStat } from './source.ts'

export const fingerprintBytes = 64
export const packedStatBytes = 65

/** A `SourceStat` with its large numbers as such. */
export interface StatToPack {
  readonly size: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly links: number
  readonly major: number
  readonly minor: number
  readonly sparse: boolean
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
  /** Undefined where none is known. */
  readonly device: bigint | undefined
  readonly inode: bigint | undefined
}

const kinds: readonly EntryKind[] = [
  'file',
  'directory',
  'symlink',
  'fifo',
  'socket',
  'character-device',
  'block-device',
]
const hasNoInode = 1
const mtimeUnsigned = 2
const ctimeUnsigned = 4
const maxSigned = 2n ** 63n - 1n

/** Writes `stat` at `at`. */
export function packStat(view: DataView, at: number, kind: EntryKind, stat: StatToPack): void {
  const { mtimeNs, ctimeNs, device, inode } = stat
  view.setFloat64(at, stat.size, true)
  view.setUint16(at + 8, stat.mode, true)
  view.setUint8(at + 10, kinds.indexOf(kind))
  view.setUint8(
    at + 11,
    (inode === undefined ? hasNoInode : 0) |
      (mtimeNs > maxSigned ? mtimeUnsigned : 0) |
      (ctimeNs > maxSigned ? ctimeUnsigned : 0),
  )
  view.setUint32(at + 12, stat.uid, true)
  view.setUint32(at + 16, stat.gid, true)
  view.setUint32(at + 20, stat.links, true)
  view.setUint32(at + 24, stat.major, true)
  view.setUint32(at + 28, stat.minor, true)
  view.setBigInt64(at + 32, mtimeNs, true)
  view.setBigInt64(at + 40, ctimeNs, true)
  view.setBigUint64(at + 48, device ?? 0n, true)
  view.setBigUint64(at + 56, inode ?? 0n, true)
  view.setUint8(at + 64, stat.sparse ? 1 : 0)
}

/** A stat that stands in bytes, which must not change: each field is read when it is asked for. */
export class PackedStat implements SourceStat {
  readonly #view: DataView
  readonly #at: number

  constructor(view: DataView, at: number) {
    this.#view = view
    this.#at = at
  }

  get kind(): EntryKind {
    return kinds[this.#view.getUint8(this.#at + 10)] as EntryKind
  }

  get size(): number {
    return this.#view.getFloat64(this.#at, true)
  }

  get mode(): number {
    return this.#view.getUint16(this.#at + 8, true)
  }

  get uid(): number {
    return this.#view.getUint32(this.#at + 12, true)
  }

  get gid(): number {
    return this.#view.getUint32(this.#at + 16, true)
  }

  get links(): number {
    return this.#view.getUint32(this.#at + 20, true)
  }

  get major(): number {
    return this.#view.getUint32(this.#at + 24, true)
  }

  get minor(): number {
    return this.#view.getUint32(this.#at + 28, true)
  }

  get mtimeNs(): string {
    return this.#time(32, mtimeUnsigned)
  }

  get ctimeNs(): string {
    return this.#time(40, ctimeUnsigned)
  }

  get inode(): string {
    if (this.#flag(hasNoInode)) return ''
    const view = this.#view
    return `${view.getBigUint64(this.#at + 48, true)}:${view.getBigUint64(this.#at + 56, true)}`
  }

  get sparse(): boolean {
    return this.#view.getUint8(this.#at + 64) === 1
  }

  #flag(flag: number): boolean {
    return (this.#view.getUint8(this.#at + 11) & flag) !== 0
  }

  #time(offset: number, unsigned: number): string {
    const at = this.#at + offset
    return String(this.#flag(unsigned) ? this.#view.getBigUint64(at, true) : this.#view.getBigInt64(at, true))
  }

  /** A copy. */
  fingerprint(): Buffer {
    return Buffer.from(this.#slice())
  }

  /** Whether it has the fingerprint that stands in `bytes` at `at`. */
  hasFingerprint(bytes: Buffer, at: number): boolean {
    return this.#slice().compare(bytes, at, at + fingerprintBytes) === 0
  }

  #slice(): Buffer {
    const { buffer, byteOffset } = this.#view
    return Buffer.from(buffer, byteOffset + this.#at, fingerprintBytes)
  }
}

/** What no stat of a thing that is there is equal to. */
const fleeting = Buffer.from([0])

/**
 * The bytes that tell whether a thing was changed. Those of a stat with an empty ctime equal no other's: what was
 * read under it may not be what is there.
 */
export function fingerprintOf(kind: EntryKind, stat: SourceStat): Buffer {
  if (stat instanceof PackedStat) return stat.fingerprint()
  if (stat.ctimeNs === '') return fleeting
  const bytes = Buffer.allocUnsafe(packedStatBytes)
  const [device = '', inode = ''] = stat.inode.split(':')
  packStat(new DataView(bytes.buffer, bytes.byteOffset, packedStatBytes), 0, kind, {
    ...stat,
    mtimeNs: BigInt(stat.mtimeNs),
    ctimeNs: BigInt(stat.ctimeNs),
    device: inode === '' ? undefined : BigInt(device),
    inode: inode === '' ? undefined : BigInt(inode),
  })
  return bytes.subarray(0, fingerprintBytes)
}

/** Whether `stat` has the fingerprint that stands in `bytes` at `at`. */
export function hasFingerprint(kind: EntryKind, stat: SourceStat, bytes: Buffer, at: number): boolean {
  if (stat instanceof PackedStat) return stat.hasFingerprint(bytes, at)
  return fingerprintOf(kind, stat).equals(bytes.subarray(at, at + fingerprintBytes))
}
