import type Router from '@koa/router'
import type { ScrubState } from '../../protocol/schema.ts'
import { allows } from '../access/identity.ts'
import type { Context, RequestState } from '../http/context.ts'
import { withBody } from '../http/request-body.ts'
import type { Vault } from '../vaults.ts'
import { type Parts, vaultOf } from './parts.ts'
import { resource } from './resource.ts'

/** `/{vault}/upkeep/scrub`: reading all that is stored. */
export function scrubRoutes(router: Router<RequestState>, parts: Parts): void {
  resource(router, '/:vault/upkeep/scrub', {
    GET: async (ctx) => {
      const vault = await vaultOf(parts, ctx)
      ctx.body = shownTo(ctx, vault, vault.scrub.state)
    },
    POST: async (ctx) => {
      await withBody(ctx, parts.questions, { maxBytes: 0 }, async () => {})
      const vault = await vaultOf(parts, ctx)
      const { state } = await vault.scrub.everything()
      ctx.status = 202
      ctx.body = shownTo(ctx, vault, state)
    },
    DELETE: async (ctx) => {
      const vault = await vaultOf(parts, ctx)
      await vault.scrub.stop()
      ctx.body = null
      ctx.status = 204
    },
  })
}

/** Whoever may not read what is stored is not told the names of files either. */
function shownTo(ctx: Context, { name }: Vault, state: ScrubState): ScrubState {
  const right = ctx.state.who.rightOn(name)
  const harm = state.last?.report.harm
  if (harm === undefined || (right !== undefined && allows(right, 'restore'))) return state
  const { tree, checkpoints } = harm
  const nameless = {
    ...harm,
    checkpoints: checkpoints.map((each) => ({ ...each, paths: [] })),
    ...(tree && { tree: { ...tree, paths: [] } }),
  }
  const { last } = state
  return { ...state, ...(last && { last: { ...last, report: { ...last.report, harm: nameless } } }) }
}
