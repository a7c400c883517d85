/**
 * A request's body piece by piece, for what is stored as it comes. As in request-body.ts: the encoding is
 * judged at once; a waiting client is told to continue when the first piece is asked for, so whoever asks
 * has reserved the memory before; the client is held to a pace, but only while somebody waits for it.
 */
import { BodyPieces, incomplete } from './body-pieces.ts'
import type { Context } from './context.ts'
import { hasBody } from './context.ts'
import { bodyEncoding, letContinue } from './request-body.ts'

export interface StreamedBody extends AsyncIterable<Buffer> {
  /** What `Content-Length` says; 0 without a body; undefined when the body comes in chunks of its own. */
  readonly announcedBytes: number | undefined
}

/**
 * The body, to be iterated once. The kernel holds back what is not asked for. Leaving early leaves the rest
 * unread (linger.ts closes the connection behind the answer). `isPressed`: whether others have been waiting for the
 * memory that it goes through. Problem `unsupported-encoding` from here; from the iterator `too-slow`, and
 * `incomplete-body` when the body is aborted or ends early: nobody can be answered then.
 */
export function streamedBody(ctx: Context, isPressed: () => boolean = () => false): StreamedBody {
  bodyEncoding(ctx, false)
  const text = ctx.get('Content-Length')
  const withoutLength = hasBody(ctx.req) ? undefined : 0
  const announcedBytes = text === '' ? withoutLength : Number(text)
  return { announcedBytes, [Symbol.asyncIterator]: () => pieces(ctx, announcedBytes, isPressed) }
}

async function* pieces(
  ctx: Context,
  announcedBytes: number | undefined,
  isPressed: () => boolean,
): AsyncGenerator<Buffer, void> {
  if (ctx.req.destroyed && !ctx.req.complete) throw incomplete()
  letContinue(ctx)
  const body = new BodyPieces(ctx, isPressed)
  let seen = 0
  try {
    for (let piece = await body.next(); piece !== undefined; piece = await body.next()) {
      seen += piece.length
      yield piece
    }
  } finally {
    body.close()
  }
  if (announcedBytes !== undefined && seen !== announcedBytes) throw incomplete()
}
