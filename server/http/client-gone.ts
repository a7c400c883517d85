/** The moment from which nobody waits for an answer any more: it has left, or its connection is gone. */
import type { ServerResponse } from 'node:http'
import type { Context } from './context.ts'

type Act = () => void

/** What is to happen when an answer is over: one listener for each, however many look at it. */
const ofAnswers = new WeakMap<ServerResponse, Set<Act>>()

/**
 * Calls `act` once, when the answer has left or its connection is gone; at once when that is so already. Node tells of the
 * connection only the answer that is under way on it, which this one is: connections.ts hands over no request before its turn.
 */
export function whenOver(ctx: Context, act: Act): void {
  const { res } = ctx
  if (res.closed || res.destroyed || ctx.req.socket.destroyed) act()
  else (ofAnswers.get(res) ?? watch(res)).add(act)
}

function watch(res: ServerResponse): Set<Act> {
  const acts = new Set<Act>()
  ofAnswers.set(res, acts)
  res.once('close', () => {
    for (const act of acts) {
      acts.delete(act)
      act()
    }
  })
  return acts
}

/** Made once: by default each abort makes an error with its stack. */
const over = new DOMException('nobody waits for the answer any more', 'AbortError')
const signals = new WeakMap<ServerResponse, AbortSignal>()

/** Aborted by the same moment. */
export function overSignal(ctx: Context): AbortSignal {
  const known = signals.get(ctx.res)
  if (known !== undefined) return known
  const controller = new AbortController()
  signals.set(ctx.res, controller.signal)
  whenOver(ctx, () => controller.abort(over))
  return controller.signal
}
