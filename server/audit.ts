/**
 * Who did what that cannot be undone, or tried to get in: `{data}/audit.jsonl`, one JSON object a line, only ever
 * appended to. The receiver and the commands that run beside it both write; a line is one write(2) in append mode, so
 * lines of two processes do not mix. Lines survive the end of the process, and a power cut after `close` or a minute.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'

export type AuditEventName =
  | 'login-failed'
  | 'login-blocked'
  | 'checkpoint-deleted'
  | 'checkpoint-pinned'
  | 'checkpoint-unpinned'
  | 'checkpoint-expired'
  | 'deleted'
  | 'trash-removed'
  | 'pruned'
  | 'settings-changed'
  | 'quota-changed'
  | 'user-added'
  | 'user-changed'
  | 'user-removed'
  | 'token-created'
  | 'token-revoked'
  | 'vault-created'

export interface AuditEvent {
  readonly event: AuditEventName
  /** The user's name; for a failed login the one that was claimed. */
  readonly who?: string
  /** Where the request came from; absent for what the receiver does by itself. */
  readonly from?: string
  readonly vault?: string
  readonly [detail: string]: unknown
}

const syncEveryMs = 60_000

export class Audit {
  /** Lines noted since this was opened, by event. */
  readonly counts = new Map<AuditEventName, number>()
  readonly #handle: FileHandle
  readonly #log: Logger | undefined
  #writing: Promise<void> = Promise.resolve()
  #isDirty = false
  readonly #timer: NodeJS.Timeout

  private constructor(handle: FileHandle, log: Logger | undefined) {
    this.#handle = handle
    this.#log = log
    this.#timer = setInterval(() => void this.#sync(), syncEveryMs).unref()
  }

  /** Opens the file in a data directory that is there. `log` is told too, and of lines that could not be written. */
  static async open(dataDir: string, log?: Logger): Promise<Audit> {
    return new Audit(await open(join(dataDir, 'audit.jsonl'), 'a', 0o600), log)
  }

  /** Takes a line; written in order of the calls, soon. Never throws: a full disk must not stop a deletion. */
  note(event: AuditEvent): void {
    const line = { time: new Date().toISOString(), ...event }
    this.#log?.info({ audit: line }, event.event)
    this.counts.set(event.event, (this.counts.get(event.event) ?? 0) + 1)
    this.#writing = this.#writing.then(() => this.#append(`${lineOf(line)}\n`))
  }

  async #append(line: string): Promise<void> {
    try {
      await this.#handle.appendFile(line)
      this.#isDirty = true
    } catch (error) {
      this.#log?.error({ err: error, line }, 'the audit file could not be written')
    }
  }

  async #sync(): Promise<void> {
    if (!this.#isDirty) return
    this.#isDirty = false
    await this.#handle.datasync().catch((error: unknown) => {
      this.#log?.error({ err: error }, 'the audit file could not be synced')
    })
  }

  /** Everything noted is on disk on return. Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#writing
    await this.#sync()
    await this.#handle.close()
  }
}

/**
 * As JSON, in which nothing turns text around or ends a line: a name that somebody claimed must look like what it is to whoever
 * reads the file in a terminal.
 */
function lineOf(line: AuditEvent): string {
  return JSON.stringify(line).replace(/[\p{Cf}\u2028\u2029]/gu, (character) =>
    Array.from(
      { length: character.length },
      (_, place) => `\\u${character.charCodeAt(place).toString(16).padStart(4, '0')}`,
    ).join(''),
  )
}
