/**
 * Threads that pack chunks into blocks and compress them, each job on whichever is free. What they make stands in
 * memory that moves to the thread with the job and back with the answer, and is used again: nothing of it is allocated for a
 * job or left to the collector. It is not shared: into memory that is, V8 copies at a third of the speed.
 */
import type { Worker } from 'node:worker_threads'
import type { OutgoingBlock, PlainChunk } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import { endThread, startThread } from '../threads.ts'
import { workerModule } from '../worker-module.ts'
import type { BlockToEncode, EncodedJob, EncodeJob } from './encode-worker.ts'

interface Waiting {
  readonly blocks: readonly BlockToEncode[]
  readonly resolve: (encoded: EncodedJob) => void
  readonly reject: (problem: Problem) => void
}

/** Blocks that are ready to be sent. Their pieces are borrowed until `release`, to be called once. */
export interface EncodedBlocks {
  readonly blocks: readonly OutgoingBlock[]
  release(): void
}

/**
 * Jobs that a thread has at a time: it begins the second when it is through with the first, and not when this thread comes to
 * hear of that. A first backup's thread stood still for a seventh of the time (measured).
 */
const jobsAtOnce = 2

export class EncodingThreads {
  readonly #level: number
  readonly #outBytes: number
  readonly #count: number
  readonly #queue: Waiting[] = []
  /** Each thread's jobs, in order: the one that it is at, and those that it has already for when that is done. */
  readonly #jobs = new Map<Worker, Waiting[]>()
  /** Memory that no job uses. */
  readonly #free: ArrayBuffer[] = []
  #failure: Problem | undefined

  /** `outBytes` is what the blocks of a usual job come to at most. Threads start with the first jobs, or `prepare`. */
  constructor(options: { count: number; level: number; outBytes: number }) {
    this.#count = options.count
    this.#level = options.level
    this.#outBytes = options.outBytes
  }

  /** There will be jobs: a thread takes as long to start as the receiver to say what it lacks, and longer. */
  prepare(): void {
    if (this.#jobs.size === 0 && this.#failure === undefined) this.#start().unref()
  }

  /** One block per group of chunks, in order. The chunks' bytes stay as they are until `release`. */
  async encode(groups: readonly (readonly PlainChunk[])[]): Promise<EncodedBlocks> {
    const blocks = groups.map(blockOf)
    const { out, blocks: encoded } = await this.#run(blocks)
    let start = 0
    const outgoing = encoded.map(({ end, isWhole }, i): OutgoingBlock => {
      const { chunks, plain } = blocks[i] as BlockToEncode
      const head = Buffer.from(out, start, end - start)
      start = end
      const pieces = isWhole ? [head] : [head, ...plain]
      return { chunks: chunks.length, bytes: pieces.reduce((sum, { length }) => sum + length, 0), pieces }
    })
    return { blocks: outgoing, release: () => this.#giveBack(out) }
  }

  #giveBack(out: ArrayBuffer): void {
    // What was made for one job only is not kept.
    if (out.byteLength === this.#outBytes) this.#free.push(out)
  }

  #run(blocks: readonly BlockToEncode[]): Promise<EncodedJob> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure)
        return
      }
      this.#queue.push({ blocks, resolve, reject })
      this.#dispatch()
    })
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const worker = this.#ready()
      if (worker === undefined) return
      const waiting = this.#queue.shift() as Waiting
      this.#jobs.get(worker)?.push(waiting)
      worker.ref()
      // Taken now, so that who waits for a thread holds none.
      const out = this.#free.pop() ?? new ArrayBuffer(this.#outBytes)
      const job: EncodeJob = { blocks: waiting.blocks, level: this.#level, out }
      worker.postMessage(job, [out])
    }
  }

  /** A thread that may have another job: one that has nothing to do, or else a new one, or else the one with the fewest. */
  #ready(): Worker | undefined {
    const [least] = [...this.#jobs].sort(([, a], [, b]) => a.length - b.length)
    if (this.#jobs.size < this.#count && least?.[1].length !== 0) return this.#start()
    return least !== undefined && least[1].length < jobsAtOnce ? least[0] : undefined
  }

  #start(): Worker {
    const worker = startThread(workerModule(import.meta.url, 'encode-worker'))
    const jobs: Waiting[] = []
    worker.on('message', (encoded: EncodedJob) => {
      const waiting = jobs.shift()
      if (jobs.length === 0 && this.#failure === undefined) worker.unref()
      this.#dispatch()
      waiting?.resolve(encoded)
    })
    worker.on('error', (cause) =>
      this.#fail(new Problem('internal-error', 'an encoding thread died', { cause })),
    )
    worker.on('exit', () => this.#fail(new Problem('cancelled', 'the encoding thread has ended')))
    this.#jobs.set(worker, jobs)
    return worker
  }

  #fail(problem: Problem): void {
    this.#failure ??= problem
    for (const jobs of [this.#queue, ...this.#jobs.values()]) {
      for (const { reject } of jobs.splice(0)) reject(this.#failure)
    }
  }

  /** Ends the threads; jobs under way reject with Problem `cancelled`. Idempotent. */
  async close(): Promise<void> {
    this.#fail(new Problem('cancelled', 'the encoding threads were closed'))
    await Promise.all([...this.#jobs.keys()].map(endThread))
  }
}

/** Files that were read one after the other stand so in memory: then their chunks are one piece. */
function blockOf(group: readonly PlainChunk[]): BlockToEncode {
  const chunks: { id: Id; length: number }[] = []
  const plain: Uint8Array[] = []
  let [first] = group as readonly [PlainChunk]
  let end = first.bytes.byteOffset
  for (const chunk of group) {
    const { id, bytes } = chunk
    chunks.push({ id, length: bytes.length })
    if (bytes.buffer !== first.bytes.buffer || bytes.byteOffset !== end) {
      plain.push(pieceOf(first.bytes, end))
      first = chunk
    }
    end = bytes.byteOffset + bytes.length
  }
  plain.push(pieceOf(first.bytes, end))
  return { chunks, plain }
}

/** From where `first` begins to the offset `end` of its memory. */
function pieceOf(first: Buffer, end: number): Uint8Array {
  return alone(Buffer.from(first.buffer, first.byteOffset, end - first.byteOffset))
}

/** What is not shared is copied to the thread, and with it the whole memory that it is a part of. */
function alone(bytes: Buffer): Buffer {
  const { buffer, length } = bytes
  if (buffer instanceof SharedArrayBuffer || length === buffer.byteLength) return bytes
  const copy = Buffer.allocUnsafeSlow(length)
  bytes.copy(copy)
  return copy
}
