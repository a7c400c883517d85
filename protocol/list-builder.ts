/**
 * Builds file and directory objects from lists of any length in bounded memory: a list is cut by content
 * into parts, the parts' list again, and so on (protocol/objects.ts). At most one unfinished part of each
 * level is held.
 */

import type { Id } from './id.ts'
import {
  type EncodedObject,
  encodeDirectoryObject,
  encodeDirectoryParts,
  encodeFileObject,
  endsPart,
  nameBytes,
} from './objects.ts'
import type { DirectoryPart, Entry, Part } from './schema.ts'

/** Objects that became final, which must be stored; the outermost one is last. */
export interface BuiltList<R> {
  readonly objects: EncodedObject[]
  readonly reference: R
}

/** Parts of a file, in order. */
export class FileListBuilder {
  readonly #levels: Part[][] = [[]]

  /** Takes a chunk (or, for lists of lists, a file object); returns the inner objects that are final now. */
  add(part: Part): EncodedObject[] {
    const objects: EncodedObject[] = []
    this.#push(0, part, objects)
    return objects
  }

  #push(level: number, part: Part, objects: EncodedObject[]): void {
    const parts = this.#levels[level] ?? []
    this.#levels[level] = parts
    parts.push(part)
    if (endsPart(part.id, parts.length)) this.#close(level, objects)
  }

  #close(level: number, objects: EncodedObject[]): void {
    const parts = this.#levels[level] as Part[]
    this.#levels[level] = []
    const object = encodeFileObject(parts, undefined)
    objects.push(object)
    this.#push(level + 1, { id: object.id, size: sizeOf(parts), chunked: true }, objects)
  }

  /** The whole list. `digest` is the id of the content, when the list is a file's. TypeError when nothing was added. */
  finish(digest?: Id): BuiltList<Part> {
    const objects: EncodedObject[] = []
    for (let level = 0; level < this.#levels.length - 1; level++) {
      if ((this.#levels[level] as Part[]).length > 0) this.#close(level, objects)
    }
    const parts = this.#levels.at(-1) as Part[]
    if (parts.length === 0) throw new TypeError('a list needs at least one part')
    const object = encodeFileObject(parts, digest)
    objects.push(object)
    return { objects, reference: { id: object.id, size: sizeOf(parts), chunked: true } }
  }
}

function sizeOf(parts: readonly Part[]): number {
  return parts.reduce((sum, part) => sum + part.size, 0)
}

/** Entries of a directory, in the order of their names' bytes. */
export class DirectoryListBuilder {
  #entries: Entry[] = []
  readonly #levels: DirectoryPart[][] = []

  /** Takes the next entry; returns the parts that are final now. */
  add(entry: Entry): EncodedObject[] {
    const objects: EncodedObject[] = []
    this.#entries.push(entry)
    if (endsPart(nameBytes(entry), this.#entries.length)) this.#closeEntries(objects)
    return objects
  }

  #closeEntries(objects: EncodedObject[]): void {
    const entries = this.#entries
    this.#entries = []
    const object = encodeDirectoryObject(entries)
    objects.push(object)
    this.#push(0, { id: object.id, entries: entries.length }, objects)
  }

  #push(level: number, part: DirectoryPart, objects: EncodedObject[]): void {
    const parts = this.#levels[level] ?? []
    this.#levels[level] = parts
    parts.push(part)
    if (endsPart(part.id, parts.length)) this.#close(level, objects)
  }

  #close(level: number, objects: EncodedObject[]): void {
    const parts = this.#levels[level] as DirectoryPart[]
    this.#levels[level] = []
    const object = encodeDirectoryParts(parts)
    objects.push(object)
    const entries = parts.reduce((sum, part) => sum + part.entries, 0)
    this.#push(level + 1, { id: object.id, entries }, objects)
  }

  /** The whole directory, which may be empty. */
  finish(): BuiltList<Id> {
    const objects: EncodedObject[] = []
    if (this.#levels.length === 0) {
      objects.push(encodeDirectoryObject(this.#entries))
    } else {
      if (this.#entries.length > 0) this.#closeEntries(objects)
      for (let level = 0; level < this.#levels.length - 1; level++) {
        if ((this.#levels[level] as DirectoryPart[]).length > 0) this.#close(level, objects)
      }
      objects.push(encodeDirectoryParts(this.#levels.at(-1) as DirectoryPart[]))
    }
    return { objects, reference: (objects.at(-1) as EncodedObject).id }
  }
}
