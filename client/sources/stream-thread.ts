/**
 * A worker thread that answers each job with a stream of messages, no faster than they are taken.
 *
 * The worker's code is synchronous (system calls cost a fifth of their asynchronous kin), so flow
 * control cannot be messages: both sides share an Int32Array.
 *
 *     [0] taken     messages that the consumer has taken; the worker sleeps on it
 *     [1] cancelled 1 while the job at hand is to be given up
 *
 * Invariant: the worker is never more than `ahead` messages in front of the consumer. One job at a time;
 * further jobs wait in order, and may be given up meanwhile. A worker that dies fails the job at hand and
 * every later one.
 */
import type { Worker } from 'node:worker_threads'
import { isProblem, Problem, type ProblemCode } from '../../protocol/problem.ts'
import { endThread, startThread, takeOrders } from '../threads.ts'

const takenSlot = 0
const cancelledSlot = 1

export type ThreadMessage<T> =
  | { readonly kind: 'item'; readonly item: T }
  | { readonly kind: 'end' }
  | { readonly kind: 'error'; readonly code: ProblemCode; readonly message: string }

/** What the worker's side is given for a job. */
export interface Outlet<T> {
  /** Sends an item; sleeps while the consumer lags. False, and nothing sent: give the job up. */
  send(item: T): boolean
  readonly cancelled: boolean
}

/** Runs on the worker: serves jobs from the parent with `run`, one at a time. */
export function serveJobs<Job extends object, T>(
  port: { postMessage(message: unknown): void },
  shared: Int32Array,
  ahead: number,
  run: (job: Job, outlet: Outlet<T>) => void,
): void {
  let sent = Atomics.load(shared, takenSlot)
  const outlet: Outlet<T> = {
    get cancelled() {
      return Atomics.load(shared, cancelledSlot) === 1
    },
    send(item) {
      for (;;) {
        if (outlet.cancelled) return false
        const taken = Atomics.load(shared, takenSlot)
        if (((sent - taken) | 0) < ahead) break
        Atomics.wait(shared, takenSlot, taken, 1000)
      }
      sent = (sent + 1) | 0
      port.postMessage({ kind: 'item', item })
      return true
    },
  }
  takeOrders((job: Job) => {
    try {
      run(job, outlet)
      port.postMessage({ kind: 'end' })
    } catch (error) {
      // Whatever it is, it ends this job and is told to the consumer, who throws it on.
      port.postMessage(
        isProblem(error)
          ? { kind: 'error', code: error.code, message: error.message }
          : {
              kind: 'error',
              code: 'internal-error',
              message: `a reading thread failed: ${error instanceof Error ? (error.stack ?? error.message) : error}`,
            },
      )
    }
  })
}

export class StreamThread<Job extends object, T> {
  readonly #worker: Worker
  readonly #shared: Int32Array
  readonly #drop: (item: T) => void
  #queue: ThreadMessage<T>[] = []
  #wake: (() => void) | undefined
  #failure: Problem | undefined
  #markDead: () => void = () => {}
  /** Resolves when the worker has died: for those who wait for their turn. */
  readonly #dead = new Promise<void>((resolve) => {
    this.#markDead = resolve
  })
  #turn: Promise<void> = Promise.resolve()
  #waiting = 0

  /**
   * `module` is the worker's file; `ahead` bounds the messages under way; `data` goes along to the worker.
   * `drop` is given the items of a cancelled job that nobody will take.
   */
  constructor(module: URL, ahead: number, options: { data?: object; drop?: (item: T) => void } = {}) {
    this.#shared = new Int32Array(new SharedArrayBuffer(8))
    this.#drop = options.drop ?? (() => {})
    this.#worker = startThread(module, { ...options.data, shared: this.#shared, ahead })
    this.#worker.unref()
    this.#worker.on('message', (message: ThreadMessage<T>) => {
      this.#queue.push(message)
      this.#wake?.()
    })
    this.#worker.on('error', (cause) =>
      this.#fail(new Problem('internal-error', 'a reading thread died', { cause })),
    )
    this.#worker.on('exit', () => this.#fail(new Problem('cancelled', 'the reading thread has ended')))
  }

  /** Jobs at hand and waiting: for picking the least busy thread. */
  get load(): number {
    return this.#waiting
  }

  #fail(problem: Problem): void {
    this.#failure ??= problem
    this.#markDead()
    this.#wake?.()
  }

  /** The items of one job. Leaving the loop early, or `signal`, cancels the job. */
  async *run(job: Job, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
    const before = this.#turn
    let release = (): void => {}
    const through = new Promise<void>((resolve) => {
      release = resolve
    })
    // Also a job that is given up while it waits passes the turn on no earlier than it gets it.
    this.#turn = before.then(() => through)
    this.#waiting++
    try {
      await untilAborted(Promise.race([before, this.#dead]), signal)
      yield* this.#stream(job, signal)
    } finally {
      this.#waiting--
      release()
    }
  }

  async *#stream(job: Job, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
    const onAbort = (): void => this.#wake?.()
    signal.addEventListener('abort', onAbort, { once: true })
    this.#worker.ref()
    this.#worker.postMessage(job)
    let ended = false
    try {
      for (;;) {
        const message = await this.#next(signal)
        ended = message.kind !== 'item'
        if (message.kind === 'end') return
        if (message.kind === 'error') throw new Problem(message.code, message.message)
        yield message.item
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      if (!ended) await this.#cancel()
      // Whoever ends the thread waits for that: without it the process would be over before.
      if (this.#failure === undefined) this.#worker.unref()
    }
  }

  async #next(signal: AbortSignal | undefined): Promise<ThreadMessage<T>> {
    for (;;) {
      // First, since a job that `close` cut short ends like one that is through.
      if (this.#failure !== undefined) throw this.#failure
      const message = this.#queue.shift()
      if (message !== undefined) {
        if (message.kind === 'item') this.#take()
        return message
      }
      signal?.throwIfAborted()
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
  }

  #take(): void {
    Atomics.add(this.#shared, takenSlot, 1)
    Atomics.notify(this.#shared, takenSlot)
  }

  /** Tells the worker to give up, and drops what it had sent, so that the next job starts clean. */
  async #cancel(): Promise<void> {
    Atomics.store(this.#shared, cancelledSlot, 1)
    Atomics.notify(this.#shared, takenSlot)
    while (this.#failure === undefined) {
      const message = await this.#next(undefined)
      if (message.kind !== 'item') break
      this.#drop(message.item)
    }
    // A thread that was closed meanwhile gives up whatever it still has.
    if (this.#failure === undefined) Atomics.store(this.#shared, cancelledSlot, 0)
  }

  /** Ends the thread. A job at hand is given up. Idempotent. */
  async close(): Promise<void> {
    this.#fail(new Problem('cancelled', 'the reading thread was closed'))
    Atomics.store(this.#shared, cancelledSlot, 1)
    Atomics.notify(this.#shared, takenSlot)
    await endThread(this.#worker)
  }
}

/** Waits for `promise`, but no longer than until `signal` aborts; throws its reason then. */
async function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  let onAbort = (): void => {}
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
