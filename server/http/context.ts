import type { IncomingMessage } from 'node:http'
import type { RouterContext } from '@koa/router'
import type { Logger } from 'pino'

/** What the middleware leaves for the handlers. */
export interface RequestState {
  requestId: string
  log: Logger
  /** Body bytes read so far, as they came. */
  bytesIn: number
  /** The client waits for `100 Continue` before it sends the body. */
  expectsContinue: boolean
  /** The methods of the resource that the path names, once that is known. */
  allow: string
}

export type Context = RouterContext<RequestState>
export type Handler = (ctx: Context) => Promise<void>

/** Whether a request announces a body. RFC 9112, section 6. */
export function hasBody(request: IncomingMessage): boolean {
  return (
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0
  )
}

/** A parameter of the route, which the router vouches for. */
export function param(ctx: Context, name: string): string {
  return (ctx.params as Record<string, string>)[name] ?? ''
}
