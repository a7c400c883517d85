/**
 * Inodes with several names are read under the first of them; the others take over what that gave.
 * An inode is forgotten as soon as all of its names have been met.
 */
import type { ContentReference } from './entries.ts'
import type { SourceStat } from './source.ts'
import type { FileTask } from './source-thread.ts'

interface Inode {
  namesLeft: number
  content: (ContentReference & { readonly stat: SourceStat }) | undefined
  readonly waiting: FileTask[]
}

export class HardLinks {
  readonly #inodes = new Map<string, Inode>()

  /**
   * What to do with a file that must be read: `read` it; take over `content`; or wait, and be given to
   * whoever reads the inode.
   */
  meet(task: FileTask): 'read' | 'wait' | (ContentReference & { readonly stat: SourceStat }) {
    const { inode, links } = task.stat
    if (links < 2 || inode === '') return 'read'
    const known = this.#inodes.get(inode)
    if (known === undefined) {
      this.#inodes.set(inode, { namesLeft: links - 1, content: undefined, waiting: [] })
      return 'read'
    }
    known.namesLeft--
    if (known.content === undefined) {
      known.waiting.push(task)
      return 'wait'
    }
    this.#drop(inode, known)
    return known.content
  }

  /** The content of the inode that `task` was read for; returns the tasks that waited for it. */
  settle(task: FileTask, content: ContentReference & { readonly stat: SourceStat }): FileTask[] {
    const known = this.#inodes.get(task.stat.inode)
    if (known === undefined) return []
    known.content = content
    this.#drop(task.stat.inode, known)
    return known.waiting.splice(0)
  }

  /** `task` could not be read: the next who waited must be, in its stead. */
  fail(task: FileTask): FileTask | undefined {
    const known = this.#inodes.get(task.stat.inode)
    const heir = known?.waiting.shift()
    if (heir === undefined) this.#inodes.delete(task.stat.inode)
    return heir
  }

  #drop(inode: string, known: Inode): void {
    if (known.namesLeft <= 0 && known.content !== undefined) this.#inodes.delete(inode)
  }
}
