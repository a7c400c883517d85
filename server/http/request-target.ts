import type { IncomingMessage } from 'node:http'
import type { Middleware } from 'koa'
import { Problem } from '../../protocol/problem.ts'
import type { RequestState } from './context.ts'

/**
 * Refuses a request target that is no path, such as `http://[::1/` or `*`. Koa parses the target at every
 * look at `ctx.path`, and throws for what does not parse, so nothing in front of this may look at it.
 */
export function readableTarget(): Middleware<RequestState> {
  return async (ctx, next) => {
    const target = ctx.req.url ?? ''
    // What is no URL Koa's parser takes for one, with a warning on standard error.
    if (!target.startsWith('/') && !URL.canParse(target)) {
      throw new Problem('invalid-request', 'the request target is neither a path nor a URL')
    }
    let path: unknown
    try {
      path = ctx.path
    } catch (cause) {
      throw new Problem('invalid-request', 'the request target does not parse', { cause })
    }
    if (typeof path !== 'string' || !path.startsWith('/')) {
      throw new Problem('invalid-request', 'the request target is no path')
    }
    // RFC 9112, section 3.2. Cut off by a parser, it would make the request one about another resource.
    if (ctx.req.url?.includes('#')) throw new Problem('invalid-request', 'the request target has a fragment')
    await next()
  }
}

/** The target as it may stand in the log: as it came, without the query and without a password. Never throws. */
export function targetForLog(request: IncomingMessage): string {
  const [target = ''] = (request.url ?? '').split('?', 1)
  return target.startsWith('/') ? target : target.replace(/\/\/[^/]*@/, '//')
}
