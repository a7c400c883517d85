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
}

/** The parts of a vault URL; Problem `usage` when it is malformed. Credentials never get into messages. */
export function parseVaultUrl(text: string): VaultLocation {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
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
  return { origin: url.origin, vault: vaultOf(segments[0] as string), headers: headersOf(url), shown }
}

function vaultOf(segment: string): string {
  try {
    return parseVaultName(segment)
  } catch (cause) {
    throw new Problem('usage', (cause as Error).message, { cause })
  }
}

/** `authorization` by the user and password that a URL names. */
export function headersOf(url: URL): Record<string, string> {
  if (url.username === '' && url.password === '') return {}
  const pair = `${decode(url.username)}:${decode(url.password)}`
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
  return text.slice(0, 200).replace(/^([^/]*\/\/)?[^@]*@/, '$1')
}

function usage(what: string): Problem {
  return new Problem('usage', `${what}; it looks like http://127.0.0.1:8420/laptop`)
}
