/** A checkpoint, or one file of it, as a stream of bytes: for pipes. */
import { once } from 'node:events'
import { createHasher, type Hasher } from '../../protocol/hash.ts'
import { algorithmOf, type Id, idOfDigest } from '../../protocol/id.ts'
import { nameBytes } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { CheckpointState, FileEntry } from '../../protocol/schema.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import type { WebDavBackups } from '../targets/webdav-backups.ts'
import { cancelledBy } from '../transport-problem.ts'
import { IncludeFilter } from './include-filter.ts'
import { openContent } from './open-content.ts'
import { orderedChunks } from './ordered-chunks.ts'
import type { Piece, ReceiverContent, TreeContent, TreePages } from './tree-content.ts'

/**
 * Writes the content to `output` and waits while it is full; does not end it. The checkpoint is one stream,
 * or `include` must leave exactly one regular file (Problem `usage` otherwise). Every chunk of a receiver's is
 * verified before a byte of it goes out; a large file of a WebDAV server when all of it has. What is not to be
 * had, or is not what it should be, rejects. Returns the bytes written.
 */
export async function restoreStream(options: {
  client: ReceiverClient | WebDavBackups
  checkpoint: CheckpointState
  include?: readonly Buffer[]
  output: NodeJS.WritableStream
  onProgress?: (bytesDone: number) => void
  signal?: AbortSignal | undefined
}): Promise<number> {
  const { client, checkpoint, signal } = options
  const content = await openContent(client, checkpoint, signal)
  try {
    return await writeContent(content, options)
  } finally {
    await content.close()
  }
}

async function writeContent(
  content: TreeContent,
  { checkpoint, include = [], output, onProgress, signal }: Parameters<typeof restoreStream>[0],
): Promise<number> {
  const { pieces, digest } =
    checkpoint.root === undefined
      ? { pieces: (content as ReceiverContent).itemPieces(checkpoint, signal), digest: undefined }
      : await ofFile(content, await onlyFile(content, checkpoint.root, IncludeFilter.of(include)))
  const hasher = digest === undefined ? undefined : createHasher(algorithmOf(digest))
  let bytesDone = 0
  for await (const batch of orderedChunks(wanted(pieces), content, signal)) {
    for (const { fetch } of batch.items) {
      if (signal?.aborted) throw cancelledBy(signal)
      const bytes = batch.chunks.get(fetch.id)
      if (bytes === undefined || bytes instanceof Problem)
        throw bytes ?? new TypeError('a chunk was not fetched')
      if (bytes.length !== fetch.size) {
        throw new Problem('invalid-object', `chunk ${fetch.id} has ${bytes.length} bytes, not ${fetch.size}`)
      }
      hasher?.update(bytes)
      if (!output.write(bytes)) await once(output, 'drain', signal === undefined ? {} : { signal })
      bytesDone += bytes.length
      onProgress?.(bytesDone)
    }
  }
  if (hasher !== undefined && digest !== undefined) checkWhole(hasher, digest)
  return bytesDone
}

async function ofFile(content: TreeContent, file: FileEntry) {
  return { pieces: content.piecesOf(file), digest: await content.digestOf(file) }
}

/** What has no hash of its own on the way out is told to be false when it has gone. */
function checkWhole(hasher: Hasher, digest: Id): void {
  const actual = idOfDigest(algorithmOf(digest), hasher.digest())
  if (actual === digest) return
  const text = `what was written hashes to ${actual}, not to ${digest}; it is not what was backed up`
  throw new Problem('digest-mismatch', text, { extensions: { id: digest, actual } })
}

async function* wanted(pieces: AsyncIterable<Piece>): AsyncIterable<{ fetch: Piece }> {
  for await (const piece of pieces) yield { fetch: piece }
}

/** The one regular file that the filter leaves of a tree. */
async function onlyFile(tree: TreePages, root: FileEntry['id'], filter: IncludeFilter): Promise<FileEntry> {
  const found: FileEntry[] = []
  const visit = async (id: FileEntry['id'], within: IncludeFilter): Promise<void> => {
    for await (const page of tree.pages(id)) {
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
