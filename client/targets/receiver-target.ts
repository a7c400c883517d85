/** What the two targets of a chunkdav receiver have in common; they differ in the form of the checkpoint. */
import { decodeBlock, type PlainChunk, sliceRow } from '../../protocol/block.ts'
import { hashInSlices } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CheckpointState, CommitRequest, MissingChunk, Part } from '../../protocol/schema.ts'
import type {
  BegunCheckpoint,
  CommitOutcome,
  PutCount,
  Target,
  TargetCapabilities,
  TargetCounters,
} from '../engine/target.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { noVaultText } from '../receiver-refusal.ts'
import { Uploader, type UploaderOptions } from './uploader.ts'

export abstract class ReceiverTarget implements Target {
  abstract readonly capabilities: TargetCapabilities
  protected readonly client: ReceiverClient
  readonly #source: string
  readonly #options: UploaderOptions
  readonly #cancel = new AbortController()
  #begun: { number: number; uploader: Uploader } | undefined

  /** The client stays the caller's until `close`, which closes it. */
  protected constructor(client: ReceiverClient, source: string, options: UploaderOptions) {
    this.client = client
    this.#source = source
    this.#options = options
  }

  get counters(): TargetCounters {
    const { bytesSent, requests } = this.client.counters
    return { bytesSent, requests, bytesStored: this.#begun?.uploader.bytesStored ?? 0 }
  }

  /** The open checkpoint; TypeError before `begin`. */
  protected get checkpoint(): { source: string; number: number } {
    if (this.#begun === undefined) throw new TypeError('begin comes first')
    return { source: this.#source, number: this.#begun.number }
  }

  async begin(resume: number | undefined, about: Readonly<Record<string, string>>): Promise<BegunCheckpoint> {
    // At once: each takes a way to the receiver and back.
    const [known] = await Promise.all([this.#known(), this.#ensureVault()])
    const base = known.findLast((checkpoint) => checkpoint.state === 'committed')
    const { form: kind } = this.capabilities
    const old = known.find((checkpoint) => checkpoint.number === resume && checkpoint.state === 'open')
    const resumed = old !== undefined && old.kind === kind && (old.items ?? 0) === 0
    const { number } = resumed ? old : await this.client.openCheckpoint(this.#source, { kind, about })
    if (old !== undefined && !resumed) {
      await this.client.removeCheckpoint({ source: this.#source, number: old.number })
    }
    const uploader = new Uploader(this.client, { source: this.#source, number }, this.#options)
    this.#begun = { number, uploader }
    return { number, resumed, base }
  }

  async #ensureVault(): Promise<void> {
    try {
      await this.client.capabilities()
    } catch (error) {
      if (!isProblem(error, 'vault-not-found')) throw error
      await this.#createVault()
      await this.client.capabilities()
    }
  }

  async #createVault(): Promise<void> {
    try {
      await this.client.createVault()
    } catch (cause) {
      if (!isProblem(cause, 'forbidden')) throw cause
      const text = `${noVaultText(this.client.location)}; only whoever has the right admin on that vault's name, or on every vault (*), makes one: ask whoever runs the receiver`
      throw new Problem('forbidden', text, { extensions: cause.extensions, cause })
    }
  }

  async #known(): Promise<CheckpointState[]> {
    try {
      return await this.client.listCheckpoints(this.#source)
    } catch (error) {
      const isNew = isProblem(error, 'vault-not-found') || isProblem(error, 'checkpoint-not-found')
      if (isNew || isProblem(error, 'not-found')) return []
      throw error
    }
  }

  async put(chunks: readonly PlainChunk[]): Promise<PutCount> {
    if (this.#begun === undefined) throw new TypeError('begin comes first')
    return this.#begun.uploader.put(chunks)
  }

  abstract addItems(first: number, items: readonly Part[]): Promise<void>

  async *read(ids: readonly Id[], signal: AbortSignal = this.#cancel.signal): AsyncIterable<PlainChunk> {
    // A block may hold chunks that come later in `ids`: they wait here, at most one group of them.
    for (let first = 0; first < ids.length; first += limits.maxFetchIds) {
      const group = ids.slice(first, first + limits.maxFetchIds)
      const arrived = new Map<Id, Buffer>()
      const wanted = new Set(group)
      for await (const block of this.client.fetch(wanted, { signal })) {
        const plain = await decodeBlock(block)
        for (const row of block.header.rows) {
          if (wanted.has(row.id)) arrived.set(row.id, await hashed(row.id, sliceRow(plain, row)))
        }
      }
      for (const id of group) {
        const bytes = arrived.get(id) ?? (await hashed(id, await this.client.getChunk(id, { signal })))
        yield { id, bytes }
      }
    }
  }

  async commit(request: CommitRequest): Promise<CommitOutcome> {
    try {
      return { committed: await this.client.commitCheckpoint(this.checkpoint, request) }
    } catch (error) {
      if (!isProblem(error, 'missing-chunks')) throw error
      return { missing: (error.extensions.missing ?? []) as MissingChunk[] }
    }
  }

  async close(): Promise<void> {
    this.#cancel.abort()
    await this.#begun?.uploader.close()
    await this.client.close()
  }
}

async function hashed(id: Id, bytes: Buffer): Promise<Buffer> {
  if ((await hashInSlices(bytes, id)) === id) return bytes
  throw new Problem('digest-mismatch', `the receiver sent other bytes for ${id}`, { extensions: { id } })
}
