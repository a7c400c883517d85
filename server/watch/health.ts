import { statfs } from 'node:fs/promises'
import type { Health } from '../../protocol/schema.ts'
import type { Vaults } from '../vaults.ts'
import type { Metrics } from './metrics.ts'
import { WritableProbe } from './writable-probe.ts'

export interface HealthOptions {
  readonly dataDir: string
  readonly version: string
  readonly vaults: Vaults
  readonly metrics: Metrics
  /** What is kept free of the disk, in bytes. */
  readonly reserveBytes?: number | undefined
}

/** A fault of the disk is told of for so long. */
const recentMs = 10 * 60_000

/**
 * Whether the receiver can do its work. `failing`: nothing can be written, for another reason than want of space.
 * `degraded`: it serves, but somebody should look: there is no space left beyond the reserve, a vault could not be opened,
 * content of a vault is missing or may be, or the disk failed within the last ten minutes.
 */
export class HealthCheck {
  readonly #options: HealthOptions
  readonly #probe: WritableProbe
  readonly #startedAt = performance.now()

  constructor(options: HealthOptions) {
    this.#options = options
    this.#probe = new WritableProbe(options.dataDir)
  }

  /** Everything there is to tell. Never rejects for what the disk does. */
  async ask(): Promise<Health> {
    const { dataDir, version, vaults, metrics, reserveBytes } = this.#options
    const writable = await this.#probe.ask()
    const freeBytes = await freeBytesOf(dataDir)
    const { faults, lastSyncAt } = metrics
    const isFull = writable === 'full' || (freeBytes ?? 0) <= (reserveBytes ?? 0)
    const harmed = vaults.harmed()
    const isDegraded =
      isFull || vaults.unopened.size > 0 || harmed.length > 0 || faults.sinceLastMs < recentMs
    return {
      status: writable === 'no' ? 'failing' : isDegraded ? 'degraded' : 'ok',
      version,
      writable: writable === 'yes',
      ...(freeBytes !== undefined && { freeBytes }),
      ...(reserveBytes !== undefined && { reserveBytes }),
      ...(lastSyncAt !== undefined && { lastSyncAt: new Date(lastSyncAt).toISOString() }),
      vaultsOpen: vaults.openNow().length,
      vaultsUnopened: [...vaults.unopened].map(([vault, code]) => ({ vault, code })),
      vaultsHarmed: harmed,
      diskFaults: faults.count,
      uptimeSeconds: Math.floor((performance.now() - this.#startedAt) / 1000),
      eventLoopDelayMs: Math.round(metrics.delay.p99 * 10) / 10,
    }
  }
}

/** Undefined where the disk does not even tell that. */
async function freeBytesOf(path: string): Promise<number | undefined> {
  try {
    const { bavail, bsize } = await statfs(path)
    return bavail * bsize
  } catch (error) {
    if (error instanceof Error && 'code' in error) return undefined
    throw error
  }
}
