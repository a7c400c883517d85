import { randomUUID } from 'node:crypto'
import type { Middleware } from 'koa'
import type { Logger } from 'pino'
import { nobody } from '../access/identity.ts'
import type { Patience, RequestState } from './context.ts'
import { targetForLog } from './request-target.ts'

const saneRequestId = /^[A-Za-z0-9._:+/=-]{1,128}$/

/** Begins the request's state. Takes the client's request id when it is sane, else makes one; every answer carries it. */
export function requestIds(log: Logger, patience: Patience): Middleware<RequestState> {
  return async (ctx, next) => {
    const given = ctx.get('X-Request-Id')
    const requestId = saneRequestId.test(given) ? given : randomUUID()
    ctx.state.requestId = requestId
    // Made by who first writes to it: most requests have nothing to say.
    let own: Logger | undefined
    const get = (): Logger => {
      own ??= log.child({ requestId })
      return own
    }
    Object.defineProperty(ctx.state, 'log', { get, enumerable: true })
    ctx.state.patience = patience
    ctx.state.who = nobody
    ctx.state.bytesIn = 0
    ctx.state.expectsContinue = false
    ctx.state.allow = ''
    ctx.set('X-Request-Id', requestId)
    ctx.set('X-Content-Type-Options', 'nosniff')
    await next()
  }
}

/**
 * 503 and 507 pass by themselves, or when somebody makes room. 502 is a client's wish to copy to another server, and
 * no fault of ours. Any other 5xx is.
 */
function levelOf(status: number): 'debug' | 'warn' | 'error' {
  if (status < 500 || status === 502) return 'debug'
  return status === 503 || status === 507 ? 'warn' : 'error'
}

/**
 * One line per request, when its answer has left or its connection is gone. No headers, no query string. Those that
 * nobody has to look at are for `debug`: a backup has thousands.
 */
export function requestLog(log: Logger): Middleware<RequestState> {
  return async (ctx, next) => {
    const started = performance.now()
    const { socket } = ctx.req
    const writtenBefore = socket.bytesWritten
    const { method } = ctx
    const path = targetForLog(ctx.req)
    ctx.res.once('close', () => {
      const isCut = !ctx.res.writableFinished
      const level = isCut ? 'warn' : levelOf(ctx.res.statusCode)
      if (!log.isLevelEnabled(level)) return
      const line = {
        method,
        path,
        status: ctx.res.statusCode,
        user: ctx.state.who.name,
        from: ctx.state.client,
        ms: Math.round((performance.now() - started) * 10) / 10,
        bytesIn: ctx.state.bytesIn,
        bytesOut: socket.bytesWritten - writtenBefore,
      }
      ctx.state.log[level](line, isCut ? 'request cut off' : 'request')
    })
    await next()
  }
}
