/** What doctor finds in a data directory. */

/** `problem`: something is lost, or will go wrong. `warning`: somebody should look. `note`: as it should be, good to know. */
export type Severity = 'problem' | 'warning' | 'note'

export interface Finding {
  readonly severity: Severity
  /** A path below the data directory. */
  readonly place: string
  readonly what: string
  /** What to do about it: a command where there is one. */
  readonly todo?: string
}

export type Findings = AsyncGenerator<Finding, void>

export function problem(place: string, what: string, todo?: string): Finding {
  return { severity: 'problem', place, what, ...(todo === undefined ? {} : { todo }) }
}

export function warning(place: string, what: string, todo?: string): Finding {
  return { severity: 'warning', place, what, ...(todo === undefined ? {} : { todo }) }
}

export function note(place: string, what: string): Finding {
  return { severity: 'note', place, what }
}

/** What the findings are about. */
export interface Examined {
  readonly dataDir: string
  /** The data directory as it is to be typed into a shell. */
  readonly shell: string
  /** A receiver is at work: what it has open, and what it is about to write, is left alone. */
  readonly isInUse: boolean
  /** Hash every chunk. */
  readonly deep: boolean
}

export function shellWord(text: string): string {
  return /^[A-Za-z0-9_/.,:@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`
}

export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : undefined
}
