import type { IncomingMessage } from 'node:http'
import type { RouterContext } from '@koa/router'
import type { Logger } from 'pino'
import type { Identity } from '../access/identity.ts'

/** How long clients are waited for; client-pace.ts says how fast they must be. */
export interface Patience {
  /** One that sends nothing of a body that it announced. */
  readonly idleMs: number
  /** One that does not take a slice of an answer. The kernel tells only of some hundred KiB, so it is longer. */
  readonly stallMs: number
}

export const defaultPatience: Patience = { idleMs: 30_000, stallMs: 120_000 }

/** What the middleware leaves for the handlers. */
export interface RequestState {
  requestId: string
  log: Logger
  patience: Patience
  /** Who asks; `anybody` where there are no users. */
  who: Identity
  /** The address of the client, as far as it can be known: behind proxies that are trusted, theirs. */
  client: string
  /** The authority that the client asked for: Host, or what a trusted proxy says it was. */
  host: string | undefined
  /** It came through a proxy that is trusted. */
  isProxied: boolean
  /** Between the client and us, or the proxy that is trusted, there is TLS. */
  isEncrypted: boolean
  /** What a verified client certificate or a trusted proxy calls the client: see proven-name.ts. */
  provenName?: string | undefined
  /** Body bytes read so far, as they came. */
  bytesIn: number
  /** The client waits for `100 Continue` before it sends the body. */
  expectsContinue: boolean
  /** The methods of the resource that the path names, once that is known. */
  allow: string
  /** The path of the resource as a pattern, once it is known: for figures, whose labels must be few. */
  route?: string
}

export type Context = RouterContext<RequestState>
export type Handler = (ctx: Context) => Promise<void>

/** Whether a request announces a body. RFC 9112, section 6. */
export function hasBody(request: IncomingMessage): boolean {
  return (
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0
  )
}

/**
 * Whether the body's type lets it be XML: also when there is no body, or no type. `fetch` calls a string
 * text/plain, and `curl -d` calls everything a form.
 */
export function mayBeXml(ctx: Context): boolean {
  if (!hasBody(ctx.req) || ctx.get('Content-Type') === '') return true
  return ctx.is('application/xml', 'text/xml', 'text/plain', 'application/x-www-form-urlencoded') !== false
}

/** A parameter of the route, which the router vouches for. */
export function param(ctx: Context, name: string): string {
  return (ctx.params as Record<string, string>)[name] ?? ''
}
