/** Which paths of a backup are wanted. */
import { nameFault } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'

interface Wish {
  readonly path: Buffer
  readonly names: readonly Buffer[]
  met: boolean
}

/** What is wanted below one directory: everything, or what some wishes still name. */
export class IncludeFilter {
  readonly #wishes: readonly Wish[] | undefined
  readonly #depth: number

  private constructor(wishes: readonly Wish[] | undefined, depth: number) {
    this.#wishes = wishes
    this.#depth = depth
  }

  /** Everything at or below these paths; without any, everything. Problem `usage` for `..` and the like. */
  static of(paths: readonly Buffer[]): IncludeFilter {
    const wishes = paths.map((path) => ({ path, names: namesOf(path), met: false }))
    const all = wishes.length === 0 || wishes.some((wish) => wish.names.length === 0)
    // A path below another one asks for nothing more.
    const outermost = wishes.filter((wish) => !wishes.some((other) => isBelow(wish.names, other.names)))
    return new IncludeFilter(all ? undefined : outermost, 0)
  }

  /** What is wanted of the entry `name`: undefined when nothing is. Something must stand there for a wish to be met. */
  within(name: Buffer, isDirectory: boolean): IncludeFilter | undefined {
    if (this.#wishes === undefined) return this
    const concerned = this.#wishes.filter((wish) => wish.names[this.#depth]?.equals(name))
    const reached = concerned.filter((wish) => wish.names.length === this.#depth + 1)
    for (const wish of reached) wish.met = true
    if (reached.length > 0) return new IncludeFilter(undefined, 0)
    return concerned.length > 0 && isDirectory ? new IncludeFilter(concerned, this.#depth + 1) : undefined
  }

  /** Whether everything is wanted. */
  get isAll(): boolean {
    return this.#wishes === undefined
  }

  /** The paths that named nothing; to be asked when the walk is over. */
  get unmet(): Buffer[] {
    return (this.#wishes ?? []).filter((wish) => !wish.met).map((wish) => wish.path)
  }
}

function isBelow(names: readonly Buffer[], folder: readonly Buffer[]): boolean {
  return names.length > folder.length && folder.every((name, index) => names[index]?.equals(name))
}

/** The names along a path in a backup: `/a//b/` is `a`, `b`. */
export function namesOf(path: Buffer): Buffer[] {
  const names: Buffer[] = []
  for (let at = 0; at <= path.length; ) {
    const slash = path.indexOf(0x2f, at)
    const end = slash < 0 ? path.length : slash
    const name = path.subarray(at, end)
    at = end + 1
    if (name.length === 0 || (name.length === 1 && name[0] === 0x2e)) continue
    const fault = nameFault(name)
    if (fault !== undefined) throw new Problem('usage', `"${path}" is no path in a backup: ${fault}`)
    names.push(name)
  }
  return names
}
