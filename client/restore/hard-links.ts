/**
 * Groups of names for one inode. The first name of a group is restored in full; the others wait for it.
 * What is kept is one path per group: entries do not tell how many names a group has, so it stays to the end.
 */
import type { RestoredDirectory } from './restored-directory.ts'

export interface LinkPlace {
  readonly directory: RestoredDirectory
  readonly name: Buffer
}

interface Group {
  /** Its absolute path. */
  readonly first: Buffer
  waiting: LinkPlace[]
  state: 'pending' | 'there' | 'failed'
}

export class HardLinks {
  readonly #groups = new Map<string, Group>()
  readonly #link: (place: LinkPlace, source: Buffer | undefined) => void

  /** `link` makes the name at `place`; the source is an absolute path, undefined when it could not be restored. */
  constructor(link: (place: LinkPlace, source: Buffer | undefined) => void) {
    this.#link = link
  }

  /** True when `place` is the group's first and must be restored; otherwise it is linked, now or later. */
  claim(link: string, place: LinkPlace): boolean {
    const group = this.#groups.get(link)
    if (group === undefined) {
      const first = place.directory.absolutePathOf(place.name)
      this.#groups.set(link, { first, waiting: [], state: 'pending' })
      return true
    }
    place.directory.begin()
    if (group.state === 'pending') group.waiting.push(place)
    else this.#make(place, group)
    return false
  }

  /** The first of the group stands, or could not be restored: those that waited have their turn. */
  settle(link: string, there: boolean): void {
    const group = this.#groups.get(link)
    if (group === undefined) return
    group.state = there ? 'there' : 'failed'
    const { waiting } = group
    group.waiting = []
    for (const place of waiting) this.#make(place, group)
  }

  #make(place: LinkPlace, group: Group): void {
    this.#link(place, group.state === 'failed' ? undefined : group.first)
    place.directory.done()
  }
}
