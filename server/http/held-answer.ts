/**
 * Answers out of the store. What is read is in memory under a reservation of the download budget until
 * the client has taken it:
 *
 * - Nothing is read before its bytes are reserved, and only one piece at a time. Others have the event loop in between.
 * - A reservation ends when the client asks for what follows, and in any case when the answer has left or
 *   its connection is gone, whatever is under way then.
 * - A client that takes less than a slice in `stallMs` is cut off, and one that is slow when others have been waiting
 *   for that memory: client-pace.ts.
 */
import { Readable } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Problem } from '../../protocol/problem.ts'
import { sliceBytes } from './answer-slices.ts'
import { overSignal, whenOver } from './client-gone.ts'
import { clientOf } from './client-name.ts'
import { ClientPace } from './client-pace.ts'
import type { Context } from './context.ts'
import type { MemoryBudget, Reservation } from './memory-budget.ts'

export interface Holding {
  readonly budget: MemoryBudget
  /** What reading a piece takes at most; the piece itself may be shorter. */
  readonly pieceBytes: number
  /** Of the whole answer, where that is known. */
  readonly totalBytes?: number
}

type Body = Readable | Buffer

/**
 * A body of `pieces`, which leave as fast as the client takes them. The first piece is read before this returns, so
 * that what fails at once is still a problem; what fails later cuts the connection.
 */
export async function streamPieces(
  ctx: Context,
  pieces: AsyncIterable<Buffer>,
  holding: Holding,
): Promise<Body> {
  const source = new HeldPieces(pieces, holding, clientOf(ctx), overSignal(ctx))
  whenOver(ctx, () => void source.close())
  return bodyOf(ctx, source, await source.next(), holding)
}

/** Answers with the one buffer that `read` gives. Returns it, for the headers. */
export async function sendHeld(ctx: Context, holding: Holding, read: () => Promise<Buffer>): Promise<Buffer> {
  async function* one(): AsyncGenerator<Buffer> {
    yield await read()
  }
  const source = new HeldPieces(one(), holding, clientOf(ctx), overSignal(ctx))
  whenOver(ctx, () => void source.close())
  const bytes = (await source.next()) ?? Buffer.alloc(0)
  ctx.body = bodyOf(ctx, source, bytes, { ...holding, totalBytes: bytes.length })
  ctx.length = bytes.length
  return bytes
}

interface AnswerPace {
  /** The client is given a slice: from now on it is waited for. */
  wait(): void
  /** It has taken so much. */
  took(bytes: number): void
}

/** How fast the client takes an answer: who is too slow loses the connection. Ends with the answer. */
function paceOf(ctx: Context, budget: MemoryBudget): AnswerPace {
  const { idleMs, stallMs: silentMs } = ctx.state.patience
  const pace = new ClientPace({
    silentMs,
    graceMs: Math.min(idleMs, silentMs),
    isPressed: () => budget.isPressed,
  })
  const cut = (): void => void ctx.req.socket.destroy()
  whenOver(ctx, () => pace.end())
  return { wait: () => pace.wait(cut), took: (bytes) => pace.came(bytes) }
}

/** What is no more than a slice is all that there is to take: a stream of it would cost as much as all the rest of the answer. */
function bodyOf(ctx: Context, source: HeldPieces, first: Buffer | undefined, holding: Holding): Body {
  const { budget, totalBytes = Number.POSITIVE_INFINITY } = holding
  if (first === undefined || totalBytes > Math.min(first.length, sliceBytes)) {
    return sliced(ctx, source, first, holding)
  }
  paceOf(ctx, budget).wait()
  return first.subarray(0, totalBytes)
}

/** Pieces, each under a reservation until the next is asked for or `close` is called. */
class HeldPieces {
  private readonly iterator: AsyncIterator<Buffer>
  private readonly holding: Holding
  private readonly client: string
  private readonly gone: AbortSignal
  private hasBegun = false
  private reservation: Reservation | undefined
  private reading: Promise<unknown> = Promise.resolve()

  constructor(pieces: AsyncIterable<Buffer>, holding: Holding, client: string, gone: AbortSignal) {
    this.iterator = pieces[Symbol.asyncIterator]()
    this.holding = holding
    this.client = client
    this.gone = gone
  }

  next(): Promise<Buffer | undefined> {
    const piece = this.read()
    this.reading = piece.catch(() => undefined)
    return piece
  }

  private async read(): Promise<Buffer | undefined> {
    this.release()
    // A piece may be made of what is in memory, and a socket may take it at once.
    if (this.hasBegun) await nextTurn()
    this.hasBegun = true
    const { budget, pieceBytes } = this.holding
    this.reservation = await budget.of(this.client).reserve(pieceBytes, this.gone)
    if (this.gone.aborted) throw new Problem('unavailable', 'the client left before it was answered')
    const { done, value } = await this.iterator.next()
    if (done === true) {
      this.release()
      return undefined
    }
    this.reservation.shrinkTo(value.length)
    return value
  }

  private release(): void {
    this.reservation?.release()
    this.reservation = undefined
  }

  /** Gives back what is held, once what is being read is there. To be called when nothing more is wanted. */
  async close(): Promise<void> {
    await this.reading
    this.release()
    // What fails now has nobody to be told to; the next reader of those bytes finds out itself.
    await this.iterator.return?.().catch(() => undefined)
  }
}

function sliced(
  ctx: Context,
  source: HeldPieces,
  first: Buffer | undefined,
  { budget, totalBytes = Number.POSITIVE_INFINITY }: Holding,
): Readable {
  let piece = first
  let position = 0
  let left = totalBytes
  let sliceLength = 0
  const pace = paceOf(ctx, budget)
  const advance = async (): Promise<void> => {
    pace.took(sliceLength)
    while (piece !== undefined && position >= piece.length && left > 0) {
      piece = await source.next()
      position = 0
    }
    if (stream.destroyed) return
    if (piece === undefined || left <= 0) return void stream.push(null)
    const slice = piece.subarray(position, position + sliceBytes)
    sliceLength = slice.length
    position += slice.length
    left -= slice.length
    pace.wait()
    stream.push(slice)
    if (left <= 0) stream.push(null)
  }
  const stream: Readable = new Readable({
    // No slice is asked for before the client has taken the one before.
    highWaterMark: 0,
    read: () => void advance().catch((error: Error) => stream.destroy(error)),
  })
  whenOver(ctx, () => void stream.destroy())
  return stream
}
