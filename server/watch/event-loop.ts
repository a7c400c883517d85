import { monitorEventLoopDelay } from 'node:perf_hooks'

const windowMs = 60_000
const nsPerMs = 1e6
const resolutionMs = 10

/** How late the event loop comes to what is due, over the last one to two minutes. */
export class EventLoopDelay {
  readonly #histogram = monitorEventLoopDelay({ resolution: resolutionMs })
  readonly #timer: NodeJS.Timeout
  #before = 0

  /** Begins to measure; `close` ends that. */
  constructor() {
    this.#histogram.enable()
    this.#timer = setInterval(() => {
      this.#before = this.#current()
      this.#histogram.reset()
    }, windowMs).unref()
  }

  /** The 99th percentile, in ms. */
  get p99(): number {
    return Math.max(this.#before, this.#current())
  }

  /** The histogram counts from tick to tick, so its own interval is in it. */
  #current(): number {
    return this.#histogram.count === 0
      ? 0
      : Math.max(0, this.#histogram.percentile(99) / nsPerMs - resolutionMs)
  }

  close(): void {
    clearInterval(this.#timer)
    this.#histogram.disable()
  }
}
