/** What chunkdav is to reach, as ratios to restic and to borg, and whether it does. */
import { type Ratio, ratioOf } from './ratios.ts'
import { ours, type Sample, type Samples, type Step, samplesOf } from './samples.ts'

export interface Goal {
  readonly work: string
  readonly restic: number
  readonly borg?: number
  /** Of a tool in each round. */
  readonly values: (all: Samples, tool: string) => { round: number; value: number }[]
}

const secondsOf =
  (corpus: 'tree' | 'random', step: Step): Goal['values'] =>
  (all, tool) =>
    samplesOf(all, corpus, step, tool).map(({ round, seconds }) => ({ round, value: seconds }))

/** The largest of a tool's runs in each round. */
const peakOf: Goal['values'] = (all, tool) => {
  const runs = all.samples.filter((one) => one.corpus === 'tree' && one.tool === tool)
  const byRound = Map.groupBy(runs, ({ round }) => round)
  return [...byRound].map(([round, of]) => ({
    round,
    value: Math.max(...of.map(({ clientPeakBytes }) => clientPeakBytes)),
  }))
}

const storedOf: Goal['values'] = (all, tool) =>
  samplesOf(all, 'tree', 'first', tool).map(({ round, storedBytes = 0 }: Sample) => ({
    round,
    value: storedBytes,
  }))

export const goals: readonly Goal[] = [
  { work: 'first backup of the tree', restic: 0.45, borg: 0.6, values: secondsOf('tree', 'first') },
  { work: 'second backup, nothing changed', restic: 0.4, borg: 0.4, values: secondsOf('tree', 'again') },
  {
    work: 'second backup, 1 % of files changed',
    restic: 0.5,
    borg: 0.5,
    values: secondsOf('tree', 'changed'),
  },
  { work: 'restore of the tree', restic: 0.6, borg: 0.4, values: secondsOf('tree', 'restore') },
  { work: 'first backup of random data', restic: 0.5, borg: 0.6, values: secondsOf('random', 'first') },
  { work: 'bytes stored for the tree', restic: 1, borg: 1, values: storedOf },
  { work: 'peak memory of the client, over all work on the tree', restic: 1, values: peakOf },
]

export interface Verdict {
  readonly work: string
  readonly peer: string
  readonly goal: number
  readonly ratio: Ratio
  /** The median, rounded as it is shown. */
  readonly isMet: boolean
}

/** One for each goal that was measured. */
export function verdictsOf(all: Samples): Verdict[] {
  return goals.flatMap(({ work, restic, borg, values }) =>
    Object.entries({ restic, borg }).flatMap(([peer, goal]) => {
      const ratio = ratioOf(values(all, ours), values(all, peer))
      if (goal === undefined || ratio === undefined) return []
      return [{ work, peer, goal, ratio, isMet: Number(ratio.median.toFixed(2)) <= goal }]
    }),
  )
}
