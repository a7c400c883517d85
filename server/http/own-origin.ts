import type { Middleware } from 'koa'
import { Problem } from '../../protocol/problem.ts'
import type { RequestState } from './context.ts'

/** Whether only programs of this machine reach the host. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.[0-9]{1,3}){3}$/.test(host)
}

/**
 * Guards a receiver that lets in whoever reaches it because only this machine can: a web page that its user
 * looks at must not. A page whose name was pointed to 127.0.0.1 shows by its Host, any other by its Origin.
 * `listened` is the host that the receiver was told to listen on; when that is no loopback address, others
 * are meant to come, under names that are not known here.
 */
export function ownOrigin(listened: string): Middleware<RequestState> {
  return async (ctx, next) => {
    const { host, origin } = ctx.req.headers
    if (host === undefined && ctx.req.httpVersion !== '1.0') {
      throw new Problem('invalid-request', 'HTTP/1.1 needs a Host')
    }
    if (isLoopback(listened)) {
      const name = /^(?:\[([^\]]*)\]|([^:]*))(?::[0-9]*)?$/.exec(host ?? listened)
      const asked = (name?.[1] ?? name?.[2] ?? '').toLowerCase()
      if (!isLoopback(asked) && asked !== listened) {
        throw new Problem('invalid-request', `this receiver is not at "${(host ?? '').slice(0, 80)}"`)
      }
      if (origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`) {
        throw new Problem('invalid-request', 'this receiver takes no requests from web pages')
      }
    }
    await next()
  }
}
