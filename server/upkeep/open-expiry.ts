/**
 * Deletes open checkpoints that nobody goes on with. What counts is how long the receiver has been running without a
 * sign of life of one: time in which it was down, or its clock was moved, does not count against a client.
 *
 * A sign is whatever a client does in its name (catalog/checkpoints.ts). Over restarts the count goes on from
 * `{vault}/upkeep/open-checkpoints.json`, where each run notes it, unless the checkpoint's files have grown since. So
 * a restart may cost the count what came after the last run; it never adds to it.
 */
import { join } from 'node:path'
import { type CheckpointName, formatCheckpointName } from '../../protocol/url.ts'
import type { OpenSigns } from '../catalog/checkpoints.ts'
import { makeFolderDurably, readText, removeFile, replaceDurably } from '../catalog/durable-file.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import type { Vault } from '../vaults.ts'

interface Noted {
  readonly idleMs: number
  readonly bytes: number
}

export class OpenExpiry {
  readonly #expireMs: number
  readonly #files: FileLayer
  /** When each vault was last looked through, in this process; on a clock that nobody sets. */
  readonly #runs = new Map<string, number>()
  readonly #startedAt: number

  /** `startedAt`, as of performance.now(): since when the receiver can be reached. */
  constructor(expireMs: number, startedAt: number = performance.now(), files: FileLayer = nodeFiles) {
    this.#expireMs = expireMs
    this.#startedAt = startedAt
    this.#files = files
  }

  /** Deletes, durably, those of a vault that have shown no sign of life for so long, and returns which. Runs of one vault come one after the other. */
  async run(
    vault: Pick<Vault, 'name' | 'path' | 'catalog'>,
    signal?: AbortSignal,
  ): Promise<CheckpointName[]> {
    const { checkpoints } = vault.catalog
    const now = performance.now()
    const upMs = now - (this.#runs.get(vault.name) ?? this.#startedAt)
    const open = await checkpoints.openSigns()
    const path = join(vault.path, 'upkeep', 'open-checkpoints.json')
    const before = await this.#read(path)
    const expired: CheckpointName[] = []
    const noted: Record<string, Noted> = {}
    for (const signs of open) {
      const key = formatCheckpointName(signs)
      const idleMs = idleOf(signs, before[key], { now, upMs })
      const isOver = !signs.isBusy && idleMs > this.#expireMs && signal?.aborted !== true
      if (isOver && (await checkpoints.deleteAbandoned(signs, signs))) expired.push(signs)
      else noted[key] = { idleMs: Math.round(idleMs), bytes: signs.bytes }
    }
    await this.#write(path, noted, Object.keys(before).length > 0)
    this.#runs.set(vault.name, now)
    return expired.map(({ source, number }) => ({ source, number }))
  }

  /** What cannot be read begins anew: that takes nothing from anybody. */
  async #read(path: string): Promise<Record<string, Noted>> {
    const text = await readText(path, this.#files)
    try {
      const value: unknown = JSON.parse(text ?? '{}')
      return typeof value === 'object' && value !== null ? (value as Record<string, Noted>) : {}
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
      return {}
    }
  }

  async #write(path: string, noted: Record<string, Noted>, isThere: boolean): Promise<void> {
    if (Object.keys(noted).length > 0) {
      await makeFolderDurably(join(path, '..'), this.#files)
      await replaceDurably(path, JSON.stringify(noted), this.#files)
    } else if (isThere) {
      await removeFile(path, this.#files)
    }
  }
}

function idleOf(
  { signedAt, bytes }: OpenSigns,
  noted: Noted | undefined,
  { now, upMs }: { now: number; upMs: number },
): number {
  if (signedAt !== undefined) return Math.max(0, now - signedAt)
  // In this process nobody came for it: since the last run, or since the start, it was idle all the time.
  const goesOn = typeof noted?.idleMs === 'number' && noted.bytes === bytes
  return upMs + (goesOn ? Math.max(0, noted.idleMs) : 0)
}
