/**
 * Groups of names for one inode. The first name of a group is restored in full; the others wait for it,
 * and are linked to it once it stands.
 *
 *     first stands                     → those who wait, and all later names, are linked to it
 *     its content cannot be had        → no other name of it can be restored either
 *     its place is what does not do    → the next name leads the group, and is restored in full
 *
 * The backup's word alone does not make a group: names whose entries differ in content were changed between
 * them, and are files of their own. What is kept is a path per group: entries do not tell how many names a
 * group has, so it stays to the end.
 */
import type { Problem, ProblemCode } from '../../protocol/problem.ts'
import type { Entry } from '../../protocol/schema.ts'
import type { RestoredDirectory } from './restored-directory.ts'

export type LinkableEntry = Exclude<Entry, { kind: 'directory' | 'socket' }>

export interface LinkPlace {
  readonly directory: RestoredDirectory
  readonly name: Buffer
}

/** A name that leads its group after another could not. */
export interface Heir {
  readonly place: LinkPlace
  readonly entry: LinkableEntry
}

interface Group {
  /** Its absolute path. */
  first: Buffer
  waiting: Heir[]
  state: 'pending' | 'there' | Problem
}

/** What makes a name a link: tells whether it is done with, linked or noted; false when it must be a file of its own. */
export type MakeLink = (place: LinkPlace, source: Buffer | Problem) => boolean

/** Faults of the content: every name has them. */
const contentFaults: readonly ProblemCode[] = [
  'chunk-not-found',
  'chunk-corrupt',
  'digest-mismatch',
  'invalid-object',
  'not-found',
]

export class HardLinks {
  readonly #groups = new Map<string, Group>()
  readonly #heirs: Heir[] = []
  readonly #link: MakeLink

  /** `link` makes the name at `place`: of the absolute path that stands, or it notes why there is none. */
  constructor(link: MakeLink) {
    this.#link = link
  }

  /** True when `place` must be restored in full, and settled; otherwise it is linked, now or later. */
  claim(entry: LinkableEntry, place: LinkPlace): boolean {
    const key = keyOf(entry)
    const group = this.#groups.get(key)
    if (group?.state === 'pending') {
      place.directory.begin()
      group.waiting.push({ place, entry })
      return false
    }
    if (group !== undefined && this.#make(place, group)) return false
    this.#lead(key, place, [])
    return true
  }

  /** The first of the entry's group stands, or could not be restored: those that waited have their turn. */
  settle(entry: LinkableEntry, problem?: Problem): void {
    const key = keyOf(entry)
    const group = this.#groups.get(key)
    if (group === undefined) return
    const { waiting } = group
    group.waiting = []
    if (problem !== undefined && !contentFaults.includes(problem.code)) {
      this.#groups.delete(key)
      this.#inherit(key, waiting)
      return
    }
    group.state = problem ?? 'there'
    for (const [i, { place }] of waiting.entries()) {
      if (!this.#make(place, group)) {
        this.#inherit(key, waiting.slice(i))
        return
      }
      place.directory.done()
    }
  }

  /** The next name to be restored in full; its directory is told when that is done. */
  nextHeir(): Heir | undefined {
    return this.#heirs.shift()
  }

  #inherit(key: string, [heir, ...others]: Heir[]): void {
    if (heir === undefined) return
    this.#lead(key, heir.place, others)
    this.#heirs.push(heir)
  }

  #lead(key: string, { directory, name }: LinkPlace, waiting: Heir[]): void {
    this.#groups.set(key, { first: directory.absolutePathOf(name), waiting, state: 'pending' })
  }

  #make(place: LinkPlace, { first, state }: Group): boolean {
    return this.#link(place, typeof state === 'string' ? first : state)
  }
}

/** What all names of an inode have in common. */
function keyOf(entry: LinkableEntry): string {
  const { link, kind } = entry
  if (entry.kind === 'file') return JSON.stringify([link, kind, entry.id, entry.size])
  if (entry.kind === 'symlink') return JSON.stringify([link, kind, entry.target, entry.target64])
  return JSON.stringify([link, kind, 'major' in entry ? [entry.major, entry.minor] : []])
}
