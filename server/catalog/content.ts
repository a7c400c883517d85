/** The content of a file, read back from its chunks. */
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { Problem } from '../../protocol/problem.ts'
import type { Part } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { readObject } from './objects.ts'
import { takeTurn } from './turn.ts'

/**
 * The bytes from `start` to `end` (exclusive) of what `part` stands for, chunk by chunk, in order; one
 * chunk is in memory at a time, and lists that lie outside are not read. A chunk that is absent ends it with
 * Problem `chunk-not-found`, a damaged one with `chunk-corrupt`, an aborted `signal` with `unavailable`.
 */
export async function* readContent(
  reader: ChunkReader,
  part: Part,
  range: { start: number; end: number } = { start: 0, end: part.size },
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  interface Level {
    readonly parts: readonly Part[]
    next: number
  }
  const levels: Level[] = [{ parts: [part], next: 0 }]
  let position = 0
  while (position < range.end) {
    const level = levels.at(-1)
    if (level === undefined) return
    const current = level.parts[level.next]
    if (current === undefined) {
      levels.pop()
      continue
    }
    level.next++
    const end = position + current.size
    // Parts of no bytes have nothing to give, however much is below them.
    if (end <= range.start || current.size === 0) {
      position = end
    } else if (current.chunked === true) {
      if (levels.length > limits.maxPartDepth) throw new Problem('invalid-object', 'parts nest too deep')
      await takeTurn(signal)
      const object = await readObject(reader, 'file', current.id)
      if (object.size !== current.size) throw wrongSize(current.id, object.size, current.size)
      levels.push({ parts: object.parts, next: 0 })
    } else {
      const bytes = await readChunk(reader, current)
      yield bytes.subarray(Math.max(0, range.start - position), Math.min(bytes.length, range.end - position))
      position = end
    }
  }
}

async function readChunk(reader: ChunkReader, { id, size }: Part): Promise<Buffer> {
  const bytes = await reader.get(id)
  if (bytes === undefined) {
    throw new Problem(
      'chunk-not-found',
      `chunk ${id} of the file is not here, or was found damaged; sending it again brings it back`,
      { extensions: { id } },
    )
  }
  if (bytes.length !== size) throw wrongSize(id, bytes.length, size)
  return bytes
}

function wrongSize(id: Id, actual: number, stated: number): Problem {
  return new Problem('invalid-object', `${id} has ${actual} bytes, what refers to it says ${stated}`, {
    extensions: { id },
  })
}
