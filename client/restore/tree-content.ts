/** A backup's tree and content as restore reads them, wherever they come from. */
import type { Block } from '../../protocol/block.ts'
import { hashInSlices } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import type { CheckpointState, Entry, FileEntry } from '../../protocol/schema.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { type ChunkOrProblem, ChunkReader } from './chunk-reader.ts'
import type { Soon } from './kept-objects.ts'
import { ObjectReader } from './object-reader.ts'
import { readAt } from './part-file.ts'

/** A stretch of content that is fetched as one: of a file here, or a chunk of any. */
export interface Piece {
  /** Pieces of the same id have the same bytes. */
  readonly id: string
  readonly size: number
}

/** A directory's entries, page by page. A walk that goes down where it meets a directory may be all that there is. */
export interface TreePages {
  /** The entries of a directory in order. Throws the Problem of what cannot be read. */
  pages(id: Id, soon?: Soon): AsyncIterable<readonly Entry[]>
  /** The entry of this name in a directory, if there is one. Throws as `pages` does. */
  entryOf(directory: Id, name: Buffer): Promise<Entry | undefined>
}

export interface TreeContent extends TreePages {
  /** The piece that is all of a file that was just told; undefined where that cannot be told, or there are several. */
  onlyPieceOf(entry: FileEntry): Piece | undefined

  /** The pieces of a file that was just told, in order. */
  piecesOf(entry: FileEntry, soon?: Soon): AsyncIterable<Piece>

  /** These pieces, verified where a piece can be; each stands as its bytes, or as its Problem. Holds all in memory. */
  read(pieces: readonly Piece[], signal: AbortSignal | undefined): Promise<Map<string, ChunkOrProblem>>

  /**
   * The blocks that hold these pieces, where content comes in blocks, each in a buffer from `room`. They may hold other
   * pieces too; what cannot be had is left out. Nothing is verified.
   */
  blocks?(
    pieces: readonly Piece[],
    room: (bytes: number) => Promise<Buffer>,
    signal: AbortSignal | undefined,
  ): AsyncIterable<Block>

  /** What the whole file must hash to, where that says more than its pieces do. */
  digestOf(entry: FileEntry, soon?: Soon): Promise<Id | undefined>

  /** Whether an open file at the destination has this very content. */
  isIn(fd: number, entry: FileEntry, soon?: Soon): Promise<boolean>

  /** Whether an open file has this piece at `offset`; false where that cannot be told. */
  hasPiece(fd: number, offset: number, piece: Piece): Promise<boolean>

  /** Ends what is fetched ahead, and frees what it holds on this machine. Idempotent. */
  close(): Promise<void>
}

/** A receiver's: every piece is a chunk. */
export class ReceiverContent implements TreeContent {
  readonly #client: ReceiverClient
  readonly #objects: ObjectReader
  readonly #chunks: ChunkReader

  constructor(client: ReceiverClient, signal?: AbortSignal) {
    this.#client = client
    this.#objects = new ObjectReader(client, signal)
    this.#chunks = new ChunkReader(client)
  }

  /** The chunks of a `chunks` checkpoint in order. */
  async *itemPieces(checkpoint: CheckpointState, signal: AbortSignal | undefined): AsyncGenerator<Piece> {
    for await (const item of this.#client.items(checkpoint, { signal })) yield* this.#objects.chunksOf(item)
  }

  pages(id: Id, soon?: Soon): AsyncIterable<readonly Entry[]> {
    return this.#objects.pages(id, soon)
  }

  entryOf(directory: Id, name: Buffer): Promise<Entry | undefined> {
    return this.#objects.entryOf(directory, name)
  }

  onlyPieceOf({ id, size, chunked }: FileEntry): Piece | undefined {
    return chunked || size > limits.maxChunkBytes ? undefined : { id, size }
  }

  piecesOf(entry: FileEntry, soon?: Soon): AsyncIterable<Piece> {
    return this.#objects.chunksOf(entry, soon)
  }

  read(pieces: readonly Piece[], signal: AbortSignal | undefined): Promise<Map<string, ChunkOrProblem>> {
    return this.#chunks.read(
      pieces.map(({ id }) => id as Id),
      { signal },
    )
  }

  blocks(
    pieces: readonly Piece[],
    room: (bytes: number) => Promise<Buffer>,
    signal: AbortSignal | undefined,
  ): AsyncIterable<Block> {
    return this.#client.fetch(
      pieces.map(({ id }) => id as Id),
      { room, signal },
    )
  }

  async digestOf(entry: FileEntry, soon?: Soon): Promise<Id | undefined> {
    return entry.chunked ? this.#objects.digestOf(entry.id, soon) : undefined
  }

  async isIn(fd: number, entry: FileEntry, soon?: Soon): Promise<boolean> {
    let offset = 0
    for await (const chunk of this.#objects.chunksOf(entry, soon)) {
      if (!(await this.hasPiece(fd, offset, chunk))) return false
      offset += chunk.size
    }
    return true
  }

  async hasPiece(fd: number, offset: number, { id, size }: Piece): Promise<boolean> {
    const bytes = await readAt(fd, offset, size)
    return bytes.length === size && (await hashInSlices(bytes, id as Id)) === id
  }

  close(): Promise<void> {
    return this.#objects.close()
  }
}
