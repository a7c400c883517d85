/** What a failed connection is called, and what a person can do about it. */
import { Problem } from '../protocol/problem.ts'

/** A receiver, or any other WebDAV server. */
export type ServerKind = 'receiver' | 'webdav'

const check = 'check the URL and the network'
const advice: Record<string, (place: string, kind: ServerKind) => string> = {
  ECONNREFUSED: (place, kind) =>
    kind === 'receiver'
      ? `nothing answers at ${place}; start the receiver with "chunkdav serve", or check the URL`
      : `nothing answers at ${place}; is the server running?`,
  // Of a Unix socket.
  ENOENT: (place) => `there is no socket at ${place}; start the receiver, or check the URL`,
  EACCES: (place) => `this user may not use the socket ${place}`,
  ENOTFOUND: (place) => `the host of ${place} is not known; check the URL`,
  EAI_AGAIN: (place) => `the host of ${place} cannot be looked up now; check the network`,
  ETIMEDOUT: (place) => `${place} does not answer; ${check}`,
  EHOSTUNREACH: (place) => `there is no route to ${place}; check the network`,
  ENETUNREACH: (place) => `there is no route to ${place}; check the network`,
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
 * answers does not speak HTTP, or no TLS that can be trusted. Misuse of
 * the HTTP library is a defect and stays what it is.
 */
export function transportProblem(error: unknown, origin: string, kind: ServerKind = 'receiver'): unknown {
  if (error instanceof Problem || !(error instanceof Error)) return error
  const code = (error as NodeJS.ErrnoException).code ?? ''
  if (error instanceof TypeError) return error
  const prefix = kind === 'webdav' ? 'webdav+' : ''
  const [place, plain] = [prefix + origin, `${prefix}http://`]
  if (code.startsWith('HPE_')) {
    const text = `what answers at ${place} does not speak HTTP; check the URL`
    return new Problem('protocol-violation', text, { cause: error })
  }
  if (certificateCodes.includes(code)) {
    const text =
      `the certificate of ${place} is not to be trusted (${code}); ` +
      'if it is your own, name its file in NODE_EXTRA_CA_CERTS'
    return new Problem('protocol-violation', text, { cause: error })
  }
  if (
    /_CERTIFICATE_REQUIRED$|_HANDSHAKE_FAILURE$|_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_EXPIRED)$/.test(code)
  ) {
    const text = `${place} asks for a certificate that it trusts (${code}); name its file in CHUNKDAV_CERT`
    return new Problem('protocol-violation', text, { cause: error })
  }
  if (code.startsWith('ERR_SSL_') || code === 'EPROTO') {
    const text = `what answers at ${place} does not speak TLS as it should; check the URL, it may have to be ${plain}`
    return new Problem('protocol-violation', text, { cause: error })
  }
  const text =
    advice[code]?.(place, kind) ??
    `the connection to ${place} broke (${code === '' ? error.message : code}); ` +
      'run the command again, it goes on from what was done'
  return new Problem('transport-failed', text, { cause: error })
}

/**
 * `problem`, with what else may be the reason when a server ends a connection before it has ever answered: with
 * TLS 1.3 a certificate that is lacking shows as nothing more than that; and one that expects TLS has no words for http.
 */
export function endedBeforeAnswer(problem: unknown, origin: string): unknown {
  const { code } = ((problem as Error).cause ?? {}) as NodeJS.ErrnoException
  const isEnd = code === 'ECONNRESET'
  if (!isEnd || !(problem instanceof Problem) || !/^https?:/.test(origin)) return problem
  const hint = origin.startsWith('https:')
    ? 'if it asks for a certificate, name its file in CHUNKDAV_CERT'
    : 'if it speaks TLS, the URL must begin with https://, else run the command again'
  const text = `${origin} ends the connection before it answers; ${hint}`
  return new Problem(problem.code, text, { cause: problem.cause })
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
