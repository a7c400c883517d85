/** What the two threads of one run share: options, counters, the gate that pauses them, and the first failure. */

import { Problem, type ProblemCode } from '../../protocol/problem.ts'
import { HardLinks } from './hard-links.ts'
import type { PutCount } from './target.ts'

/** Something in the source that could not be backed up as it should. The run goes on. */
export interface FileProblem {
  /** Below the source's root; bytes that are no UTF-8 are shown as U+FFFD. */
  readonly path: string
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
  readonly problems: FileProblem[] = []
  readonly links = new HardLinks()
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
    while (this.#gate !== undefined) await this.#gate
    this.signal.throwIfAborted()
  }

  /** A further round goes over everything: totals count afresh, and what was done before counts on. */
  startOver(): void {
    Object.assign(this.counts, { filesUnmodified: 0, directories: 0 })
    Object.assign(this.seen, { files: 0, bytes: 0 })
    Object.assign(this.settled, { files: 0, bytes: 0 })
    this.problems.length = 0
  }

  countChunks({ sentChunks, reusedChunks }: PutCount): void {
    this.counts.chunksSent += sentChunks
    this.counts.chunksReused += reusedChunks
  }

  report(path: Buffer, code: ProblemCode, detail: string): void {
    const problem = { path: path.toString('utf8'), code, detail }
    this.problems.push(problem)
    this.#onProblem(problem)
  }
}
