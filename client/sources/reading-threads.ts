/** Several reading threads behind one `fill`: each job goes to the least busy one. */
import { Problem } from '../../protocol/problem.ts'
import type { FillEvent, Filled } from '../engine/source.ts'
import { workerModule } from '../worker-module.ts'
import { bufferAt, createBuffers, giveBuffer, type SharedBuffers } from './buffer-pool.ts'
import { type FillJob, type FillMessage, type FillMessageEvent, readBufferBytes } from './file-reader.ts'
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
      yield { events: events.map((event) => this.#event(event, buffer)), release }
    }
  }

  #event(event: FillMessageEvent, buffer: number): FillEvent {
    if (event.type === 'chunk') {
      const { file, id, offset, length } = event
      return { type: 'chunk', file, id, bytes: bufferAt(this.#buffers, buffer, offset, length) }
    }
    if (event.type === 'failed') {
      return { type: 'failed', file: event.file, problem: new Problem(event.code, event.detail) }
    }
    return event
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()))
  }
}
