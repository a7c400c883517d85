import type { IncomingMessage } from 'node:http'
import { discard } from '../../protocol/block.ts'
import { Problem } from '../../protocol/problem.ts'
import { ClientPace } from './client-pace.ts'
import type { Context } from './context.ts'

/**
 * A request's body as it comes, one piece for each call of `next`; the kernel holds back what is not asked for. The
 * client is held to a pace, but only while somebody waits for it (client-pace.ts). Leaving early leaves the rest
 * unread, and linger.ts closes the connection behind the answer. Not to be used twice on a request.
 */
export class BodyPieces {
  readonly #ctx: Context
  readonly #request: IncomingMessage
  readonly #pace: ClientPace
  /** Wakes who waits. */
  #wake: () => void = () => {}
  readonly #awaken = (): void => this.#wake()

  /** `isPressed`: whether others have been waiting for the memory that the body is taken into. */
  constructor(ctx: Context, isPressed: () => boolean) {
    this.#ctx = ctx
    this.#request = ctx.req
    const { idleMs } = ctx.state.patience
    this.#pace = new ClientPace({ silentMs: idleMs, graceMs: idleMs, isPressed })
    for (const event of ['readable', 'end', 'error', 'close']) this.#request.on(event, this.#awaken)
  }

  /**
   * The next piece; undefined at the end. Problems `incomplete-body` when the client leaves before, `too-slow` when it
   * does not keep the pace. One call at a time.
   */
  async next(): Promise<Buffer | undefined> {
    for (;;) {
      const request = this.#request
      const piece = request.read() as Buffer | null
      if (piece !== null) {
        this.#pace.came(piece.length)
        this.#ctx.state.bytesIn += piece.length
        return piece
      }
      if (request.readableEnded) {
        this.#pace.came()
        return undefined
      }
      if (request.destroyed) throw incomplete(request.errored)
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve
        this.#pace.wait(() => reject(tooSlow()))
      })
    }
  }

  /** Lets go of the request. Idempotent; a `next` under way need not end. */
  close(): void {
    this.#pace.end()
    for (const event of ['readable', 'end', 'error', 'close']) this.#request.off(event, this.#awaken)
  }
}

/**
 * Lays a body down where it stays, as it comes, and gives each piece's memory back at once (`discard`): there is room for
 * all of it, so nothing has to be held back, and no piece costs a turn of its own. `target` must have the length that the
 * request announces. The same pace, and Problems, as `BodyPieces.next`.
 */
export async function layDown(ctx: Context, target: Buffer, isPressed: () => boolean): Promise<void> {
  const request = ctx.req
  const { idleMs } = ctx.state.patience
  const pace = new ClientPace({ silentMs: idleMs, graceMs: idleMs, isPressed })
  const over = Promise.withResolvers<void>()
  const giveUp = (): void => over.reject(tooSlow())
  const leave = (): void => {
    if (!request.readableEnded) over.reject(incomplete(request.errored))
  }
  let end = 0
  const take = (piece: Buffer): void => {
    pace.came(piece.length)
    ctx.state.bytesIn += piece.length
    if (end + piece.length > target.length) {
      leave()
      return
    }
    piece.copy(target, end)
    end += piece.length
    discard(piece)
    pace.wait(giveUp)
  }
  request.on('end', over.resolve).on('error', leave).on('close', leave)
  try {
    if (request.destroyed && !request.readableEnded) throw incomplete(request.errored)
    if (!request.readableEnded) {
      pace.wait(giveUp)
      request.on('data', take)
      await over.promise
    }
  } finally {
    pace.end()
    request.off('data', take).off('end', over.resolve).off('error', leave).off('close', leave)
    // What is left stays unread.
    request.pause()
  }
  if (end !== target.length) throw incomplete()
}

export function incomplete(cause?: unknown): Problem {
  return new Problem('incomplete-body', 'the body ended before it was whole', { cause })
}

function tooSlow(): Problem {
  return new Problem('too-slow', 'the body came too slowly; send it again, or less at a time')
}
