/**
 * From a list of wanted chunks (or pieces of files) to their bytes, in the order of the list, several requests
 * in flight.
 *
 *     list → batches of about 8 MiB → fetch and verify, three at once → one batch after the other
 *
 * A chunk that a batch wants twice is fetched once. The list is read only as far ahead as that, so memory
 * is bounded by (inFlight + 1) batches whatever the list's length.
 */
import { cancelledBy } from '../transport-problem.ts'
import type { ChunkOrProblem } from './chunk-reader.ts'
import type { Piece, TreeContent } from './tree-content.ts'

/** Something that may want a chunk; without `fetch` it only keeps its place in the order. */
export interface Wanting {
  readonly fetch?: Piece | undefined
}

export interface ReadyBatch<W extends Wanting> {
  readonly items: readonly W[]
  readonly chunks: ReadonlyMap<string, ChunkOrProblem>
}

const batchBytes = 8 * 1024 * 1024
const maxBatchItems = 4000
const inFlight = 3

/** Leaves the list, and requests under way, behind it when it ends early. */
export async function* orderedChunks<W extends Wanting>(
  list: AsyncIterable<W>,
  content: Pick<TreeContent, 'read'>,
  signal: AbortSignal | undefined,
): AsyncIterable<ReadyBatch<W>> {
  const stop = new AbortController()
  const either = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal])
  const batches = batchesOf(list, either)[Symbol.asyncIterator]()
  const ready: Promise<ReadyBatch<W>>[] = []
  let ended = false
  try {
    for (;;) {
      while (!ended && ready.length < inFlight) {
        const next = await batches.next()
        if (next.done) ended = true
        else ready.push(start(next.value, content, either))
      }
      const first = ready.shift()
      if (first === undefined) return
      yield await first
    }
  } finally {
    stop.abort()
    await Promise.allSettled(ready)
    await batches.return?.(undefined)
  }
}

function start<W extends Wanting>(
  items: W[],
  content: Pick<TreeContent, 'read'>,
  signal: AbortSignal,
): Promise<ReadyBatch<W>> {
  const pieces = items.flatMap(({ fetch }) => (fetch === undefined ? [] : [fetch]))
  const batch = content.read(pieces, signal).then((chunks) => ({ items, chunks }))
  // It may fail long before its turn comes; whoever awaits it then still gets the error.
  batch.catch(() => {})
  return batch
}

async function* batchesOf<W extends Wanting>(
  list: AsyncIterable<W>,
  signal: AbortSignal,
): AsyncGenerator<W[]> {
  let items: W[] = []
  let bytes = 0
  for await (const item of list) {
    if (signal.aborted) throw cancelledBy(signal)
    items.push(item)
    bytes += item.fetch?.size ?? 0
    if (bytes < batchBytes && items.length < maxBatchItems) continue
    yield items
    items = []
    bytes = 0
  }
  if (items.length > 0) yield items
}
