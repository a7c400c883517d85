/** What one part of the benchmarks gives to the report. */

export interface Table {
  readonly caption: string
  readonly columns: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

export interface Chart {
  /** Name of the file in docs/charts, with .svg. */
  readonly file: string
  readonly alt: string
  readonly svg: string
}

export interface Section {
  readonly title: string
  /** Paragraphs of Markdown that stand above the tables. */
  readonly notes: readonly string[]
  readonly tables: readonly Table[]
  readonly charts?: readonly Chart[]
}

/** A section, with what it was made of. */
export interface RawSection extends Section {
  readonly raw?: unknown
}

export interface BenchOptions {
  /** Less data and fewer rounds: all sections together take three minutes. */
  readonly quick: boolean
  /** Of whole backups, only those of these corpora; all when there are none. */
  readonly corpora: readonly string[]
  /** A folder on a real disk for corpora (kept from run to run) and scratch (removed). */
  readonly work: string
  /** One line of progress. */
  readonly log: (line: string) => void
  /** The `raw` of the last run, where there was one. */
  readonly before: unknown
  /** Keeps a part of what is being measured, should the rest not come to its end. */
  readonly save: (section: RawSection) => void
}

/** Measures, and returns what was found; rejects when a program that it needs does not do what it is asked. */
export type RunSection = (options: BenchOptions) => Promise<RawSection>
