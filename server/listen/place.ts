/** Where a receiver is told to listen, as the command line writes it. */
import { Problem } from '../../protocol/problem.ts'

export type Place =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string; readonly mode: number }
  /** A socket that systemd has opened; `count` of them, from descriptor 3 on. */
  | { readonly kind: 'systemd'; readonly count: number }

export const defaultPort = 8420
/** The first descriptor that systemd hands over: sd_listen_fds(3). */
export const firstSystemdSocket = 3

export type PlaceText =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'systemd' }

/** `host:port`, `[v6]:port`, `:port`, `port`, `unix:/path` or `systemd`. Problem `usage`. */
export function parsePlace(text: string): PlaceText {
  if (text === 'systemd') return { kind: 'systemd' }
  const [, path] = /^unix:(\/.+)$/s.exec(text) ?? []
  if (path !== undefined) return { kind: 'unix', path }
  const match = /^(?:\[([0-9a-fA-F:.]+)\]:|([^:[\]]*):)?([0-9]{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65535)
    throw new Problem('usage', 'expected HOST:PORT, such as 127.0.0.1:8420, or unix:/PATH, or systemd')
  const host = match[1] ?? (match[2] === undefined || match[2] === '' ? '127.0.0.1' : match[2])
  return { kind: 'tcp', host, port }
}

/** Permissions of a socket in octal, such as 0660. Problem `usage`. */
export function parseSocketMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) throw new Problem('usage', 'expected three octal digits, such as 0660')
  return Number.parseInt(text, 8)
}
