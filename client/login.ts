/** How the client says who it is: from the URL and the environment to the one place that the URL names, and nowhere else. */
import { readFile } from 'node:fs/promises'
import { Problem } from '../protocol/problem.ts'
import { errnoReason, isSystemError } from './errno.ts'

/** What the environment has for logging in; the URL says whether it is wanted. */
export interface Login {
  /** Of a user whom the URL names without one. */
  readonly password?: string | undefined
  /** Of a receiver, where the URL names no user. */
  readonly token?: string | undefined
  /** Shown to a receiver that asks for one, over https. */
  readonly certificate?: ClientCertificate | undefined
}

/** In PEM. */
export interface ClientCertificate {
  readonly cert: string
  readonly key: string
}

/** The certificate in a file, whose key may stand in another. Problem `usage` when they cannot be used. */
export async function readCertificate(certPath: string, keyPath = certPath): Promise<ClientCertificate> {
  const cert = await readPem(certPath, 'CHUNKDAV_CERT')
  const key = keyPath === certPath ? cert : await readPem(keyPath, 'CHUNKDAV_KEY')
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(key)) {
    const todo = keyPath === certPath ? '; name the file with it in CHUNKDAV_KEY' : ' (CHUNKDAV_KEY)'
    throw new Problem('usage', `there is no private key in ${keyPath}${todo}`)
  }
  const { createSecureContext } = await import('node:tls')
  try {
    createSecureContext({ cert, key })
    return { cert, key }
  } catch (cause) {
    const why = key.includes('ENCRYPTED')
      ? 'the key has a passphrase'
      : 'they must be a certificate and its key, as PEM'
    const text = `the certificate ${certPath} (CHUNKDAV_CERT) and its key ${keyPath} (CHUNKDAV_KEY) cannot be used: ${why}`
    throw new Problem('usage', text, { cause })
  }
}

async function readPem(path: string, variable: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    if (!isSystemError(cause)) throw cause
    throw new Problem('usage', `${path} (${variable}) cannot be read: ${errnoReason(cause.code)}`, { cause })
  }
}

/** RFC 6750, section 2.1. */
const tokenForm = /^[A-Za-z0-9._~+/-]+=*$/

/**
 * `authorization` for what a URL names: Basic when it names a user, whose password stands in it or in `login`, or whose token
 * is there; else Bearer, when there is a token. Problem `usage`.
 */
export function headersOf(url: URL, { password, token }: Login = {}): Record<string, string> {
  if (url.username !== '' || url.password !== '') {
    const secret = url.password === '' ? (password ?? token ?? '') : decode(url.password)
    const pair = `${decode(url.username)}:${secret}`
    return { authorization: `Basic ${Buffer.from(pair, 'utf8').toString('base64')}` }
  }
  if (token === undefined) return {}
  // It may have been read from a file, with the end of its line.
  if (!tokenForm.test(token.trim())) {
    throw new Problem('usage', 'what stands in CHUNKDAV_TOKEN is no token; they look like cdt_…')
  }
  return { authorization: `Bearer ${token.trim()}` }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new Problem('usage', 'the user or password in the URL is not percent-encoded rightly', { cause })
  }
}

/** What to do about a 401 of a receiver at `shown`, a URL without user and password. */
export function loginAdvice(
  shown: string,
  { authorization }: Readonly<Record<string, string>>,
  hasCertificate = false,
): string {
  if (authorization === undefined && hasCertificate) {
    return `${shown} knows no user by the certificate in CHUNKDAV_CERT; ask whoever runs the receiver`
  }
  if (authorization === undefined) {
    const example = shown.replace('://', () => '://USER@')
    return `${shown} asks who you are; put a token into CHUNKDAV_TOKEN, or name the user in the URL, ${example}, and put the password into CHUNKDAV_PASSWORD`
  }
  if (authorization.startsWith('Bearer ')) {
    return `${shown} does not take the token in CHUNKDAV_TOKEN; it may have expired, or been revoked: ask for a new one`
  }
  if (Buffer.from(authorization.slice('Basic '.length), 'base64').at(-1) === 0x3a) {
    return `${shown} asks for the password of the user in the URL; put it into CHUNKDAV_PASSWORD`
  }
  return `${shown} does not take this user and password; check the URL and CHUNKDAV_PASSWORD`
}
