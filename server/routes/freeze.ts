/** POST to a collection of the live tree. */
import { Problem } from '../../protocol/problem.ts'
import { FreezeRequest, parseJson } from '../../protocol/schema.ts'
import { parseSourceName, paths } from '../../protocol/url.ts'
import { overSignal } from '../http/client-gone.ts'
import type { Context } from '../http/context.ts'
import { withText } from '../http/request-body.ts'
import { aboutFreeze, freeze, freezeSource } from '../upkeep/freeze.ts'
import type { Parts } from './parts.ts'
import { TreeRequest } from './tree-request.ts'

/** Freezes the collection: commits a `dir` checkpoint of it. Only JSON is understood. */
export async function freezeTreePath(parts: Parts, ctx: Context): Promise<void> {
  const request = await TreeRequest.of(parts, ctx)
  const { vault, names } = request
  const record = await request.existing(vault.tree)
  if (record.kind === 'file') throw new Problem('method-not-allowed', 'only a collection can be frozen')
  const asked = await readRequest(parts, ctx)
  const source = asked.source === undefined ? freezeSource(names) : parseSourceName(asked.source)
  const state = await freeze(vault, names, { source, about: aboutFreeze(names), signal: overSignal(ctx) })
  ctx.set('Location', paths.checkpoint(vault.name, state))
  ctx.status = 201
  ctx.body = state
}

async function readRequest(parts: Parts, ctx: Context): Promise<FreezeRequest['freeze']> {
  if (ctx.is('application/json') === false || ctx.get('Content-Type') === '') {
    throw new Problem('unsupported-media-type', 'what is to be done is told in application/json')
  }
  const { freeze } = await withText(ctx, parts.questions, parts.limits.maxJsonBytes, async (text) =>
    parseJson(FreezeRequest, text),
  )
  return freeze
}
