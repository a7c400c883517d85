/** What the two threads of one run share: options, counters, the gate that pauses them, and the first failure. */

import { Problem, type ProblemCode } from '../../protocol/problem.ts'
import { HardLinks } from './hard-links.ts'
import type { PutCount } from './target.ts'

/** Something in the source that could not be backed up as it should. The run goes on. */
export interface FileProblem {
  /** Below the source's root, as the bytes that it is. */
  readonly path: Buffer
  readonly code: ProblemCode
  readonly detail: string
}

export interface Counts {
  filesNew: number
  filesChanged: number
  filesUnmodified: number
  filesRead: number
  directories: number
  /** Content bytes read from the source. */
  bytesRead: number
  chunksSent: number
  chunksReused: number
}

/** All files and content bytes of the checkpoint, unread ones included. */
export interface Seen {
  files: number
  bytes: number
}

const keptProblems = 1000

export class Run {
  readonly counts: Counts = {
    filesNew: 0,
    filesChanged: 0,
    filesUnmodified: 0,
    filesRead: 0,
    directories: 0,
    bytesRead: 0,
    chunksSent: 0,
    chunksReused: 0,
  }
  /** What the scan has told so far, and what of it is settled. */
  readonly seen: Seen = { files: 0, bytes: 0 }
  readonly settled: Seen = { files: 0, bytes: 0 }
  /** Files and content bytes that are in the checkpoint. */
  readonly totals: Seen = { files: 0, bytes: 0 }
  /** The first `keptProblems`; `problemCount` counts all. */
  readonly problems: FileProblem[] = []
  problemCount = 0
  links = new HardLinks()
  /** Later rounds repeat what the first has counted. */
  #firstRound = true
  readonly #abort = new AbortController()
  readonly #onProblem: (problem: FileProblem) => void
  #gate: Promise<void> | undefined
  #open: () => void = () => {}

  constructor(signal: AbortSignal | undefined, onProblem: (problem: FileProblem) => void = () => {}) {
    this.#onProblem = onProblem
    if (signal?.aborted) this.cancel()
    signal?.addEventListener('abort', () => this.cancel(), { once: true })
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Ends the run with `error`, unless something else has ended it before. */
  fail(error: unknown): void {
    this.#abort.abort(error)
    this.resume()
  }

  cancel(): void {
    this.fail(new Problem('cancelled', 'the backup was cancelled; run it again to go on from here'))
  }

  pause(): void {
    this.#gate ??= new Promise((resolve) => {
      this.#open = resolve
    })
  }

  resume(): void {
    this.#gate = undefined
    this.#open()
  }

  /** Both threads pass here before each piece of work. */
  async gate(): Promise<void> {
    while (this.#gate !== undefined && !this.signal.aborted) await this.#gate
    this.signal.throwIfAborted()
  }

  /** What `work` gives, unless the run ends first. */
  async orEnd<T>(work: Promise<T>): Promise<T> {
    // Whoever loses the race must not count as unhandled.
    work.catch((error: unknown) => error)
    this.signal.throwIfAborted()
    let onAbort = (): void => {}
    const ended = new Promise<never>((_, reject) => {
      onAbort = () => reject(this.signal.reason)
      this.signal.addEventListener('abort', onAbort, { once: true })
    })
    try {
      return await Promise.race([work, ended])
    } finally {
      this.signal.removeEventListener('abort', onAbort)
    }
  }

  /**
   * A further round goes over everything: totals count afresh, what was found new or changed stays so.
   * Unless `sharedLinks`, every name of an inode is read by itself.
   */
  startOver(sharedLinks = true): void {
    Object.assign(this.seen, { files: 0, bytes: 0 })
    Object.assign(this.settled, { files: 0, bytes: 0 })
    Object.assign(this.totals, { files: 0, bytes: 0 })
    this.counts.directories = 0
    this.problems.length = 0
    this.problemCount = 0
    this.links = new HardLinks(sharedLinks)
    this.#firstRound = false
  }

  /** A file of `bytes` is in the checkpoint; `scannedBytes` were counted as seen. */
  settleFile(as: 'new' | 'changed' | 'unmodified', bytes: number, scannedBytes: number): void {
    this.totals.files++
    this.totals.bytes += bytes
    this.settled.files++
    this.settled.bytes += scannedBytes
    if (!this.#firstRound) return
    if (as === 'new') this.counts.filesNew++
    else if (as === 'changed') this.counts.filesChanged++
    else this.counts.filesUnmodified++
  }

  countChunks({ sentChunks, reusedChunks }: PutCount): void {
    this.counts.chunksSent += sentChunks
    this.counts.chunksReused += reusedChunks
  }

  report(path: Buffer, code: ProblemCode, detail: string): void {
    const problem = { path, code, detail }
    this.problemCount++
    if (this.problems.length < keptProblems) this.problems.push(problem)
    this.#onProblem(problem)
  }
}
