/**
 * Inodes with several names are read under the first of them; the others take over what that gave.
 *
 * An inode's number alone says little: it may be freed and given to another file while the backup runs.
 * So content is taken over only where size, mtime and ctime are the same too. Inodes whose names have all
 * been met are forgotten, and of the rest no more than `maxSettled` are remembered: forgetting one costs
 * a second reading, nothing else.
 */
import { LRUCache } from 'lru-cache'
import type { ContentReference } from './entries.ts'
import type { SourceStat } from './source.ts'
import type { FileTask } from './source-thread.ts'

export interface LinkedContent extends ContentReference {
  readonly stat: SourceStat
}

/** An inode that is being read. */
interface Reading {
  readonly stat: SourceStat
  readonly waiting: FileTask[]
}

/** An inode that was read, and how many of its names are still to come. */
interface Settled {
  readonly content: LinkedContent
  namesLeft: number
}

const maxSettled = 50_000

export class HardLinks {
  readonly #reading = new Map<string, Reading>()
  readonly #settled = new LRUCache<string, Settled>({ max: maxSettled })
  readonly #shared: boolean

  /** Unless `shared`, every name is read by itself. */
  constructor(shared = true) {
    this.#shared = shared
  }

  /**
   * What to do with a file that must be read: `read` it; take over this content; or `wait`, and be handed
   * to whoever reads the inode.
   */
  meet(task: FileTask): 'read' | 'wait' | LinkedContent {
    const { stat } = task
    if (!this.#shared || stat.links < 2 || stat.inode === '') return 'read'
    const reading = this.#reading.get(stat.inode)
    if (reading !== undefined) {
      if (!sameTimes(reading.stat, stat)) return 'read'
      reading.waiting.push(task)
      return 'wait'
    }
    const settled = this.#settled.get(stat.inode)
    if (settled !== undefined && sameTimes(settled.content.stat, stat)) {
      settled.namesLeft--
      if (settled.namesLeft <= 0) this.#settled.delete(stat.inode)
      return settled.content
    }
    this.#reading.set(stat.inode, { stat, waiting: [] })
    return 'read'
  }

  /** `task` was read and gave `content`; returns the tasks that waited for it. */
  settle(task: FileTask, content: LinkedContent): FileTask[] {
    if (task.stat.links < 2) return []
    const reading = this.#reading.get(task.stat.inode)
    if (reading === undefined || !sameTimes(reading.stat, task.stat)) return []
    this.#reading.delete(task.stat.inode)
    const namesLeft = task.stat.links - 1 - reading.waiting.length
    if (namesLeft > 0) this.#settled.set(task.stat.inode, { content, namesLeft })
    return reading.waiting
  }

  /** `task` could not be read: the next who waited must be, in its stead. */
  fail(task: FileTask): FileTask | undefined {
    const reading = this.#reading.get(task.stat.inode)
    if (reading === undefined || !sameTimes(reading.stat, task.stat)) return undefined
    const heir = reading.waiting.shift()
    if (heir === undefined) this.#reading.delete(task.stat.inode)
    return heir
  }
}

function sameTimes(a: SourceStat, b: SourceStat): boolean {
  return a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs
}
