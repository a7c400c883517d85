import type { Middleware } from 'koa'
import { Problem } from '../../protocol/problem.ts'
import type { RequestState } from './context.ts'

/**
 * Notes whether the client waits for `100 Continue`. Whoever reads the body sends it, once nothing
 * speaks against the body any more; a refusal or a ready answer comes before the body is sent.
 * RFC 9110, section 10.1.1. HTTP/1.0 clients do not know it.
 */
export function expectation(): Middleware<RequestState> {
  return async (ctx, next) => {
    const expected = ctx.get('Expect').trim().toLowerCase()
    if (expected !== '' && ctx.req.httpVersion !== '1.0') {
      if (expected !== '100-continue') {
        throw new Problem('expectation-failed', `"${expected.slice(0, 80)}" is not understood`)
      }
      ctx.state.expectsContinue = true
    }
    await next()
  }
}
