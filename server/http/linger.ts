/**
 * Answers that are sent before the request's body was read: the connection cannot be used again, since
 * what follows on it is a body that nobody reads. Closing it at once would make the kernel throw the
 * answer away (a reset overtakes it), so the close lingers: the answer goes out, the sending half is
 * closed, a bounded part of the body is thrown away, and then the connection ends.
 * RFC 9112, section 9.6.
 */
import type { Socket } from 'node:net'
import type { Middleware } from 'koa'
import type { RequestState } from './context.ts'
import { hasBody } from './context.ts'

interface Patience {
  readonly lingerMs: number
  readonly maxDiscardBytes: number
}

/** What a client may have had under way when the answer was sent. */
const patience: Patience = { lingerMs: 2000, maxDiscardBytes: 2 * 1024 * 1024 }
/** Proxies, Apache for one, send the body to its end before they look at the answer, and else say 502 themselves. */
const patienceWithProxies: Patience = { lingerMs: 10_000, maxDiscardBytes: 64 * 1024 * 1024 }
/** How often it is looked how much that was. */
const lookMs = 20
/** So little may be read to its end, to keep the connection. */
const maxDrainBytes = 64 * 1024

/** Closes the connection behind an answer that did not wait for the body. */
export function lingerAfterEarlyAnswers(): Middleware<RequestState> {
  return async (ctx, next) => {
    await next()
    const { req, res } = ctx
    if (req.complete || !hasBody(req)) return
    const length = Number(req.headers['content-length'] ?? Number.POSITIVE_INFINITY)
    const clientWaits = ctx.state.expectsContinue || req.headers.expect !== undefined
    // Who was too slow for us is not waited for.
    const isSlow = ctx.status === 408
    if (length <= maxDrainBytes && !clientWaits && !isSlow && !req.destroyed) return
    if (res.headersSent) return
    ctx.set('Connection', 'close')
    const { socket } = req
    if (socket === null || socket.destroyed) return
    // Node ends a `Connection: close` exchange through this method.
    socket.destroySoon = () => linger(socket, ctx.state.isProxied ? patienceWithProxies : patience)
  }
}

/** Ends a connection behind the answer that was written to it, so that the client gets it. */
export function linger(socket: Socket, { lingerMs, maxDiscardBytes }: Patience = patience): void {
  const before = socket.bytesRead
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  // Not by a listener for `data`: that takes the socket from the parser, and where the parser had stopped it for a body
  // that nobody took, nothing starts it again.
  const watch = setInterval(() => {
    if (socket.bytesRead - before > maxDiscardBytes) socket.pause()
  }, lookMs)
  socket.once('close', () => {
    clearTimeout(timer)
    clearInterval(watch)
  })
  socket.once('end', () => socket.destroy())
  socket.end()
  socket.resume()
}
