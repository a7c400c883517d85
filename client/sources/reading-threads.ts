/** Several reading threads behind one `fill`: each job goes to the least busy one. */
import { Problem } from '../../protocol/problem.ts'
import type { FillEvent } from '../engine/source.ts'
import type { FillJob, FillMessage, FillMessageEvent } from './file-reader.ts'
import { StreamThread } from './stream-thread.ts'
import { workerModule } from './worker-module.ts'

/** Buffers of 8 MiB that one thread may be ahead of who takes them. */
const buffersAhead = 2

export class ReadingThreads {
  readonly #threads: StreamThread<FillJob, FillMessage>[]

  constructor(count: number) {
    this.#threads = Array.from(
      { length: Math.max(1, count) },
      () => new StreamThread(workerModule(import.meta.url, 'fill-worker'), buffersAhead),
    )
  }

  async *fill(job: FillJob, signal: AbortSignal): AsyncGenerator<readonly FillEvent[], void, undefined> {
    const [first, ...others] = this.#threads as [
      StreamThread<FillJob, FillMessage>,
      ...StreamThread<FillJob, FillMessage>[],
    ]
    const thread = others.reduce((least, other) => (other.load < least.load ? other : least), first)
    for await (const { buffer, events } of thread.run(job, signal)) {
      yield events.map((event) => fillEvent(event, buffer))
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()))
  }
}

function fillEvent(event: FillMessageEvent, buffer: ArrayBuffer): FillEvent {
  if (event.type === 'chunk') {
    const { file, id, offset, length } = event
    return { type: 'chunk', file, id, bytes: Buffer.from(buffer, offset, length) }
  }
  if (event.type === 'failed') {
    return { type: 'failed', file: event.file, problem: new Problem(event.code, event.detail) }
  }
  return event
}
