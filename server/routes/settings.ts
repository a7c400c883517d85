/** `/{vault}/settings` and `/{vault}/upkeep/prune`: what is kept of a vault, and how much it may hold. */
import type Router from '@koa/router'
import { Problem } from '../../protocol/problem.ts'
import { PruneRequest, parseJson, VaultSettings } from '../../protocol/schema.ts'
import { parseSourceName } from '../../protocol/url.ts'
import { expectConditions, isNotModified } from '../http/conditional.ts'
import type { Context, RequestState } from '../http/context.ts'
import { withText } from '../http/request-body.ts'
import { prune, prunedNumbers } from '../upkeep/prune.ts'
import type { Settings } from '../upkeep/settings.ts'
import { type Parts, vaultOf } from './parts.ts'
import { resource } from './resource.ts'

export function settingsRoutes(router: Router<RequestState>, parts: Parts): void {
  const before = async (ctx: Context): Promise<void> => void (await vaultOf(parts, ctx))
  resource(
    router,
    '/:vault/settings',
    { GET: (ctx) => showSettings(parts, ctx), PUT: (ctx) => putSettings(parts, ctx) },
    { before },
  )
  resource(router, '/:vault/upkeep/prune', { POST: (ctx) => pruneVault(parts, ctx) }, { before })
}

async function showSettings(parts: Parts, ctx: Context): Promise<void> {
  const { settings } = await vaultOf(parts, ctx)
  const { value, etag = '' } = settings
  ctx.set('Cache-Control', 'no-cache')
  ctx.set('ETag', etag)
  if (isNotModified(ctx, [etag])) return
  ctx.body = value
}

/** Replaces all of them. What is not said any more holds no more. */
async function putSettings(parts: Parts, ctx: Context): Promise<void> {
  const { name, settings } = await vaultOf(parts, ctx)
  const next = await withText(ctx, parts.questions, parts.limits.maxJsonBytes, async (text) => {
    return parseJson(VaultSettings, text)
  })
  let before: VaultSettings | undefined
  await settings.replace(next, (standing) => {
    before = standing
    expectConditions(ctx, conditionsOf(settings))
    expectOperator(ctx, standing, next)
  })
  const by = { who: ctx.state.who.name, from: ctx.state.client, vault: name }
  if (before?.quotaBytes !== next.quotaBytes) {
    const [was, is] = [before?.quotaBytes ?? null, next.quotaBytes ?? null]
    parts.audit.note({ event: 'quota-changed', ...by, quotaBytes: is, before: was })
  }
  if (JSON.stringify(rulesOf(before)) !== JSON.stringify(rulesOf(next))) {
    parts.audit.note({ event: 'settings-changed', ...by, ...rulesOf(next) })
  }
  ctx.set('ETag', settings.etag ?? '')
  ctx.body = next
}

/** There are always some: a damaged file has no ETag that somebody could know. */
function conditionsOf({ etag }: Settings): { tag: string | undefined; modifiedMs: number } {
  // When they were changed is not kept: If-Unmodified-Since is never enough to put something else in their place.
  return { tag: etag, modifiedMs: Number.MAX_SAFE_INTEGER }
}

function rulesOf(settings: VaultSettings | undefined): Omit<VaultSettings, 'quotaBytes'> | undefined {
  if (settings === undefined) return undefined
  const { quotaBytes: _, ...rules } = settings
  return rules
}

/** How much of the disk a vault may have is not for those who administer the vault to say. */
function expectOperator(ctx: Context, standing: VaultSettings | undefined, next: VaultSettings): void {
  if (ctx.state.who.isOperator) return
  const onlyOperators = 'only who has the right admin on every vault (*=admin)'
  if (standing === undefined) {
    throw new Problem(
      'forbidden',
      `the settings are damaged, the quota too: ${onlyOperators} may set them again`,
    )
  }
  if (standing.quotaBytes === next.quotaBytes) return
  const { quotaBytes } = standing
  const must = quotaBytes === undefined ? 'leave quotaBytes away' : `keep quotaBytes at ${quotaBytes}`
  throw new Problem('forbidden', `${onlyOperators} may change the quota; ${must}`)
}

async function pruneVault(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const asked = await withText(ctx, parts.questions, parts.limits.maxJsonBytes, async (text) => {
    // `curl -X POST` alone is a prune.
    return text === '' ? {} : parseJson(PruneRequest, text)
  })
  const source = asked.source === undefined ? undefined : parseSourceName(asked.source)
  const answer = await prune(vault, { dryRun: asked.dryRun, source })
  if (!answer.dryRun && answer.removed > 0) {
    const { removed } = answer
    const by = { who: ctx.state.who.name, from: ctx.state.client, vault: vault.name }
    parts.audit.note({ event: 'pruned', ...by, removed, checkpoints: prunedNumbers(answer) })
    parts.vaults.noteRemoved(vault.name)
  }
  ctx.body = answer
}
