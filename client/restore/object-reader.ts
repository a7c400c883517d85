/**
 * The tree of a checkpoint, read as it is needed. Directory and file objects come many to a request:
 * whoever lists a directory says what it will want next, and whether all that is below; objects that arrive unasked in
 * the same block are kept too. What is kept is bounded; what was dropped is fetched again.
 */
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { decodeDirectoryObject, decodeFileObject, nameBytes } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, Entry, Part } from '../../protocol/schema.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { type ChunkOrProblem, ChunkReader } from './chunk-reader.ts'

const maxKeptBytes = 32 * 1024 * 1024
const maxPrefetchBytes = 8 * 1024 * 1024
const maxPrefetchIds = 2000
const objectStarts = [Buffer.from('{"type":"directory"'), Buffer.from('{"type":"file"')]

export class ObjectReader {
  readonly #chunks: ChunkReader
  readonly #signal: AbortSignal | undefined
  readonly #kept = new LRUCache<Id, ChunkOrProblem>({
    maxSize: maxKeptBytes,
    sizeCalculation: (chunk) => (chunk instanceof Problem ? 1 : chunk.length) + 200,
  })

  constructor(client: ReceiverClient, signal?: AbortSignal) {
    this.#chunks = new ChunkReader(client)
    this.#signal = signal
  }

  /**
   * The entries of a directory in order, a page in memory at a time. `soon` names objects that will be
   * wanted next: they come in the same request when there has to be one. Throws the Problem of the object
   * that cannot be read (`chunk-corrupt`, `chunk-not-found`, `digest-mismatch`, `invalid-object`); pages
   * before it have been yielded.
   */
  async *pages(id: Id, soon: Soon = none): AsyncIterable<readonly Entry[]> {
    let previous: Entry | undefined
    for await (const page of this.#pages(id, 0, soon)) {
      const [first] = page
      if (first !== undefined && previous !== undefined && compareNames(previous, first) >= 0) {
        throw new Problem('invalid-object', `the parts of directory ${id} are out of order`)
      }
      previous = page.at(-1) ?? previous
      yield page
    }
  }

  /** The entry of this name in a directory, if there is one. Throws as `pages` does. */
  async entryOf(directory: Id, name: Buffer): Promise<Entry | undefined> {
    for await (const page of this.pages(directory)) {
      for (const entry of page) if (nameBytes(entry).equals(name)) return entry
    }
    return undefined
  }

  async *#pages(id: Id, depth: number, soon: Soon): AsyncIterable<Entry[]> {
    if (depth > limits.maxPartDepth) throw new Problem('invalid-object', `${id} is nested too deeply`)
    const object: DirectoryObject = decodeDirectoryObject(await this.object(id, soon))
    if ('entries' in object) {
      yield object.entries
      return
    }
    const ids = object.parts.map((part) => part.id)
    const { below } = soon
    for (const [index, part] of object.parts.entries()) {
      let count = 0
      for await (const page of this.#pages(part.id, depth + 1, {
        ids: () => ids.slice(index + 1, index + 5),
        below,
      })) {
        count += page.length
        yield page
      }
      if (count !== part.entries) {
        throw new Problem('invalid-object', `${part.id} holds ${count} entries, not ${part.entries}`)
      }
    }
  }

  /** The chunks of a file in order. A file of one chunk is that chunk. Throws as `pages` does. */
  async *chunksOf(part: Part, soon: Soon = none): AsyncIterable<{ id: Id; size: number }> {
    if (part.chunked) yield* this.#parts(part, 0, soon)
    else if (part.size > limits.maxChunkBytes) throw tooLong(part.id, part.size)
    else yield { id: part.id, size: part.size }
  }

  async *#parts(part: Part, depth: number, soon: Soon): AsyncIterable<{ id: Id; size: number }> {
    if (depth > limits.maxPartDepth) throw new Problem('invalid-object', `${part.id} is nested too deeply`)
    const object = decodeFileObject(await this.object(part.id, soon))
    if (object.size !== part.size) {
      throw new Problem('invalid-object', `${part.id} holds ${object.size} bytes, not ${part.size}`)
    }
    for (const [index, inner] of object.parts.entries()) {
      const after = () =>
        object.parts.slice(index + 1, index + 5).flatMap((next) => (next.chunked ? [next.id] : []))
      if (inner.chunked) yield* this.#parts(inner, depth + 1, { ids: after, below: false })
      else if (inner.size > limits.maxChunkBytes) throw tooLong(inner.id, inner.size)
      else yield { id: inner.id, size: inner.size }
    }
  }

  /** The digest of a chunked file's whole content; undefined when its object does not tell. */
  async digestOf(id: Id, soon: Soon = none): Promise<Id | undefined> {
    return decodeFileObject(await this.object(id, soon)).digest
  }

  /** One object's bytes, verified. */
  async object(id: Id, soon: Soon = none): Promise<Buffer> {
    const kept = this.#kept.get(id) ?? (await this.#fetch(id, soon))
    if (kept instanceof Problem) throw kept
    return kept
  }

  async #fetch(id: Id, soon: Soon): Promise<ChunkOrProblem> {
    let object: ChunkOrProblem | undefined
    let bytes = 0
    for (let wave = this.#notKept([id], soon.ids()); wave.length > 0; ) {
      const found = await this.#chunks.read(wave, {
        signal: this.#signal,
        stopAfterBytes: maxPrefetchBytes,
        wantsNeighbour: (bytes) =>
          objectStarts.some((start) => bytes.subarray(0, start.length).equals(start)),
      })
      for (const [other, chunk] of found) {
        this.#kept.set(other, chunk)
        bytes += chunk instanceof Problem ? 0 : chunk.length
      }
      object ??= found.get(id)
      if (!soon.below || bytes >= maxPrefetchBytes) break
      wave = this.#notKept(wave.flatMap((other) => objectsIn(found.get(other))))
    }
    // When the read stopped before it came, it is asked for alone.
    return object ?? ((await this.#chunks.read([id], { signal: this.#signal })).get(id) as ChunkOrProblem)
  }

  #notKept(...lists: Iterable<Id>[]): Id[] {
    const ids = new Set<Id>()
    for (const list of lists) {
      for (const id of list) {
        if (ids.size === maxPrefetchIds) return [...ids]
        if (!this.#kept.has(id)) ids.add(id)
      }
    }
    return [...ids]
  }
}

/** What will be wanted next. Looked at only when there has to be a request. */
export interface Soon {
  readonly ids: () => Iterable<Id>
  /** And all that is below these, and below what is asked for: it is fetched level by level, up to a bound. */
  readonly below: boolean
}

const none: Soon = { ids: () => [], below: false }

/** The objects that an object refers to. One that cannot be read is told of when it is wanted. */
function objectsIn(object: ChunkOrProblem | undefined): Id[] {
  if (object === undefined || object instanceof Problem) return []
  try {
    const { entries, parts } = JSON.parse(object.toString()) as { entries?: Entry[]; parts?: Part[] }
    const inner = [...(entries ?? []), ...(parts ?? [])] as (Part & { kind?: Entry['kind'] })[]
    return inner.filter(refersToObject).map(({ id }) => id)
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return []
    throw error
  }
}

/** Directories, the parts of one, and lists of chunks: all but content. */
function refersToObject({ kind, chunked, size }: Part & { kind?: Entry['kind'] }): boolean {
  return kind === 'directory' || chunked === true || (kind === undefined && size === undefined)
}

function tooLong(id: Id, bytes: number): Problem {
  return new Problem('invalid-object', `chunk ${id} is said to have ${bytes} bytes`)
}

function compareNames(left: Entry, right: Entry): number {
  return Buffer.compare(nameBytes(left), nameBytes(right))
}
