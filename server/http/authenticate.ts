/**
 * Who asks. Basic (RFC 7617, in UTF-8) and Bearer (RFC 6750); without either, whom a certificate or a proxy vouches
 * for. What they may do stands in access/needs.ts. No body is read here: linger.ts ends the connection behind a refusal.
 */
import type { Middleware } from 'koa'
import { Problem } from '../../protocol/problem.ts'
import type { Accounts, Credentials } from '../access/accounts.ts'
import { anybody, type Identity } from '../access/identity.ts'
import { isForAnyone } from '../access/needs.ts'
import type { RequestState } from './context.ts'
import { provenName } from './proven-name.ts'

/** What this needs of the accounts. */
export type Verifier = Pick<Accounts, 'isEmpty' | 'verify' | 'byName'>

/** RFC 9110, section 11.6.1: what a client may answer with. */
const basicChallenge = 'Basic realm="chunkdav", charset="UTF-8"'
const bearerChallenge = 'Bearer realm="chunkdav"'

/**
 * Sets `who`. A receiver without users lets everybody in; one with users answers 401 to whoever does not say who they
 * are, except where that is not asked: there it counts only if they say so all the same.
 */
export function authenticate(accounts: Verifier): Middleware<RequestState> {
  return async (ctx, next) => {
    if (accounts.isEmpty) {
      ctx.state.who = anybody
      return await next()
    }
    if (isForAnyone(ctx.method, ctx.path) && ctx.req.headers.authorization === undefined) {
      // Nobody has to say who they are, but some are told more.
      const name = provenName(ctx)
      const known = name === undefined ? undefined : await accounts.byName(name)
      if (known !== undefined) ctx.state.who = known
      return await next()
    }
    ctx.set('WWW-Authenticate', [basicChallenge, bearerChallenge])
    ctx.state.who = await identityOf(ctx, accounts)
    ctx.remove('WWW-Authenticate')
    await next()
    // What was kept by a browser for one user is not for the next one.
    if (!ctx.res.headersSent) ctx.vary('Authorization')
  }
}

type Asking = Parameters<Middleware<RequestState>>[0]

/** Problems `unauthenticated`, `invalid-request`; of the accounts, `too-many-requests` and `unavailable`. */
async function identityOf(ctx: Asking, accounts: Verifier): Promise<Identity> {
  const [header, ...more] = ctx.req.headersDistinct.authorization ?? []
  if (more.length > 0) throw new Problem('invalid-request', 'there is more than one Authorization')
  if (header === undefined) {
    const name = provenName(ctx)
    const known = name === undefined ? undefined : await accounts.byName(name)
    if (known !== undefined) return known
    const text =
      name === undefined ? 'log in with a user and a password, or with a token' : 'there is no such user'
    throw new Problem('unauthenticated', text)
  }
  const credentials = parseAuthorization(header)
  const known = await accounts.verify(credentials, ctx.state.client)
  if (known !== undefined) return known
  if (credentials.kind === 'basic') throw new Problem('unauthenticated', 'the user or the password is wrong')
  // RFC 6750, section 3.1.
  ctx.set('WWW-Authenticate', [basicChallenge, `${bearerChallenge}, error="invalid_token"`])
  throw new Problem('unauthenticated', 'the token is wrong, has expired, or was revoked')
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
/** RFC 7617, section 2, forbids them. Those from U+0080 on, too: a terminal that shows the audit may obey them. */
const controls = /\p{Cc}/u

/** What `Authorization` says. Problem `unauthenticated` when it says nothing that is known here. */
export function parseAuthorization(header: string): Credentials {
  const [, scheme = '', rest = ''] = /^([A-Za-z]+) +([^ ]+) *$/.exec(header) ?? []
  if (scheme.toLowerCase() === 'bearer' && /^[A-Za-z0-9._~+/-]+=*$/.test(rest))
    return { kind: 'bearer', token: rest }
  if (scheme.toLowerCase() === 'basic' && /^[A-Za-z0-9+/]+={0,2}$/.test(rest)) {
    const pair = decoded(rest)
    const colon = pair?.indexOf(':') ?? -1
    if (pair !== undefined && colon >= 0 && !controls.test(pair)) {
      return { kind: 'basic', name: pair.slice(0, colon), password: pair.slice(colon + 1) }
    }
  }
  throw new Problem('unauthenticated', 'the Authorization header is neither Basic nor Bearer as it should be')
}

function decoded(base64: string): string | undefined {
  try {
    return strictUtf8.decode(Buffer.from(base64, 'base64'))
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    return undefined
  }
}
