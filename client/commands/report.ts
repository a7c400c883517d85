/** What commands tell: JSON objects for scripts, and the line that an error becomes. */
import { isProblem, type Problem, type ProblemCode } from '../../protocol/problem.ts'
import { errnoReason, isSystemError } from '../errno.ts'
import type { CommandContext, ExitCode } from './context.ts'

/** One line of `--json`. */
export interface CommandEvent {
  readonly type: 'progress' | 'problem' | 'checkpoint' | 'entry' | 'change' | 'summary' | 'error'
  readonly [field: string]: unknown
}

/** What a path's bytes look like in a terminal and in JSON: UTF-8, odd and control bytes as \xNN, a backslash doubled. */
export function showPath(path: Buffer): string {
  const text = path.toString('utf8')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (!/[\u0000-\u001f\u007f-\u009f\ufffd\\]/.test(text)) return text
  let shown = ''
  for (const { character, bytes } of charactersOf(path)) {
    const code = character?.codePointAt(0)
    if (code === undefined || code < 0x20 || (code >= 0x7f && code < 0xa0)) {
      for (const byte of bytes) shown += `\\x${byte.toString(16).padStart(2, '0')}`
    } else {
      shown += code === 0x5c ? '\\\\' : character
    }
  }
  return shown
}

function* charactersOf(path: Buffer): Iterable<{ character: string | undefined; bytes: Buffer }> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  for (let at = 0; at < path.length; ) {
    const first = path[at] as number
    const length = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1
    const bytes = path.subarray(at, at + length)
    let character: string | undefined
    try {
      character = decoder.decode(bytes)
    } catch (error) {
      if (!(error instanceof TypeError)) throw error
    }
    yield character === undefined ? { character, bytes: path.subarray(at, at + 1) } : { character, bytes }
    at += character === undefined ? 1 : bytes.length
  }
}

/** The bytes that a path of `showPath`, or one typed by a person, stands for. */
export function parsePath(text: string): Buffer {
  const pieces: Buffer[] = []
  const pattern = /\\x([0-9a-fA-F]{2})|\\\\/g
  let at = 0
  for (const match of text.matchAll(pattern)) {
    pieces.push(Buffer.from(text.slice(at, match.index)))
    pieces.push(match[1] === undefined ? Buffer.from('\\') : Buffer.from(match[1], 'hex'))
    at = match.index + match[0].length
  }
  pieces.push(Buffer.from(text.slice(at)))
  return Buffer.concat(pieces)
}

/** A problem's detail for people. What the system says comes as `EACCES` or `EACCES: …, open 'path'`: the path is told already. */
export function reasonOf(detail: string): string {
  const errno = /^(E[A-Z][A-Z0-9]+)(?=$|:)/.exec(detail)?.[1]
  return errno === undefined ? oneLine(detail) : errnoReason(errno)
}

/** Tells what went wrong with one path, as it happens. An `id` is that of the chunk or object at fault. */
export function tellProblem(
  problem: { path: Buffer; code: ProblemCode; detail: string; id?: string },
  { json }: { json: boolean },
  context: CommandContext,
): void {
  const path = problem.path.length === 0 ? '.' : showPath(problem.path)
  const { code, id } = problem
  const detail = reasonOf(problem.detail)
  if (json) {
    context.emit({ type: 'problem', path, code, detail, ...(id === undefined ? {} : { id }) })
    return
  }
  context.warn(`${path}: ${detail}${id === undefined || detail.includes(id) ? '' : ` (${id})`}`)
}

/** `2,000`. Without toLocaleString: the first use of Intl takes 15 ms. */
export function grouped(count: number): string {
  return String(count).replace(/\B(?=(?:\d{3})+$)/g, ',')
}

/** `1 file`, `2,000 files`. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${grouped(count)} ${count === 1 ? one : many}`
}

/** What the process ends with after `thrown`. */
export function exitCodeOf(thrown: unknown): ExitCode {
  const error = originalOf(thrown)
  return isProblem(error, 'usage') || isProblem(error, 'invalid-name') ? 2 : 1
}

/** An error as one line; what went wrong inside us still says which error it was. */
export function lineOf(thrown: unknown): string {
  const error = originalOf(thrown)
  if (isProblem(error)) return oneLine(error.message)
  if (isSystemError(error)) {
    return oneLine(`${error.path ?? error.syscall}: ${errnoReason(error.code)}`)
  }
  if (error instanceof Error) {
    return oneLine(`unexpected ${error.name}: ${error.message}; please report this`)
  }
  return oneLine(`unexpected: ${String(error)}; please report this`)
}

/** What came first: closing things after a failure may fail for the same reason, and wraps it. */
function originalOf(thrown: unknown): unknown {
  let error = thrown
  while (error instanceof SuppressedError) {
    if (
      isProblem(error.error) &&
      !isProblem(error.suppressed) &&
      !(error.suppressed instanceof SuppressedError)
    )
      return error.error
    error = error.suppressed
  }
  return error
}

/** Text from anywhere as one line that does nothing to a terminal. */
export function oneLine(text: string): string {
  return (
    text
      .replace(/\s*[\r\n]+\s*/g, ' ')
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
      .replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) => showPath(Buffer.from(character)))
  )
}

/** An error as the last JSON line. */
export function errorEvent(thrown: unknown): CommandEvent {
  const error = originalOf(thrown)
  const problem: Problem | undefined = isProblem(error) ? error : undefined
  return {
    type: 'error',
    code: problem?.code ?? 'internal-error',
    detail: lineOf(error),
    ...(problem === undefined ? {} : { extensions: problem.extensions }),
  }
}
