import type Router from '@koa/router'
import { CollectionRequest, type CollectionState, parseJson } from '../../protocol/schema.ts'
import type { Context, RequestState } from '../http/context.ts'
import { withText } from '../http/request-body.ts'
import { type Parts, vaultOf } from './parts.ts'
import { resource } from './resource.ts'

/** `/{vault}/upkeep/collection`: giving back the space of what nothing refers to any more. */
export function collectionRoutes(router: Router<RequestState>, parts: Parts): void {
  const shown = (state: CollectionState): CollectionState => {
    const nextAt = parts.nextCollection()
    return { ...state, ...(nextAt && { nextAt: nextAt.toISOString() }) }
  }
  resource(router, '/:vault/upkeep/collection', {
    GET: async (ctx) => {
      const { collector } = await vaultOf(parts, ctx)
      ctx.body = shown(collector.state)
    },
    POST: async (ctx) => {
      const request = await readRequest(parts, ctx)
      const { collector } = await vaultOf(parts, ctx)
      ctx.status = 202
      ctx.body = shown((await collector.start(request)).state)
    },
    DELETE: async (ctx) => {
      const { collector } = await vaultOf(parts, ctx)
      await collector.stop()
      ctx.body = null
      ctx.status = 204
    },
  })
}

/** Without a body it is a collection as the schedule begins it. */
async function readRequest(parts: Parts, ctx: Context): Promise<CollectionRequest> {
  return await withText(ctx, parts.questions, parts.limits.maxJsonBytes, async (text) =>
    text === '' ? {} : parseJson(CollectionRequest, text),
  )
}
