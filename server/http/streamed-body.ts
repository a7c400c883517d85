/**
 * A request's body piece by piece, for what is stored as it comes. As in request-body.ts: the encoding is
 * judged at once; a waiting client is told to continue when the first piece is asked for, so whoever asks
 * has reserved the memory before; the client is held to a pace, but only while somebody waits for it.
 */
import { Problem } from '../../protocol/problem.ts'
import type { Context } from './context.ts'
import { hasBody } from './context.ts'
import { bodyEncoding, incomplete, letContinue, minBytesPerMs } from './request-body.ts'

export interface StreamedBody extends AsyncIterable<Buffer> {
  /** What `Content-Length` says; 0 without a body; undefined when the body comes in chunks of its own. */
  readonly announcedBytes: number | undefined
}

/**
 * The body, to be iterated once. The kernel holds back what is not asked for. Leaving early leaves the rest
 * unread (linger.ts closes the connection behind the answer). Problem `unsupported-encoding` from here;
 * `incomplete-body` from the iterator when the body is aborted, ends early or comes too slowly: nobody can
 * be answered then.
 */
export function streamedBody(ctx: Context): StreamedBody {
  bodyEncoding(ctx, false)
  const text = ctx.get('Content-Length')
  const withoutLength = hasBody(ctx.req) ? undefined : 0
  const announcedBytes = text === '' ? withoutLength : Number(text)
  return { announcedBytes, [Symbol.asyncIterator]: () => pieces(ctx, announcedBytes) }
}

async function* pieces(ctx: Context, announcedBytes: number | undefined): AsyncGenerator<Buffer, void> {
  const request = ctx.req
  if (request.destroyed && !request.complete) throw incomplete()
  letContinue(ctx)
  const pace = new Pace(ctx)
  // Left as it is when this ends early: destroying it would take the connection, and so the answer.
  const iterator: AsyncIterator<Buffer> = request.iterator({ destroyOnReturn: false })
  try {
    for (;;) {
      const { done, value } = await pace.during(() => iterator.next())
      if (done === true) break
      pace.came(value.length)
      yield value
    }
  } catch (cause) {
    throw cause instanceof Problem ? cause : incomplete(cause)
  } finally {
    await iterator.return?.()
  }
  if (announcedBytes !== undefined && pace.seen !== announcedBytes) throw incomplete()
}

/**
 * Ends the request when nothing comes for `idleMs`, or when all of it comes more slowly than
 * `minBytesPerMs`, measured by the time that was spent in waiting: what we do between two pieces is not
 * the client's fault.
 */
class Pace {
  readonly #ctx: Context
  #waitedMs = 0
  seen = 0

  constructor(ctx: Context) {
    this.#ctx = ctx
  }

  async during<T>(wait: () => Promise<T>): Promise<T> {
    const { idleMs } = this.#ctx.state.patience
    const leftMs = Math.min(idleMs, idleMs + this.seen / minBytesPerMs - this.#waitedMs)
    const timer = setTimeout(() => this.#ctx.req.destroy(incomplete()), Math.max(0, Math.ceil(leftMs)))
    const since = performance.now()
    try {
      return await wait()
    } finally {
      clearTimeout(timer)
      this.#waitedMs += performance.now() - since
    }
  }

  came(bytes: number): void {
    this.seen += bytes
    this.#ctx.state.bytesIn += bytes
  }
}
