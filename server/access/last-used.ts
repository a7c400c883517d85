/**
 * When each token was used last, about: `{data}/tokens-used.json`, `{"5f0c…":"2026-…Z"}`. Kept in memory, and written
 * every few minutes and at the end, without a sync: it only tells people which tokens nobody needs any more.
 */
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'

const saveEveryMs = 5 * 60_000

export class LastUsed {
  readonly #path: string
  readonly #log: Logger | undefined
  readonly #times: Map<string, number>
  readonly #timer: NodeJS.Timeout
  #isDirty = false
  #saving: Promise<void> = Promise.resolve()

  private constructor(path: string, times: Map<string, number>, log: Logger | undefined) {
    this.#path = path
    this.#log = log
    this.#times = times
    this.#timer = setInterval(() => void this.#save(), saveEveryMs).unref()
  }

  static async open(dataDir: string, log?: Logger): Promise<LastUsed> {
    return new LastUsed(pathIn(dataDir), await readLastUsed(dataDir), log)
  }

  /** The token is being used now. */
  note(id: string): void {
    this.#times.set(id, Date.now())
    this.#isDirty = true
  }

  /** Forgets all others. */
  keep(ids: ReadonlySet<string>): void {
    for (const id of this.#times.keys()) if (!ids.has(id)) this.#times.delete(id)
  }

  /** Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#save()
  }

  async #save(): Promise<void> {
    this.#saving = this.#saving.then(() => this.#write())
    await this.#saving
  }

  async #write(): Promise<void> {
    if (!this.#isDirty) return
    this.#isDirty = false
    const times = [...this.#times].map(([id, time]) => [id, new Date(time).toISOString()])
    try {
      await writeFile(`${this.#path}.tmp`, JSON.stringify(Object.fromEntries(times)), { mode: 0o600 })
      await rename(`${this.#path}.tmp`, this.#path)
    } catch (error) {
      this.#log?.warn({ err: error }, 'when tokens were used last could not be written down')
    }
  }
}

/** When each token was used last, in ms since 1970. A file that is damaged or not there tells nothing. */
export async function readLastUsed(dataDir: string): Promise<Map<string, number>> {
  try {
    const entries = Object.entries(JSON.parse(await readFile(pathIn(dataDir), 'utf8')) as object)
    const times = entries.map(([id, time]) => [id, Date.parse(String(time))] as const)
    return new Map(times.filter(([id, time]) => /^[0-9a-f]{12}$/.test(id) && !Number.isNaN(time)))
  } catch (error) {
    const isAbsent = (error as NodeJS.ErrnoException).code === 'ENOENT'
    if (isAbsent || error instanceof SyntaxError || error instanceof TypeError) return new Map()
    throw error
  }
}

function pathIn(dataDir: string): string {
  return join(dataDir, 'tokens-used.json')
}
