import type { Audit } from '../audit.ts'
import type { Block } from './login-limits.ts'

const linesAMinute = 120
const minuteMs = 60_000
const maxNameLength = 80

/** A login that went wrong. */
export interface FailedLogin {
  /** The name that was claimed, if one was. */
  readonly name?: string
  readonly from: string
  /** The id of what has the form of a token. */
  readonly token?: string
}

/**
 * Writes failed logins into the audit, but no more than 120 lines a minute: whoever may only knock must not be able to
 * fill the disk. How many were left out stands in a line of its own when the minute is over.
 */
export class LoginAudit {
  readonly #audit: Audit | undefined
  #lines = 0
  #leftOut = 0
  #timer: NodeJS.Timeout | undefined

  constructor(audit: Audit | undefined) {
    this.#audit = audit
  }

  failed({ name, from, token }: FailedLogin): void {
    if (!this.#mayWrite()) return
    this.#audit?.note({
      event: 'login-failed',
      ...who(name),
      from,
      ...(token === undefined ? {} : { token }),
    })
  }

  blocked({ name, from, seconds }: Block): void {
    if (!this.#mayWrite()) return
    this.#audit?.note({ event: 'login-blocked', ...who(name), from, seconds })
  }

  #mayWrite(): boolean {
    this.#timer ??= setTimeout(() => this.#endMinute(), minuteMs).unref()
    if (++this.#lines <= linesAMinute) return true
    this.#leftOut++
    return false
  }

  #endMinute(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#leftOut > 0) this.#audit?.note({ event: 'login-failed', linesLeftOut: this.#leftOut })
    this.#lines = 0
    this.#leftOut = 0
  }

  /** Idempotent; before the audit is closed. */
  close(): void {
    this.#endMinute()
  }
}

function who(name: string | undefined): { who?: string } {
  return name === undefined || name === '' ? {} : { who: name.slice(0, maxNameLength) }
}
