import { isProblem, type Problem } from '../protocol/problem.ts'
import { diskFull, isDiskFull } from './full-disk.ts'

/** What a full disk is the cause of is a Problem, whoever noticed it. */
export function knownProblem(error: unknown): Problem | undefined {
  if (isProblem(error)) return error.code === 'internal-error' ? undefined : error
  return isDiskFull(error) ? diskFull(error) : undefined
}

/**
 * What a line of the log tells of a failure beside its message. Of a Problem its code, and the error at the
 * bottom of it; of anything else, which may be a defect of ours, all there is, with its stack.
 */
export function failureFields(error: unknown): Record<string, unknown> {
  const problem = knownProblem(error)
  if (problem === undefined) return { err: error }
  const bottom = rootOf(problem)
  return { code: problem.code, ...(bottom !== problem && { reason: bottom.message }) }
}

/** The message of that line. */
export function failureText(what: string, error: unknown): string {
  const problem = knownProblem(error)
  return problem === undefined ? what : `${what}: ${problem.message}`
}

function rootOf(error: Error): Error {
  return error.cause instanceof Error ? rootOf(error.cause) : error
}
