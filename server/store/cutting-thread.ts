/**
 * Threads that cut and hash what is uploaded, so that the event loop does not.
 *
 * Bytes stand in memory that both sides share (cutting-window.ts); messages only tell how many there are,
 * and where the chunks are. A thread takes the messages of all its uploads in the order in which they were
 * posted, so a slow upload holds up nobody, and a fast one others by one stretch at most.
 *
 * A thread that dies fails the uploads that it serves, and no other: the next upload gets a new thread.
 */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { Problem } from '../../protocol/problem.ts'
import type { ContentDigests, CutChunk } from './content-cutter.ts'
import { type CuttingWindow, createWindow } from './cutting-window.ts'

export type ToCutter = { readonly upload: number } & (
  | { readonly kind: 'begin'; readonly window: CuttingWindow }
  | { readonly kind: 'more'; readonly bytes: number }
  | { readonly kind: 'finish' }
  | { readonly kind: 'drop' }
)

export interface FromCutter {
  readonly upload: number
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

/** A thread for every two processors: compressing, writing and the network want the others. */
const defaultThreads = Math.min(8, Math.ceil(availableParallelism() / 2))

/** The threads of a receiver, for all its vaults. Threads start when they are needed. */
export class CuttingThreads {
  readonly #count: number
  readonly #threads = new Set<CuttingThread>()
  /**
   * Windows to be used again, one for each thread at most: giving memory back and taking it anew costs more
   * than laying bytes down in it.
   */
  readonly #windows: CuttingWindow[] = []
  #closed = false

  constructor({ threads = defaultThreads }: { threads?: number } = {}) {
    if (!Number.isInteger(threads) || threads < 1) throw new TypeError('there must be a thread')
    this.#count = threads
  }

  /** Begins an upload on the least busy thread. Problem `unavailable` after `close`. */
  begin(listener: CutListener): Cutting {
    if (this.#closed) throw new Problem('unavailable', 'the receiver is stopping')
    const window = this.#windows.pop() ?? createWindow()
    const cutting = this.#thread().begin(window, listener)
    const close = async (): Promise<void> => {
      await cutting.close()
      if (!this.#closed && this.#windows.length < this.#count) this.#windows.push(window)
    }
    return { ...cutting, close }
  }

  #thread(): CuttingThread {
    let least: CuttingThread | undefined
    for (const thread of this.#threads) if (thread.load < (least?.load ?? Infinity)) least = thread
    if (least !== undefined && (least.load === 0 || this.#threads.size >= this.#count)) return least
    const thread: CuttingThread = new CuttingThread(() => this.#threads.delete(thread))
    this.#threads.add(thread)
    return thread
  }

  /** Ends the threads; uploads under way fail with Problem `unavailable`. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    this.#windows.length = 0
    await Promise.all([...this.#threads].map((thread) => thread.close()))
  }
}

interface Served {
  readonly listener: CutListener
  readonly letGo: () => void
}

class CuttingThread {
  readonly #worker: Worker
  readonly #served = new Map<number, Served>()
  #uploads = 0
  #failure: Problem | undefined
  readonly #onEnd: () => void

  /** `onEnd` is called when the thread can serve no more uploads. */
  constructor(onEnd: () => void) {
    this.#onEnd = onEnd
    const module = new URL(
      import.meta.url.endsWith('.ts') ? './cutting-worker.ts' : './cutting-worker.js',
      import.meta.url,
    )
    // It makes little garbage: without a bound it would keep tens of MiB for it.
    this.#worker = new Worker(module, { resourceLimits: { maxYoungGenerationSizeMb: 4 } })
    this.#worker.unref()
    this.#worker.on('message', (message: FromCutter) => this.#receive(message))
    this.#worker.on('error', (cause) => {
      this.#failure ??= new Problem('internal-error', 'a cutting thread failed', { cause })
      this.#onEnd()
    })
    this.#worker.on('exit', () => this.#ended())
  }

  /** Uploads that it serves. */
  get load(): number {
    return this.#served.size
  }

  begin(window: CuttingWindow, listener: CutListener): Cutting {
    const upload = this.#uploads++
    const gone = Promise.withResolvers<void>()
    if (this.#served.size === 0) this.#worker.ref()
    this.#served.set(upload, { listener, letGo: gone.resolve })
    const post = (message: ToCutter): void => this.#worker.postMessage(message)
    post({ upload, kind: 'begin', window })
    return {
      window,
      more: (bytes) => post({ upload, kind: 'more', bytes }),
      finish: () => post({ upload, kind: 'finish' }),
      close: () => {
        if (this.#served.has(upload)) post({ upload, kind: 'drop' })
        return gone.promise
      },
    }
  }

  #receive({ upload, chunks, digests, dropped }: FromCutter): void {
    const served = this.#served.get(upload)
    if (dropped === true || digests !== undefined) {
      this.#served.delete(upload)
      if (this.#served.size === 0) this.#worker.unref()
      served?.letGo()
    }
    if (dropped !== true) served?.listener.onCut(chunks, digests)
  }

  /** No turn of the worker is under way any more: the windows are nobody's. */
  #ended(): void {
    this.#onEnd()
    this.#failure ??= new Problem('internal-error', 'a cutting thread has ended')
    for (const { listener, letGo } of this.#served.values()) {
      listener.onFailure(this.#failure)
      letGo()
    }
    this.#served.clear()
  }

  async close(): Promise<void> {
    this.#failure ??= new Problem('unavailable', 'the receiver is stopping')
    await this.#worker.terminate()
  }
}
