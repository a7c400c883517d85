/**
 * Which checkpoints of one source a policy keeps. A pure function of what there is, the policy and the receiver's time.
 *
 * - Newest first is by number: numbers are given by the receiver and only ever rise, whatever its clock did.
 * - A calendar rule (`keepDaily: 7`) keeps the newest checkpoint of each of the 7 newest days that have one; days
 *   without a checkpoint do not count. Days are those of the policy's time zone, weeks those of ISO 8601.
 * - `keepWithin` counts back from the newest checkpoint, not from now: where backups have stopped nothing goes on vanishing.
 * - What says that it was committed after `now` was committed while the clock was wrong: it stays, and takes nobody's place.
 * - The newest always stays, and so does what is pinned. Open checkpoints are not given in.
 *
 * So a policy that keeps more keeps a superset, and what was kept is kept again when nothing is added.
 */
import { Problem } from '../../protocol/problem.ts'
import type { KeepReason, RetentionPolicy } from '../../protocol/schema.ts'

/** A committed checkpoint, as far as retention looks at it. */
export interface Retained {
  readonly number: number
  /** By the receiver's clock, as in CheckpointState. */
  readonly committedAt: string
  readonly pinned?: boolean | undefined
}

export interface Verdict<C extends Retained> {
  /** Ascending by number, as is `removed`. */
  readonly kept: readonly { readonly checkpoint: C; readonly reasons: readonly KeepReason[] }[]
  readonly removed: readonly C[]
}

/** What applies to a source: without a policy everything is kept. */
export type Retention = RetentionPolicy | 'keep-all'

const hourMs = 3_600_000
const dayMs = 24 * hourMs

/** Judges all committed checkpoints of one source. Problem `invalid-request` for a time zone that is none. */
export function retain<C extends Retained>(
  checkpoints: readonly C[],
  retention: Retention,
  now: Date,
  timeZone = 'UTC',
): Verdict<C> {
  const newestFirst = [...checkpoints].sort((a, b) => b.number - a.number)
  const reasons = new Map<C, KeepReason[]>(newestFirst.map((checkpoint) => [checkpoint, []]))
  const keep = (checkpoint: C, reason: KeepReason): void => void reasons.get(checkpoint)?.push(reason)

  const [newest] = newestFirst
  if (newest !== undefined) keep(newest, 'newest')
  for (const checkpoint of newestFirst) if (checkpoint.pinned === true) keep(checkpoint, 'pinned')
  if (retention === 'keep-all') for (const checkpoint of newestFirst) keep(checkpoint, 'keep-all')
  else applyPolicy(newestFirst, retention, { now, calendar: new Calendar(timeZone), keep })

  const ascending = newestFirst.reverse()
  return {
    kept: ascending.flatMap((checkpoint) => {
      const found = reasons.get(checkpoint) ?? []
      return found.length === 0 ? [] : [{ checkpoint, reasons: found }]
    }),
    removed: ascending.filter((checkpoint) => reasons.get(checkpoint)?.length === 0),
  }
}

interface Judging<C> {
  readonly now: Date
  readonly calendar: Calendar
  readonly keep: (checkpoint: C, reason: KeepReason) => void
}

function applyPolicy<C extends Retained>(
  newestFirst: readonly C[],
  policy: RetentionPolicy,
  { now, calendar, keep }: Judging<C>,
): void {
  const past: { checkpoint: C; ms: number }[] = []
  for (const checkpoint of newestFirst) {
    const ms = Date.parse(checkpoint.committedAt)
    // Also what has no time that could be read: it is not judged.
    if (ms <= now.getTime()) past.push({ checkpoint, ms })
    else keep(checkpoint, 'future')
  }
  for (const { checkpoint } of past.slice(0, policy.keepLast ?? 0)) keep(checkpoint, 'last')
  for (const { field, reason, bucket } of calendarRules) {
    const count = policy[field] ?? 0
    const seen = new Set<string>()
    for (const { checkpoint, ms } of count === 0 ? [] : past) {
      const key = bucket(calendar, ms)
      if (seen.has(key)) continue
      if (seen.size === count) break
      seen.add(key)
      keep(checkpoint, reason)
    }
  }
  if (policy.keepWithin === undefined || past.length === 0) return
  const newestMs = past.reduce((latest, { ms }) => Math.max(latest, ms), Number.NEGATIVE_INFINITY)
  const since = calendar.before(newestMs, parseKeepWithin(policy.keepWithin))
  for (const { checkpoint, ms } of past) if (ms >= since) keep(checkpoint, 'within')
}

interface CalendarRule {
  readonly field: 'keepHourly' | 'keepDaily' | 'keepWeekly' | 'keepMonthly' | 'keepYearly'
  readonly reason: KeepReason
  /** What tells one hour, day, … from another. */
  readonly bucket: (calendar: Calendar, ms: number) => string
}

const calendarRules: readonly CalendarRule[] = [
  { field: 'keepHourly', reason: 'hourly', bucket: (calendar, ms) => calendar.hour(ms) },
  { field: 'keepDaily', reason: 'daily', bucket: (calendar, ms) => calendar.local(ms).slice(0, 10) },
  { field: 'keepWeekly', reason: 'weekly', bucket: (calendar, ms) => calendar.week(ms) },
  { field: 'keepMonthly', reason: 'monthly', bucket: (calendar, ms) => calendar.local(ms).slice(0, 7) },
  { field: 'keepYearly', reason: 'yearly', bucket: (calendar, ms) => calendar.local(ms).slice(0, 4) },
]

export interface CalendarSpan {
  readonly count: number
  readonly unit: 'h' | 'd' | 'w' | 'mo' | 'y'
}

/** `12h`, `30d`, `4w`, `6mo` or `1y`. Problem `invalid-request`. */
export function parseKeepWithin(text: string): CalendarSpan {
  const [, digits, unit] = /^([1-9][0-9]{0,3})(h|d|w|mo|y)$/.exec(text) ?? []
  if (unit !== undefined) return { count: Number(digits), unit: unit as CalendarSpan['unit'] }
  throw new Problem('invalid-request', `"${text}" is no span of time; write 12h, 30d, 4w, 6mo or 1y`)
}

/** Where a moment stands in the calendar of a time zone. */
class Calendar {
  readonly #format: Intl.DateTimeFormat | undefined

  constructor(timeZone: string) {
    this.#format = timeZone === 'UTC' ? undefined : formatFor(timeZone)
  }

  /** The local time as `YYYY-MM-DDTHH:MM:SS…`. */
  local(ms: number): string {
    return new Date(ms + this.#offset(ms)).toISOString()
  }

  /** By how much local time is ahead, in ms. */
  #offset(ms: number): number {
    if (this.#format === undefined) return 0
    const parts = Object.fromEntries(
      this.#format.formatToParts(ms).map(({ type, value }) => [type, Number(value)]),
    )
    const { year = 0, month = 1, day, hour, minute, second } = parts
    return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(ms / 1000) * 1000
  }

  /** The hour that comes twice when the clocks go back is two hours. */
  hour(ms: number): string {
    return `${this.local(ms).slice(0, 13)} ${this.#offset(ms)}`
  }

  /** The week of ISO 8601: it belongs to the year of its Thursday. */
  week(ms: number): string {
    const day = new Date(`${this.local(ms).slice(0, 10)}T00:00:00Z`)
    const thursday = new Date(day.getTime() + (4 - (day.getUTCDay() || 7)) * dayMs)
    const dayOfYear = (thursday.getTime() - Date.UTC(thursday.getUTCFullYear(), 0, 1)) / dayMs
    return `${thursday.getUTCFullYear()}-W${Math.floor(dayOfYear / 7) + 1}`
  }

  /** The moment that lies so far before `ms`; where a month has no such day, its last. */
  before(ms: number, { count, unit }: CalendarSpan): number {
    if (unit === 'h') return ms - count * hourMs
    if (unit === 'd' || unit === 'w') return ms - count * (unit === 'w' ? 7 : 1) * dayMs
    const offset = this.#offset(ms)
    const local = new Date(ms + offset)
    const day = local.getUTCDate()
    local.setUTCDate(1)
    local.setUTCMonth(local.getUTCMonth() - count * (unit === 'y' ? 12 : 1))
    const lastDay = new Date(Date.UTC(local.getUTCFullYear(), local.getUTCMonth() + 1, 0)).getUTCDate()
    local.setUTCDate(Math.min(day, lastDay))
    return local.getTime() - offset
  }
}

function formatFor(timeZone: string): Intl.DateTimeFormat {
  const numeric = 'numeric' as const
  try {
    return new Intl.DateTimeFormat('en-US', {
      timeZone,
      calendar: 'gregory',
      numberingSystem: 'latn',
      hourCycle: 'h23',
      year: numeric,
      month: numeric,
      day: numeric,
      hour: numeric,
      minute: numeric,
      second: numeric,
    })
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause
    throw new Problem('invalid-request', `"${timeZone}" is no time zone; write one such as Europe/Vienna`, {
      cause,
    })
  }
}

/** Problem `invalid-request` for a name that is no time zone here. */
export function checkTimeZone(timeZone: string): void {
  if (timeZone !== 'UTC') formatFor(timeZone)
}
