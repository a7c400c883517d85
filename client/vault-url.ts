/** Where a vault is: `http://host:port/vault`, in parts. */
import { Problem } from '../protocol/problem.ts'
import { parseVaultName } from '../protocol/url.ts'
import { type ClientCertificate, headersOf, type Login } from './login.ts'

export interface VaultLocation {
  /** Scheme, host and port, as `URL.origin` writes it; of a Unix socket `http+unix://` and its path, percent-encoded. */
  readonly origin: string
  /** Of a Unix socket. */
  readonly socketPath?: string
  /** For a receiver that asks for one. */
  readonly certificate?: ClientCertificate
  readonly vault: string
  /** Headers that every request to it carries: `authorization` when the URL names a user, or there is a token. */
  readonly headers: Readonly<Record<string, string>>
  /** The URL without user and password, for messages and listings. */
  readonly shown: string
  /** The URL with the user and without the password, for commands to be typed. */
  readonly withUser: string
}

/**
 * The parts of a vault URL; Problem `usage` when it is malformed. Credentials never get into messages. `login` has what
 * the URL does not say.
 */
export function parseVaultUrl(text: string, login?: Login): VaultLocation {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const socketPath = url?.protocol === socketScheme ? socketPathOf(url) : undefined
  if (url === undefined || !schemes.includes(url.protocol)) {
    if (/^webdav\+/i.test(text)) {
      const what = `"${withoutCredentials(text)}" is no URL of a WebDAV server`
      throw new Problem('usage', `${what}; it begins with webdav+http:// or webdav+https://`)
    }
    throw usage(`"${withoutCredentials(text)}" is no vault URL`)
  }
  const origin = socketPath === undefined ? url.origin : `${url.protocol}//${url.host}`
  const shown = `${origin}${url.pathname.replace(/\/$/, '')}`
  if (url.search !== '' || url.hash !== '') throw usage(`"${shown}" must not have a query or a fragment`)
  const segments = url.pathname.split('/').filter((segment) => segment !== '')
  if (segments.length !== 1) {
    throw usage(
      segments.length === 0 ? `"${shown}" names no vault` : `"${shown}" has more than a vault in its path`,
    )
  }
  const vault = vaultOf(segments[0] as string)
  const withUser = withUserOf(url, shown)
  const headers = headersOf(url, login)
  const certificate = url.protocol === 'https:' ? login?.certificate : undefined
  const connecting = { ...(socketPath !== undefined && { socketPath }), ...(certificate && { certificate }) }
  return { origin, ...connecting, vault, headers, shown, withUser }
}

const socketScheme = 'http+unix:'
const schemes = ['http:', 'https:', socketScheme]

/** The path of a Unix socket stands percent-encoded where other URLs have the host. */
function socketPathOf({ host }: URL): string {
  try {
    const path = decodeURIComponent(host)
    if (path.startsWith('/')) return path
  } catch (error) {
    if (!(error instanceof URIError)) throw error
  }
  const text =
    'the path of a Unix socket must be absolute and percent-encoded: http+unix://%2Frun%2Fchunkdav.sock/laptop'
  throw new Problem('usage', text)
}

function vaultOf(segment: string): string {
  try {
    return parseVaultName(segment)
  } catch (cause) {
    throw new Problem('usage', (cause as Error).message, { cause })
  }
}

/** `shown` with the user of `url`. */
export function withUserOf({ username }: URL, shown: string): string {
  return username === '' ? shown : shown.replace('://', () => `://${username}@`)
}

/** Text that may be a URL, fit for a message. */
export function withoutCredentials(text: string): string {
  // A password may hold what should have been encoded: slashes and further ats.
  return text.replace(/^([^/]*\/\/)?[^@]*@([^/]*@)?/, '$1').slice(0, 200)
}

function usage(what: string): Problem {
  return new Problem('usage', `${what}; it looks like http://127.0.0.1:8420/laptop`)
}
