/**
 * A directory of many files of which few were put: one COPY of the base's directory in the others' stead.
 *
 *     COPY the base's directory → {n}.partial/aside-1/
 *     COPY what was put here → aside-1/, each file
 *     DELETE the directory, MOVE aside-1/ to its place
 *
 * What was put never stands where the large COPY writes until the server has said that this is done: one
 * whose answer got lost may go on for long, and would put old files over new ones. It is left where it is
 * then, and nothing else is merged. Ended in the middle, the next run finds what was put gone, and puts it again:
 * so it is to be little.
 */
import type { Semaphore } from 'async-mutex'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { encodeSegment } from '../../protocol/url.ts'
import type { MemberCounts } from '../engine/file-target.ts'
import { asidePrefix, claimPrefix } from './webdav-backups.ts'
import type { WebDavClient } from './webdav-client.ts'
import { isRefusal } from './webdav-collections.ts'
import type { DavMember } from './webdav-listing.ts'

/** Fewer are copied one by one. */
const minKept = 32
/** Of what was put, and of what the base has under the same names. */
const maxDoubleBytes = 256 * 1024 * 1024

export interface MergeSettings {
  readonly client: WebDavClient
  /** The open checkpoint's folder. */
  readonly top: string
  readonly turns: Semaphore
  readonly signal: AbortSignal
}

export class FolderMerger {
  readonly #set: MergeSettings
  #count = 0
  #works = true

  constructor(settings: MergeSettings) {
    this.#set = settings
  }

  /** Removes what earlier runs have left aside. */
  async tidy(): Promise<void> {
    const { client, top, signal } = this.#set
    for (const { name, isCollection } of (await client.list(top, { signal })) ?? []) {
      const prefix = isCollection ? asidePrefix : claimPrefix
      if (!name.toString('latin1').startsWith(prefix)) continue
      await client.remove(`${top}${encodeSegment(name)}${isCollection ? '/' : ''}`, { signal })
    }
  }

  /**
   * Makes the collection `to` hold what it holds and what else `from` does, where that is worth it. What is in
   * it then, if it was done; rejects when `to` may be gone. Only what this object's run has put may be in it.
   */
  async merge(from: string, to: string, counts: MemberCounts): Promise<DavMember[] | undefined> {
    const { kept, sent, directories } = counts
    if (!this.#works || kept < minKept || sent * 8 > kept || directories > 0) return undefined
    const [base, put] = [await this.#listed(from), (await this.#listed(to)) ?? []]
    // Less than is kept: it does not list everything, and what it hides would stay for ever.
    if (base === undefined || base.length < kept || base.length > kept * 1.25) return undefined
    if (put.length !== sent || !isLight(base, put)) return undefined
    const aside = `${this.#set.top}${asidePrefix}${++this.#count}/`
    try {
      if (await this.#fill(aside, from, to, put)) return await this.#replace(aside, to)
    } catch (error) {
      const status = isProblem(error) ? error.extensions.status : undefined
      if (typeof status !== 'number' || status === 401 || status === 507) throw error
    }
    this.#works = false
    await this.#drop(aside)
    return undefined
  }

  /** Undefined where there is none, or no telling. */
  async #listed(path: string): Promise<DavMember[] | undefined> {
    const { client, signal } = this.#set
    try {
      return await client.list(path, { signal })
    } catch (error) {
      if (!isRefusal(error)) throw error
      return undefined
    }
  }

  async #fill(aside: string, from: string, to: string, put: readonly DavMember[]): Promise<boolean> {
    const { client, turns, signal } = this.#set
    if ((await client.copy(from, aside, { overwrite: false, signal })) !== 'done') return false
    const copies = put.map(({ name }) => {
      const segment = encodeSegment(name)
      return turns.runExclusive(() => client.copy(to + segment, aside + segment, { overwrite: true, signal }))
    })
    const outcomes = await Promise.allSettled(copies)
    return outcomes.every((outcome) => outcome.status === 'fulfilled' && outcome.value === 'done')
  }

  async #replace(aside: string, to: string): Promise<DavMember[]> {
    const { client, signal } = this.#set
    await client.remove(to, { signal })
    let cause: unknown
    try {
      await client.move(aside, to, { signal })
    } catch (error) {
      cause = error
    }
    // Done all the same, if only the answer got lost.
    const members =
      (await client.list(aside, { signal })) === undefined ? await client.list(to, { signal }) : undefined
    if (members !== undefined) return members
    throw new Problem('unavailable', 'a folder could not be put into its place; run the command again', {
      cause,
    })
  }

  async #drop(aside: string): Promise<void> {
    try {
      await this.#set.client.remove(aside, { signal: this.#set.signal })
    } catch (error) {
      if (!isRefusal(error)) throw error
    }
  }
}

/** Plain files only, and little of them twice on the way. */
function isLight(base: readonly DavMember[], put: readonly DavMember[]): boolean {
  if ([...base, ...put].some(({ isCollection, size }) => isCollection || size === undefined)) return false
  const names = new Set(put.map(({ name }) => name.toString('latin1')))
  const replaced = base.filter(({ name }) => names.has(name.toString('latin1')))
  return [...put, ...replaced].reduce((sum, { size = 0 }) => sum + size, 0) <= maxDoubleBytes
}
