import { Readable } from 'node:stream'
import type { Context } from './context.ts'
import type { MemoryBudget, Reservation } from './memory-budget.ts'

/** A reader that takes nothing for so long is gone, or holds memory for nothing. */
const stallMs = 60_000

/** Keeps a reservation until the answer has left, or its connection is gone. */
export function holdUntilSent(ctx: Context, reservation: Reservation): void {
  if (ctx.res.destroyed || ctx.res.writableFinished) reservation.release()
  else ctx.res.once('close', () => reservation.release())
}

/**
 * A stream of `pieces` as fast as the client takes them, each held under a reservation of `pieceBytes`
 * while it is read and until the client asks for more. The first piece is read before this returns, so
 * that what fails at once is still a problem; what fails later cuts the connection.
 */
export async function streamPieces(
  ctx: Context,
  budget: MemoryBudget,
  pieceBytes: number,
  pieces: AsyncIterable<Buffer>,
): Promise<Readable> {
  const source = holding(ctx, budget, pieceBytes, pieces)
  const first = await source.next()
  async function* all(): AsyncGenerator<Buffer> {
    try {
      if (first.done !== true) yield first.value
      yield* source
    } finally {
      await source.return(undefined)
    }
  }
  const stream = Readable.from(all(), { objectMode: false, highWaterMark: 1 })
  // A client that left before the first read: nothing would ever pull, or end, the generator.
  ctx.res.once('close', () => {
    stream.destroy()
    void source.return(undefined)
  })
  return stream
}

async function* holding(
  ctx: Context,
  budget: MemoryBudget,
  pieceBytes: number,
  pieces: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  const iterator = pieces[Symbol.asyncIterator]()
  const { socket } = ctx.req
  const stalled = (): void => void socket.destroy()
  try {
    for (;;) {
      const reservation = await budget.reserve(pieceBytes)
      try {
        const piece = await iterator.next()
        if (piece.done === true) return
        reservation.shrinkTo(piece.value.length)
        socket.setTimeout(stallMs, stalled)
        yield piece.value
      } finally {
        socket.off('timeout', stalled)
        socket.setTimeout(0)
        reservation.release()
      }
    }
  } finally {
    await iterator.return?.()
  }
}
