import type Router from '@koa/router'
import Negotiator from 'negotiator'
import type { TrashItem } from '../../protocol/schema.ts'
import type { TrashItem as KeptItem, LiveTree } from '../catalog/live-tree.ts'
import type { Context, RequestState } from '../http/context.ts'
import { streamPieces } from '../http/held-answer.ts'
import { guardContent, pieceChars, readingMethods } from './dav-reading.ts'
import { type Parts, vaultOf } from './parts.ts'
import { resource } from './resource.ts'
import { purgeTrashItem } from './tree-members.ts'
import { TreeRequest } from './tree-request.ts'
import { moveTreePath } from './tree-transfer.ts'
import { encodePath, treeReading } from './tree-view.ts'

const jsonType = 'application/json'

/** `/{vault}/trash/`: what was deleted from the tree, or overwritten in it, until it expires. */
export function trashRoutes(router: Router<RequestState>, parts: Parts): void {
  const { GET, PROPFIND } = readingMethods(parts, (ctx) => treeReading(parts, ctx, 'trash'))
  const before = async (ctx: Context): Promise<void> => {
    const request = await TreeRequest.of(parts, ctx)
    // What cannot be done here is told as that, whatever the state.
    if (!ctx.state.allow.split(', ').includes(ctx.method)) return
    await request.expectIf(request.vault.tree)
  }
  const readOnly = 'what is in the trash can be restored by MOVE into the tree, or purged by DELETE'
  const options = { dav: '1, 3', before, readOnly }
  const all = {
    GET: async (ctx: Context) => (wantsJson(ctx) ? await listItems(parts, ctx) : await GET(ctx)),
    PROPFIND,
  }
  for (const path of ['/:vault/trash', '/:vault/trash/']) resource(router, path, all, options)
  const ofItems = {
    GET,
    PROPFIND,
    MOVE: (ctx: Context) => moveTreePath(parts, ctx),
    DELETE: (ctx: Context) => purgeTrashItem(parts, ctx),
  }
  resource(router, '/:vault/trash/:item', ofItems, options)
  resource(router, '/:vault/trash/:item/{*path}', ofItems, options)
}

function wantsJson(ctx: Context): boolean {
  ctx.set('Vary', 'Accept')
  return new Negotiator(ctx.req).mediaTypes(['text/html', jsonType])[0] === jsonType
}

async function listItems(parts: Parts, ctx: Context): Promise<void> {
  guardContent(ctx)
  const { tree } = await vaultOf(parts, ctx)
  ctx.status = 200
  ctx.type = jsonType
  ctx.set('Cache-Control', 'no-cache')
  if (ctx.method === 'HEAD') return
  ctx.body = await streamPieces(ctx, listing(tree), {
    budget: parts.listings,
    pieceBytes: parts.limits.maxObjectBytes,
  })
}

/** A TrashList in pieces: there may be as much in the trash as ever was in the tree. */
async function* listing(tree: LiveTree): AsyncGenerator<Buffer> {
  let text = '{"items":['
  let separator = ''
  for await (const item of tree.trashItems()) {
    text += separator + JSON.stringify(described(item, tree.trashMs))
    separator = ','
    if (text.length < pieceChars) continue
    yield Buffer.from(text, 'utf8')
    text = ''
  }
  yield Buffer.from(`${text}]}`, 'utf8')
}

/** The last moment that the schema can tell. */
const endOfTime = Date.parse('9999-12-31T23:59:59Z')

function described({ item, path, record, deletedAt, reason }: KeptItem, trashMs: number): TrashItem {
  return {
    item,
    path: encodePath(path),
    kind: record.kind,
    ...(record.kind === 'file' && { size: record.size }),
    deletedAt: deletedAt.toISOString(),
    reason,
    expiresAt: new Date(Math.min(endOfTime, deletedAt.getTime() + trashMs)).toISOString(),
  }
}
