/** The moment from which nobody waits for an answer any more: it has left, or its connection is gone. */
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Context } from './context.ts'

type Act = () => void

/** What is to happen when an answer is over. */
const ofAnswers = new WeakMap<ServerResponse, Set<Act>>()
/**
 * The answers under way on a connection. An answer that waits behind another one is not told by Node that
 * the connection has closed.
 */
const ofConnections = new WeakMap<Socket, Set<Act>>()

/** Calls `act` once, when the answer has left or its connection is gone; at once when that is so already. */
export function whenOver(ctx: Context, act: Act): void {
  const { res } = ctx
  const { socket } = ctx.req
  if (res.closed || res.destroyed || socket.destroyed) {
    act()
  } else {
    const acts = ofAnswers.get(res) ?? watchAnswer(res, ofConnections.get(socket) ?? watchConnection(socket))
    acts.add(act)
  }
}

function watchAnswer(res: ServerResponse, underWay: Set<Act>): Set<Act> {
  const acts = new Set<Act>()
  const over = (): void => {
    underWay.delete(over)
    for (const act of acts) {
      acts.delete(act)
      act()
    }
  }
  ofAnswers.set(res, acts)
  underWay.add(over)
  res.once('close', over)
  return acts
}

function watchConnection(socket: Socket): Set<Act> {
  const underWay = new Set<Act>()
  ofConnections.set(socket, underWay)
  socket.once('close', () => {
    for (const over of underWay) over()
  })
  return underWay
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
