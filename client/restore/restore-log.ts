/** What a restore did and what it could not do. */
import { isProblem, Problem, type ProblemCode } from '../../protocol/problem.ts'
import { errnoReason, isSystemError } from '../errno.ts'

/** Something that is not at the destination as it was, and why. */
export interface RestoreProblem {
  /** The path's bytes, below the destination. */
  readonly path: Buffer
  readonly code: ProblemCode
  readonly detail: string
  /** The chunk or object that is at fault. */
  readonly id?: string
}

export interface RestoreCounts {
  /** Files written, and files that were there already, with the right content. */
  files: number
  filesKept: number
  directories: number
  symlinks: number
  hardLinks: number
  /** Fifos and devices. */
  specials: number
  /** Sockets, which nobody can restore, and devices when not root. */
  skipped: number
  /** Content bytes of `files` and `filesKept` together. */
  bytes: number
  /** Content bytes that had to come from the receiver, before compression. */
  bytesFetched: number
  problems: number
}

/** Problems kept for the summary; each one is told as it happens in any case. */
const maxKeptProblems = 1000

/** Failures that the next file would meet too. */
const fatalCodes = ['ENOSPC', 'EDQUOT', 'EROFS', 'EIO', 'EMFILE', 'ENFILE']
/** What is wrong with the backup of one file or directory only. */
export const localCodes: readonly ProblemCode[] = [
  'chunk-not-found',
  'chunk-corrupt',
  'digest-mismatch',
  'invalid-object',
  'not-found',
  'destination-exists',
  'destination-failed',
  'unsafe-path',
]

export class RestoreLog {
  readonly counts: RestoreCounts = {
    files: 0,
    filesKept: 0,
    directories: 0,
    symlinks: 0,
    hardLinks: 0,
    specials: 0,
    skipped: 0,
    bytes: 0,
    bytesFetched: 0,
    problems: 0,
  }
  readonly problems: RestoreProblem[] = []
  readonly #told: (problem: RestoreProblem) => void

  constructor(told: (problem: RestoreProblem) => void = () => {}) {
    this.#told = told
  }

  /** Takes note of what went wrong with one path, and returns it; throws it on when it is not about this path alone. */
  failed(path: Buffer, error: unknown): Problem {
    const problem = localProblem(error)
    const id = problem.extensions.id
    const told = {
      path,
      code: problem.code,
      detail: problem.message,
      ...(typeof id === 'string' ? { id } : {}),
    }
    this.counts.problems++
    if (this.problems.length < maxKeptProblems) this.problems.push(told)
    this.#told(told)
    return problem
  }
}

/** `error` as a problem of one path; throws whatever concerns more than that. */
function localProblem(error: unknown): Problem {
  if (isProblem(error)) {
    if (localCodes.includes(error.code)) return error
    throw error
  }
  if (!isSystemError(error)) throw error
  const { code, syscall } = error
  if (fatalCodes.includes(code)) {
    const text = `the destination cannot be written: ${errnoReason(code)}`
    throw new Problem('destination-failed', text, { cause: error })
  }
  return new Problem('destination-failed', `${syscall} failed: ${errnoReason(code)}`, { cause: error })
}
