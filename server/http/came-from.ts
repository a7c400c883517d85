import type { Middleware } from 'koa'
import type { RequestState } from './context.ts'
import { peerOf } from './peers.ts'
import type { ProxyTrust } from './proxy-trust.ts'

/** Notes who asks and by what name they call the receiver: as the connection shows it, or a proxy that is trusted. */
export function cameFrom(trust: ProxyTrust): Middleware<RequestState> {
  return async (ctx, next) => {
    const peer = peerOf(ctx.req.socket)
    const forwarded = trust.forwarded(peer, ctx.req)
    const { state } = ctx
    state.client = forwarded?.client ?? peer.address ?? 'local'
    state.host = forwarded?.host ?? ctx.req.headers.host
    state.isProxied = forwarded !== undefined
    state.isEncrypted = forwarded?.isEncrypted ?? peer.isEncrypted
    // A proxy that names users speaks for all of its requests; its own certificate is nobody's then.
    const proxyNamesUsers = forwarded !== undefined && trust.userHeader !== undefined
    state.provenName = proxyNamesUsers ? forwarded.user : peer.certifiedName
    await next()
  }
}
