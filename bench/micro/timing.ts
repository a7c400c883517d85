/** Times a piece of work again and again, by tinybench. */
import { Bench } from 'tinybench'
import { quantile } from '../figures.ts'

export interface Timing {
  /** Milliseconds of one run. */
  readonly median: number
  /** A tenth of the runs is faster, a tenth slower. */
  readonly fast: number
  readonly slow: number
  readonly runs: number
}

export interface Effort {
  /** Runs at least for so long, and so often. */
  readonly ms: number
  readonly runs: number
}

/** Runs `work` again and again; `prepare` before each run does not count. Rejects with what `work` rejects with. */
export async function time(
  work: () => unknown,
  { ms, runs }: Effort,
  prepare?: () => Promise<void> | void,
): Promise<Timing> {
  const bench = new Bench({
    time: ms,
    iterations: runs,
    warmupTime: ms / 10,
    warmupIterations: 2,
    retainSamples: true,
    throws: true,
  })
  bench.add('work', work, prepare === undefined ? {} : { beforeEach: () => prepare() })
  const [task] = await bench.run()
  if (task?.result.state !== 'completed') throw new Error('nothing was measured')
  const samples = [...(task.result.latency.samples ?? [])]
  const at = (part: number): number => quantile(samples, part)
  return { median: at(0.5), fast: at(0.1), slow: at(0.9), runs: samples.length }
}

/** Timings that were taken one by one, in milliseconds. */
export function timingOf(samples: readonly number[]): Timing {
  const at = (part: number): number => quantile(samples, part)
  return { median: at(0.5), fast: at(0.1), slow: at(0.9), runs: samples.length }
}
