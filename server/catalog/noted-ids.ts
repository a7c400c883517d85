import type { TouchedId } from './checkpoint-roots.ts'

/** Of all open checkpoints of a vault: some 20 MB when ten clients ask about 10,000 ids each. */
const remembered = 100_000

/**
 * Which ids stand in the touched logs of open checkpoints, as far as that is remembered: what is noted again need not be
 * written again, so that a request that is repeated does not make a log longer.
 */
export class NotedIds {
  /** The oldest first. */
  readonly #noted = new Set<string>()
  #losses = 0

  /**
   * Those that are not known to be in the log, each once. After `losses` have changed nothing is known: what was lost and
   * is there again may have to be looked into again.
   */
  fresh(log: string, ids: readonly TouchedId[], losses: number): TouchedId[] {
    if (losses !== this.#losses) this.#noted.clear()
    this.#losses = losses
    const fresh = new Map<string, TouchedId>()
    for (const touched of ids) {
      const key = keyOf(log, touched)
      if (!this.#noted.has(key)) fresh.set(key, touched)
    }
    return [...fresh.values()]
  }

  /** They are in the log now. */
  note(log: string, ids: readonly TouchedId[]): void {
    for (const touched of ids) this.#noted.add(keyOf(log, touched))
    for (const oldest of this.#noted) {
      if (this.#noted.size <= remembered) break
      this.#noted.delete(oldest)
    }
  }
}

function keyOf(log: string, { id, isContent }: TouchedId): string {
  return `${log} ${isContent ? '+' : '-'}${id}`
}
