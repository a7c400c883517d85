/**
 * Threads that decode, hash and write (write-tasks.ts), and the memory in which blocks come to them.
 *
 * A block is received into a slot, which all threads share; nothing of it is copied, or allocated, on the way. The number
 * of slots is the bound on content in memory: who finds none free waits. A slot grows to the longest block that it had to
 * take: what is allocated for one block goes when the collectors of all threads have seen it. Answers of a thread
 * come in the order of its tasks.
 */
import type { Worker } from 'node:worker_threads'
import { endThread, startThread } from '../threads.ts'
import { workerModule } from '../worker-module.ts'
import type { BlockAnswer, BlockTask, FinishTask, TargetEnd } from './write-tasks.ts'

const slotBytes = 1024 * 1024 + 256 * 1024

/** Room for one block, from `take` to `give`. */
export interface Room {
  readonly memory: SharedArrayBuffer
  readonly bytes: Buffer
}

interface Thread {
  readonly worker: Worker
  /** Who waits for the answer to a task, whatever that is. */
  readonly answers: PromiseWithResolvers<unknown>[]
  failed?: unknown
}

export class WritingThreads {
  readonly #threads: Thread[]
  readonly #free: SharedArrayBuffer[]
  readonly #waiting: (() => void)[] = []
  /** 1 when files need not be checked to their end. */
  readonly #stopped = new Int32Array(new SharedArrayBuffer(4))

  constructor(count: number, slots: number) {
    this.#free = Array.from({ length: slots }, () => new SharedArrayBuffer(slotBytes))
    this.#threads = Array.from({ length: count }, () => startWriter(this.#stopped))
  }

  /** Room for `bytes`, once there is some; to be given back. */
  async take(bytes: number): Promise<Room> {
    while (this.#free.length === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    const fits = this.#free.findIndex((memory) => memory.byteLength >= bytes)
    const [memory] = this.#free.splice(Math.max(0, fits), 1) as [SharedArrayBuffer]
    const room = fits < 0 ? new SharedArrayBuffer(bytes) : memory
    return { memory: room, bytes: Buffer.from(room, 0, bytes) }
  }

  /** The shortest come first, so that long ones are there for long blocks. */
  give({ memory }: Room): void {
    const longer = this.#free.findIndex(({ byteLength }) => byteLength > memory.byteLength)
    this.#free.splice(longer < 0 ? this.#free.length : longer, 0, memory)
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

  /** Files that are being checked end with Problem `cancelled`, as they are. */
  stop(): void {
    Atomics.store(this.#stopped, 0, 1)
  }

  /** Ends the threads when what they were given is done. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#threads.map(({ worker }) => endThread(worker)))
  }
}

function startWriter(stopped: Int32Array): Thread {
  const thread: Thread = {
    worker: startThread(workerModule(import.meta.url, 'write-worker'), { stopped }),
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
