/**
 * The objects of a tree, mostly there before they are wanted: many come with one request, level by level.
 *
 *     wanted → first wave: it, and what its reader wants next → given out
 *              further waves, behind its back: what those refer to, up to a bound
 *
 * Invariants: one chain of waves at a time; while it runs, who wants what is not here waits for its next wave. What goes
 * wrong in it is told to nobody: what did not come is asked for again by whoever wants it, and he is told.
 */
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import type { Entry, Part } from '../../protocol/schema.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { type ChunkOrProblem, ChunkReader } from './chunk-reader.ts'

/** What will be wanted next. Looked at only when there has to be a request. */
export interface Soon {
  readonly ids: () => Iterable<Id>
  /** And all that is below these, and below what is asked for. */
  readonly below: boolean
}

const maxKeptBytes = 32 * 1024 * 1024
const maxChainBytes = 8 * 1024 * 1024
const maxWaveIds = 2000
const objectStarts = [Buffer.from('{"type":"directory"'), Buffer.from('{"type":"file"')]

export class KeptObjects {
  readonly #chunks: ChunkReader
  readonly #signal: AbortSignal
  readonly #stop = new AbortController()
  readonly #kept = new LRUCache<Id, ChunkOrProblem>({
    maxSize: maxKeptBytes,
    sizeCalculation: (chunk) => (chunk instanceof Problem ? 1 : chunk.length) + 200,
  })
  /** The chain that runs, and the wave of it that is under way. */
  #chain: Promise<void> | undefined
  #wave: Promise<unknown> = Promise.resolve()

  constructor(client: ReceiverClient, signal: AbortSignal | undefined) {
    this.#chunks = new ChunkReader(client)
    const { signal: stop } = this.#stop
    this.#signal = signal === undefined ? stop : AbortSignal.any([signal, stop])
  }

  /** An object's bytes, verified, or why there are none. */
  async get(id: Id, soon: Soon): Promise<ChunkOrProblem> {
    for (;;) {
      const kept = this.#kept.get(id)
      if (kept !== undefined) return kept
      if (this.#chain === undefined) return this.#fetch(id, soon)
      await this.#wave
    }
  }

  /** Ends what is under way ahead. Idempotent. */
  async close(): Promise<void> {
    this.#stop.abort()
    await this.#chain
  }

  async #fetch(id: Id, soon: Soon): Promise<ChunkOrProblem> {
    const ids = new Set([id])
    for (const other of soon.ids()) if (ids.size < maxWaveIds && !this.#kept.has(other)) ids.add(other)
    const found = await this.#read([...ids])
    if (soon.below && this.#chain === undefined) this.#begin([...ids])
    // When the read stopped before it came, it is asked for alone.
    return found.get(id) ?? ((await this.#read([id])).get(id) as ChunkOrProblem)
  }

  #begin(ids: readonly Id[]): void {
    const chain = this.#goDown(ids)
    this.#chain = chain.then(
      () => this.#end(),
      () => this.#end(),
    )
  }

  #end(): void {
    this.#chain = undefined
  }

  async #goDown(ids: readonly Id[]): Promise<void> {
    const seen = new Set<Id>()
    let wave = ids
    for (let bytes = 0; bytes < maxChainBytes; ) {
      wave = this.#missingBelow(wave, seen)
      if (wave.length === 0) return
      const reading = this.#read(wave)
      this.#wave = reading.catch(() => undefined)
      for (const chunk of (await reading).values()) bytes += chunk instanceof Problem ? 0 : chunk.length
    }
  }

  async #read(ids: readonly Id[]): Promise<Map<Id, ChunkOrProblem>> {
    const found = await this.#chunks.read(ids, {
      signal: this.#signal,
      stopAfterBytes: maxChainBytes,
      wantsNeighbour: isObject,
    })
    for (const [id, chunk] of found) this.#kept.set(id, chunk)
    return found
  }

  /** What is not here of these, and of all that those refer to which are; each of them is looked into once. */
  #missingBelow(ids: readonly Id[], seen: Set<Id>): Id[] {
    const missing = new Set<Id>()
    const left = [...ids]
    for (let i = 0; i < left.length && missing.size < maxWaveIds; i++) {
      const id = left[i] as Id
      const kept = this.#kept.peek(id)
      if (kept === undefined) missing.add(id)
      else if (!seen.has(id)) {
        seen.add(id)
        left.push(...objectsIn(kept))
      }
    }
    return [...missing]
  }
}

function isObject(bytes: Buffer): boolean {
  return objectStarts.some((start) => bytes.subarray(0, start.length).equals(start))
}

/** The objects that an object refers to. One that cannot be read is told of when it is wanted. */
function objectsIn(object: ChunkOrProblem): Id[] {
  if (object instanceof Problem) return []
  try {
    const { entries, parts } = JSON.parse(object.toString()) as { entries?: Entry[]; parts?: Part[] }
    const inner = [...(entries ?? []), ...(parts ?? [])] as (Part & { kind?: Entry['kind'] })[]
    return inner.filter(refersToObject).map(({ id }) => id)
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return []
    throw error
  }
}

/** Directories, the parts of one, and lists of chunks: all but content. */
function refersToObject({ kind, chunked, size }: Part & { kind?: Entry['kind'] }): boolean {
  return kind === 'directory' || chunked === true || (kind === undefined && size === undefined)
}
