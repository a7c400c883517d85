import type Router from '@koa/router'
import { Problem } from '../../protocol/problem.ts'
import { expectMay, needOf, needsOf } from '../access/needs.ts'
import { type Context, type Handler, param, type RequestState } from '../http/context.ts'

export type Methods = Partial<
  Record<
    | 'GET'
    | 'PUT'
    | 'POST'
    | 'PATCH'
    | 'DELETE'
    | 'PROPFIND'
    | 'PROPPATCH'
    | 'MKCOL'
    | 'COPY'
    | 'MOVE'
    | 'LOCK'
    | 'UNLOCK'
    | 'REPORT',
    Handler
  >
>

const writing: readonly string[] = [
  'PUT',
  'POST',
  'PATCH',
  'DELETE',
  'PROPPATCH',
  'MKCOL',
  'COPY',
  'MOVE',
  'LOCK',
  'UNLOCK',
]

export interface ResourceOptions {
  /** Media types that PATCH understands. */
  readonly acceptPatch?: string
  /** Runs first, for every method; a Problem from it ends the request. */
  readonly before?: (ctx: Context) => Promise<void>
  /** Compliance classes that OPTIONS tells: RFC 4918, section 18. */
  readonly dav?: string
  /** Nothing can be written here: methods that would are Problem `forbidden`, with this for its detail. */
  readonly readOnly?: string
}

/**
 * One resource: its path and its methods. HEAD follows GET, OPTIONS tells what there is, and any other
 * method is Problem `method-not-allowed`. Who may not use a method is told so first, before anything is opened or
 * read (access/needs.ts, which must know path and methods).
 */
export function resource(
  router: Router<RequestState>,
  path: string,
  methods: Methods,
  options: ResourceOptions = {},
): void {
  const names = Object.keys(methods).flatMap((name) => (name === 'GET' ? ['GET', 'HEAD'] : [name]))
  const allow = [...names, 'OPTIONS'].join(', ')
  const route = patternOf(path)
  const needs = needsOf(path, Object.keys(methods))
  router.all(path, async (ctx) => {
    ctx.state.allow = allow
    ctx.state.route = route
    const asked = { pattern: path, method: ctx.method, vault: param(ctx, 'vault') }
    expectMay(ctx.state.who, needOf(path, needs, ctx.method), asked)
    await options.before?.(ctx)
    if (options.acceptPatch !== undefined && (ctx.method === 'OPTIONS' || ctx.method === 'PATCH')) {
      ctx.set('Accept-Patch', options.acceptPatch)
    }
    const name = ctx.method === 'HEAD' ? 'GET' : ctx.method
    const handler = Object.hasOwn(methods, name) ? methods[name as keyof Methods] : undefined
    if (handler !== undefined) return await handler(ctx)
    if (options.readOnly !== undefined && writing.includes(name)) {
      throw new Problem('forbidden', options.readOnly)
    }
    if (ctx.method !== 'OPTIONS') {
      throw new Problem('method-not-allowed', `${ctx.method} is not among ${allow}`)
    }
    ctx.set('Allow', allow)
    ctx.set('Chunkdav-Version', '1')
    if (options.dav !== undefined) {
      ctx.set('DAV', options.dav)
      // Windows speaks WebDAV with nobody who does not say so.
      ctx.set('MS-Author-Via', 'DAV')
    }
    ctx.status = 204
  })
}

/** As openapi.yaml writes it: `/{vault}/tree/{path}`. */
function patternOf(path: string): string {
  return path.replace(/\{\*(\w+)\}/g, '{$1}').replace(/:(\w+)/g, '{$1}')
}
