/** Where backups are on a WebDAV server: `webdav+http://host:port/path`, in parts. */
import { Problem } from '../../protocol/problem.ts'
import { headersOf } from '../login.ts'
import { withoutCredentials, withUserOf } from '../vault-url.ts'

export interface WebDavLocation {
  /** Scheme, host and port, as `URL.origin` writes it. */
  readonly origin: string
  /** The folder that holds the backups, percent-encoded: begins and ends with a slash. */
  readonly folder: string
  /** Headers that every request to it carries: `authorization` when the URL names a user. */
  readonly headers: Readonly<Record<string, string>>
  /** The URL without user and password, for messages and listings. */
  readonly shown: string
  /** The URL with the user and without the password, for commands to be typed. */
  readonly withUser: string
}

const prefix = 'webdav+'

/** Whether `text` names a place on a WebDAV server, and not a vault. */
export function isWebDavUrl(text: string): boolean {
  return /^webdav\+https?:/i.test(text)
}

/**
 * The parts of a `webdav+http://` or `webdav+https://` URL; Problem `usage` when it is malformed. `password` is that
 * of a user whom the URL names without one.
 */
export function parseWebDavUrl(text: string, password?: string): WebDavLocation {
  const plain = text.slice(prefix.length)
  const url = isWebDavUrl(text) && URL.canParse(plain) ? new URL(plain) : undefined
  if (url === undefined) throw usage(`"${withoutCredentials(text)}" is no URL of a WebDAV server`)
  const folder = `${url.pathname.replace(/\/+$/, '')}/`
  const shown = `${prefix}${url.origin}${folder.slice(0, -1)}`
  if (url.search !== '' || url.hash !== '') throw usage(`"${shown}" must not have a query or a fragment`)
  const withUser = withUserOf(url, shown)
  return { origin: url.origin, folder, headers: headersOf(url, { password }), shown, withUser }
}

function usage(what: string): Problem {
  return new Problem('usage', `${what}; it looks like webdav+https://user:password@host/folder`)
}
