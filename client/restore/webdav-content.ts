/**
 * A backup on a WebDAV server, read from its manifest. The tree comes in one pass, each directory before what
 * is in it: that is the order in which a restore walks, so the manifest is read once from front to end, and
 * nothing of it is kept. Asking for the root again starts over; asking for any other directory than the one
 * that was told last is a TypeError.
 *
 * A file of up to `pieceBytes` is one piece, hashed as it comes. A larger one comes in ranges, and is hashed as a
 * whole by whoever writes it.
 */
import { Semaphore } from 'async-mutex'
import { createHasher, hashInSlices } from '../../protocol/hash.ts'
import { algorithmOf, type Id, idOfDigest } from '../../protocol/id.ts'
import { nameBytes } from '../../protocol/objects.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CheckpointState, Entry, FileEntry } from '../../protocol/schema.ts'
import { committedFolder, type WebDavBackups } from '../targets/webdav-backups.ts'
import type { FetchedManifest, ManifestEntry } from '../targets/webdav-manifest.ts'
import type { ChunkOrProblem } from './chunk-reader.ts'
import { readAt } from './part-file.ts'
import type { Piece, TreeContent } from './tree-content.ts'

const pieceBytes = 4 * 1024 * 1024
const requestsInFlight = 6

/** A stretch of a file on the server. */
interface FilePiece extends Piece {
  /** Percent-encoded, below the location's folder. */
  readonly path: string
  readonly offset: number
  readonly fileSize: number
  /** What it must hash to, when it is the whole file. */
  readonly digest: Id | undefined
}

export class WebDavContent implements TreeContent {
  readonly #backups: WebDavBackups
  readonly #manifest: FetchedManifest
  readonly #root: Id
  readonly #files: string
  readonly #turns = new Semaphore(requestsInFlight)
  #walk: AsyncGenerator<ManifestEntry, void, undefined> | undefined
  /** The entry that the walk has come to, and the last one that it told. */
  #ahead: ManifestEntry | undefined
  #told: { path: Buffer; id: Id | undefined } | undefined
  /** Where files that were told are stored. */
  readonly #stored = new WeakMap<Entry, string>()

  private constructor(backups: WebDavBackups, manifest: FetchedManifest, state: CheckpointState, root: Id) {
    this.#backups = backups
    this.#manifest = manifest
    this.#root = root
    this.#files = `${committedFolder(state.source, state.number)}files/`
  }

  /** Fetches the manifest. Problem `checkpoint-not-found` when there is none. */
  static async open(
    backups: WebDavBackups,
    state: CheckpointState,
    signal?: AbortSignal,
  ): Promise<WebDavContent> {
    const manifest = await backups.manifest(state.source, state.number, signal)
    try {
      const { root } = await manifest.head()
      if (root === undefined) throw new Problem('invalid-object', 'the manifest tells no root')
      return new WebDavContent(backups, manifest, state, root)
    } catch (error) {
      await manifest.close()
      throw error
    }
  }

  async *pages(id: Id): AsyncGenerator<readonly Entry[], void, undefined> {
    if (id === this.#root) await this.#startOver()
    const directory = this.#told
    if (directory?.id !== id) throw new TypeError('directories are told where the walk meets them')
    for (;;) {
      const next = await this.#peek()
      if (next === undefined || !isBelow(next.path, directory.path)) return
      this.#ahead = undefined
      // Nobody has gone into a directory that was told here before: what is in it is passed over.
      if (next.path.indexOf(0x2f, directory.path.length === 0 ? 0 : directory.path.length + 1) >= 0) continue
      const { entry, path, stored } = next
      this.#told = { path, id: entry.kind === 'directory' ? entry.id : undefined }
      if (entry.kind === 'file') this.#stored.set(entry, this.#files + stored)
      yield [entry]
    }
  }

  async entryOf(directory: Id, name: Buffer): Promise<Entry | undefined> {
    for await (const page of this.pages(directory)) {
      for (const entry of page) if (nameBytes(entry).equals(name)) return entry
    }
    return undefined
  }

  async #startOver(): Promise<void> {
    await this.#walk?.return()
    this.#walk = this.#manifest.entries()
    this.#ahead = undefined
    this.#told = { path: Buffer.alloc(0), id: this.#root }
  }

  async #peek(): Promise<ManifestEntry | undefined> {
    if (this.#ahead === undefined) {
      const { value, done } = (await this.#walk?.next()) ?? { done: true, value: undefined }
      if (done !== true) this.#ahead = value as ManifestEntry
    }
    return this.#ahead
  }

  onlyPieceOf(entry: FileEntry): FilePiece | undefined {
    const { id, size } = entry
    if (size > pieceBytes) return undefined
    return { id, size, path: this.#pathOf(entry), offset: 0, fileSize: size, digest: id }
  }

  #pathOf(entry: FileEntry): string {
    const path = this.#stored.get(entry)
    if (path === undefined) throw new TypeError('a file is read that was not told')
    return path
  }

  async *piecesOf(entry: FileEntry): AsyncGenerator<FilePiece, void, undefined> {
    const only = this.onlyPieceOf(entry)
    if (only !== undefined) {
      yield only
      return
    }
    const path = this.#pathOf(entry)
    for (let offset = 0; offset < entry.size; offset += pieceBytes) {
      const size = Math.min(pieceBytes, entry.size - offset)
      yield { id: `${entry.id} ${offset}`, size, path, offset, fileSize: entry.size, digest: undefined }
    }
  }

  async read(
    pieces: readonly Piece[],
    signal: AbortSignal | undefined,
  ): Promise<Map<string, ChunkOrProblem>> {
    const found = new Map<string, Promise<ChunkOrProblem>>()
    for (const piece of pieces as readonly FilePiece[]) {
      if (found.has(piece.id)) continue
      found.set(
        piece.id,
        this.#turns.runExclusive(() => this.#readPiece(piece, signal)),
      )
    }
    const settled = await Promise.allSettled(found.values())
    const failed = settled.find((end) => end.status === 'rejected')
    if (failed !== undefined) throw failed.reason
    const bytes = settled.map((end) => (end as PromiseFulfilledResult<ChunkOrProblem>).value)
    return new Map([...found.keys()].map((id, index) => [id, bytes[index] as ChunkOrProblem]))
  }

  /** A file that the server does not give is that file's problem. */
  async #readPiece(piece: FilePiece, signal: AbortSignal | undefined): Promise<ChunkOrProblem> {
    const { size, path, digest } = piece
    try {
      const bytes = size === 0 ? Buffer.alloc(0) : await this.#fetch(piece, signal)
      if (bytes.length !== size) return damaged(path, 'has another length there than when it was backed up')
      if (digest === undefined || (await hashInSlices(bytes, digest)) === digest) return bytes
      return damaged(path, 'is not what was backed up')
    } catch (error) {
      const status = isProblem(error) ? error.extensions.status : undefined
      if (typeof status !== 'number' || status >= 500 || status === 401) throw error
      return new Problem('not-found', `the server does not give ${path} (status ${status})`, { cause: error })
    }
  }

  #fetch({ path, offset, size, fileSize }: FilePiece, signal: AbortSignal | undefined): Promise<Buffer> {
    const stretch = size === fileSize ? undefined : { first: offset, bytes: size }
    return this.#backups.client.read(path, { maxBytes: size, stretch, signal })
  }

  /** The whole file was hashed piece by piece already, when it is one. */
  async digestOf({ id, size }: FileEntry): Promise<Id | undefined> {
    return size <= pieceBytes ? undefined : id
  }

  async isIn(fd: number, { id, size }: FileEntry): Promise<boolean> {
    const hasher = createHasher(algorithmOf(id))
    for (let offset = 0; offset < size; offset += pieceBytes) {
      hasher.update(await readAt(fd, offset, Math.min(pieceBytes, size - offset)))
    }
    return idOfDigest(algorithmOf(id), hasher.digest()) === id
  }

  async hasPiece(): Promise<boolean> {
    return false
  }

  async close(): Promise<void> {
    await this.#walk?.return()
    await this.#manifest.close()
  }
}

function isBelow(path: Buffer, directory: Buffer): boolean {
  if (directory.length === 0) return true
  return path[directory.length] === 0x2f && path.subarray(0, directory.length).equals(directory)
}

function damaged(path: string, what: string): Problem {
  return new Problem('digest-mismatch', `${path} ${what}`)
}
