/** The tree of a checkpoint, read as it is needed: directories page by page, files chunk by chunk. */
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { decodeDirectoryObject, decodeFileObject, nameBytes } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, Entry, Part } from '../../protocol/schema.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { KeptObjects, type Soon } from './kept-objects.ts'

export class ObjectReader {
  readonly #objects: KeptObjects

  constructor(client: ReceiverClient, signal?: AbortSignal) {
    this.#objects = new KeptObjects(client, signal)
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
    const object = await this.#objects.get(id, soon)
    if (object instanceof Problem) throw object
    return object
  }

  /** Ends what is fetched ahead. Idempotent. */
  close(): Promise<void> {
    return this.#objects.close()
  }
}

const none: Soon = { ids: () => [], below: false }

function tooLong(id: Id, bytes: number): Problem {
  return new Problem('invalid-object', `chunk ${id} is said to have ${bytes} bytes`)
}

function compareNames(left: Entry, right: Entry): number {
  return Buffer.compare(nameBytes(left), nameBytes(right))
}
