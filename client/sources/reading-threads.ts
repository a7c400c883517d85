/** Several reading threads behind one `fill`: each job goes to the least busy one. */
import type { Filled } from '../engine/source.ts'
import { workerModule } from '../worker-module.ts'
import { bufferAt, createBuffers, giveBuffer, readBufferBytes, type SharedBuffers } from './buffer-pool.ts'
import type { FillJob, FillMessage } from './file-reader.ts'
import { fillEvents } from './fill-batch.ts'
import { StreamThread } from './stream-thread.ts'

/**
 * Buffers besides the two that each thread may need at once (one to fill, one for the tail): this much content, 4 MiB each, may
 * be on its way to the receiver when those are in use. With two less a first backup takes a tenth longer, with two more no less (measured).
 */
const buffersUnderWay = 4

export class ReadingThreads {
  readonly #threads: StreamThread<FillJob, FillMessage>[]
  readonly #buffers: SharedBuffers

  constructor(count: number) {
    const buffers = createBuffers(2 * count + buffersUnderWay, readBufferBytes)
    const module = workerModule(import.meta.url, 'fill-worker')
    const drop = ({ buffer }: FillMessage): void => giveBuffer(buffers, buffer)
    // The buffers bound what is under way: the thread itself need not be held back any earlier.
    const ahead = buffers.control.length
    this.#threads = Array.from(
      { length: count },
      () => new StreamThread(module, ahead, { data: { buffers }, drop }),
    )
    this.#buffers = buffers
  }

  async *fill(job: FillJob, signal: AbortSignal): AsyncGenerator<Filled, void, undefined> {
    const [first, ...others] = this.#threads as [
      StreamThread<FillJob, FillMessage>,
      ...StreamThread<FillJob, FillMessage>[],
    ]
    const thread = others.reduce((least, other) => (other.load < least.load ? other : least), first)
    for await (const { buffer, events } of thread.run(job, signal)) {
      let held = true
      const release = (): void => {
        if (held) giveBuffer(this.#buffers, buffer)
        held = false
      }
      const bytesAt = (offset: number, length: number): Buffer =>
        bufferAt(this.#buffers, buffer, offset, length)
      yield { events: fillEvents(events, bytesAt), release }
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()))
  }
}
