import { readFile } from 'node:fs/promises'
import type Router from '@koa/router'
import { Problem } from '../../protocol/problem.ts'
import type { Health } from '../../protocol/schema.ts'
import type { RequestState } from '../http/context.ts'
import { packageFile } from '../package-file.ts'
import type { Parts } from './parts.ts'
import { resource } from './resource.ts'

/** `/-/…`: the receiver's own. */
export function receiverRoutes(router: Router<RequestState>, parts: Parts): void {
  resource(router, '/-/health', {
    GET: async (ctx) => {
      ctx.body = { status: 'ok', version: parts.version } satisfies Health
    },
  })
  resource(router, '/-/openapi.yaml', {
    GET: async (ctx) => {
      ctx.type = 'application/yaml'
      ctx.body = await readFile(await packageFile('openapi.yaml'))
    },
  })
  router.all('/-/{*rest}', async () => {
    throw new Problem('not-found', 'the receiver has nothing there')
  })
}
