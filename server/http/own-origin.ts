import type { Middleware } from 'koa'
import { Problem } from '../../protocol/problem.ts'
import type { RequestState } from './context.ts'
import { peerOf } from './peers.ts'

/** Whether only programs of this machine reach the host. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.[0-9]{1,3}){3}$/.test(host)
}

/**
 * Guards a receiver against web pages that somebody looks at who may reach it, or who is logged in to it. A page whose
 * name was pointed to 127.0.0.1 shows by its Host, any other by its Origin. Where the receiver does not listen on a
 * loopback address, or is asked through a proxy, others are meant to come, under names that are not known here; with TLS
 * a name is proven by the certificate.
 */
export function ownOrigin(): Middleware<RequestState> {
  return async (ctx, next) => {
    const { host: header, origin } = ctx.req.headers
    if (header === undefined && ctx.req.httpVersion !== '1.0') {
      throw new Problem('invalid-request', 'HTTP/1.1 needs a Host')
    }
    // Node takes the first of several, and what stands in front of it perhaps another: RFC 9112, section 3.2.
    if ((ctx.req.headersDistinct.host?.length ?? 0) > 1) {
      throw new Problem('invalid-request', 'there is more than one Host')
    }
    const { host, isProxied, isEncrypted } = ctx.state
    const { listened } = peerOf(ctx.req.socket)
    if (listened !== undefined && isLoopback(listened) && !isProxied && !isEncrypted) {
      const name = /^(?:\[([^\]]*)\]|([^:]*))(?::[0-9]*)?$/.exec(host ?? listened)
      const asked = (name?.[1] ?? name?.[2] ?? '').toLowerCase()
      if (!isLoopback(asked) && asked !== listened) {
        throw new Problem('invalid-request', `this receiver is not at "${(host ?? '').slice(0, 80)}"`)
      }
    }
    // Behind a proxy that is not trusted https is not seen; where it is, a page that came without it may be anybody's.
    const isOwn = origin === `https://${host}` || (!isEncrypted && origin === `http://${host}`)
    if (origin !== undefined && !isOwn) {
      throw new Problem('invalid-request', 'this receiver takes no requests from web pages')
    }
    await next()
  }
}
