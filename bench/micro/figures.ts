/** Rows of the micro-benchmarks: how fast, how far the runs lie apart, and how near that is to what the machine can do. */
import type { Timing } from './timing.ts'

const GB = 1e9

/** Something measured in bytes per second. */
export interface Rate {
  readonly name: string
  /** Bytes of one run. */
  readonly bytes: number
  readonly timing: Timing
  /** What the machine can do at best, where there is such a thing. */
  readonly limit?: Rate | undefined
}

export function bytesPerSecond({ bytes, timing }: Pick<Rate, 'bytes' | 'timing'>): number {
  return (bytes / timing.median) * 1000
}

export const rateColumns = ['', 'GB/s', '10 % … 90 % of the runs', 'runs', 'of the limit', 'limit'] as const

export function rateRow(rate: Rate): string[] {
  const { name, bytes, timing, limit } = rate
  const inGB = (ms: number): string => significant(((bytes / ms) * 1000) / GB)
  const part = limit && `${significant((100 * bytesPerSecond(rate)) / bytesPerSecond(limit))} %`
  return [
    name,
    inGB(timing.median),
    `${inGB(timing.slow)} … ${inGB(timing.fast)}`,
    String(timing.runs),
    part ?? '',
    limit?.name ?? '',
  ]
}

/** Something measured in time per item. */
export interface Cost {
  readonly name: string
  /** Items of one run. */
  readonly items: number
  readonly timing: Timing
  readonly limit?: Cost | undefined
}

export const costColumns = [
  '',
  'µs per item',
  '10 % … 90 % of the runs',
  'runs',
  'of the limit',
  'limit',
] as const

export function costRow({ name, items, timing, limit }: Cost): string[] {
  const inMicros = (ms: number): string => significant((ms * 1000) / items)
  const part = limit && (limit.timing.median / limit.items / (timing.median / items)) * 100
  return [
    name,
    inMicros(timing.median),
    `${inMicros(timing.fast)} … ${inMicros(timing.slow)}`,
    String(timing.runs),
    part === undefined ? '' : `${significant(part)} %`,
    limit?.name ?? '',
  ]
}

/** Three digits. */
export function significant(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}
