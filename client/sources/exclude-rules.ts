/** Which paths a walk leaves out: gitignore patterns (package `ignore`), relative to the source's root. */
import ignore, { type Ignore } from 'ignore'

export interface ExcludeOptions {
  /** Patterns in gitignore's language, in order; a later one may take back an earlier. */
  readonly patterns: readonly string[]
  /** Of a directory that carries a CACHEDIR.TAG keep nothing but the tag. */
  readonly caches: boolean
}

export class ExcludeRules {
  readonly #rules: Ignore | undefined

  constructor(options: ExcludeOptions) {
    // Patterns come as UTF-8 text and are matched against byte strings: compare both as bytes.
    const patterns = options.patterns.map((pattern) => Buffer.from(pattern, 'utf8').toString('latin1'))
    this.#rules =
      patterns.length === 0
        ? undefined
        : ignore({ ignorecase: false, allowRelativePaths: true }).add(patterns)
  }

  /** Whether `path` (a byte string, no leading slash) is left out. */
  matches(path: string, isDirectory: boolean): boolean {
    if (this.#rules === undefined) return false
    return this.#rules.ignores(isDirectory ? `${path}/` : path)
  }
}
