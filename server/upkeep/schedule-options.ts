/** What the command line says of upkeep, as text. */
import { Cron } from 'croner'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { parseVaultName } from '../../protocol/url.ts'
import type { Names } from '../catalog/tree-records.ts'
import { pathNames } from '../http/path-names.ts'

/** A collection of a live tree that is frozen again and again. */
export interface ScheduledFreeze {
  readonly vault: string
  /** Below the vault: the first name is `tree`. */
  readonly names: Names
  /** When: five fields (minute, hour, day of month, month, day of week), or six with seconds first; local time. */
  readonly cron: string
  /** What its checkpoints are filed under. Default: `tree`, or `tree-a-b` for tree/a/b. */
  readonly source?: string
}

/** `VAULT[/PATH] CRON`; the path is below the tree, percent-encoded where it has spaces. Problem `usage`. */
export function parseScheduledFreeze(text: string): ScheduledFreeze {
  const [, place = '', cron = ''] = /^\s*(\S+)\s+(\S.*?)\s*$/s.exec(text) ?? []
  if (place === '') throw usage('say which vault and when, such as "home 0 3 * * *"')
  const [vault = ''] = place.split('/')
  try {
    const path = Buffer.from(`/${place}`, 'utf8').toString('latin1')
    const names = [Buffer.from('tree'), ...pathNames(path, 1)]
    cronJob(cron).stop()
    return { vault: parseVaultName(vault), names, cron }
  } catch (cause) {
    if (!isProblem(cause)) throw cause
    const hint =
      isProblem(cause, 'usage') && place.includes('/') ? '; in the path a space is written %20' : ''
    throw usage(cause.message.replace(/\.$/, '') + hint, cause)
  }
}

/** A job for this pattern, not running yet. Problem `usage` for what is no pattern, or never comes. */
export function cronJob(pattern: string): Cron {
  let job: Cron
  try {
    // One at a time; and it does not keep a process alive that has nothing else to do.
    job = new Cron(pattern, { paused: true, protect: true, unref: true })
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause
    throw usage(
      `"${pattern.slice(0, 80)}" is no cron pattern: ${cause.message.replace(/^CronPattern: /, '')}`,
      cause,
    )
  }
  if (job.nextRun() !== null) return job
  throw usage(`"${pattern.slice(0, 80)}" never comes`)
}

const unitMs = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 7 * 86_400_000 } as const
/** A hundred years: longer than this program will run. */
const maxDurationMs = 36_525 * unitMs.d

/** `90m`, `12h`, `30d`, `4w`, or `0`, in ms. Problem `usage`. */
export function parseDuration(text: string): number {
  if (text === '0') return 0
  const [, digits, unit] = /^([0-9]{1,9})([smhdw])$/.exec(text) ?? []
  const ms = Number(digits) * unitMs[unit as keyof typeof unitMs]
  if (ms <= maxDurationMs) return ms
  throw usage('it must be a number with s, m, h, d or w behind it, such as 12h or 30d, and at most 100 years')
}

/** Within what time everything stored is read: at least an hour, in ms; or `off`. Problem `usage`. */
export function parseScrubPeriod(text: string): number | 'off' {
  if (text === 'off') return text
  const ms = parseDuration(text)
  if (ms >= unitMs.h) return ms
  throw usage('it must be an hour or more, such as 30d, or off')
}

/** After what time an open checkpoint is deleted that nobody goes on with: at least an hour, in ms; infinite for `off`. Problem `usage`. */
export function parseExpireOpen(text: string): number {
  if (text === 'off') return Number.POSITIVE_INFINITY
  const ms = parseDuration(text)
  if (ms >= unitMs.h) return ms
  throw usage('it must be an hour or more, such as 7d, or off')
}

const unitBytes = { '': 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 } as const

/** Bytes in a second: `32MiB`, `500KiB`. Problem `usage`. */
export function parseByteRate(text: string): number {
  const [, digits, unit] = /^([0-9]{1,9})(|KiB|MiB|GiB)$/.exec(text) ?? []
  const bytes = Number(digits) * unitBytes[unit as keyof typeof unitBytes]
  if (bytes >= 1024) return bytes
  throw usage('it must be a number with KiB, MiB or GiB behind it, such as 32MiB')
}

/** What is kept free on the disk, in bytes: `256MiB`, `1GiB`, or `0`. Problem `usage`. */
export function parseReserve(text: string): number {
  const [, digits, unit] = /^([0-9]{1,9})(|KiB|MiB|GiB)$/.exec(text) ?? []
  const bytes = Number(digits) * unitBytes[unit as keyof typeof unitBytes]
  if (Number.isSafeInteger(bytes)) return bytes
  throw usage('it must be a number with KiB, MiB or GiB behind it, such as 256MiB, or 0')
}

/** When garbage is collected: at night, when few back up. */
export const defaultCollect = '30 3 * * *'

/** A cron pattern, or `off`. Problem `usage`. */
export function parseCollect(text: string): string {
  if (text === 'off') return text
  cronJob(text).stop()
  return text
}

/** A percentage, as a share above 0 and up to 1. Problem `usage`. */
export function parseShare(text: string): number {
  const share = Number(/^([0-9]{1,3}(?:\.[0-9]{1,3})?)%$/.exec(text)?.[1]) / 100
  if (share > 0 && share <= 1) return share
  throw usage('it must be a percentage above 0, such as 50%')
}

function usage(detail: string, cause?: unknown): Problem {
  return new Problem('usage', detail, { cause })
}
