/** Headers of RFC 4918 (section 10) and of ownCloud's clients. */
import { Problem } from '../../protocol/problem.ts'
import type { Context } from './context.ts'

/** A week. A client that is gone for good must not lock others out for long. */
const maxTimeoutSeconds = 7 * 24 * 3600
const defaultTimeoutSeconds = 600

/** The Depth of a request; `absent` is what a missing header means. Problem `invalid-request`. */
export function depthOf<D extends 0 | 1 | 'infinity'>(ctx: Context, allowed: readonly D[], absent: D): D {
  const text = ctx.get('Depth').trim().toLowerCase()
  if (text === '') return absent
  const depth = allowed.find((one) => String(one) === text)
  if (depth === undefined) {
    throw new Problem('invalid-request', `Depth must be ${allowed.join(' or ')} here`)
  }
  return depth
}

/** Whether a destination that is there may be replaced. Problem `invalid-request`. */
export function mayOverwrite(ctx: Context): boolean {
  const text = ctx.get('Overwrite').trim().toUpperCase()
  if (text !== '' && text !== 'T' && text !== 'F') {
    throw new Problem('invalid-request', 'Overwrite must be T or F')
  }
  return text !== 'F'
}

/**
 * The percent-encoded path of a URI or of an absolute path, when it is on this server; undefined when it is
 * on another. Behind a proxy that ends TLS a client says `https`, so schemes are not compared.
 * Problem `invalid-request` for what is neither, or has a query or a fragment.
 */
export function ownPath(ctx: Context, reference: string): string | undefined {
  if (/^\/(?!\/)[^?#\s]*$/.test(reference)) return reference
  const match = /^(https?):\/\/(?:[^/?#@\s]*@)?([^/?#@\s]+)(\/[^?#\s]*)$/i.exec(reference)
  if (match === null) {
    throw new Problem(
      'invalid-request',
      'it must be an absolute path or an http URI without query and fragment',
    )
  }
  const [, scheme = '', authority = '', path = ''] = match
  const withPort = (host: string): string =>
    /:\d+$/.test(host) ? host.toLowerCase() : `${host.toLowerCase()}:${/^https$/i.test(scheme) ? 443 : 80}`
  return withPort(authority) === withPort(ctx.state.host ?? '') ? path : undefined
}

/** The percent-encoded path that Destination names. Problems `invalid-request`, `bad-gateway`. */
export function destinationPath(ctx: Context): string {
  const header = ctx.get('Destination').trim()
  if (header === '') throw new Problem('invalid-request', `${ctx.method} needs a Destination`)
  const path = ownPath(ctx, header)
  if (path === undefined) {
    throw new Problem(
      'bad-gateway',
      'the Destination is on another server; that would be an upload, not a copy',
    )
  }
  return path
}

/** How long a lock is to last: the first time that is understood, bounded; undefined when none is given. */
function wantedSeconds(ctx: Context): number | undefined {
  for (const type of ctx.get('Timeout').split(',')) {
    const match = /^\s*(?:(Infinite)|Second-(\d{1,12}))\s*$/i.exec(type)
    if (match === null) continue
    const seconds = match[1] === undefined ? Number(match[2]) : maxTimeoutSeconds
    return Math.min(maxTimeoutSeconds, Math.max(1, seconds))
  }
  return undefined
}

/** Timeout of a lock in seconds; `otherwise` when the header says nothing that is understood. */
export function timeoutSeconds(ctx: Context, otherwise: number = defaultTimeoutSeconds): number {
  return wantedSeconds(ctx) ?? otherwise
}

/** The token of UNLOCK. Problem `invalid-request`. */
export function lockTokenOf(ctx: Context): string {
  const match = /^<([^<>\s]+)>$/.exec(ctx.get('Lock-Token').trim())
  if (match?.[1] === undefined) {
    throw new Problem('invalid-request', 'Lock-Token must be a lock token in angle brackets')
  }
  return match[1]
}

/** Decimal seconds since 1970 as nanoseconds; undefined for what is no such number. */
export function secondsAsNs(text: string): string | undefined {
  const match = /^(-?)(\d{1,11})(?:\.(\d+))?$/.exec(text.trim())
  if (match === null) return undefined
  const [, sign, whole = '0', fraction = ''] = match
  return BigInt(`${sign}${whole}${fraction.slice(0, 9).padEnd(9, '0')}`).toString()
}

/** The modification time that ownCloud's clients, and rclone as one of them, send along, in nanoseconds. Problem `invalid-request`. */
export function ocMtimeNs(ctx: Context): string | undefined {
  const header = ctx.get('X-OC-Mtime')
  if (header === '') return undefined
  const ns = secondsAsNs(header)
  if (ns === undefined) throw new Problem('invalid-request', 'X-OC-Mtime must be seconds since 1970')
  return ns
}

export interface Checksums {
  readonly md5?: string
  readonly sha1?: string
}

const checksumDigits = { md5: 32, sha1: 40 } as const

/** What `OC-Checksum` says of the body; kinds that are not computed here are passed over. Problem `invalid-request`. */
export function ocChecksums(ctx: Context): Checksums {
  const checksums: { md5?: string; sha1?: string } = {}
  // Not one pattern for all of it: on a long header without a colon that takes seconds.
  for (const checksum of ctx.get('OC-Checksum').toLowerCase().split(/[\s,]/)) {
    const [, kind, digits = ''] = /^(md5|sha1):(.*)$/.exec(checksum) ?? []
    if (kind !== 'md5' && kind !== 'sha1') continue
    if (!/^[0-9a-f]*$/.test(digits) || digits.length !== checksumDigits[kind]) {
      throw new Problem('invalid-request', `OC-Checksum holds no ${kind.toUpperCase()}`)
    }
    checksums[kind] = digits
  }
  return checksums
}
