import { median } from '../figures.ts'

export interface Ratio {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface Timed {
  readonly round: number
  readonly value: number
}

/** Ours to theirs, round by round: what slows the machine down for a while slows both. Undefined without a pair. */
export function ratioOf(ours: readonly Timed[], theirs: readonly Timed[]): Ratio | undefined {
  const ratios = ours.flatMap(({ round, value }) => {
    const other = theirs.find((one) => one.round === round)
    return other === undefined || other.value === 0 ? [] : [value / other.value]
  })
  if (ratios.length === 0) return undefined
  return { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios) }
}
