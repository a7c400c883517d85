import Router from '@koa/router'
import Koa from 'koa'
import type { Logger } from 'pino'
import { Problem } from '../protocol/problem.ts'
import { answersInSlices } from './http/answer-slices.ts'
import { authenticate } from './http/authenticate.ts'
import { cameFrom } from './http/came-from.ts'
import type { Patience, RequestState } from './http/context.ts'
import { expectation } from './http/expectation.ts'
import type { FairBudget } from './http/fair-budget.ts'
import { inTurn } from './http/in-turn.ts'
import { lingerAfterEarlyAnswers } from './http/linger.ts'
import { ownOrigin } from './http/own-origin.ts'
import { problemAnswers } from './http/problem-answers.ts'
import type { ProxyTrust } from './http/proxy-trust.ts'
import { requestIds, requestLog } from './http/request-log.ts'
import { readableTarget, targetForLog } from './http/request-target.ts'
import { batchRoutes } from './routes/batches.ts'
import { checkpointRoutes } from './routes/checkpoints.ts'
import { chunkRoutes } from './routes/chunks.ts'
import { collectionRoutes } from './routes/collection.ts'
import { objectRoutes } from './routes/objects.ts'
import type { Parts } from './routes/parts.ts'
import { pathRoutes } from './routes/paths.ts'
import { receiverRoutes } from './routes/receiver.ts'
import { scrubRoutes } from './routes/scrub.ts'
import { settingsRoutes } from './routes/settings.ts'
import { snapshotRoutes } from './routes/snapshots.ts'
import { trashRoutes } from './routes/trash.ts'
import { treeRoutes } from './routes/tree.ts'
import { vaultRoutes } from './routes/vaults.ts'

export interface AppOptions {
  readonly parts: Parts
  readonly log: Logger
  /** Proxies whose word is taken on who asks. */
  readonly trust: ProxyTrust
  readonly patience: Patience
  /** Which requests may be at work. */
  readonly turns: FairBudget
  /** Whether the receiver stops: then connections end with their answer, and new requests are refused. */
  readonly isStopping: () => boolean
}

/** How Node says that the connection has ended before the answer had left. */
const clientsLeaving: ReadonlySet<string> = new Set([
  'ECONNRESET',
  'EPIPE',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ERR_STREAM_UNABLE_TO_PIPE',
])

/** The application: what happens to a request, in order. */
export function createApp({ parts, log, trust, patience, turns, isStopping }: AppOptions): Koa<RequestState> {
  const app = new Koa<RequestState>()
  app.on('error', (error: NodeJS.ErrnoException, ctx?: Koa.Context) => {
    // A client that goes away in the middle of an answer is its own affair; the request log has it.
    if (error.code !== undefined && clientsLeaving.has(error.code)) return
    log.error(
      { err: error, target: ctx === undefined ? undefined : targetForLog(ctx.req) },
      'an answer broke off',
    )
  })

  app.use(parts.metrics.middleware())
  app.use(requestIds(log, patience))
  app.use(cameFrom(trust))
  app.use(requestLog(log))
  app.use(lingerAfterEarlyAnswers())
  app.use(problemAnswers())
  app.use(readableTarget())
  app.use(ownOrigin())
  app.use(stopping(isStopping))
  app.use(expectation())
  app.use(answersInSlices())
  app.use(authenticate(parts.accounts))
  app.use(inTurn(turns))
  // A router looks at all of its paths each time: those that a backup asks for by the thousand have one of their own.
  app.use(contentRoutes(parts).routes())
  app.use(routes(parts).routes())
  app.use(async () => {
    throw new Problem('not-found', 'there is nothing at this path')
  })
  return app
}

function contentRoutes(parts: Parts): Router<RequestState> {
  const router = newRouter()
  batchRoutes(router, parts)
  chunkRoutes(router, parts)
  return router
}

function newRouter(): Router<RequestState> {
  return new Router<RequestState>({ strict: true, sensitive: true })
}

function routes(parts: Parts): Router<RequestState> {
  const router = newRouter()
  receiverRoutes(router, parts)
  objectRoutes(router, parts)
  pathRoutes(router, parts)
  checkpointRoutes(router, parts)
  settingsRoutes(router, parts)
  collectionRoutes(router, parts)
  scrubRoutes(router, parts)
  snapshotRoutes(router, parts)
  treeRoutes(router, parts)
  trashRoutes(router, parts)
  vaultRoutes(router, parts)
  return router
}

function stopping(isStopping: () => boolean): Koa.Middleware<RequestState> {
  return async (ctx, next) => {
    if (isStopping()) {
      ctx.set('Connection', 'close')
      throw new Problem('unavailable', 'the receiver is stopping')
    }
    try {
      await next()
    } finally {
      if (isStopping()) ctx.set('Connection', 'close')
    }
  }
}
