/**
 * Threads that decode and hash what comes in batches, so that the event loop does not, with synchronous calls.
 *
 * A batch's memory is moved to the thread and back, never copied; meanwhile nobody else can look at it. A thread takes a
 * block of each of its batches in turn, so one that decodes to much holds up the others by a block at a time.
 */
import { Problem, type ProblemCode } from '../../protocol/problem.ts'
import { type BatchVerdict, judgeBatch } from './batch-verdict.ts'
import { type OfJob, WorkerThreads } from './worker-threads.ts'

interface Laid {
  /** The body, and behind it what else its memory has. */
  readonly bytes: ArrayBuffer
  readonly length: number
}

export type ToVerifier = Laid & OfJob

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

/** At once, on the thread of the caller. */
export function judgeInPlace(body: Buffer): Judged {
  const steps = judgeBatch(body)
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return { body, verdict: value }
  }
}

/** The threads of a receiver, for all its vaults. */
export class VerifyingThreads {
  readonly #threads: WorkerThreads<Laid, FromVerifier>

  constructor({ threads }: { threads?: number } = {}) {
    this.#threads = new WorkerThreads({ kind: 'verifying', isLast: () => true, threads })
  }

  /** As `Judge`. Problem `unavailable` after `close`. */
  readonly judge: Judge = (body, plainBytes) => {
    this.#threads.expectOpen()
    const isLittle = Math.max(body.length, plainBytes) <= inPlaceBytes
    return isLittle ? judgeInPlace(body) : this.#judge(body)
  }

  #judge(body: Buffer): Promise<Judged> {
    const { promise, resolve, reject } = Promise.withResolvers<Judged>()
    const job = this.#threads.begin({
      onAnswer: ({ bytes, length, verdict, problem }) => {
        if (verdict !== undefined) resolve({ body: Buffer.from(bytes, 0, length), verdict })
        else if (problem !== undefined) {
          bytes.transfer(0)
          reject(new Problem(problem.code, problem.message, problem))
        }
      },
      onFailure: reject,
    })
    const { length } = body
    const bytes = aloneIn(body)
    job.post({ bytes, length }, [bytes])
    return promise
  }

  /** Ends the threads; batches under way fail with Problem `unavailable`. Idempotent. */
  close(): Promise<void> {
    return this.#threads.close()
  }
}

/** Memory that begins with these bytes and that nobody else has a part of: their own, or a copy. */
function aloneIn({ buffer, byteOffset, length }: Buffer): ArrayBuffer {
  const isOwn = length === buffer.byteLength || (byteOffset === 0 && buffer.byteLength > Buffer.poolSize)
  if (buffer instanceof ArrayBuffer && isOwn) return buffer
  return buffer.slice(byteOffset, byteOffset + length) as ArrayBuffer
}
