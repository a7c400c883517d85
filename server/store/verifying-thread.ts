/**
 * Threads that decode and hash what comes in batches, so that the event loop does not, with synchronous calls.
 *
 * A batch's memory is moved to the thread and back, never copied; meanwhile nobody else can look at it. A thread takes a
 * block of each of its batches in turn, so one that decodes to much holds up the others by a block at a time.
 *
 * A thread that dies fails the batches that it has, and no other: the next batch gets a new thread.
 */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { Problem, type ProblemCode } from '../../protocol/problem.ts'
import { type BatchVerdict, judgeBatch } from './batch-verdict.ts'

export interface ToVerifier {
  readonly job: number
  /** The body, and behind it what else its memory has. */
  readonly bytes: ArrayBuffer
  readonly length: number
}

export interface FromVerifier extends ToVerifier {
  readonly verdict?: BatchVerdict
  readonly problem?: Pick<Problem, 'message' | 'extensions'> & { readonly code: ProblemCode }
}

/** A batch that was judged. */
export interface Judged {
  /** Where its bytes are now: what the caller gave is of no use any more, if it is not the same. */
  readonly body: Buffer
  readonly verdict: BatchVerdict
}

/** Whoever judges batches. `plainBytes` is what the batch says that it decodes to. Problem `invalid-batch`. */
export type Judge = (body: Buffer, plainBytes: number) => Promise<Judged> | Judged

/**
 * So little, as it is and decoded, is judged where it is: that takes a tenth of a millisecond, with 1,700 chunks three, and a
 * thread takes 30 to start.
 */
const inPlaceBytes = 64 * 1024

/** A thread for every two processors: writing and the network want the others. */
const defaultThreads = Math.min(8, Math.ceil(availableParallelism() / 2))

/** At once, on the thread of the caller. */
export function judgeInPlace(body: Buffer): Judged {
  const steps = judgeBatch(body)
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return { body, verdict: value }
  }
}

/** The threads of a receiver, for all its vaults. Threads start when they are needed. */
export class VerifyingThreads {
  readonly #count: number
  readonly #threads = new Set<VerifyingThread>()
  #closed = false

  constructor({ threads = defaultThreads }: { threads?: number } = {}) {
    if (!Number.isInteger(threads) || threads < 1) throw new TypeError('there must be a thread')
    this.#count = threads
  }

  /** As `Judge`. Problem `unavailable` after `close`. */
  readonly judge: Judge = (body, plainBytes) => {
    if (this.#closed) throw stopping()
    const isLittle = Math.max(body.length, plainBytes) <= inPlaceBytes
    return isLittle ? judgeInPlace(body) : this.#thread().judge(body)
  }

  #thread(): VerifyingThread {
    let least: VerifyingThread | undefined
    for (const thread of this.#threads) if (thread.load < (least?.load ?? Infinity)) least = thread
    if (least !== undefined && (least.load === 0 || this.#threads.size >= this.#count)) return least
    const thread: VerifyingThread = new VerifyingThread(() => this.#threads.delete(thread))
    this.#threads.add(thread)
    return thread
  }

  /** Ends the threads; batches under way fail with Problem `unavailable`. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#threads].map((thread) => thread.close()))
  }
}

class VerifyingThread {
  readonly #worker: Worker
  readonly #jobs = new Map<number, PromiseWithResolvers<Judged>>()
  #count = 0
  #failure: Problem | undefined
  readonly #onEnd: () => void

  /** `onEnd` is called when the thread can judge no more. */
  constructor(onEnd: () => void) {
    this.#onEnd = onEnd
    const module = new URL(
      import.meta.url.endsWith('.ts') ? './verifying-worker.ts' : './verifying-worker.js',
      import.meta.url,
    )
    // It makes little garbage: without a bound it would keep tens of MiB for it.
    this.#worker = new Worker(module, { resourceLimits: { maxYoungGenerationSizeMb: 4 } })
    this.#worker.unref()
    this.#worker.on('message', (message: FromVerifier) => this.#receive(message))
    this.#worker.on('error', (cause) => {
      this.#failure ??= new Problem('internal-error', 'a verifying thread failed', { cause })
      this.#onEnd()
    })
    this.#worker.on('exit', () => this.#ended())
  }

  /** Batches that it has. */
  get load(): number {
    return this.#jobs.size
  }

  judge(body: Buffer): Promise<Judged> {
    const job = this.#count++
    const { length } = body
    const judged = Promise.withResolvers<Judged>()
    if (this.#jobs.size === 0) this.#worker.ref()
    this.#jobs.set(job, judged)
    const bytes = aloneIn(body)
    const message: ToVerifier = { job, bytes, length }
    this.#worker.postMessage(message, [bytes])
    return judged.promise
  }

  #receive({ job, bytes, length, verdict, problem }: FromVerifier): void {
    const judged = this.#jobs.get(job)
    this.#jobs.delete(job)
    if (this.#jobs.size === 0) this.#worker.unref()
    if (verdict !== undefined) judged?.resolve({ body: Buffer.from(bytes, 0, length), verdict })
    else if (problem !== undefined) {
      bytes.transfer(0)
      judged?.reject(new Problem(problem.code, problem.message, problem))
    }
  }

  #ended(): void {
    this.#onEnd()
    this.#failure ??= new Problem('internal-error', 'a verifying thread has ended')
    for (const { reject } of this.#jobs.values()) reject(this.#failure)
    this.#jobs.clear()
  }

  async close(): Promise<void> {
    this.#failure ??= stopping()
    await this.#worker.terminate()
  }
}

function stopping(): Problem {
  return new Problem('unavailable', 'the receiver is stopping')
}

/** Memory that begins with these bytes and that nobody else has a part of: their own, or a copy. */
function aloneIn({ buffer, byteOffset, length }: Buffer): ArrayBuffer {
  const isOwn = length === buffer.byteLength || (byteOffset === 0 && buffer.byteLength > Buffer.poolSize)
  if (buffer instanceof ArrayBuffer && isOwn) return buffer
  return buffer.slice(byteOffset, byteOffset + length) as ArrayBuffer
}
