/** What the items of a `chunks` checkpoint hold, one after the other. */
import { limits } from '../../protocol/limits.ts'
import type { CheckpointState } from '../../protocol/schema.ts'
import type { Checkpoints } from './checkpoints.ts'
import type { ChunkReader } from './chunk-reader.ts'
import { readContent } from './content.ts'

/** The bytes from `start` to `end` (exclusive); the same problems as `readContent`, and `checkpoint-not-found`. */
export async function* readItemContent(
  reader: ChunkReader,
  checkpoints: Checkpoints,
  { source, number, items: total = 0 }: CheckpointState,
  { start, end }: { start: number; end: number },
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  let position = 0
  for (let first = 0; first < total && position < end; ) {
    const { items } = await checkpoints.items({ source, number }, first, limits.maxPageItems)
    if (items.length === 0) return
    for (const item of items) {
      const range = { start: Math.max(0, start - position), end: Math.min(item.size, end - position) }
      if (range.start < range.end) yield* readContent(reader, item, range, signal)
      position += item.size
    }
    first += items.length
  }
}
