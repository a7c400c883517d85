/**
 * What a folder holds as its listing tells, and what of that is accounted for. Listings are not the whole
 * truth: nginx leaves out what begins with a dot, and a server that keeps names in another form (Unicode's,
 * or with other capitals) lists them in that form. So what a listing lacks may be there all the same, and
 * what is listed under a name that may mean the same thing must not be deleted for a stray.
 */
import type { DavMember } from './webdav-listing.ts'

export class FolderMembers {
  /** By stored name as a byte string. */
  readonly #left: Map<string, DavMember>
  readonly #missed = new Set<string>()

  constructor(members: readonly DavMember[]) {
    this.#left = new Map(members.map((member) => [member.name.toString('latin1'), member]))
  }

  /** What is listed under this name; it is accounted for now. */
  claim(name: Buffer): DavMember | undefined {
    const key = name.toString('latin1')
    const found = this.#left.get(key)
    this.#left.delete(key)
    if (found === undefined) this.#missed.add(folded(name))
    return found
  }

  /** Folders that are listed, in the order of their names. */
  folders(): Buffer[] {
    const names = [...this.#left.values()].flatMap(({ name, isCollection }) => (isCollection ? [name] : []))
    return names.sort(Buffer.compare)
  }

  /** What nobody has claimed. */
  strays(): DavMember[] {
    return [...this.#left.values()]
  }

  /** Whether a stray may be what was claimed under another name. */
  isDoubtful({ name }: DavMember): boolean {
    return this.#missed.has(folded(name))
  }
}

/** Whether two names stand for two things: a listing has both. */
export function areApart({ name }: DavMember, listed: readonly DavMember[]): boolean {
  const same = folded(name)
  return listed.filter((other) => folded(other.name) === same).length > 1
}

/** What names have in common that some server takes for one. */
export function folded(name: Buffer): string {
  return name
    .toString('utf8')
    .normalize('NFC')
    .toLowerCase()
    .replace(/[. ]+$/, '')
}
