// Suite: test/conformance/file-target-suite.ts
import type { CheckpointState, CommitRequest, Entry } from '../../protocol/schema.ts'
import type { BegunCheckpoint, TargetCounters } from './target.ts'

export interface FileTargetCapabilities {
  /** A checkpoint is a folder of plain files. */
  readonly form: 'files'
}

/** A file's content: all of it at hand, or a stream that brings it, `size` bytes long when that is known. */
export type FileContent = { /** For a target that can keep it. */ readonly mtimeNs?: string } & (
  | { readonly pieces: readonly Buffer[] }
  | { readonly stream: AsyncIterable<Buffer>; readonly size: number | undefined }
)

/** One thing in the tree of a checkpoint. A file's `id` is that of its whole content, a directory's that of its object. */
export interface PlacedEntry {
  /** Below the root; empty for the root itself. */
  readonly path: Buffer
  readonly entry: Entry
}

/** What stands directly in a directory: files, by whether they were put in the name of the checkpoint, and directories. */
export interface MemberCounts {
  readonly kept: number
  readonly sent: number
  readonly directories: number
}

/** The same in the checkpoint to be committed. */
export interface TreeEntry extends PlacedEntry {
  /** Whether it, or anything below it, was put in the name of this checkpoint. */
  isSent(): Promise<boolean>
  /** All zero for what is no directory. */
  members(): Promise<MemberCounts>
  /** The target has it neither from this checkpoint nor from the last: the file must be put again. */
  lose(): void
}

export type FileCommitOutcome = { readonly committed: CheckpointState } | { readonly lost: number }

/**
 * Where a backup goes file by file: somebody else's server, that knows no chunks. One checkpoint at a time;
 * `begin` comes first. Everything sent twice is harmless. Methods reject with a Problem. TypeError before
 * `begin`; after `close` they reject.
 */
export interface FileTarget {
  readonly capabilities: FileTargetCapabilities
  readonly counters: TargetCounters

  /**
   * Resumes checkpoint `resume` when it is still open, else opens a new one and drops the old. Creates the
   * place when there is none. `base` is absent when the target could not take over anything from it.
   */
  begin(resume: number | undefined, about: Readonly<Record<string, string>>): Promise<BegunCheckpoint>

  /**
   * Puts a file of the open checkpoint; resolves when the server has acknowledged all of it. Whatever was
   * there is replaced. `pieces` are borrowed until it settles, and their transport has been retried by then;
   * a stream is read once, to its end or until the call settles. What a call that rejects or is aborted has
   * left there is removed, as far as the server can be reached. Problem `source-changed` when the stream has
   * another length than `size`. Calls for one path must not overlap. Many calls may be under way: those with
   * `pieces` wait for their turn, streams do not.
   */
  put(path: Buffer, content: FileContent, signal: AbortSignal): Promise<void>

  /** The tree of the base, in the order of `commit`, for a client that remembers nothing. Problem `invalid-object`. */
  readBase(signal: AbortSignal): AsyncIterable<PlacedEntry>

  /**
   * Makes the open checkpoint hold exactly `tree` and publishes it. What was not sent is taken over from the
   * base on the server's side; what cannot be had so is lost: then the checkpoint stays open. `tree` tells
   * the root, then each directory before what is in it, names in the order of their bytes.
   */
  commit(
    request: CommitRequest,
    tree: AsyncIterable<TreeEntry>,
    signal: AbortSignal,
  ): Promise<FileCommitOutcome>

  /** Ends connections. An open checkpoint stays open. Idempotent. */
  close(): Promise<void>
}

/** Whether a target takes files, and not chunks. */
export function isFileTarget<T extends { capabilities: { form: string } }>(
  target: T | FileTarget,
): target is FileTarget {
  return target.capabilities.form === 'files'
}
