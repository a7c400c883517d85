/**
 * What the receiver was told about one vault: `{vault}/settings.json`, replaced as a whole and durably, read when the
 * vault is opened. Without the file nothing was said: everything is kept, and the disk is the bound.
 *
 * A file that cannot be read is `store-corrupt` for whoever needs to know what it says: nothing is removed under a policy
 * that may be another one. Backups go on without a quota meanwhile (the reserve of the disk holds); new settings heal it.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { Mutex } from 'async-mutex'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { check, parseJson, VaultSettings } from '../../protocol/schema.ts'
import { readText, replaceDurably } from '../catalog/durable-file.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import { checkTimeZone, type Retention } from './retention.ts'

export class Settings {
  readonly #path: string
  readonly #files: FileLayer
  readonly #lock = new Mutex()
  #value: VaultSettings | Problem

  private constructor(path: string, files: FileLayer, value: VaultSettings | Problem) {
    this.#path = path
    this.#files = files
    this.#value = value
  }

  /** `onDamage` is told when the file cannot be read. Nothing to close. */
  static async open(
    vaultPath: string,
    onDamage: (problem: Problem) => void = () => {},
    files: FileLayer = nodeFiles,
  ): Promise<Settings> {
    const path = join(vaultPath, 'settings.json')
    const value = await read(path, files)
    if (value instanceof Problem) onDamage(value)
    return new Settings(path, files, value)
  }

  /** Problem `store-corrupt`. */
  get value(): VaultSettings {
    if (this.#value instanceof Problem) throw this.#value
    return this.#value
  }

  /** Undefined: the disk is the bound; also while the settings are damaged. */
  get quotaBytes(): number | undefined {
    return this.#value instanceof Problem ? undefined : this.#value.quotaBytes
  }

  /** The policy of a source. Problem `store-corrupt`. */
  retentionOf(source: string): Retention {
    const { retention = 'keep-all', sources = {} } = this.value
    return Object.hasOwn(sources, source) ? (sources[source] ?? retention) : retention
  }

  /** Whether any source has a policy. Problem `store-corrupt`. */
  get hasPolicy(): boolean {
    const { retention, sources = {} } = this.value
    return retention !== undefined || Object.values(sources).some((each) => each !== 'keep-all')
  }

  /** Undefined while they are damaged. */
  get etag(): string | undefined {
    if (this.#value instanceof Problem) return undefined
    const hash = createHash('sha256').update(JSON.stringify(this.#value)).digest('hex')
    return `"${hash.slice(0, 32)}"`
  }

  /**
   * Puts others in their place; durable on return. `judge` may speak against it by throwing; it is given what stands
   * there, or undefined when that is damaged. One after the other. Problem `invalid-request` for a time zone that is none.
   */
  async replace(next: VaultSettings, judge: (before: VaultSettings | undefined) => void): Promise<void> {
    check(VaultSettings, next)
    if (next.timeZone !== undefined) checkTimeZone(next.timeZone)
    await this.#lock.runExclusive(async () => {
      judge(this.#value instanceof Problem ? undefined : this.#value)
      await replaceDurably(this.#path, `${JSON.stringify(next, undefined, 2)}\n`, this.#files)
      this.#value = next
    })
  }
}

async function read(path: string, files: FileLayer): Promise<VaultSettings | Problem> {
  const text = await readText(path, files)
  if (text === undefined) return {}
  try {
    const value = parseJson(VaultSettings, text)
    if (value.timeZone !== undefined) checkTimeZone(value.timeZone)
    return value
  } catch (cause) {
    if (!isProblem(cause)) throw cause
    const text = `the settings in ${path} are damaged (${cause.message}); nothing is pruned and no quota holds until they are set again`
    return new Problem('store-corrupt', text, { cause })
  }
}
