import type { Id } from '../../protocol/id.ts'
import type { TouchedId } from './checkpoint-roots.ts'

/** Of all open checkpoints of a vault: some 13 MB when ten clients ask about 10,000 ids each (measured). */
const remembered = 100_000

/** What is noted of the ids of one log: what they are by themselves, and that they are content. */
interface Noted {
  readonly plain: Set<Id>
  readonly content: Set<Id>
}

/**
 * Which ids stand in the touched logs of open checkpoints, as far as that is remembered: what is noted again need not be
 * written again, so that a request that is repeated does not make a log longer.
 */
export class NotedIds {
  /** By log; the one that was noted in last stands last, and so do its ids. */
  readonly #logs = new Map<string, Noted>()
  #size = 0
  #losses = 0

  /**
   * Those that are not known to be in the log, each once. From now on they are taken to be in it: whoever fails to write
   * them has the log forgotten. After `losses` have changed nothing is known: what was lost and is there again may have
   * to be looked into again.
   */
  fresh(log: string, ids: readonly TouchedId[], losses: number): TouchedId[] {
    if (losses !== this.#losses) this.#clear()
    this.#losses = losses
    const noted = this.#logs.get(log) ?? newNoted()
    this.#logs.delete(log)
    this.#logs.set(log, noted)
    const fresh = ids.filter((touched) => {
      const set = setOf(noted, touched)
      const { size } = set
      return set.add(touched.id).size > size
    })
    this.#size += fresh.length
    this.#forgetOldest()
    return fresh
  }

  /** Nothing is known of the log any more. */
  forget(log: string): void {
    const noted = this.#logs.get(log)
    if (noted === undefined) return
    this.#size -= noted.plain.size + noted.content.size
    this.#logs.delete(log)
  }

  #forgetOldest(): void {
    for (const [log, { plain, content }] of this.#logs) {
      for (const set of [plain, content]) {
        for (const id of set) {
          if (this.#size <= remembered) return
          set.delete(id)
          this.#size--
        }
      }
      this.#logs.delete(log)
    }
  }

  #clear(): void {
    this.#logs.clear()
    this.#size = 0
  }
}

function newNoted(): Noted {
  return { plain: new Set(), content: new Set() }
}

function setOf({ plain, content }: Noted, { isContent }: TouchedId): Set<Id> {
  return isContent ? content : plain
}
