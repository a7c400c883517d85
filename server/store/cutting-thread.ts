/**
 * Threads that cut and hash what is uploaded, so that the event loop does not.
 *
 * Bytes stand in memory that both sides share (cutting-window.ts); messages only tell how many there are,
 * and where the chunks are. A thread takes the messages of all its uploads in the order in which they were
 * posted, so a slow upload holds up nobody, and a fast one others by one stretch at most.
 */
import type { Problem } from '../../protocol/problem.ts'
import type { ContentDigests, CutChunk } from './content-cutter.ts'
import { type CuttingWindow, createWindow } from './cutting-window.ts'
import { type OfJob, WorkerThreads } from './worker-threads.ts'

type CuttingOrder =
  | { readonly kind: 'begin'; readonly window: CuttingWindow }
  | { readonly kind: 'more'; readonly bytes: number }
  | { readonly kind: 'finish' }
  | { readonly kind: 'drop' }

/** An upload is a job. */
export type ToCutter = CuttingOrder & OfJob

export interface FromCutter extends OfJob {
  readonly chunks: readonly CutChunk[]
  readonly digests?: ContentDigests
  readonly dropped?: true
}

/** What an upload is told, in the order of its content. */
export interface CutListener {
  /** Further chunks; with the last of them the digests. */
  onCut(chunks: readonly CutChunk[], digests: ContentDigests | undefined): void
  /** Nothing more will come. */
  onFailure(problem: Problem): void
}

/** One upload's share of a thread. */
export interface Cutting {
  readonly window: CuttingWindow
  /** The next `bytes` of the content are in the window. */
  more(bytes: number): void
  /** The content has ended. */
  finish(): void
  /**
   * Ends the use of the window, whether or not the content has ended; resolves when the thread has let go of
   * it too. The caller must have done so before. Once.
   */
  close(): Promise<void>
}

/** The threads of a receiver, for all its vaults. */
export class CuttingThreads {
  readonly #threads: WorkerThreads<CuttingOrder, FromCutter>
  /**
   * Windows to be used again, one for each thread at most: giving memory back and taking it anew costs more
   * than laying bytes down in it.
   */
  readonly #windows: CuttingWindow[] = []

  constructor({ threads }: { threads?: number } = {}) {
    const isLast = ({ dropped, digests }: FromCutter): boolean => dropped === true || digests !== undefined
    this.#threads = new WorkerThreads({ kind: 'cutting', isLast, threads })
  }

  /** Begins an upload on the least busy thread. Problem `unavailable` after `close`. */
  begin(listener: CutListener): Cutting {
    const gone = Promise.withResolvers<void>()
    const job = this.#threads.begin({
      onAnswer: ({ chunks, digests, dropped }) => {
        if (dropped === true || digests !== undefined) gone.resolve()
        if (dropped !== true) listener.onCut(chunks, digests)
      },
      // No turn of the worker is under way any more: the window is nobody's.
      onFailure: (problem) => {
        listener.onFailure(problem)
        gone.resolve()
      },
    })
    const window = this.#windows.pop() ?? createWindow()
    job.post({ kind: 'begin', window })
    return {
      window,
      more: (bytes) => job.post({ kind: 'more', bytes }),
      finish: () => job.post({ kind: 'finish' }),
      close: async () => {
        if (job.isUnderWay()) job.post({ kind: 'drop' })
        await gone.promise
        const isSpare = !this.#threads.isClosed && this.#windows.length < this.#threads.count
        if (isSpare) this.#windows.push(window)
      },
    }
  }

  /** Ends the threads; uploads that have no last answer by then fail with Problem `unavailable`. Idempotent. */
  async close(): Promise<void> {
    this.#windows.length = 0
    await this.#threads.close()
  }
}
