/**
 * Threads that decode, hash and write (write-tasks.ts), and the memory in which blocks come to them.
 *
 * A block is received into a slot, which all threads share; nothing of it is copied, or allocated, on the way. The number
 * of slots is the bound on content in memory: who finds none free waits. A block that is too long for a slot gets memory
 * of its own, and counts as one. Answers of a thread come in the order of its tasks.
 */
import { Worker } from 'node:worker_threads'
import { workerModule } from '../worker-module.ts'
import type { BlockAnswer, BlockTask, FinishTask, TargetEnd } from './write-tasks.ts'

const slotBytes = 1024 * 1024 + 256 * 1024

/** Room for one block, from `take` to `give`. */
export interface Room {
  readonly memory: SharedArrayBuffer
  readonly offset: number
  readonly bytes: Buffer
  readonly slot: number
}

interface Thread {
  readonly worker: Worker
  /** Who waits for the answer to a task, whatever that is. */
  readonly answers: PromiseWithResolvers<unknown>[]
  failed?: unknown
}

export class WritingThreads {
  readonly #threads: Thread[]
  readonly #memory: SharedArrayBuffer
  readonly #free: number[]
  readonly #waiting: (() => void)[] = []

  constructor(count: number, slots: number) {
    this.#memory = new SharedArrayBuffer(slots * slotBytes)
    this.#free = Array.from({ length: slots }, (_, slot) => slot)
    this.#threads = Array.from({ length: count }, () => startThread())
  }

  /** Room for `bytes`, once there is some; to be given back. */
  async take(bytes: number): Promise<Room> {
    while (this.#free.length === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    const slot = this.#free.pop() as number
    const fits = bytes <= slotBytes
    const memory = fits ? this.#memory : new SharedArrayBuffer(bytes)
    const offset = fits ? slot * slotBytes : 0
    return { memory, offset, bytes: Buffer.from(memory, offset, bytes), slot }
  }

  give({ slot }: Room): void {
    this.#free.push(slot)
    this.#waiting.shift()?.()
  }

  run(task: BlockTask): Promise<BlockAnswer>
  run(task: FinishTask): Promise<TargetEnd>
  run(task: BlockTask | FinishTask): Promise<BlockAnswer | TargetEnd> {
    const thread = this.#threads.reduce((least, other) =>
      other.answers.length < least.answers.length ? other : least,
    )
    if (thread.failed !== undefined) return Promise.reject(thread.failed)
    const answer = Promise.withResolvers<unknown>()
    thread.answers.push(answer)
    thread.worker.postMessage(task)
    return answer.promise as Promise<BlockAnswer | TargetEnd>
  }

  /** Ends the threads when what they have begun is done. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()))
  }
}

function startThread(): Thread {
  const thread: Thread = {
    worker: new Worker(workerModule(import.meta.url, 'write-worker')),
    answers: [],
  }
  const fail = (error: unknown): void => {
    thread.failed = error
    for (const { reject } of thread.answers.splice(0)) reject(error)
  }
  thread.worker.on('message', (answer) => thread.answers.shift()?.resolve(answer))
  thread.worker.on('error', fail)
  thread.worker.on('exit', () => fail(new TypeError('a writing thread has ended')))
  return thread
}
