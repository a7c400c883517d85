/**
 * The one place where request bodies are read. In order: the encoding and the length are judged, memory
 * is reserved, only then a waiting client is told to continue, and the bytes are read. What decoding takes is reserved
 * when the body is there: a client that sends slowly does not hold it. Who has reserved that waits for nobody.
 */
import { Readable } from 'node:stream'
import getRawBody from 'raw-body'
import { discard } from '../../protocol/block.ts'
import { Problem } from '../../protocol/problem.ts'
import { decompress } from '../../protocol/zstd.ts'
import { BodyMemory } from './body-memory.ts'
import { BodyPieces, incomplete, layDown } from './body-pieces.ts'
import { overSignal } from './client-gone.ts'
import { clientOf } from './client-name.ts'
import type { Context } from './context.ts'
import { hasBody } from './context.ts'
import type { MemoryBudget } from './memory-budget.ts'

/** A text of so few bytes is not counted: what asks for a commit must not wait behind uploads or questions. */
export const uncountedTextBytes = 16 * 1024

export type BodyEncoding = 'identity' | 'zstd'

export interface BodyRules {
  /** Bytes as they travel. */
  readonly maxBytes: number
  /** What is made of the body as it stands in memory, reserved together with it: for what is little. */
  readonly decodedBytes?: number
  /** What decoding this body takes in memory besides, and the budget that it is taken from. */
  readonly decoding?: { readonly budget: MemoryBudget; readonly bytes: (body: RequestBody) => number }
  /** So few bytes need no reservation. */
  readonly uncountedBytes?: number
  /** Whether `Content-Encoding: zstd` is understood. */
  readonly zstd?: boolean
  /** So much memory in front of the body is for who wants to put something there. */
  readonly roomBytes?: number
}

export interface RequestBody {
  /** Borrowed: their memory is given back when `use` has ended. */
  readonly bytes: Buffer
  /** To be told where the bytes are now by whoever has moved their memory to a thread and back. */
  readonly moved: (bytes: Buffer) => void
  /** The same with the room in front of it, if there is any. */
  readonly withRoom?: Buffer | undefined
  readonly encoding: BodyEncoding
}

const memory = new BodyMemory()

/** The body's encoding; Problem `unsupported-encoding` when it is not understood here. */
export function bodyEncoding(ctx: Context, zstd: boolean): BodyEncoding {
  // Node undoes chunks and nothing else: what another transfer coding has made would be taken for the content.
  const transfer = ctx.get('Transfer-Encoding').trim().toLowerCase()
  if (transfer !== '' && transfer !== 'chunked') {
    throw new Problem('unsupported-encoding', 'of transfer codings only chunked is understood here')
  }
  const encoding = ctx.get('Content-Encoding').trim().toLowerCase()
  if (encoding === '' || encoding === 'identity') return 'identity'
  if (encoding === 'zstd' && zstd) return 'zstd'
  throw new Problem(
    'unsupported-encoding',
    `Content-Encoding "${encoding.slice(0, 40)}" is not understood here`,
  )
}

function declaredLength(ctx: Context, maxBytes: number): number | undefined {
  const text = ctx.get('Content-Length')
  if (text === '') return hasBody(ctx.req) ? undefined : 0
  const length = Number(text)
  if (length > maxBytes) throw tooLarge(maxBytes)
  return length
}

function tooLarge(maxBytes: number, cause?: unknown): Problem {
  return new Problem('body-too-large', `the body is larger than ${maxBytes} bytes`, { cause })
}

/**
 * Reads the body and hands it to `use`, under reservations that end when `use` does. Problems
 * `unsupported-encoding`, `body-too-large`, `incomplete-body`, `too-slow`, `unavailable`.
 */
export async function withBody<T>(
  ctx: Context,
  budget: MemoryBudget,
  rules: BodyRules,
  use: (body: RequestBody) => Promise<T>,
): Promise<T> {
  const encoding = bodyEncoding(ctx, rules.zstd === true)
  const length = declaredLength(ctx, rules.maxBytes)
  const wanted = (length ?? rules.maxBytes) + (rules.decodedBytes ?? 0)
  const isCounted = wanted > (rules.uncountedBytes ?? 0)
  const reservation = isCounted ? await budget.of(clientOf(ctx)).reserve(wanted, overSignal(ctx)) : undefined
  const isPressed = (): boolean => isCounted && budget.isPressed
  const { roomBytes = 0 } = rules
  try {
    if (length !== undefined) {
      return await memory.lend(roomBytes + length, async (lent) => {
        const withRoom = roomBytes > 0 ? lent.bytes : undefined
        const bytes = lent.bytes.subarray(roomBytes)
        await begun(ctx, () => layDown(ctx, bytes, isPressed))
        const moved = (now: Buffer): void => {
          lent.bytes = now
        }
        return await decoded(ctx, rules.decoding, { bytes, withRoom, encoding, moved }, use)
      })
    }
    let bytes = await begun(ctx, () => gathered(ctx, rules.maxBytes, isPressed))
    try {
      reservation?.shrinkTo(bytes.length + (rules.decodedBytes ?? 0))
      const moved = (now: Buffer): void => {
        bytes = now
      }
      return await decoded(ctx, rules.decoding, { bytes, encoding, moved }, use)
    } finally {
      discard(bytes)
    }
  } finally {
    reservation?.release()
  }
}

async function decoded<T>(
  ctx: Context,
  decoding: BodyRules['decoding'],
  body: RequestBody,
  use: (body: RequestBody) => Promise<T>,
): Promise<T> {
  const wanted = decoding?.bytes(body) ?? 0
  if (decoding === undefined || wanted === 0) return await use(body)
  const reservation = await decoding.budget.of(clientOf(ctx)).reserve(wanted, overSignal(ctx))
  try {
    return await use(body)
  } finally {
    reservation.release()
  }
}

/** Reads by `read`, unless the client has gone already; one that waits is told to go on. */
function begun<T>(ctx: Context, read: () => Promise<T>): Promise<T> {
  if (ctx.req.destroyed && !ctx.req.complete) return Promise.reject(incomplete())
  letContinue(ctx)
  return read()
}

/** A body of no announced length. */
async function gathered(ctx: Context, maxBytes: number, isPressed: () => boolean): Promise<Buffer> {
  const stream = streamOf(new BodyPieces(ctx, isPressed))
  try {
    return await getRawBody(stream, { limit: maxBytes })
  } catch (cause) {
    if (cause instanceof Problem) throw cause
    const { type } = cause as { type?: string }
    if (type === 'entity.too.large') throw tooLarge(maxBytes, cause)
    throw incomplete(cause)
  } finally {
    stream.destroy()
  }
}

function streamOf(pieces: BodyPieces): Readable {
  const stream: Readable = new Readable({
    read: () => {
      pieces.next().then(
        (piece) => stream.push(piece ?? null),
        (error: Error) => stream.destroy(error),
      )
    },
    destroy: (error, done) => {
      pieces.close()
      done(error)
    },
  })
  return stream
}

/** Tells a client that waits for it to send the body. Once. */
export function letContinue(ctx: Context): void {
  if (!ctx.state.expectsContinue) return
  ctx.state.expectsContinue = false
  const { res } = ctx
  if (res.socket !== null) {
    res.writeContinue()
    return
  }
  // It waits behind another answer of its connection. Written now, Node would put it between the head and the body.
  res.once('socket', () => {
    if (!res.headersSent) res.writeContinue()
  })
}

/** Reads the body and keeps nothing of it, so that the connection can be used again. Bounded. */
export async function drainBody(ctx: Context, maxBytes: number): Promise<void> {
  const length = declaredLength(ctx, maxBytes) ?? maxBytes
  const pieces = new BodyPieces(ctx, () => false)
  let seen = 0
  try {
    for (let piece = await pieces.next(); piece !== undefined; piece = await pieces.next()) {
      seen += piece.length
      if (seen > length) throw tooLarge(maxBytes)
    }
  } finally {
    pieces.close()
  }
}

/** The body's plain bytes, at most `maxBytes` of them. */
export async function plainBytes(body: RequestBody, maxBytes: number): Promise<Buffer> {
  if (body.encoding === 'zstd') return await decompress(body.bytes, { maxBytes })
  if (body.bytes.length > maxBytes) throw tooLarge(maxBytes)
  return body.bytes
}

/** The body as text, for JSON and XML. */
export function withText<T>(
  ctx: Context,
  budget: MemoryBudget,
  maxBytes: number,
  use: (text: string) => Promise<T>,
): Promise<T> {
  const rules = { maxBytes, uncountedBytes: uncountedTextBytes }
  return withBody(ctx, budget, rules, ({ bytes }) => use(bytes.toString('utf8')))
}
