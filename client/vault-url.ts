/** Where a vault is: `http://host:port/vault`, in parts. */
import { Problem } from '../protocol/problem.ts'
import { parseVaultName } from '../protocol/url.ts'

export interface VaultLocation {
  /** Scheme, host and port, as `URL.origin` writes it. */
  readonly origin: string
  readonly vault: string
  /** Headers that every request to it carries: `authorization` when the URL names a user. */
  readonly headers: Readonly<Record<string, string>>
  /** The URL without user and password, for messages and listings. */
  readonly shown: string
  /** The URL with the user and without the password, for commands to be typed. */
  readonly withUser: string
}

/**
 * The parts of a vault URL; Problem `usage` when it is malformed. Credentials never get into messages. `password` is
 * that of a user whom the URL names without one.
 */
export function parseVaultUrl(text: string, password?: string): VaultLocation {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    if (/^webdav\+/i.test(text)) {
      const what = `"${withoutCredentials(text)}" is no URL of a WebDAV server`
      throw new Problem('usage', `${what}; it begins with webdav+http:// or webdav+https://`)
    }
    throw usage(`"${withoutCredentials(text)}" is no vault URL`)
  }
  const shown = `${url.origin}${url.pathname.replace(/\/$/, '')}`
  if (url.search !== '' || url.hash !== '') throw usage(`"${shown}" must not have a query or a fragment`)
  const segments = url.pathname.split('/').filter((segment) => segment !== '')
  if (segments.length !== 1) {
    throw usage(
      segments.length === 0 ? `"${shown}" names no vault` : `"${shown}" has more than a vault in its path`,
    )
  }
  const vault = vaultOf(segments[0] as string)
  const withUser = withUserOf(url, shown)
  return { origin: url.origin, vault, headers: headersOf(url, password), shown, withUser }
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

/** `authorization` by the user and password that a URL names; `password` is that of a user without one. */
export function headersOf(url: URL, password = ''): Record<string, string> {
  if (url.username === '' && url.password === '') return {}
  const pair = `${decode(url.username)}:${url.password === '' ? password : decode(url.password)}`
  return { authorization: `Basic ${Buffer.from(pair, 'utf8').toString('base64')}` }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new Problem('usage', 'the user or password in the URL is not percent-encoded rightly', { cause })
  }
}

/** Text that may be a URL, fit for a message. */
export function withoutCredentials(text: string): string {
  // A password may hold what should have been encoded: slashes and further ats.
  return text.replace(/^([^/]*\/\/)?[^@]*@([^/]*@)?/, '$1').slice(0, 200)
}

function usage(what: string): Problem {
  return new Problem('usage', `${what}; it looks like http://127.0.0.1:8420/laptop`)
}
