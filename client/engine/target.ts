// Suite: test/conformance/target-suite.ts
import type { PlainChunk } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import type { CheckpointState, CommitRequest, MissingChunk, Part } from '../../protocol/schema.ts'

export interface TargetCapabilities {
  /** `dir`: a checkpoint is a root directory. `chunks`: it is an ordered list of items. */
  readonly form: 'dir' | 'chunks'
  readonly hashAlgorithms: readonly string[]
  readonly deltas: readonly string[]
  readonly maxChunkBytes: number
}

export interface BegunCheckpoint {
  readonly number: number
  /** An open checkpoint goes on: what was sent in its name is still there. */
  readonly resumed: boolean
  /** The last committed checkpoint of this source. */
  readonly base: CheckpointState | undefined
}

export interface PutCount {
  readonly sentChunks: number
  readonly reusedChunks: number
}

export type CommitOutcome =
  | { readonly committed: CheckpointState }
  | { readonly missing: readonly MissingChunk[] }

/** Bytes and requests so far. */
export interface TargetCounters {
  /** Request bodies as they travelled. */
  readonly bytesSent: number
  /** Blocks that the receiver kept, as they are stored. */
  readonly bytesStored: number
  readonly requests: number
}

/**
 * Where a backup goes. One checkpoint at a time; `begin` comes first. Everything sent twice is harmless.
 * Methods reject with a Problem; transport faults have been retried by then. TypeError before `begin`;
 * after `close` they reject.
 */
export interface Target {
  readonly capabilities: TargetCapabilities
  readonly counters: TargetCounters

  /**
   * Resumes checkpoint `resume` when it is still open and has no items yet, else opens a new one and
   * drops the old. Creates the vault when there is none.
   */
  begin(resume: number | undefined, about: Readonly<Record<string, string>>): Promise<BegunCheckpoint>

  /**
   * Resolves when the receiver has every one of these chunks, verified and written (durable only after
   * `commit`). Sends what it lacks and only that; gathers the chunks of concurrent calls into blocks and
   * batches; compresses off the main thread. The bytes are borrowed until it settles: it rejects (with
   * `digest-mismatch` for bytes that are not their id's) only when nothing of the call is under way any
   * more. The caller bounds how many calls it has under way: that is the only bound on memory.
   */
  put(chunks: readonly PlainChunk[]): Promise<PutCount>

  /** Appends to the list of a `chunks` checkpoint at position `first`; TypeError on a `dir` target. */
  addItems(first: number, items: readonly Part[]): Promise<void>

  /**
   * Plain bytes of chunks that the receiver holds, verified, in the order asked, as often as asked; Problem
   * `chunk-not-found` where one is absent. For reading the base's tree.
   */
  read(ids: readonly Id[], signal?: AbortSignal): AsyncIterable<PlainChunk>

  /** Publishes the checkpoint, durably; or tells what is missing, and the checkpoint stays open. */
  commit(request: CommitRequest): Promise<CommitOutcome>

  /** Ends connections. An open checkpoint stays open. Idempotent. */
  close(): Promise<void>
}
