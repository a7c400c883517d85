/**
 * Threads that pack chunks into blocks and compress them, each job on whichever is free. What they make stands in
 * memory that moves to the thread with the job and back with the answer, and is used again: nothing of it is allocated for a
 * job or left to the collector. It is not shared: into memory that is, V8 copies at a third of the speed.
 */
import { Worker } from 'node:worker_threads'
import type { OutgoingBlock, PlainChunk } from '../../protocol/block.ts'
import { Problem } from '../../protocol/problem.ts'
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

export class EncodingThreads {
  readonly #level: number
  readonly #outBytes: number
  readonly #count: number
  readonly #workers: Worker[] = []
  readonly #idle: Worker[] = []
  readonly #queue: Waiting[] = []
  readonly #running = new Map<Worker, Waiting>()
  /** Memory that no job uses. */
  readonly #free: ArrayBuffer[] = []
  #failure: Problem | undefined

  /** `outBytes` is what the blocks of a usual job come to at most. Threads start with the first jobs. */
  constructor(options: { count: number; level: number; outBytes: number }) {
    this.#count = options.count
    this.#level = options.level
    this.#outBytes = options.outBytes
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
      if (this.#idle.length === 0 && this.#workers.length < this.#count) this.#start()
      this.#dispatch()
    })
  }

  #dispatch(): void {
    while (this.#queue.length > 0 && this.#idle.length > 0) {
      const worker = this.#idle.pop() as Worker
      const waiting = this.#queue.shift() as Waiting
      this.#running.set(worker, waiting)
      worker.ref()
      // Taken now, so that who waits for a thread holds none.
      const out = this.#free.pop() ?? new ArrayBuffer(this.#outBytes)
      const job: EncodeJob = { blocks: waiting.blocks, level: this.#level, out }
      worker.postMessage(job, [out])
    }
  }

  #start(): void {
    const worker = new Worker(workerModule(import.meta.url, 'encode-worker'), {
      // They make next to no garbage: without a bound each would keep tens of MiB for it.
      resourceLimits: { maxYoungGenerationSizeMb: 2 },
    })
    worker.on('message', (encoded: EncodedJob) => {
      const waiting = this.#running.get(worker)
      this.#running.delete(worker)
      this.#idle.push(worker)
      if (this.#failure === undefined) worker.unref()
      waiting?.resolve(encoded)
      this.#dispatch()
    })
    worker.on('error', (cause) =>
      this.#fail(new Problem('internal-error', 'an encoding thread died', { cause })),
    )
    worker.on('exit', () => this.#fail(new Problem('cancelled', 'the encoding thread has ended')))
    this.#workers.push(worker)
    this.#idle.push(worker)
  }

  #fail(problem: Problem): void {
    this.#failure ??= problem
    for (const { reject } of [...this.#queue.splice(0), ...this.#running.values()]) reject(this.#failure)
    this.#running.clear()
  }

  /** Ends the threads; jobs under way reject with Problem `cancelled`. Idempotent. */
  async close(): Promise<void> {
    this.#fail(new Problem('cancelled', 'the encoding threads were closed'))
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }
}

/** Files that were read one after the other stand so in memory: then their chunks are one piece. */
function blockOf(group: readonly PlainChunk[]): BlockToEncode {
  const plain: Buffer[] = []
  for (const chunk of group) {
    const bytes = alone(chunk.bytes)
    const last = plain.at(-1)
    const follows =
      last !== undefined && bytes.buffer === last.buffer && bytes.byteOffset === last.byteOffset + last.length
    if (follows)
      plain[plain.length - 1] = Buffer.from(last.buffer, last.byteOffset, last.length + bytes.length)
    else plain.push(bytes)
  }
  return { chunks: group.map(({ id, bytes }) => ({ id, length: bytes.length })), plain }
}

/** What is not shared is copied to the thread, and with it the whole memory that it is a part of. */
function alone(bytes: Buffer): Buffer {
  const { buffer, length } = bytes
  if (buffer instanceof SharedArrayBuffer || length === buffer.byteLength) return bytes
  const copy = Buffer.allocUnsafeSlow(length)
  bytes.copy(copy)
  return copy
}
