import type { Id } from '../../protocol/id.ts'
import { nameBytes } from '../../protocol/objects.ts'
import type { DirectoryObject, DirectoryPart, FileObject } from '../../protocol/schema.ts'
import { invalid, type Wanted } from './wanted.ts'

/** What an object amounts to with all its parts: what those who have it for a part must know of it. */
export interface ListSummary {
  /** Levels of parts below it: 0 for a directory of entries, 1 for a file of chunks. */
  readonly height: number
  /** Bytes of a file. */
  readonly size: number
  /** Entries of a directory, and the first and last of their names: a character per byte, which keeps their order. */
  readonly entries: number
  readonly first?: string
  readonly last?: string
}

/** What a summary and its key take in memory, about. */
export function summaryBytes({ first = '', last = '' }: ListSummary): number {
  return 300 + first.length + last.length
}

/**
 * The summary of an object from those of the objects that are its parts; undefined when one of these is
 * not known. Problem `invalid-object` when parts do not have the entries that they are said to have, or
 * the order of names does not run on from part to part.
 */
export function summarize(
  wanted: Wanted,
  object: FileObject | DirectoryObject,
  partOf: (id: Id) => ListSummary | undefined,
): ListSummary | undefined {
  if (object.type === 'file') return summarizeFile(object, partOf)
  if ('parts' in object) return summarizeParts(wanted, object.parts, partOf)
  const { entries } = object
  const [first, last] = [entries[0], entries.at(-1)].map(
    (entry) => entry && nameBytes(entry).toString('latin1'),
  )
  const ends = first === undefined || last === undefined ? {} : { first, last }
  return { height: 0, size: 0, entries: entries.length, ...ends }
}

function summarizeFile(
  { size, parts }: FileObject,
  partOf: (id: Id) => ListSummary | undefined,
): ListSummary | undefined {
  let height = 1
  for (const { id, chunked } of parts) {
    if (chunked !== true) continue
    const part = partOf(id)
    if (part === undefined) return undefined
    height = Math.max(height, 1 + part.height)
  }
  return { height, size, entries: 0 }
}

function summarizeParts(
  wanted: Wanted,
  parts: readonly DirectoryPart[],
  partOf: (id: Id) => ListSummary | undefined,
): ListSummary | undefined {
  let height = 1
  let entries = 0
  let first: string | undefined
  let last: string | undefined
  for (const { id, entries: stated } of parts) {
    const part = partOf(id)
    if (part === undefined) return undefined
    if (part.entries !== stated) {
      throw invalid(wanted, `part ${id} has ${part.entries} entries, what refers to it says ${stated}`)
    }
    if (last !== undefined && part.first !== undefined && part.first <= last) {
      throw invalid(wanted, `the names of part ${id} stand out of order, or twice`)
    }
    height = Math.max(height, 1 + part.height)
    entries += part.entries
    first ??= part.first
    last = part.last ?? last
  }
  return { height, size: 0, entries, ...(first !== undefined && last !== undefined && { first, last }) }
}
