/** Which paths a walk leaves out: gitignore patterns (package `ignore`), relative to the source's root. */
import ignore, { type Ignore } from 'ignore'

export interface ExcludeOptions {
  /** Patterns in gitignore's language, in order; a later one may take back an earlier. */
  readonly patterns: readonly string[]
  /** Of a directory that carries a CACHEDIR.TAG keep nothing but the tag. */
  readonly caches: boolean
}

/** The package remembers every path that it was asked about: a walk of millions would fill the memory. */
const maxRememberedPaths = 20_000

export class ExcludeRules {
  readonly #patterns: readonly string[]
  #rules: Ignore | undefined
  #asked = 0

  constructor(options: ExcludeOptions) {
    // Patterns come as UTF-8 text and are matched against byte strings: compare both as bytes.
    this.#patterns = options.patterns.map((pattern) => Buffer.from(pattern, 'utf8').toString('latin1'))
  }

  /** Whether `path` (a byte string, no leading slash) is left out. */
  matches(path: string, isDirectory: boolean): boolean {
    if (this.#patterns.length === 0) return false
    if (this.#asked++ % maxRememberedPaths === 0) {
      this.#rules = ignore({ ignorecase: false, allowRelativePaths: true }).add(this.#patterns)
    }
    return this.#rules?.ignores(isDirectory ? `${path}/` : path) ?? false
  }
}
