/**
 * The checkpoints that freezes have open. Nobody goes on with the one of a process that has died: it is deleted
 * before the next freeze of its source begins. What tells it from a client's is in its `about`.
 */
import { Mutex } from 'async-mutex'
import { isProblem } from '../../protocol/problem.ts'
import type { CheckpointState } from '../../protocol/schema.ts'
import type { CheckpointName } from '../../protocol/url.ts'
import type { Checkpoints } from '../catalog/checkpoints.ts'

const mark = { madeBy: 'freeze' } as const

const known = new WeakMap<Checkpoints, OpenFreezes>()

export class OpenFreezes {
  readonly #checkpoints: Checkpoints
  /** Held while one is begun: nobody may take it for a dead one before it is among `#alive`. */
  readonly #lock = new Mutex()
  readonly #alive = new Set<string>()

  private constructor(checkpoints: Checkpoints) {
    this.#checkpoints = checkpoints
  }

  /** Those of one vault. */
  static of(checkpoints: Checkpoints): OpenFreezes {
    const freezes = known.get(checkpoints) ?? new OpenFreezes(checkpoints)
    known.set(checkpoints, freezes)
    return freezes
  }

  /** Opens a checkpoint; whoever does ends it. */
  async begin(source: string, about: Readonly<Record<string, string>> = {}): Promise<CheckpointState> {
    return await this.#lock.runExclusive(async () => {
      for (const old of this.#checkpoints.listOpen(source)) {
        if (old.about?.madeBy === mark.madeBy && !this.#alive.has(keyOf(old))) await this.#delete(old)
      }
      const opened = await this.#checkpoints.begin(source, { kind: 'dir', about: { ...about, ...mark } })
      this.#alive.add(keyOf(opened))
      return opened
    })
  }

  /** Deletes it unless it is committed. */
  async end(opened: CheckpointState, isCommitted: boolean): Promise<void> {
    try {
      if (!isCommitted) await this.#delete(opened)
    } finally {
      this.#alive.delete(keyOf(opened))
    }
  }

  /** A client may have deleted it already. */
  async #delete(name: CheckpointName): Promise<void> {
    try {
      await this.#checkpoints.delete(name)
    } catch (error) {
      if (!isProblem(error, 'checkpoint-not-found')) throw error
    }
  }
}

function keyOf({ source, number }: CheckpointName): string {
  return `${source}/${number}`
}
