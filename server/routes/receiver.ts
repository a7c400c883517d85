import { readFile } from 'node:fs/promises'
import type Router from '@koa/router'
import { Problem } from '../../protocol/problem.ts'
import type { Health } from '../../protocol/schema.ts'
import type { RequestState } from '../http/context.ts'
import { packageFile } from '../package-file.ts'
import { metricsMediaType } from '../watch/metrics.ts'
import type { Parts } from './parts.ts'
import { resource } from './resource.ts'

/** `/-/…`: the receiver's own. */
export function receiverRoutes(router: Router<RequestState>, parts: Parts): void {
  resource(router, '/-/health', {
    GET: async (ctx) => {
      const health = await parts.health.ask()
      const { status, version } = health
      ctx.status = status === 'failing' ? 503 : 200
      if (status === 'failing') ctx.set('Retry-After', '10')
      ctx.set('Cache-Control', 'no-store')
      ctx.body = ctx.state.who.mayReadMetrics ? health : ({ status, version } satisfies Health)
    },
  })
  resource(router, '/-/metrics', {
    GET: async (ctx) => {
      const { vaults, uploads, decoding, streams, questions, downloads, listings, audit, metrics } = parts
      const budgets = { uploads, decoding, streams, questions, downloads, listings }
      ctx.set('Cache-Control', 'no-store')
      ctx.set('Content-Type', metricsMediaType)
      ctx.body = await metrics.scrape({ vaults, budgets, audit })
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
