/**
 * Whom a receiver may listen to. Nobody is let in without a password by mistake, and no password travels in the clear
 * by mistake:
 *
 * | listens on | without users | with users |
 * |---|---|---|
 * | a Unix socket, a loopback address | everybody who reaches it | everybody |
 * | anything else, with TLS | only with --no-auth | everybody |
 * | anything else, without TLS | only with --no-auth | with --plain-http everybody; else nobody but proxies that are trusted |
 *
 * A proxy, and an authority of client certificates, are for users: without any they need --no-auth as well.
 */
import { Problem } from '../../protocol/problem.ts'
import { isLoopback } from '../http/own-origin.ts'
import type { ProxyTrust } from '../http/proxy-trust.ts'

export interface Exposure {
  readonly hasUsers: boolean
  /** Everybody may come, if there are no users. */
  readonly isOpen: boolean
  readonly allowsPlainHttp: boolean
  readonly hasTls: boolean
  readonly hasClientCa: boolean
  readonly trust: ProxyTrust
}

export type Admission = 'everybody' | 'proxies'

const users = 'make users with "chunkdav user add"'

/** What must hold wherever it listens. Problem `usage`. */
export function expectUsersFor({ hasUsers, isOpen, hasClientCa, trust }: Exposure): void {
  if (hasUsers || isOpen) return
  if (hasClientCa) {
    throw new Problem(
      'usage',
      `client certificates name users, and there are none; ${users}, or add --no-auth`,
    )
  }
  if (!trust.isEmpty) {
    throw new Problem(
      'usage',
      `behind a proxy others come in, and this receiver has no users; ${users}, or add --no-auth if that is what you want`,
    )
  }
}

/** Whose connections are taken by a listener on `host`; undefined is a Unix socket. Problem `usage`. */
export function admissionOn(host: string | undefined, exposure: Exposure): Admission {
  if (host === undefined || isLoopback(host)) return 'everybody'
  if (!exposure.hasUsers) {
    if (exposure.isOpen) return 'everybody'
    throw new Problem(
      'usage',
      `${host} can be reached by others, and this receiver has no users; listen on 127.0.0.1, ${users}, or add --no-auth if everybody may come`,
    )
  }
  if (exposure.hasTls || exposure.allowsPlainHttp) return 'everybody'
  if (exposure.trust.hasAddresses) return 'proxies'
  throw new Problem(
    'usage',
    `${host} can be reached by others, and without TLS their passwords travel in the clear; add --tls-cert and --tls-key, name the proxy that has them with --trust-proxy, or add --plain-http if that is what you want`,
  )
}
