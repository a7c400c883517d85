/**
 * What a receiver has promised to those who back up to it: which checkpoints were committed, with what in them, and
 * which were deleted. An answer that never came leaves both possible.
 */

/** `asked`: somebody asked for its deletion, and never heard. */
type Standing = 'there' | 'asked' | 'gone'

export interface Known {
  readonly source: string
  readonly number: number
  /** Undefined when nobody heard of the commit. */
  content: string | undefined
  standing: Standing
}

export class KillModel {
  readonly #known = new Map<string, Known>()
  /** Per source, whatever was to be backed up at any time. */
  readonly #attempted = new Map<string, Set<string>>()
  /** How many of a source's checkpoints a prune keeps; of the others, all. */
  readonly #keepLast: ReadonlyMap<string, number>

  constructor(keepLast: ReadonlyMap<string, number>) {
    this.#keepLast = keepLast
  }

  of(source: string): Known[] {
    return [...this.#known.values()].filter((known) => known.source === source)
  }

  get(source: string, number: number): Known | undefined {
    return this.#known.get(`${source}/${number}`)
  }

  /** A backup of this begins. */
  attempt(source: string, content: string): void {
    const attempted = this.#attempted.get(source) ?? new Set()
    this.#attempted.set(source, attempted.add(content))
  }

  /** A commit was answered. */
  committed(source: string, number: number, content: string): void {
    const known = this.#see(source, number)
    if (known.content !== undefined && known.content !== content) {
      throw new Error(`${source}/${number} was given twice`)
    }
    known.content = content
  }

  asked(known: Known): void {
    if (known.standing === 'there') known.standing = 'asked'
  }

  gone(source: string, number: number): void {
    this.#see(source, number).standing = 'gone'
  }

  #see(source: string, number: number): Known {
    const key = `${source}/${number}`
    const known = this.#known.get(key) ?? { source, number, content: undefined, standing: 'there' }
    this.#known.set(key, known)
    return known
  }

  /** Whether it must be there, when those in `listed`, and what is known, have been there at some time. */
  isDue({ source, number, standing }: Known, listed: readonly number[]): boolean {
    if (standing !== 'there') return false
    const newer = new Set([...listed, ...this.of(source).map((known) => known.number)])
    const count = [...newer].filter((other) => other > number).length
    return count < (this.#keepLast.get(source) ?? Number.POSITIVE_INFINITY)
  }

  /**
   * Compares with what the receiver lists as committed. `before` is what `of` returned, and `wereGone` what was gone,
   * before it was asked. Returns what is wrong.
   */
  compare(source: string, listed: readonly number[], before: readonly Known[], wereGone: readonly number[]) {
    for (const number of listed) this.#see(source, number)
    const lost = before.filter((known) => !listed.includes(known.number) && this.isDue(known, listed))
    const back = listed.filter((number) => wereGone.includes(number))
    return [
      ...lost.map(({ number }) => `${source}/${number} was committed, and is not there`),
      ...back.map((number) => `${source}/${number} was deleted, and is there again`),
    ]
  }

  /** What may be read from a checkpoint. */
  isRight({ source, content }: Known, found: string): boolean {
    return content === undefined ? (this.#attempted.get(source)?.has(found) ?? false) : content === found
  }
}
