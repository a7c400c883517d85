/**
 * Headers of tar archives, as POSIX has them (pax, IEEE Std 1003.1) with one thing of GNU's.
 *
 *     what                                  where it stands
 *     name up to 100 bytes, ASCII           in the header itself (ustar)
 *     any other name that is UTF-8          pax record `path`, and `linkpath` for the target of a link
 *     a longer name that is not UTF-8       GNU's `L`, and `K`: pax records are UTF-8 by their definition
 *     mtime                                 in whole seconds; pax record `mtime` where that is not all of it
 *     size from 8 GiB, large uid and gid    pax records `size`, `uid`, `gid`
 *
 * Written here because the libraries for it (tar-stream, modern-tar, archiver) take names as strings, so that
 * names that are not UTF-8 are lost, and times in milliseconds.
 */
import { isUtf8 } from 'node:buffer'

export const tarBlockBytes = 512

export const tarTypes = {
  file: '0',
  hardLink: '1',
  symlink: '2',
  'character-device': '3',
  'block-device': '4',
  directory: '5',
  fifo: '6',
} as const

export interface TarHeader {
  readonly type: keyof typeof tarTypes
  /** A directory's ends in a slash. */
  readonly path: Buffer
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeNs: string
  /** Bytes of content that follow. */
  readonly size: number
  /** Of a link. */
  readonly target?: Buffer
  readonly major?: number
  readonly minor?: number
}

const fieldBytes = 100
const maxOctal7 = 0o7777777
const maxOctal11 = 0o77777777777

/** The header, with the extended ones that it needs before it. A multiple of 512 bytes. */
export function encodeTarHeader(header: TarHeader): Buffer {
  const { path, target = Buffer.alloc(0), uid, gid, size } = header
  const seconds = wholeSeconds(header.mtimeNs)
  const records = [
    ...(needsRecord(path) ? [record('path', path)] : []),
    ...(needsRecord(target) ? [record('linkpath', target)] : []),
    ...(seconds === undefined ? [record('mtime', paxTime(header.mtimeNs))] : []),
    ...(size > maxOctal11 ? [record('size', String(size))] : []),
    ...(uid > maxOctal7 ? [record('uid', String(uid))] : []),
    ...(gid > maxOctal7 ? [record('gid', String(gid))] : []),
  ]
  return Buffer.concat([
    ...(records.length === 0 ? [] : extended('x', './PaxHeader', Buffer.concat(records))),
    ...longName('L', path),
    ...longName('K', target),
    block({
      name: path,
      type: tarTypes[header.type],
      mode: header.mode,
      uid: uid > maxOctal7 ? 0 : uid,
      gid: gid > maxOctal7 ? 0 : gid,
      size: size > maxOctal11 ? 0 : size,
      seconds: seconds ?? shownSeconds(header.mtimeNs),
      target,
      major: header.major ?? 0,
      minor: header.minor ?? 0,
    }),
  ])
}

/** Zeros up to the next block. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc((tarBlockBytes - (size % tarBlockBytes)) % tarBlockBytes)
}

/** What an archive ends with. */
export const tarEnd = Buffer.alloc(2 * tarBlockBytes)

function needsRecord(text: Buffer): boolean {
  return isUtf8(text) && (text.length > fieldBytes || text.some((byte) => byte >= 0x80))
}

/** `length key=value\n`, where the length counts its own digits. */
function record(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value as string), Buffer.from('\n')])
  let length = rest.length
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

/** The seconds, when they say all and fit into the header; undefined otherwise. */
function wholeSeconds(mtimeNs: string): number | undefined {
  const ns = BigInt(mtimeNs)
  const seconds = Number(ns / 1_000_000_000n)
  return ns % 1_000_000_000n === 0n && seconds >= 0 && seconds <= maxOctal11 ? seconds : undefined
}

/** For readers that know no pax records. */
function shownSeconds(mtimeNs: string): number {
  return Math.min(maxOctal11, Math.max(0, Number(BigInt(mtimeNs) / 1_000_000_000n)))
}

function paxTime(mtimeNs: string): string {
  const ns = BigInt(mtimeNs)
  const digits = (ns < 0n ? -ns : ns).toString().padStart(10, '0')
  return `${ns < 0n ? '-' : ''}${digits.slice(0, -9)}.${digits.slice(-9)}`
}

function longName(type: 'L' | 'K', text: Buffer): Buffer[] {
  if (text.length <= fieldBytes || needsRecord(text)) return []
  return extended(type, '././@LongLink', Buffer.concat([text, Buffer.alloc(1)]))
}

function extended(type: string, name: string, content: Buffer): Buffer[] {
  const header = block({
    name: Buffer.from(name),
    type,
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: content.length,
    seconds: 0,
    target: Buffer.alloc(0),
    major: 0,
    minor: 0,
  })
  return [header, content, tarPadding(content.length)]
}

interface Fields {
  readonly name: Buffer
  readonly type: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly seconds: number
  readonly target: Buffer
  readonly major: number
  readonly minor: number
}

/** One ustar header. */
function block(fields: Fields): Buffer {
  const bytes = Buffer.alloc(tarBlockBytes)
  const octal = (value: number, start: number, width: number): void => {
    bytes.write(value.toString(8).padStart(width - 1, '0'), start, 'latin1')
  }
  fields.name.copy(bytes, 0, 0, fieldBytes)
  octal(fields.mode, 100, 8)
  octal(fields.uid, 108, 8)
  octal(fields.gid, 116, 8)
  octal(fields.size, 124, 12)
  octal(fields.seconds, 136, 12)
  bytes.write(fields.type, 156, 'latin1')
  fields.target.copy(bytes, 157, 0, fieldBytes)
  bytes.write('ustar\u000000', 257, 'latin1')
  device(bytes, fields.major, 329)
  device(bytes, fields.minor, 337)
  bytes.fill(' ', 148, 156)
  let sum = 0
  for (const byte of bytes) sum += byte
  bytes.write(`${sum.toString(8).padStart(6, '0')}\u0000 `, 148, 'latin1')
  return bytes
}

/** Numbers beyond the field stand in base 256, as GNU has it: there is no pax record for them. */
function device(bytes: Buffer, number: number, start: number): void {
  if (number <= maxOctal7) bytes.write(number.toString(8).padStart(7, '0'), start, 'latin1')
  else {
    bytes[start] = 0x80
    bytes.writeUInt32BE(number, start + 4)
  }
}
