import type Router from '@koa/router'
import type { Context, Handler, RequestState } from '../http/context.ts'
import { readingMethods } from './dav-reading.ts'
import { freezeTreePath } from './freeze.ts'
import type { Parts } from './parts.ts'
import { type Methods, resource } from './resource.ts'
import { lockTreePath, unlockTreePath } from './tree-locks.ts'
import { deleteTreePath, makeTreeCollection } from './tree-members.ts'
import { patchTreeProperties } from './tree-properties.ts'
import { putTreeFile } from './tree-put.ts'
import { reportTreeChanges } from './tree-report.ts'
import { TreeRequest } from './tree-request.ts'
import { copyTreePath, moveTreePath } from './tree-transfer.ts'
import { treeReading } from './tree-view.ts'

/** `/{vault}/tree/` and below: the live tree, RFC 4918 class 1, 2 and 3. */
export function treeRoutes(router: Router<RequestState>, parts: Parts): void {
  // What adds to the tree's database. Moving and deleting go on: that is how a disk gets empty again.
  const inRoom =
    (handler: Handler): Handler =>
    async (ctx) => {
      await parts.vaults.expectRoom()
      await handler(ctx)
    }
  const methods: Methods = {
    ...readingMethods(parts, (ctx) => treeReading(parts, ctx, 'tree')),
    PUT: inRoom((ctx) => putTreeFile(parts, ctx)),
    DELETE: (ctx) => deleteTreePath(parts, ctx),
    MKCOL: inRoom((ctx) => makeTreeCollection(parts, ctx)),
    COPY: inRoom((ctx) => copyTreePath(parts, ctx)),
    MOVE: (ctx) => moveTreePath(parts, ctx),
    PROPPATCH: inRoom((ctx) => patchTreeProperties(parts, ctx)),
    LOCK: inRoom((ctx) => lockTreePath(parts, ctx)),
    UNLOCK: (ctx) => unlockTreePath(parts, ctx),
    POST: (ctx) => freezeTreePath(parts, ctx),
    REPORT: (ctx) => reportTreeChanges(parts, ctx),
  }
  // `If` counts on every method; those that write judge it once more on the state that they change.
  const before = async (ctx: Context): Promise<void> => {
    const request = await TreeRequest.of(parts, ctx)
    // What cannot be done here is told as that, whatever the state.
    if (!ctx.state.allow.split(', ').includes(ctx.method)) return
    await request.expectIf(request.vault.tree)
  }
  for (const path of ['/:vault/tree', '/:vault/tree/{*path}']) {
    resource(router, path, methods, { dav: '1, 2, 3', before })
  }
}
