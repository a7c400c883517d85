/**
 * Preloaded into a receiver (`node --import`): measures how late its event loop is. On SIGUSR2 it writes a
 * line `event-loop-delay {…}` to standard error and starts anew. Milliseconds.
 */
import { writeSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'

/** What the histogram holds is the time between two ticks of a timer: this much of it is no delay. */
const resolution = 5
const histogram = monitorEventLoopDelay({ resolution })
histogram.enable()

process.on('SIGUSR2', () => {
  const ms = (ns: number): number => Math.max(0, Math.round((ns / 1e6 - resolution) * 10) / 10)
  const [p50, p99] = [ms(histogram.percentile(50)), ms(histogram.percentile(99))]
  writeSync(2, `event-loop-delay ${JSON.stringify({ p50, p99, max: ms(histogram.max) })}\n`)
  histogram.reset()
})
