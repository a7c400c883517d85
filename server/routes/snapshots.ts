import type Router from '@koa/router'
import { Problem } from '../../protocol/problem.ts'
import type { Context, RequestState } from '../http/context.ts'
import { immutableFor } from '../http/immutable.ts'
import { pathNames } from '../http/path-names.ts'
import { type Reading, readingMethods } from './dav-reading.ts'
import { type Parts, vaultOf } from './parts.ts'
import { resource } from './resource.ts'
import { copySnapshotPath } from './snapshot-copy.ts'
import { SnapshotView } from './snapshot-view.ts'
import { TreeRequest } from './tree-request.ts'

/** `/{vault}/snapshots/…`: what was committed, to be read by any WebDAV client, or as a tar. */
export function snapshotRoutes(router: Router<RequestState>, parts: Parts): void {
  const methods = readingMethods(parts, (ctx) => snapshotReading(parts, ctx))
  const copy = async (ctx: Context): Promise<void> => {
    await parts.vaults.expectRoom()
    await copySnapshotPath(parts, ctx)
  }
  const inside = { ...methods, COPY: copy }
  const options = {
    before: async (ctx: Context): Promise<void> => {
      await vaultOf(parts, ctx)
      // What is forbidden in any case is told as that.
      if (ctx.get('If') === '' || !ctx.state.allow.split(', ').includes(ctx.method)) return
      const request = await TreeRequest.of(parts, ctx)
      await request.expectIf(request.vault.tree)
    },
    dav: '1, 3',
    readOnly: 'a snapshot never changes; write to tree/',
  }
  resource(router, '/:vault/snapshots/:source/:number', inside, options)
  resource(router, '/:vault/snapshots/:source/:number/{*path}', inside, options)
  resource(router, '/:vault/snapshots', methods, options)
  resource(router, '/:vault/snapshots/{*path}', methods, options)
}

async function snapshotReading(parts: Parts, ctx: Context): Promise<Reading> {
  const vault = await vaultOf(parts, ctx)
  const view = new SnapshotView(vault)
  const names = pathNames(ctx.path, 2)
  const [, number] = names
  const isFixed = number !== undefined && number.toString('latin1') !== 'latest'
  return {
    vault,
    view,
    base: `/${vault.name}/snapshots/`,
    names,
    cacheControl: isFixed ? immutableFor(ctx) : 'no-cache',
    archive: (shown, signal) => {
      const archive = view.archive(shown, signal)
      if (archive !== undefined) return archive
      throw new Problem('not-acceptable', 'only what is in a snapshot can be had as a tar')
    },
  }
}
