/**
 * The live tree of one vault and its trash, as far as they have more than any WebDAV client knows. All methods
 * may run at once; each rejects with a Problem: the receiver's own, `locked` when somebody holds a lock,
 * `transport-failed` after the retries, `protocol-violation`, `cancelled`.
 */
import type { Schema } from '../protocol/json-schema.ts'
import { isProblem, Problem } from '../protocol/problem.ts'
import * as schema from '../protocol/schema.ts'
import { paths } from '../protocol/url.ts'
import { type IncomingAnswer, type OutgoingRequest, Transport, type TransportOptions } from './http.ts'
import { refusalOf } from './receiver-refusal.ts'
import { foreignServerText } from './transport-problem.ts'
import type { VaultLocation } from './vault-url.ts'

/** A path below `tree/`; each name as bytes. */
export type TreeNames = readonly Buffer[]

export interface TreeCallOptions {
  readonly signal?: AbortSignal | undefined
}

/** A freeze reads what has changed, and its commit walks all that the tree reaches. */
const freezeAnswerMs = 3_600_000

export class TreeClient {
  readonly location: VaultLocation
  readonly #transport: Transport

  /** Opens no connection yet. */
  constructor(location: VaultLocation, options: TransportOptions = {}) {
    this.location = location
    const headers = { ...location.headers, ...options.headers }
    const refusal = refusalOf(location)
    const { origin, socketPath, certificate } = location
    this.#transport = new Transport(origin, { refusal, socketPath, certificate, ...options, headers })
  }

  /** Ends connections and whatever is under way. Idempotent. */
  close(): Promise<void> {
    return this.#transport.close()
  }

  /**
   * Commits a `dir` checkpoint of a collection, filed under `source` (default: `tree`, or `tree-a-b` for tree/a/b).
   * On return it survives a power cut. A retry after a lost answer may commit another, of the same root. Problems
   * `not-found`, `method-not-allowed` for a file, `missing-chunks` (extension `paths`) when content is gone.
   */
  freeze(names: TreeNames, options: TreeCallOptions & { source?: string | undefined } = {}) {
    const { source, signal } = options
    // Without a slash at its end, so that a file is told from nothing.
    const path = paths.tree(this.location.vault, names)
    const question: schema.FreezeRequest = { freeze: source === undefined ? {} : { source } }
    const headers = { 'content-type': 'application/json' }
    const body = [Buffer.from(JSON.stringify(question))]
    const request = { method: 'POST', path, headers, body, signal, answerMs: freezeAnswerMs }
    return this.#json(schema.CheckpointState, request)
  }

  /** What is in the trash, oldest first. */
  async trash({ signal }: TreeCallOptions = {}): Promise<schema.TrashItem[]> {
    const headers = { accept: 'application/json' }
    const request = { method: 'GET', path: paths.trash(this.location.vault), headers, signal }
    return (await this.#json(schema.TrashList, request)).items
  }

  /**
   * Moves the thing called `name` out of an item of the trash to `to`, where nothing is. Durable on return. Problems
   * `precondition-failed` when something is there, `conflict` when the collection that it would be in is not,
   * `not-found` when the item has no such thing (any more), `locked`.
   */
  async restore(item: number, name: Buffer, to: TreeNames, { signal }: TreeCallOptions = {}): Promise<void> {
    const { vault } = this.location
    // A path alone: what stands between may call the receiver otherwise than we do.
    const headers = { destination: paths.tree(vault, to), overwrite: 'F' }
    await this.#send({ method: 'MOVE', path: paths.trashItem(vault, item, [name]), headers, signal })
  }

  /** Makes an empty collection; false when something is there. Problems `conflict` as above, `locked`. */
  async makeCollection(names: TreeNames, { signal }: TreeCallOptions = {}): Promise<boolean> {
    const path = asCollection(paths.tree(this.location.vault, names))
    return await this.#unless('method-not-allowed', { method: 'MKCOL', path, signal })
  }

  /** Removes an item of the trash for good; false when there is none (any more). Durable on return. */
  async purge(item: number, { signal }: TreeCallOptions = {}): Promise<boolean> {
    const path = paths.trashItem(this.location.vault, item)
    return await this.#unless('not-found', { method: 'DELETE', path, signal })
  }

  async #unless(code: 'method-not-allowed' | 'not-found', request: OutgoingRequest): Promise<boolean> {
    try {
      await this.#send(request)
      return true
    } catch (error) {
      if (isProblem(error, code)) return false
      throw error
    }
  }

  async #json<S extends Schema>(of: S, request: OutgoingRequest) {
    const { status, headers, body } = await this.#send(request)
    if (String(headers['content-type'] ?? '').startsWith('text/html')) {
      throw new Problem('protocol-violation', foreignServerText(this.location.origin, status))
    }
    return schema.parseJson(of, body.toString('utf8'), 'protocol-violation')
  }

  async #send(request: OutgoingRequest): Promise<IncomingAnswer<Buffer>> {
    try {
      return await this.#transport.request(request)
    } catch (cause) {
      // Told in XML, as RFC 4918 has it.
      if (!isProblem(cause) || cause.extensions.status !== 423) throw cause
      throw new Problem('locked', 'somebody has locked it; try again later', { cause })
    }
  }
}

function asCollection(path: string): string {
  return path.endsWith('/') ? path : `${path}/`
}
