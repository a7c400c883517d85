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

/** Trying again does not help against these. */
const certificateCodes = [
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]

/**
 * `error` of a request to `origin` as a Problem: `transport-failed`, or `protocol-violation` when what
 * answers does not speak HTTP, or no TLS that can be trusted. Misuse of the HTTP library is a defect and stays what it is.
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
  if (certificateCodes.includes(code)) {
    const text =
      `the certificate of ${origin} is not to be trusted (${code}); ` +
      'if it is your own, name its file in NODE_EXTRA_CA_CERTS'
    return new Problem('protocol-violation', text, { cause: error })
  }
  if (code.startsWith('ERR_SSL_') || code === 'EPROTO') {
    const text = `what answers at ${origin} does not speak TLS as it should; check the URL, it may have to be http://`
    return new Problem('protocol-violation', text, { cause: error })
  }
  const text =
    advice[code]?.(origin) ??
    `the connection to ${origin} broke (${code === '' ? error.message : code}); ` +
      'run the command again, it goes on from what was done'
  return new Problem('transport-failed', text, { cause: error })
}

/** What to tell when what answers speaks HTTP, but not our protocol. */
export function foreignServerText(origin: string, status: number): string {
  return `${origin} answers, but is no chunkdav receiver (status ${status}); check the URL`
}

/** The problem that an aborted signal stands for: its reason when that is a Problem, else `cancelled`. */
export function cancelledBy(signal: AbortSignal): Problem {
  if (signal.reason instanceof Problem) return signal.reason
  return new Problem('cancelled', 'the work was cancelled', { cause: signal.reason })
}
