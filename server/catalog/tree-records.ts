/**
 * What the live tree keeps in LevelDB, in the vault's folder `tree/`. Integers in keys are big-endian, so that
 * keys stand in the order of their numbers.
 *
 *     key                                         value
 *     "e" directory's node (u48) name             JSON TreeRecord: what stands in a directory under a name
 *     "p" node (u48) property name, UTF-8         XML of one dead property
 *     "l" path 0x00 token                         JSON Lock; path is the names joined by "/", as bytes
 *     "c" directory's node (u48) change (u48)     the name whose last change this was (RFC 6578)
 *     "d" directory's node (u48) change (u48)     a name that was removed or moved away by that change
 *     "f" node (u48)                              JSON FrozenDirectory: the directory object that says the same
 *     "t" item (u48)                              JSON TrashNote: where a thing in the trash came from
 *     "m"                                         JSON TreeState: numbers that were given out
 *
 * Each value is followed by the CRC-32 of key and value (4 bytes, LE): LevelDB does not check its own when it
 * reads.
 *
 * Nodes. Everything has a number, which it keeps when it moves: what is below a directory stands under its
 * number, so a directory of any size moves, or goes to the trash, by one record. Node 0 has four entries:
 * `tree` and `trash`, which clients see; `staging`, where copies grow before they are published; `doomed`,
 * whose content is being removed for good. Whatever is below the last two at an opening is removed.
 */
import { crc32 } from 'node:zlib'
import type { Id } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'

/** A path below the vault: the first name is `tree` or `trash`. */
export type Names = readonly Buffer[]

/** `namespace localname`, with a space between. */
export type PropertyName = string

interface CommonRecord {
  /** Its number, for as long as it lives. */
  readonly node: number
  /** The number of the change that gave it this content: the ETag is made of it. */
  readonly version: number
  /** The number of the last change of any kind: content, times, properties, place. */
  readonly changed: number
  /** Nanoseconds since 1970, decimal. */
  readonly mtimeNs: string
  readonly createdNs: string
  /** It has dead properties. */
  readonly dead?: true
}

/** A file. `id`, `size` and `chunked` are its content, as in a directory object. */
export interface FileRecord extends CommonRecord {
  readonly kind: 'file'
  readonly id: Id
  readonly size: number
  readonly chunked?: true
  /** Of the content, in lower-case hex, for clients that compare by these. */
  readonly md5?: string
  readonly sha1?: string
}

export interface DirectoryRecord extends CommonRecord {
  readonly kind: 'directory'
  /**
   * The change that put it where it is; in what `find` returns, it or a collection that it is in. Sync tokens from
   * before are of what stood there then.
   */
  readonly placed?: number
}

export type TreeRecord = FileRecord | DirectoryRecord

/** What stands in a directory under a name. */
export interface Member {
  readonly name: Buffer
  readonly record: TreeRecord
}

export interface DeadProperty {
  readonly name: PropertyName
  /** The whole element, with the declarations of the namespaces that it needs. */
  readonly xml: string
}

/** RFC 4918, section 6. */
export interface Lock {
  /** The names joined by `/`. */
  readonly path: Buffer
  /** `urn:uuid:…` */
  readonly token: string
  readonly scope: 'exclusive' | 'shared'
  readonly depth: 0 | 'infinity'
  /** What the client put into DAV:owner, as XML; empty when nothing. */
  readonly owner: string
  readonly expiresAtMs: number
  readonly timeoutSeconds: number
}

/** A directory object that stands for a directory and all below it. */
export interface FrozenDirectory {
  readonly id: Id
  readonly files: number
  readonly directories: number
  readonly bytes: number
}

export type TrashReason = 'deleted' | 'overwritten'

export interface TrashNote {
  /** Where it was below `tree`: names joined by `/`, as bytes. */
  readonly path: Buffer
  readonly deletedAt: Date
  readonly reason: TrashReason
}

export interface TreeState {
  /** The next node, change and trash item. */
  node: number
  change: number
  item: number
  /** Removals up to this change may have been forgotten: a sync token must not be older. */
  forgotten: number
  /** What the last change was at some times in the past, to tell how old a removal is. */
  marks: { atMs: number; change: number }[]
}

export const nodes = { root: 0, tree: 1, trash: 2, staging: 3, doomed: 4, firstFree: 16 } as const

// -- keys -------------------------------------------------------------------------------------------

const numberBytes = 6

function numbered(prefix: string, number: number, rest: Buffer = Buffer.alloc(0)): Buffer {
  const key = Buffer.allocUnsafe(1 + numberBytes + rest.length)
  key.write(prefix, 0, 'latin1')
  key.writeUIntBE(number, 1, numberBytes)
  rest.copy(key, 1 + numberBytes)
  return key
}

export const keys = {
  entry: (directory: number, name: Buffer) => numbered('e', directory, name),
  entries: (directory: number) => numbered('e', directory),
  property: (node: number, name: PropertyName) => numbered('p', node, Buffer.from(name, 'utf8')),
  properties: (node: number) => numbered('p', node),
  change: (directory: number, change: number) => numbered('c', directory, numberOf(change)),
  changes: (directory: number) => numbered('c', directory),
  removal: (directory: number, change: number) => numbered('d', directory, numberOf(change)),
  removals: (directory: number) => numbered('d', directory),
  frozen: (node: number) => numbered('f', node),
  trash: (item: number) => numbered('t', item),
  lock: (path: Buffer, token: string) => Buffer.concat([keys.locksOf(path), Buffer.from(token, 'latin1')]),
  locksOf: (path: Buffer) => Buffer.concat([Buffer.from('l'), path, Buffer.of(0)]),
  locksBelow: (path: Buffer) => Buffer.concat([Buffer.from('l'), path, Buffer.from('/')]),
  state: Buffer.from('m'),
  allTrash: Buffer.from('t'),
  allLocks: Buffer.from('l'),
  allEntries: Buffer.from('e'),
  allRemovals: Buffer.from('d'),
  allFrozen: Buffer.from('f'),
} as const

function numberOf(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(numberBytes)
  bytes.writeUIntBE(value, 0, numberBytes)
  return bytes
}

/** What follows the prefix and the number in a key. */
export function keyRest(key: Buffer): Buffer {
  return key.subarray(1 + numberBytes)
}

/** The change in the key of a change or removal. */
export function keyChange(key: Buffer): number {
  return key.readUIntBE(1 + numberBytes, numberBytes)
}

/** The number behind the prefix. */
export function keyNumber(key: Buffer): number {
  return key.readUIntBE(1, numberBytes)
}

/** The first key behind all that begin with `prefix`. */
export function endOf(prefix: Buffer): Buffer {
  const end = Buffer.from(prefix)
  for (let at = end.length - 1; at >= 0; at--) {
    if (end[at] !== 0xff) {
      end[at] = (end[at] as number) + 1
      return end.subarray(0, at + 1)
    }
  }
  throw new TypeError('a prefix needs a byte that is not 0xff')
}

export function pathOf(names: Names): Buffer {
  return Buffer.from(names.map((name) => name.toString('latin1')).join('/'), 'latin1')
}

// -- values -----------------------------------------------------------------------------------------

const crcBytes = 4

/** A value as LevelDB keeps it. */
export function sealed(key: Buffer, value: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(value.length + crcBytes)
  value.copy(bytes)
  bytes.writeInt32LE(crc32(value, crc32(key)) | 0, value.length)
  return bytes
}

/** The value; Problem `store-corrupt` when it is not what was written. */
export function unsealed(key: Buffer, bytes: Buffer): Buffer {
  const value = bytes.subarray(0, -crcBytes)
  if (bytes.length >= crcBytes && bytes.readInt32LE(value.length) === (crc32(value, crc32(key)) | 0))
    return value
  throw new Problem(
    'store-corrupt',
    `a record of the live tree is damaged (key ${key.toString('hex').slice(0, 80)})`,
  )
}

export function encodeJson(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value), 'utf8')
}

/** What `encodeJson` made. That the bytes are those that were written was checked before. */
export function decodeJson<T>(bytes: Buffer): T {
  return JSON.parse(bytes.toString('utf8')) as T
}

export function encodeNote({ path, deletedAt, reason }: TrashNote): Buffer {
  return encodeJson({ path: path.toString('base64'), deletedAt: deletedAt.toISOString(), reason })
}

export function decodeNote(bytes: Buffer): TrashNote {
  const { path, deletedAt, reason } = decodeJson<{ path: string; deletedAt: string; reason: TrashReason }>(
    bytes,
  )
  return { path: Buffer.from(path, 'base64'), deletedAt: new Date(deletedAt), reason }
}

export function encodeLock(lock: Lock): Buffer {
  return encodeJson({ ...lock, path: lock.path.toString('base64') })
}

export function decodeLock(bytes: Buffer): Lock {
  const lock = decodeJson<Omit<Lock, 'path'> & { path: string }>(bytes)
  return { ...lock, path: Buffer.from(lock.path, 'base64') }
}
