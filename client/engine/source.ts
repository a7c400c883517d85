// Suite: test/conformance/source-suite.ts
import type { Id } from '../../protocol/id.ts'
import type { Problem, ProblemCode } from '../../protocol/problem.ts'

export type EntryKind =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'fifo'
  | 'socket'
  | 'character-device'
  | 'block-device'

/** What `lstat` tells, in the protocol's units. */
export interface SourceStat {
  readonly size: number
  /** Permission bits, 0 to 07777. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Nanoseconds since 1970, decimal. */
  readonly mtimeNs: string
  /** Nanoseconds since 1970, decimal; "0" where the source knows none. */
  readonly ctimeNs: string
  /** `device:inode`, or "" where the source knows none. */
  readonly inode: string
  readonly links: number
  readonly major: number
  readonly minor: number
  /** Fewer bytes are allocated than the size says. */
  readonly sparse: boolean
}

export interface ScannedEntry {
  readonly name: Buffer
  readonly kind: EntryKind
  readonly stat: SourceStat
  /** A symlink's target. */
  readonly target?: Buffer
}

/**
 * A walk in depth-first order. `enter` opens a directory (the first one, with an empty name, is the
 * root); its `entries` follow, in ascending order of their names' bytes, directories among them, until
 * `listed`; then each directory among them is entered and left in turn; then `leave` closes it.
 */
export type ScanEvent =
  | { readonly type: 'enter'; readonly name: Buffer; readonly stat: SourceStat }
  | { readonly type: 'entries'; readonly entries: readonly ScannedEntry[] }
  | { readonly type: 'listed' }
  | { readonly type: 'leave' }
  | { readonly type: 'problem'; readonly path: Buffer; readonly code: ProblemCode; readonly detail: string }

/** One file to read: its path below the source's root. */
export interface FileToRead {
  readonly path: Buffer
  readonly stat: SourceStat
}

/** What reading a group of files yields. `file` is the position in the group; chunks of one file come in order. */
export type FillEvent =
  | { readonly type: 'chunk'; readonly file: number; readonly id: Id; readonly bytes: Buffer }
  /**
   * The file ended, with at least one chunk since it began: an empty file has the empty chunk. `digest` is
   * the id of the whole content; `stat` is what held while it was read.
   */
  | {
      readonly type: 'done'
      readonly file: number
      readonly digest: Id
      readonly bytesRead: number
      readonly stat: SourceStat
      /** It changed while it was read, each time it was tried: what was read is a mixture. */
      readonly changed: boolean
      /**
       * Its ctime was so young when it was opened that a later write may have left no trace in the stat:
       * an equal stat does not mean equal content. False for streams.
       */
      readonly uncertain: boolean
    }
  /** It could not be read to its end: `source-vanished` or `source-unreadable`. Its chunks are void. */
  | { readonly type: 'failed'; readonly file: number; readonly problem: Problem }
  /** What was told of this file is void: it changed and is read once more. */
  | { readonly type: 'again'; readonly file: number }

/** A batch of events. The chunks' bytes are borrowed until `release`, which must be called, once or more often. */
export interface Filled {
  readonly events: readonly FillEvent[]
  release(): void
}

export interface SourceCapabilities {
  /** `dir`: a tree of files. `chunks`: one stream of bytes, told as a tree of one file. */
  readonly form: 'dir' | 'chunks'
  /** Content can be had more than once. A pipe's cannot: a second `fill` throws Problem `source-unreadable`. */
  readonly rereadable: boolean
}

/**
 * What is backed up. `scan` lists it and reads no file content; `fill` is the one and only place where
 * content is read. Both may run at once, and `fill` several times at once. Nothing here writes.
 */
export interface Source {
  readonly capabilities: SourceCapabilities
  /** What to tell the receiver about this source (host, paths): shown in listings. Values have at most 4096 characters. */
  readonly about: Readonly<Record<string, string>>

  /**
   * Walks the source. Runs ahead of the consumer by a bounded number of events. What cannot be listed is
   * a `problem` event, not an exception; exceptions end the walk. Once `signal` aborts it throws the
   * signal's reason, or just ends; so does a call whose loop waits for its turn. After `close` it throws.
   */
  scan(signal: AbortSignal): AsyncIterable<readonly ScanEvent[]>

  /**
   * Reads these files once each, in order, cutting and hashing off the main thread. All calls together
   * lend out a bounded number of bytes, and stand still until some are released. What cannot be read is
   * a `failed` event. The consumer must take a call's events without waiting for those of another. Abort
   * and close as with `scan`; what was lent before stays lent until `release`. Where content is not
   * `rereadable`, the first call that begins is the only one, even if it was given up.
   */
  fill(files: readonly FileToRead[], signal: AbortSignal): AsyncIterable<Filled>

  /** Ends the threads. Idempotent. */
  close(): Promise<void>
}
