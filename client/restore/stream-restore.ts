/** A checkpoint, or one file of it, as a stream of bytes: for pipes. */
import { once } from 'node:events'
import { nameBytes } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { CheckpointState, FileEntry } from '../../protocol/schema.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { cancelledBy } from '../transport-problem.ts'
import { ChunkReader } from './chunk-reader.ts'
import { IncludeFilter } from './include-filter.ts'
import { ObjectReader } from './object-reader.ts'
import { orderedChunks } from './ordered-chunks.ts'

type Chunk = { id: FileEntry['id']; size: number }

/** The chunks of a `chunks` checkpoint in order. */
export async function* streamChunks(
  client: ReceiverClient,
  checkpoint: CheckpointState,
  objects: ObjectReader,
  signal: AbortSignal | undefined,
): AsyncIterable<Chunk> {
  for await (const item of client.items(checkpoint, { signal })) yield* objects.chunksOf(item)
}

/**
 * Writes the content to `output` and waits while it is full; does not end it. The checkpoint is one stream,
 * or `include` must leave exactly one regular file (Problem `usage` otherwise). Every chunk is verified before
 * a byte of it goes out; a chunk that is not to be had rejects. Returns the bytes written.
 */
export async function restoreStream(options: {
  client: ReceiverClient
  checkpoint: CheckpointState
  include?: readonly Buffer[]
  output: NodeJS.WritableStream
  onProgress?: (bytesDone: number) => void
  signal?: AbortSignal | undefined
}): Promise<number> {
  const { client, checkpoint, output, signal } = options
  const objects = new ObjectReader(client, signal)
  const chunks =
    checkpoint.root === undefined
      ? streamChunks(client, checkpoint, objects, signal)
      : objects.chunksOf(await onlyFile(objects, checkpoint.root, IncludeFilter.of(options.include ?? [])))
  let bytesDone = 0
  for await (const batch of orderedChunks(wanted(chunks), new ChunkReader(client), signal)) {
    for (const { fetch } of batch.items) {
      if (signal?.aborted) throw cancelledBy(signal)
      const bytes = batch.chunks.get(fetch.id)
      if (bytes === undefined || bytes instanceof Problem)
        throw bytes ?? new TypeError('a chunk was not fetched')
      if (bytes.length !== fetch.size) {
        throw new Problem('invalid-object', `chunk ${fetch.id} has ${bytes.length} bytes, not ${fetch.size}`)
      }
      if (!output.write(bytes)) await once(output, 'drain', signal === undefined ? {} : { signal })
      bytesDone += bytes.length
      options.onProgress?.(bytesDone)
    }
  }
  return bytesDone
}

async function* wanted(chunks: AsyncIterable<Chunk>): AsyncIterable<{ fetch: Chunk }> {
  for await (const chunk of chunks) yield { fetch: chunk }
}

/** The one regular file that the filter leaves of a tree. */
async function onlyFile(
  objects: ObjectReader,
  root: FileEntry['id'],
  filter: IncludeFilter,
): Promise<FileEntry> {
  const found: FileEntry[] = []
  const visit = async (id: FileEntry['id'], within: IncludeFilter): Promise<void> => {
    for await (const page of objects.pages(id)) {
      for (const entry of page) {
        const inside = within.within(nameBytes(entry), entry.kind === 'directory')
        if (inside === undefined || found.length > 1) continue
        if (entry.kind === 'directory') await visit(entry.id, inside)
        else if (entry.kind === 'file') found.push(entry)
      }
    }
  }
  await visit(root, filter)
  const [file, second] = found
  if (file !== undefined && second === undefined) return file
  const what = file === undefined ? 'no regular file is' : 'more than one file is'
  throw new Problem('usage', `${what} selected; only one can go to standard output, name it with --include`)
}
