/** Answers that leave piece by piece. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import Koa from 'koa'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import type { Context, RequestState } from '../../server/http/context.ts'
import { streamPieces } from '../../server/http/held-answer.ts'
import { MemoryBudget } from '../../server/http/memory-budget.ts'
import { requestIds } from '../../server/http/request-log.ts'
import { MiB } from './requests.ts'

test('others have the event loop between two pieces, also where nothing is waited for', async () => {
  const budget = new MemoryBudget(MiB)
  let turns = 0
  async function* pieces(): AsyncGenerator<Buffer> {
    for (let piece = 0; piece < 20; piece++) {
      setImmediate(() => turns++)
      yield Buffer.alloc(1000, piece)
      expect(turns).toBe(piece + 1)
    }
  }
  const app = new Koa<RequestState>()
  app.use(requestIds(pino({ level: 'silent' }), { idleMs: 30_000, stallMs: 60_000 }))
  app.use(async (ctx) => {
    ctx.body = await streamPieces(ctx as unknown as Context, pieces(), { budget, pieceBytes: 1000 })
  })
  const server = createServer(app.callback()).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  expect((await answer.arrayBuffer()).byteLength).toBe(20_000)
  expect(budget.usage.heldBytes).toBe(0)
  server.close()
})
