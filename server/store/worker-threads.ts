/**
 * Threads of one kind, for what would hold the event loop. They start when they are needed, and each job goes to the
 * least busy one.
 *
 * A thread that dies fails the jobs that it has, and no other: the next job gets a new thread.
 */
import { availableParallelism } from 'node:os'
import { type Transferable, Worker } from 'node:worker_threads'
import { Problem } from '../../protocol/problem.ts'

/** Stands in every message, in both directions, but `null`: that is for the thread to end. */
export interface OfJob {
  readonly job: number
}

/** Whoever wants a job done. */
export interface JobListener<Answer> {
  onAnswer(answer: Answer): void
  /** No answer will come any more, and the thread has let go of what it was given. */
  onFailure(problem: Problem): void
}

/** A job's share of a thread. */
export interface Job<Order> {
  /** Whether an answer is still to come. */
  isUnderWay(): boolean
  post(order: Order, transfer?: readonly Transferable[]): void
}

export interface WorkerThreadsOptions<Answer> {
  /** The thread runs `{kind}-worker` beside this file. */
  readonly kind: 'cutting' | 'verifying'
  /** Whether this is the last answer to its job. */
  readonly isLast: (answer: Answer) => boolean
  readonly threads?: number | undefined
}

/** A thread for every two processors: writing and the network want the others. */
const defaultThreads = Math.min(8, Math.ceil(availableParallelism() / 2))

export class WorkerThreads<Order extends object, Answer extends OfJob> {
  readonly count: number
  readonly #options: WorkerThreadsOptions<Answer>
  readonly #threads = new Set<WorkerThread<Order, Answer>>()
  #closed = false

  constructor(options: WorkerThreadsOptions<Answer>) {
    const { threads = defaultThreads } = options
    if (!Number.isInteger(threads) || threads < 1) throw new TypeError('there must be a thread')
    this.count = threads
    this.#options = options
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** Problem `unavailable` after `close`. */
  expectOpen(): void {
    if (this.#closed) throw stopping()
  }

  /** Begins a job on the least busy thread. Problem `unavailable` after `close`. */
  begin(listener: JobListener<Answer>): Job<Order> {
    this.expectOpen()
    return this.#thread().begin(listener)
  }

  #thread(): WorkerThread<Order, Answer> {
    let least: WorkerThread<Order, Answer> | undefined
    for (const thread of this.#threads) if (thread.load < (least?.load ?? Infinity)) least = thread
    if (least !== undefined && (least.load === 0 || this.#threads.size >= this.count)) return least
    const thread: WorkerThread<Order, Answer> = new WorkerThread(this.#options, () =>
      this.#threads.delete(thread),
    )
    this.#threads.add(thread)
    return thread
  }

  /** Ends the threads; jobs that have no last answer by then fail with Problem `unavailable`. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#threads].map((thread) => thread.close()))
  }
}

class WorkerThread<Order extends object, Answer extends OfJob> {
  readonly #options: WorkerThreadsOptions<Answer>
  readonly #worker: Worker
  readonly #jobs = new Map<number, JobListener<Answer>>()
  #begun = 0
  #failure: Problem | undefined
  readonly #onEnd: () => void

  /** `onEnd` is called when the thread can take no more jobs. */
  constructor(options: WorkerThreadsOptions<Answer>, onEnd: () => void) {
    this.#options = options
    this.#onEnd = onEnd
    const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    const module = new URL(`./${options.kind}-worker.${ending}`, import.meta.url)
    // It makes little garbage: without a bound it would keep tens of MiB for it.
    this.#worker = new Worker(module, { resourceLimits: { maxYoungGenerationSizeMb: 4 } })
    this.#worker.unref()
    this.#worker.on('message', (answer: Answer) => this.#receive(answer))
    this.#worker.on('error', (cause) => {
      this.#failure ??= new Problem('internal-error', `a ${options.kind} thread failed`, { cause })
      this.#onEnd()
    })
    this.#worker.on('exit', () => this.#ended())
  }

  /** Jobs that it has. */
  get load(): number {
    return this.#jobs.size
  }

  begin(listener: JobListener<Answer>): Job<Order> {
    const job = this.#begun++
    if (this.#jobs.size === 0) this.#worker.ref()
    this.#jobs.set(job, listener)
    return {
      isUnderWay: () => this.#jobs.has(job),
      post: (order, transfer = []) => this.#worker.postMessage({ ...order, job }, transfer),
    }
  }

  #receive(answer: Answer): void {
    const listener = this.#jobs.get(answer.job)
    if (this.#options.isLast(answer)) {
      this.#jobs.delete(answer.job)
      // Whoever ends the thread waits for that: without it the process would be over before.
      if (this.#jobs.size === 0 && this.#failure === undefined) this.#worker.unref()
    }
    listener?.onAnswer(answer)
  }

  #ended(): void {
    this.#onEnd()
    this.#failure ??= new Problem('internal-error', `a ${this.#options.kind} thread has ended`)
    for (const listener of this.#jobs.values()) listener.onFailure(this.#failure)
    this.#jobs.clear()
  }

  /** Not by `terminate`: native code that the thread loads at that moment may take the process along. */
  async close(): Promise<void> {
    this.#failure ??= stopping()
    if (this.#worker.threadId === -1) return
    this.#worker.ref()
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#worker.once('exit', () => resolve())
    this.#worker.postMessage(null)
    await promise
  }
}

function stopping(): Problem {
  return new Problem('unavailable', 'the receiver is stopping')
}
