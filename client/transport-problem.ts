/** What a failed connection is called, and what a person can do about it. */
import { Problem } from '../protocol/problem.ts'

const advice: Record<string, (origin: string) => string> = {
  ECONNREFUSED: (origin) =>
    `nothing answers at ${origin}; start the receiver with "chunkdav serve", or check the URL`,
  ENOTFOUND: (origin) => `the host of ${origin} is not known; check the URL`,
  EAI_AGAIN: (origin) => `the host of ${origin} cannot be looked up now; check the network`,
  UND_ERR_CONNECT_TIMEOUT: (origin) => `${origin} does not answer; check the URL and the network`,
  ETIMEDOUT: (origin) => `${origin} does not answer; check the URL and the network`,
  EHOSTUNREACH: (origin) => `there is no route to ${origin}; check the network`,
  ENETUNREACH: (origin) => `there is no route to ${origin}; check the network`,
}

/**
 * `error` of a request to `origin` as a Problem: `transport-failed`, or `protocol-violation` when what
 * answers does not speak HTTP. Misuse of the HTTP library is a defect and stays what it is.
 */
export function transportProblem(error: unknown, origin: string): unknown {
  if (error instanceof Problem || !(error instanceof Error)) return error
  const code = (error as NodeJS.ErrnoException).code ?? ''
  if (error instanceof TypeError || code === 'UND_ERR_INVALID_ARG' || code === 'UND_ERR_NOT_SUPPORTED') {
    return error
  }
  if (error.name === 'HTTPParserError') {
    const text = `what answers at ${origin} does not speak HTTP; check the URL`
    return new Problem('protocol-violation', text, { cause: error })
  }
  const text =
    advice[code]?.(origin) ??
    `the connection to ${origin} broke (${code === '' ? error.message : code}); ` +
      'run the command again, it goes on from what was done'
  return new Problem('transport-failed', text, { cause: error })
}

/** The problem that an aborted signal stands for: its reason when that is a Problem, else `cancelled`. */
export function cancelledBy(signal: AbortSignal): Problem {
  if (signal.reason instanceof Problem) return signal.reason
  return new Problem('cancelled', 'the work was cancelled', { cause: signal.reason })
}
