import type Router from '@koa/router'
import { parseId } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import {
  type CheckpointList,
  type CheckpointState,
  CommitRequest,
  ItemsRequest,
  OpenRequest,
  parseJson,
  type SourceList,
} from '../../protocol/schema.ts'
import { type CheckpointName, parseCheckpointNumber, parseSourceName, paths } from '../../protocol/url.ts'
import type { AuditEventName } from '../audit.ts'
import type { Checkpoints } from '../catalog/checkpoints.ts'
import type { InTurn } from '../catalog/closure.ts'
import { takeTurn } from '../catalog/turn.ts'
import { overSignal } from '../http/client-gone.ts'
import { type Context, type Handler, param, type RequestState } from '../http/context.ts'
import { collection, type DavResource, multistatus, ownNamespace } from '../http/dav-xml.ts'
import { countParameter, queryParameter } from '../http/parameters.ts'
import { withText } from '../http/request-body.ts'
import { claimantOf, inWalk, type Parts, vaultOf } from './parts.ts'
import { answerMultistatus, readPropfind } from './propfind.ts'
import { resource } from './resource.ts'

type Use = (ctx: Context, checkpoints: Checkpoints, parts: Parts) => Promise<void>

/** `/{vault}/checkpoints/…`. */
export function checkpointRoutes(router: Router<RequestState>, parts: Parts): void {
  const before = async (ctx: Context): Promise<void> => void (await vaultOf(parts, ctx))
  const on =
    (use: Use): Handler =>
    async (ctx) => {
      const vault = await vaultOf(parts, ctx)
      await use(ctx, vault.catalog.checkpoints, parts)
    }
  const source = '/:vault/checkpoints/:source/'
  resource(router, '/:vault/checkpoints/', { GET: on(listSources) }, { before })
  resource(router, source, { GET: on(list), POST: on(begin), PROPFIND: on(propfind) }, { before })
  resource(router, `${source}:number`, { GET: on(state), DELETE: on(remove) }, { before })
  resource(router, `${source}:number/items`, { GET: on(items), POST: on(addItems) }, { before })
  resource(router, `${source}:number/commit`, { POST: on(commit) }, { before })
  resource(router, `${source}:number/pin`, { PUT: on(pin), DELETE: on(unpin) }, { before })
}

function sourceOf(ctx: Context): string {
  return parseSourceName(param(ctx, 'source'))
}

function nameOf(ctx: Context): CheckpointName {
  const source = sourceOf(ctx)
  const number = parseCheckpointNumber(param(ctx, 'number'))
  if (number === undefined) {
    throw new Problem(
      'checkpoint-not-found',
      `"${param(ctx, 'number').slice(0, 40)}" is no checkpoint number`,
    )
  }
  return { source, number }
}

const listSources: Use = async (ctx, checkpoints) => {
  ctx.body = { sources: await checkpoints.listSources() } satisfies SourceList
}

const list: Use = async (ctx, checkpoints) => {
  ctx.body = { checkpoints: await checkpoints.list(sourceOf(ctx)) } satisfies CheckpointList
}

/** The same as the JSON list, for WebDAV clients; kind and state in a namespace of our own. */
const propfind: Use = async (ctx, checkpoints, parts) => {
  const source = sourceOf(ctx)
  const asked = await readPropfind(ctx, parts.questions)
  if (asked === undefined) return
  const base = paths.source(param(ctx, 'vault'), source)
  const resources = [collection(base, Buffer.from(source))]
  if (asked.depth === 1) {
    for (const state of await checkpoints.list(source)) resources.push(checkpointResource(base, state))
  }
  answerMultistatus(ctx, multistatus(resources, asked))
}

function checkpointResource(base: string, state: CheckpointState): DavResource {
  const { number, kind, openedAt, committedAt } = state
  return {
    href: `${base}${number}`,
    properties: new Map([
      ['DAV: resourcetype', ''],
      ['DAV: displayname', String(number)],
      ['DAV: getlastmodified', new Date(committedAt ?? openedAt).toUTCString()],
      [`${ownNamespace} kind`, kind],
      [`${ownNamespace} state`, state.state],
    ]),
  }
}

const begin: Use = async (ctx, checkpoints, parts) => {
  const source = sourceOf(ctx)
  const by = claimantOf(ctx)
  checkpoints.expectUsable(source, by)
  await parts.vaults.expectRoom()
  const opened = await withText(ctx, parts.questions, parts.limits.maxJsonBytes, async (text) => {
    return await checkpoints.begin(source, parseJson(OpenRequest, text), by)
  })
  ctx.status = 201
  ctx.set('Location', paths.checkpoint(param(ctx, 'vault'), opened))
  ctx.body = opened
}

const state: Use = async (ctx, checkpoints, parts) => {
  const root = queryParameter(ctx, 'root')
  const below = root === null ? undefined : parseId(root)
  ctx.body = await checkpoints.state(nameOf(ctx), below, (walk) => inWalk(parts, ctx, walk))
}

const remove: Use = async (ctx, checkpoints, parts) => {
  const name = nameOf(ctx)
  const by = claimantOf(ctx)
  checkpoints.expectUsable(name.source, by)
  const was = await checkpoints.delete(name, { onlyOpen: !by.mayUseAny })
  // Nothing was promised of an open one, and whoever opens and deletes them all day must not fill the audit.
  if (was === 'committed') note(parts, ctx, 'checkpoint-deleted')
  parts.vaults.noteRemoved(param(ctx, 'vault'))
  ctx.status = 204
}

/** Takes no body, and does not mind one. */
const pin: Use = async (ctx, checkpoints, parts) => {
  ctx.body = await checkpoints.pin(nameOf(ctx))
  note(parts, ctx, 'checkpoint-pinned')
}

const unpin: Use = async (ctx, checkpoints, parts) => {
  if (await checkpoints.unpin(nameOf(ctx))) note(parts, ctx, 'checkpoint-unpinned')
  ctx.status = 204
}

function note({ audit }: Parts, ctx: Context, event: AuditEventName): void {
  const { who, client } = ctx.state
  audit.note({ event, who: who.name, from: client, vault: param(ctx, 'vault'), ...nameOf(ctx) })
}

const addItems: Use = async (ctx, checkpoints, parts) => {
  const name = nameOf(ctx)
  checkpoints.expectUsable(name.source, claimantOf(ctx))
  await parts.vaults.expectRoom()
  const { maxJsonBytes, maxPageItems } = parts.limits
  ctx.body = await withText(ctx, parts.questions, maxJsonBytes, async (text) => {
    const request = parseJson(ItemsRequest, text)
    if (request.items.length > maxPageItems) {
      throw new Problem('body-too-large', `one request adds at most ${maxPageItems} items`)
    }
    // The turn comes before the checkpoint's lock, as with a commit. Who has left does not go on to the next walk.
    const whileThere: InTurn = async (walk) => {
      await takeTurn(overSignal(ctx))
      return await walk()
    }
    return await inWalk(parts, ctx, () => checkpoints.addItems(name, request, whileThere))
  })
}

const items: Use = async (ctx, checkpoints, parts) => {
  const { maxPageItems } = parts.limits
  const limit = Math.min(maxPageItems, countParameter(ctx, 'limit', maxPageItems))
  if (limit === 0) throw new Problem('invalid-request', 'limit must be at least 1')
  ctx.body = await checkpoints.items(nameOf(ctx), countParameter(ctx, 'first', 0), limit)
}

const commit: Use = async (ctx, checkpoints, parts) => {
  const name = nameOf(ctx)
  checkpoints.expectUsable(name.source, claimantOf(ctx))
  const request = await withText(ctx, parts.questions, parts.limits.maxJsonBytes, async (text) => {
    return parseJson(CommitRequest, text)
  })
  ctx.body = await inWalk(parts, ctx, () => checkpoints.commit(name, request))
}
