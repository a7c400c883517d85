/**
 * File and directory objects: chunks whose bytes are JSON.
 *
 * The encoding that this project writes is canonical, so that equal content has equal ids: UTF-8, no
 * white space, keys in the order of schema.ts, absent fields left out. Readers accept any UTF-8 JSON that
 * fits the schema and the rules below; an object's id is the hash of its bytes as they are.
 *
 * Rules beyond the schema:
 * - entries stand in strictly ascending order of their names' bytes;
 * - a name is not empty, ".", "..", and holds neither "/" nor NUL;
 * - exactly one of `name` and `name64`, and `name64` only for what is not UTF-8; the same for targets;
 * - the sizes of a file object's parts add up to its size.
 *
 * Long lists are cut by content, so that one changed item changes one part: an item ends a part when
 * the first four bytes of SHA-256 of its key, big-endian, are below 2^32 / averagePartItems, from
 * minPartItems on, and at maxPartItems in any case. The key is an entry's name, or a part's id in text.
 */
import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'
import { hashId } from './hash.ts'
import type { HashAlgorithm, Id } from './id.ts'
import { Problem } from './problem.ts'
import { check, DirectoryObject, type DirectoryPart, type Entry, FileObject, type Part } from './schema.ts'

export const listParameters = { minPartItems: 256, averagePartItems: 1024, maxPartItems: 4096 } as const

/** An object ready to be stored: a chunk. */
export interface EncodedObject {
  readonly id: Id
  readonly bytes: Buffer
}

// -- names ------------------------------------------------------------------------------------------

/** The fields that hold a name: `name` when the bytes are UTF-8, `name64` otherwise. */
export function encodeName(bytes: Buffer): { name: string } | { name64: string } {
  return isUtf8(bytes) ? { name: bytes.toString('utf8') } : { name64: bytes.toString('base64') }
}

/** The bytes of an entry's name. Empty when the entry has none (then it is invalid). */
export function nameBytes(entry: { name?: string; name64?: string }): Buffer {
  return entry.name === undefined
    ? Buffer.from(entry.name64 ?? '', 'base64')
    : Buffer.from(entry.name, 'utf8')
}

/** The fields that hold a symlink's target. */
export function encodeTarget(bytes: Buffer): { target: string } | { target64: string } {
  return isUtf8(bytes) ? { target: bytes.toString('utf8') } : { target64: bytes.toString('base64') }
}

/** The bytes of a symlink's target. */
export function targetBytes(entry: { target?: string; target64?: string }): Buffer {
  return entry.target === undefined
    ? Buffer.from(entry.target64 ?? '', 'base64')
    : Buffer.from(entry.target, 'utf8')
}

/** Why these bytes cannot be a name in a directory, or undefined when they can. */
export function nameFault(bytes: Buffer): string | undefined {
  if (bytes.length === 0) return 'a name is empty'
  if (bytes.includes(0x2f)) return 'a name holds a slash'
  if (bytes.includes(0)) return 'a name holds NUL'
  if (bytes.length <= 2 && bytes.every((byte) => byte === 0x2e)) return `a name is "${bytes}"`
  return undefined
}

// -- encoding ---------------------------------------------------------------------------------------

function encodeObject(object: FileObject | DirectoryObject, algorithm: HashAlgorithm): EncodedObject {
  const bytes = Buffer.from(JSON.stringify(object), 'utf8')
  return { id: hashId(bytes, algorithm), bytes }
}

/** The file object of these parts. `digest` is the id of the whole content, for the outermost one. */
export function encodeFileObject(
  parts: Part[],
  digest: Id | undefined,
  algorithm: HashAlgorithm = 'blake3',
): EncodedObject {
  const size = parts.reduce((sum, part) => sum + part.size, 0)
  return encodeObject({ type: 'file', size, ...(digest === undefined ? {} : { digest }), parts }, algorithm)
}

/** The directory object of these entries, which must be in order. */
export function encodeDirectoryObject(entries: Entry[], algorithm: HashAlgorithm = 'blake3'): EncodedObject {
  return encodeObject({ type: 'directory', entries }, algorithm)
}

/** The directory object of these parts. */
export function encodeDirectoryParts(
  parts: DirectoryPart[],
  algorithm: HashAlgorithm = 'blake3',
): EncodedObject {
  return encodeObject({ type: 'directory', parts }, algorithm)
}

/** Whether an item with this key ends its part. `position` counts the items of the part with this one. */
export function endsPart(key: Buffer | string, position: number): boolean {
  if (position < listParameters.minPartItems) return false
  if (position >= listParameters.maxPartItems) return true
  const word = createHash('sha256').update(key).digest().readUInt32BE(0)
  return word < 2 ** 32 / listParameters.averagePartItems
}

// -- decoding ---------------------------------------------------------------------------------------

function parseBytes(bytes: Buffer): unknown {
  // Decoding would put U+FFFD in place of what is not UTF-8: another name than the one that was sent.
  if (!isUtf8(bytes)) throw invalid('the object is not UTF-8')
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    throw invalid(`the object is no JSON: ${(cause as SyntaxError).message}`, cause)
  }
}

function invalid(detail: string, cause?: unknown): Problem {
  return new Problem('invalid-object', detail, { cause })
}

/** A file object from its bytes; Problem `invalid-object` otherwise. */
export function decodeFileObject(bytes: Buffer): FileObject {
  const object = check(FileObject, parseBytes(bytes), 'invalid-object')
  const sum = object.parts.reduce((total, part) => total + part.size, 0)
  if (sum !== object.size) throw invalid(`the parts hold ${sum} bytes, the file says ${object.size}`)
  return object
}

/** A directory object from its bytes; Problem `invalid-object` otherwise. */
export function decodeDirectoryObject(bytes: Buffer): DirectoryObject {
  const object = check(DirectoryObject, parseBytes(bytes), 'invalid-object') as DirectoryObject
  if ('entries' in object) checkEntries(object.entries)
  return object
}

function checkEntries(entries: Entry[]): void {
  let previous: Buffer | undefined
  for (const entry of entries) {
    const name = checkText(entry.name, entry.name64, 'name')
    const fault = nameFault(name)
    if (fault !== undefined) throw invalid(fault)
    if (previous !== undefined && Buffer.compare(previous, name) >= 0) {
      throw invalid(`"${name}" stands out of order, or twice`)
    }
    if (entry.kind === 'symlink') {
      const target = checkText(entry.target, entry.target64, 'target')
      if (target.includes(0)) throw invalid(`the target of "${name}" holds NUL`)
    }
    previous = name
  }
}

function checkText(text: string | undefined, base64: string | undefined, field: string): Buffer {
  if ((text === undefined) === (base64 === undefined))
    throw invalid(`an entry needs either ${field} or ${field}64`)
  if (text !== undefined) {
    if (!text.isWellFormed()) throw invalid(`a ${field} is no Unicode text; use ${field}64`)
    return Buffer.from(text, 'utf8')
  }
  const bytes = Buffer.from(base64 as string, 'base64')
  if (bytes.toString('base64') !== base64) throw invalid(`a ${field}64 is no canonical base64`)
  if (isUtf8(bytes)) throw invalid(`a ${field}64 holds UTF-8; use ${field}`)
  return bytes
}

/** The ids that an object refers to directly, and what stands behind each. */
export interface Reference {
  readonly id: Id
  readonly as: 'chunk' | 'file' | 'directory'
  /** Plain bytes of a chunk, where the object says so. */
  readonly size?: number
}

/** What a file object refers to, in order. */
export function referencesOfFile(object: FileObject): Reference[] {
  return object.parts.map((part) => ({ id: part.id, as: part.chunked ? 'file' : 'chunk', size: part.size }))
}

/** What a directory object refers to, in order. */
export function referencesOfDirectory(object: DirectoryObject): Reference[] {
  if ('parts' in object) return object.parts.map((part) => ({ id: part.id, as: 'directory' }))
  const references: Reference[] = []
  for (const entry of object.entries) {
    if (entry.kind === 'file') {
      references.push({ id: entry.id, as: entry.chunked ? 'file' : 'chunk', size: entry.size })
    } else if (entry.kind === 'directory') {
      references.push({ id: entry.id, as: 'directory' })
    }
  }
  return references
}
