import type { Middleware } from 'koa'
import { Problem } from '../../protocol/problem.ts'
import { turnsOf } from './budgets.ts'
import { overSignal, whenOver } from './client-gone.ts'
import type { ClientLimits } from './client-limits.ts'
import { clientOf } from './client-name.ts'
import type { Context, RequestState } from './context.ts'
import type { FairBudget } from './fair-budget.ts'

/** Turns for requests: each client has so many at once, whatever others have. */
export function requestTurns(
  limits: Pick<ClientLimits, 'maxClientRequests' | 'maxWaitingRequests'>,
): FairBudget {
  const { maxClientRequests: share, maxWaitingRequests: maxWaiting } = limits
  const refusal = (): Problem =>
    new Problem('too-many-requests', `${maxWaiting} requests of this client wait already`, {
      extensions: { retryAfter: 1 },
    })
  return turnsOf(share, { maxWaiting, refusal })
}

/**
 * Lets a request go on when its client has fewer under way than it may have. A request is over when its handler is done
 * and its answer has left: who leaves early has not given its turn back while the work goes on. What the receiver
 * says of itself waits for nobody. Problem `too-many-requests` when too many wait.
 */
export function inTurn(turns: FairBudget): Middleware<RequestState> {
  return async (context, next) => {
    if (context.path.startsWith('/-/')) return await next()
    const ctx = context as Context
    const turn = await turns.take(1, clientOf(ctx), overSignal(ctx))
    try {
      await next()
    } finally {
      whenOver(ctx, () => turn.release())
    }
  }
}
