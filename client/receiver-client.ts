/**
 * The protocol as methods: one for every request that a receiver understands, bound to one vault.
 * All of them may run at once; connections are shared. Each rejects with a Problem: the receiver's own,
 * `transport-failed` after the retries, `protocol-violation` when an answer does not fit its schema,
 * `cancelled` as soon as the signal aborts. Nothing here hashes what comes in, except objects: chunks
 * are verified by those who read them. The file is long because the list of requests is; it has no depth.
 */
import { type Block, batchMediaType, type OutgoingBlock } from '../protocol/block.ts'
import { hashId } from '../protocol/hash.ts'
import { algorithmOf, type Id } from '../protocol/id.ts'
import type { Schema, Static } from '../protocol/json-schema.ts'
import { type Limits, limits } from '../protocol/limits.ts'
import { decodeDirectoryObject, decodeFileObject } from '../protocol/objects.ts'
import { isProblem, Problem } from '../protocol/problem.ts'
import * as schema from '../protocol/schema.ts'
import {
  baseHeader,
  type CheckpointName,
  checkpointHeader,
  formatCheckpointName,
  mediaTypes,
  paths,
} from '../protocol/url.ts'
import { decompress } from '../protocol/zstd.ts'
import { readBlocks } from './block-stream.ts'
import type { TransportCounters, TransportOptions } from './http.ts'
import { type IncomingAnswer, type OutgoingRequest, Transport } from './http.ts'
import { refusalOf } from './receiver-refusal.ts'
import { foreignServerText } from './transport-problem.ts'
import type { VaultLocation } from './vault-url.ts'

/** What every method takes. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined
  /** The open checkpoint in whose name the request is made: what it touches is then safe. */
  readonly checkpoint?: CheckpointName | undefined
}

/** A body that is compressed already. The id names the plain bytes all the same. */
export interface SendOptions extends CallOptions {
  readonly encoding?: 'identity' | 'zstd'
}

/** Bytes `first` to `last`, both included; to the end without `last`. */
export interface ByteRange {
  readonly first: number
  readonly last?: number
}

export interface FetchOptions extends CallOptions {
  /** Where a block of so many bytes goes; by default a buffer of its own. */
  readonly room?: (bytes: number) => Promise<Buffer>
}

export interface ReadOptions extends CallOptions {
  readonly range?: ByteRange
}

type JsonPatch = readonly { readonly op: string; readonly path: string; readonly [field: string]: unknown }[]

/** A commit walks all that the root reaches: on a slow disk that takes a while. */
const commitAnswerMs = 3_600_000

/** A receiver's vault over HTTP. */
export class ReceiverClient {
  readonly location: VaultLocation
  readonly #transport: Transport
  #limits: Limits = limits

  /** Opens no connection yet. */
  constructor(location: VaultLocation, options: TransportOptions = {}) {
    this.location = location
    const headers = { ...location.headers, ...options.headers }
    const refusal = refusalOf(location)
    const { origin, socketPath, certificate } = location
    this.#transport = new Transport(origin, { refusal, socketPath, certificate, ...options, headers })
  }

  get vault(): string {
    return this.location.vault
  }

  get counters(): Readonly<TransportCounters> {
    return this.#transport.counters
  }

  /** Ends connections and whatever is under way. Idempotent. */
  close(): Promise<void> {
    return this.#transport.close()
  }

  // -- the receiver and the vault -----------------------------------------------------------------

  /** Resolves when the receiver is up. */
  health(options: CallOptions = {}): Promise<schema.Health> {
    return this.#json(schema.Health, { method: 'GET', path: '/-/health' }, options)
  }

  /** The names of the receiver's vaults. */
  async listVaults(options: CallOptions = {}): Promise<string[]> {
    const request = { method: 'GET', path: '/', headers: { accept: 'application/json' } }
    return (await this.#json(schema.VaultList, request, options)).vaults
  }

  /** Creates the vault; false when it is there already. */
  async createVault(options: CallOptions = {}): Promise<boolean> {
    try {
      await this.#send({ method: 'MKCOL', path: paths.vault(this.vault) }, options)
      return true
    } catch (error) {
      if (isProblem(error, 'vault-exists')) return false
      throw error
    }
  }

  /** What the receiver can do. Its limits hold for this client's splitting from then on. */
  async capabilities(options: CallOptions = {}): Promise<schema.Capabilities> {
    const request = { method: 'GET', path: paths.vault(this.vault), headers: { accept: 'application/json' } }
    const stated = await this.#json(schema.Capabilities, request, options)
    const known = Object.entries(limits).map(([name, own]) => [name, stated.limits[name] ?? own])
    this.#limits = Object.fromEntries(known)
    return stated
  }

  /** The headers of OPTIONS at `path`, or at the vault: Allow, Accept-Patch, DAV, …, in lower case. */
  async options(path = paths.vault(this.vault), options: CallOptions = {}): Promise<Record<string, string>> {
    const { headers } = await this.#send({ method: 'OPTIONS', path }, options)
    return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]))
  }

  // -- chunks ---------------------------------------------------------------------------------------

  /** Stores one chunk: verified and written on return, durable after a commit. */
  putChunk(id: Id, bytes: Uint8Array, options: SendOptions = {}): Promise<schema.PutAnswer> {
    const path = paths.chunk(this.vault, id)
    const headers = { 'content-type': mediaTypes.chunk, ...encodingHeader(options) }
    return this.#json(schema.PutAnswer, { method: 'PUT', path, headers, body: [bytes] }, options)
  }

  /**
   * The plain bytes of a chunk, or of a range of it. Problem `chunk-not-found`, `chunk-corrupt`, or
   * `range-not-satisfiable`. Not hashed.
   */
  async getChunk(id: Id, options: ReadOptions = {}): Promise<Buffer> {
    const path = paths.chunk(this.vault, id)
    const { range } = options
    const headers = range === undefined ? { 'accept-encoding': 'zstd' } : rangeHeader(range)
    const answer = await this.#send({ method: 'GET', path, headers }, options)
    if (range !== undefined && answer.status !== 206) return cutOut(answer.body, range)
    if (answer.headers['content-encoding'] !== 'zstd') return answer.body
    return decompress(answer.body, { maxBytes: limits.maxChunkBytes })
  }

  /** The plain length of a chunk; undefined when the receiver has not got it. Reads the index alone. */
  async headChunk(id: Id, options: CallOptions = {}): Promise<{ bytes: number } | undefined> {
    try {
      const { headers } = await this.#send({ method: 'HEAD', path: paths.chunk(this.vault, id) }, options)
      const bytes = Number(headers['content-length'])
      if (Number.isSafeInteger(bytes)) return { bytes }
    } catch (error) {
      if (!isProblem(error)) throw error
      // An answer to HEAD has no body that could name the code: ask for the vault to tell the two apart.
      if (error.extensions.status !== 404) throw error
      await this.capabilities(options)
      return undefined
    }
    throw new Problem('protocol-violation', `the receiver does not tell the length of ${id}`)
  }

  /** Creates chunk `id` from `base` by a zstd frame that has the base as its dictionary. Problem `base-not-found`. */
  patchChunk(id: Id, base: Id, delta: Uint8Array, options: CallOptions = {}): Promise<schema.PutAnswer> {
    const path = paths.chunk(this.vault, id)
    const headers = { 'content-type': mediaTypes.delta, [baseHeader]: base }
    return this.#json(schema.PutAnswer, { method: 'PATCH', path, headers, body: [delta] }, options)
  }

  /** Sends blocks in one request, at most `maxBatchBytes` of them. One outcome per chunk, in order. */
  async putBatch(
    blocks: readonly (Block | OutgoingBlock)[],
    options: CallOptions = {},
  ): Promise<schema.BatchAnswer> {
    const path = paths.chunks(this.vault)
    const headers = { 'content-type': batchMediaType }
    const body = blocks.flatMap((block) => ('pieces' in block ? block.pieces : [block.bytes]))
    const answer = await this.#json(
      schema.BatchAnswer,
      { method: 'POST', path, headers, body, answerMs: commitAnswerMs },
      options,
    )
    const chunks = blocks.reduce((sum, block) => sum + chunksIn(block), 0)
    if (answer.outcomes.length === chunks) return answer
    throw new Problem(
      'protocol-violation',
      `${answer.outcomes.length} outcomes came for a batch of ${chunks} chunks`,
    )
  }

  /** Which of these the receiver lacks, in order, each once. Any number of ids: asked in as many requests as it takes. */
  async missing(ids: Iterable<Id>, options: CallOptions = {}): Promise<Id[]> {
    const missing: Id[] = []
    const path = paths.missing(this.vault)
    for (const group of groupsOf(new Set(ids), this.#limits.maxMissingIds)) {
      const request = { method: 'POST', path, ...jsonBody({ ids: group } satisfies schema.MissingRequest) }
      missing.push(...(await this.#json(schema.MissingAnswer, request, options)).missing)
    }
    return missing
  }

  /**
   * The blocks that hold these chunks, as they arrive; they may hold others too. What the receiver has not
   * got, or has damaged, is left out: `getChunk` tells why. Any number of ids, duplicates are asked once.
   * One block is in memory at a time, where `room` says, and the consumer sets the pace. A connection that breaks is
   * taken up again with what is still wanted. Not hashed.
   */
  async *fetch(ids: Iterable<Id>, options: FetchOptions = {}): AsyncIterable<Block> {
    for (const group of groupsOf(new Set(ids), this.#limits.maxFetchIds)) {
      yield* this.#fetchGroup(new Set(group), options)
    }
  }

  async *#fetchGroup(wanted: Set<Id>, options: FetchOptions): AsyncIterable<Block> {
    const path = paths.fetch(this.vault)
    for (let fruitless = 0; ; ) {
      const request = {
        method: 'POST',
        path,
        ...jsonBody({ ids: [...wanted] } satisfies schema.FetchRequest),
      }
      const { body } = await this.#stream(request, options)
      try {
        for await (const block of readBlocks(body, options.room)) {
          for (const row of block.header.rows) wanted.delete(row.id)
          fruitless = 0
          yield block
        }
        return
      } catch (error) {
        if (!isProblem(error, 'transport-failed') || ++fruitless > maxFruitless) throw error
        if (wanted.size === 0) return
      }
    }
  }

  // -- file objects ---------------------------------------------------------------------------------

  /** Stores a file object; tells what of its direct references is not here whole. */
  putFile(id: Id, bytes: Uint8Array, options: SendOptions = {}): Promise<schema.ObjectAnswer> {
    return this.#putObject(paths.file(this.vault, id), mediaTypes.file, bytes, options)
  }

  /** A file object, hashed and checked. Problem `not-found` when it is none, or not here. */
  async getFile(id: Id, options: CallOptions = {}): Promise<schema.FileObject> {
    return decodeFileObject(await this.#getObject(paths.file(this.vault, id), mediaTypes.file, id, options))
  }

  /** Creates file object `id` from `base` by a JSON Patch (RFC 6902). */
  patchFile(id: Id, base: Id, patch: JsonPatch, options: CallOptions = {}): Promise<schema.ObjectAnswer> {
    return this.#patchObject(paths.file(this.vault, id), base, patch, options)
  }

  /**
   * The content of a chunked file, or of a range of it, as it arrives; the consumer sets the pace. A
   * connection that breaks is taken up again where it stopped. Not hashed.
   */
  async *fileContent(id: Id, options: ReadOptions = {}): AsyncIterable<Buffer> {
    const path = paths.file(this.vault, id)
    const start = options.range?.first ?? 0
    let received = 0
    for (let fruitless = 0; ; ) {
      const range = { ...options.range, first: start + received }
      const partial = options.range !== undefined || received > 0
      const headers = { accept: mediaTypes.chunk, ...(partial ? rangeHeader(range) : {}) }
      const { status, body } = await this.#stream({ method: 'GET', path, headers }, options)
      if (partial && status !== 206) throw new Problem('protocol-violation', 'the receiver ignores ranges')
      try {
        for await (const piece of body) {
          received += piece.length
          fruitless = 0
          yield piece
        }
        return
      } catch (error) {
        if (!isProblem(error, 'transport-failed') || ++fruitless > maxFruitless) throw error
      }
    }
  }

  // -- directory objects ----------------------------------------------------------------------------

  /** Stores a directory object; tells what of its direct references is not here whole. */
  putDirectory(id: Id, bytes: Uint8Array, options: SendOptions = {}): Promise<schema.ObjectAnswer> {
    return this.#putObject(paths.directory(this.vault, id), mediaTypes.directory, bytes, options)
  }

  /** A directory object, hashed and checked. Problem `not-found` when it is none, or not here. */
  async getDirectory(id: Id, options: CallOptions = {}): Promise<schema.DirectoryObject> {
    const path = paths.directory(this.vault, id)
    return decodeDirectoryObject(await this.#getObject(path, mediaTypes.directory, id, options))
  }

  /** Creates directory object `id` from `base` by a JSON Patch (RFC 6902). */
  patchDirectory(
    id: Id,
    base: Id,
    patch: JsonPatch,
    options: CallOptions = {},
  ): Promise<schema.ObjectAnswer> {
    return this.#patchObject(paths.directory(this.vault, id), base, patch, options)
  }

  /** The DAV listing of a directory, or of a path below it: the XML of the 207 answer. */
  async propfindDirectory(
    id: Id,
    options: CallOptions & { depth?: 0 | 1; path?: readonly string[]; body?: string } = {},
  ): Promise<string> {
    const below = (options.path ?? []).map((name) => `/${encodeURIComponent(name)}`).join('')
    return this.propfind(paths.directory(this.vault, id) + below, options)
  }

  /** PROPFIND at any path of the receiver: the XML of the 207 answer. */
  async propfind(
    path: string,
    options: CallOptions & { depth?: 0 | 1; body?: string } = {},
  ): Promise<string> {
    const headers = { depth: String(options.depth ?? 0), 'content-type': 'application/xml; charset=utf-8' }
    const body = options.body === undefined ? {} : { body: [Buffer.from(options.body)] }
    return (await this.#send({ method: 'PROPFIND', path, headers, ...body }, options)).body.toString('utf8')
  }

  // -- checkpoints ----------------------------------------------------------------------------------

  /** The names of the sources that have checkpoints in this vault. */
  async sources(options: CallOptions = {}): Promise<string[]> {
    const request = { method: 'GET', path: paths.sources(this.vault) }
    return (await this.#json(schema.SourceList, request, options)).sources
  }

  /** Opens a checkpoint; the receiver numbers it. A retry after a lost answer may leave an empty open one behind. */
  openCheckpoint(
    source: string,
    request: schema.OpenRequest,
    options: CallOptions = {},
  ): Promise<schema.CheckpointState> {
    const path = paths.source(this.vault, source)
    return this.#json(schema.CheckpointState, { method: 'POST', path, ...jsonBody(request) }, options)
  }

  /** The checkpoints of a source, ascending, open ones among them. */
  async listCheckpoints(source: string, options: CallOptions = {}): Promise<schema.CheckpointState[]> {
    const request = { method: 'GET', path: paths.source(this.vault, source) }
    return (await this.#json(schema.CheckpointList, request, options)).checkpoints
  }

  /** One checkpoint. For an open one also what is missing: below `root` when it is a `dir`. */
  getCheckpoint(
    name: CheckpointName,
    options: CallOptions & { root?: Id } = {},
  ): Promise<schema.CheckpointState> {
    const query = options.root === undefined ? '' : `?root=${encodeURIComponent(options.root)}`
    const path = paths.checkpoint(this.vault, name) + query
    return this.#json(schema.CheckpointState, { method: 'GET', path }, options)
  }

  /** Appends items at position `first`; repeating what stands there is harmless. At most `maxPageItems`. */
  addItems(
    name: CheckpointName,
    first: number,
    items: readonly schema.Part[],
    options: CallOptions = {},
  ): Promise<schema.ItemsAnswer> {
    const path = paths.items(this.vault, name)
    const request = { method: 'POST', path, ...jsonBody({ first, items }) }
    return this.#json(schema.ItemsAnswer, request, options)
  }

  /** One page of a `chunks` checkpoint's items, from position `first` on. */
  itemsPage(
    name: CheckpointName,
    first: number,
    options: CallOptions & { limit?: number } = {},
  ): Promise<schema.ItemsPage> {
    const limit = options.limit === undefined ? '' : `&limit=${options.limit}`
    const path = `${paths.items(this.vault, name)}?first=${first}${limit}`
    return this.#json(schema.ItemsPage, { method: 'GET', path }, options)
  }

  /** All items of a `chunks` checkpoint in order, a page in memory at a time. */
  async *items(name: CheckpointName, options: CallOptions = {}): AsyncIterable<schema.Part> {
    for (let first: number | undefined = 0; first !== undefined; ) {
      const page: schema.ItemsPage = await this.itemsPage(name, first, options)
      yield* page.items
      if (page.next !== undefined && page.next <= first) {
        throw new Problem('protocol-violation', `the items' pages do not go forward behind ${first}`)
      }
      first = page.next
    }
  }

  /**
   * Verifies, makes durable, publishes. On return it survives a power cut. Problem `missing-chunks` with
   * extensions `missing: MissingChunk[]` when something is not here; the checkpoint then stays open.
   */
  commitCheckpoint(
    name: CheckpointName,
    request: schema.CommitRequest,
    options: CallOptions = {},
  ): Promise<schema.CheckpointState> {
    const path = paths.commit(this.vault, name)
    const outgoing = { method: 'POST', path, ...jsonBody(request), answerMs: commitAnswerMs }
    return this.#json(schema.CheckpointState, outgoing, options)
  }

  /** Deletes a checkpoint, durably; false when it is not there. */
  async removeCheckpoint(name: CheckpointName, options: CallOptions = {}): Promise<boolean> {
    try {
      await this.#send({ method: 'DELETE', path: paths.checkpoint(this.vault, name) }, options)
      return true
    } catch (error) {
      if (isProblem(error, 'checkpoint-not-found')) return false
      throw error
    }
  }

  /** Pins a committed checkpoint, durably: nobody deletes it then. */
  pinCheckpoint(name: CheckpointName, options: CallOptions = {}): Promise<schema.CheckpointState> {
    return this.#json(schema.CheckpointState, { method: 'PUT', path: paths.pin(this.vault, name) }, options)
  }

  /** Takes the pin off again, durably, when there is one. */
  async unpinCheckpoint(name: CheckpointName, options: CallOptions = {}): Promise<void> {
    await this.#send({ method: 'DELETE', path: paths.pin(this.vault, name) }, options)
  }

  // -- retention ------------------------------------------------------------------------------------

  /** The vault's policies and quota. The ETag is for `putSettings`. */
  async settings(options: CallOptions = {}): Promise<{ settings: schema.VaultSettings; etag: string }> {
    const { headers, body } = await this.#send({ method: 'GET', path: paths.settings(this.vault) }, options)
    const settings = schema.parseJson(schema.VaultSettings, body.toString('utf8'), 'protocol-violation')
    return { settings, etag: String(headers.etag ?? '*') }
  }

  /** Replaces them, durably. Problem `precondition-failed` when they are not those of the ETag any more. */
  putSettings(
    settings: schema.VaultSettings,
    etag: string,
    options: CallOptions = {},
  ): Promise<schema.VaultSettings> {
    const { headers, body } = jsonBody(settings)
    const request = { method: 'PUT', path: paths.settings(this.vault), body }
    return this.#json(
      schema.VaultSettings,
      { ...request, headers: { ...headers, 'if-match': etag } },
      options,
    )
  }

  /** Removes what the policies do not keep, or tells what that would be. */
  prune(request: schema.PruneRequest, options: CallOptions = {}): Promise<schema.PruneAnswer> {
    const path = paths.prune(this.vault)
    const outgoing = { method: 'POST', path, ...jsonBody(request), answerMs: commitAnswerMs }
    return this.#json(schema.PruneAnswer, outgoing, options)
  }

  /** How the garbage collection stands. */
  collectionState(options: CallOptions = {}): Promise<schema.CollectionState> {
    return this.#json(schema.CollectionState, { method: 'GET', path: paths.collection(this.vault) }, options)
  }

  /** Begins a garbage collection, or joins the one that runs. */
  startCollection(
    request: schema.CollectionRequest = {},
    options: CallOptions = {},
  ): Promise<schema.CollectionState> {
    return this.#json(
      schema.CollectionState,
      { method: 'POST', path: paths.collection(this.vault), ...jsonBody(request) },
      options,
    )
  }

  /** Stops the garbage collection that runs. */
  async stopCollection(options: CallOptions = {}): Promise<void> {
    await this.#send({ method: 'DELETE', path: paths.collection(this.vault) }, options)
  }

  /** How far the receiver's check of everything stored is, and what the last one found. */
  scrubState(options: CallOptions = {}): Promise<schema.ScrubState> {
    return this.#json(schema.ScrubState, { method: 'GET', path: paths.scrub(this.vault) }, options)
  }

  /** Makes the receiver check everything stored, or joins such a check. Returns when it has begun. */
  beginScrub(options: CallOptions = {}): Promise<schema.ScrubState> {
    return this.#json(schema.ScrubState, { method: 'POST', path: paths.scrub(this.vault) }, options)
  }

  /** Stops it. */
  async stopScrub(options: CallOptions = {}): Promise<void> {
    await this.#send({ method: 'DELETE', path: paths.scrub(this.vault) }, options)
  }

  // -- how requests are made ------------------------------------------------------------------------

  #putObject(path: string, type: string, bytes: Uint8Array, options: SendOptions) {
    const headers = { 'content-type': type, ...encodingHeader(options) }
    return this.#json(schema.ObjectAnswer, { method: 'PUT', path, headers, body: [bytes] }, options)
  }

  #patchObject(path: string, base: Id, patch: JsonPatch, options: CallOptions) {
    const headers = { 'content-type': mediaTypes.jsonPatch, [baseHeader]: base }
    const body = [Buffer.from(JSON.stringify(patch))]
    return this.#json(schema.ObjectAnswer, { method: 'PATCH', path, headers, body }, options)
  }

  async #getObject(path: string, type: string, id: Id, options: CallOptions): Promise<Buffer> {
    const { body } = await this.#send({ method: 'GET', path, headers: { accept: type } }, options)
    const actual = hashId(body, algorithmOf(id))
    if (actual === id) return body
    throw new Problem('digest-mismatch', `what came as ${id} hashes to ${actual}`, {
      extensions: { id, actual },
    })
  }

  async #json<S extends Schema>(of: S, request: OutgoingRequest, options: CallOptions): Promise<Static<S>> {
    const { status, headers, body } = await this.#send(request, options)
    if (String(headers['content-type'] ?? '').startsWith('text/html')) {
      throw new Problem('protocol-violation', foreignServerText(this.location.origin, status))
    }
    return schema.parseJson(of, body.toString('utf8'), 'protocol-violation')
  }

  #send(request: OutgoingRequest, options: CallOptions): Promise<IncomingAnswer<Buffer>> {
    return this.#transport.request(withOptions(request, options))
  }

  #stream(request: OutgoingRequest, options: CallOptions): Promise<IncomingAnswer<AsyncIterable<Buffer>>> {
    return this.#transport.stream(withOptions(request, options))
  }
}

/** Streams that break this often in a row, without a byte of use between, are given up. */
const maxFruitless = 5

function withOptions(request: OutgoingRequest, { signal, checkpoint }: CallOptions): OutgoingRequest {
  if (checkpoint === undefined) return { ...request, signal }
  const headers = { ...request.headers, [checkpointHeader]: formatCheckpointName(checkpoint) }
  return { ...request, headers, signal }
}

function jsonBody(value: unknown) {
  return { headers: { 'content-type': 'application/json' }, body: [Buffer.from(JSON.stringify(value))] }
}

function encodingHeader({ encoding }: SendOptions): Record<string, string> {
  return encoding === 'zstd' ? { 'content-encoding': 'zstd' } : {}
}

function rangeHeader({ first, last }: ByteRange): Record<string, string> {
  return { range: `bytes=${first}-${last ?? ''}` }
}

function cutOut(bytes: Buffer, { first, last }: ByteRange): Buffer {
  return bytes.subarray(first, last === undefined ? bytes.length : last + 1)
}

function* groupsOf(ids: Set<Id>, size: number): Iterable<Id[]> {
  let group: Id[] = []
  for (const id of ids) {
    group.push(id)
    if (group.length < size) continue
    yield group
    group = []
  }
  if (group.length > 0) yield group
}

function chunksIn(block: Block | OutgoingBlock): number {
  return 'pieces' in block ? block.chunks : block.header.rows.length
}
