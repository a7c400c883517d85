/**
 * The one place where request bodies are read. In order: the encoding and the length are judged, memory
 * is reserved, only then a waiting client is told to continue, and the bytes are read.
 */
import getRawBody from 'raw-body'
import { Problem } from '../../protocol/problem.ts'
import { decompress } from '../../protocol/zstd.ts'
import { overSignal } from './client-gone.ts'
import type { Context } from './context.ts'
import { hasBody } from './context.ts'
import type { MemoryBudget } from './memory-budget.ts'

/** 16 KiB in a second: a modem could do that. */
export const minBytesPerMs = (16 * 1024) / 1000

/** A text of so few bytes is not counted: what asks for a commit must not wait behind uploads or questions. */
export const uncountedTextBytes = 16 * 1024

export type BodyEncoding = 'identity' | 'zstd'

export interface BodyRules {
  /** Bytes as they travel. */
  readonly maxBytes: number
  /** What decoding takes in memory besides; reserved together with the body. */
  readonly decodedBytes?: number
  /** So few bytes need no reservation. */
  readonly uncountedBytes?: number
  /** Whether `Content-Encoding: zstd` is understood. */
  readonly zstd?: boolean
}

export interface RequestBody {
  readonly bytes: Buffer
  readonly encoding: BodyEncoding
}

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
 * Reads the body and hands it to `use`, under a reservation that ends when `use` does. Problems
 * `unsupported-encoding`, `body-too-large`, `incomplete-body`, `unavailable`.
 */
export async function withBody<T>(
  ctx: Context,
  budget: MemoryBudget,
  rules: BodyRules,
  use: (body: RequestBody) => Promise<T>,
): Promise<T> {
  const encoding = bodyEncoding(ctx, rules.zstd === true)
  const length = declaredLength(ctx, rules.maxBytes)
  const decodedBytes = rules.decodedBytes ?? 0
  const wanted = (length ?? rules.maxBytes) + decodedBytes
  const reservation =
    wanted > (rules.uncountedBytes ?? 0) ? await budget.reserve(wanted, overSignal(ctx)) : undefined
  try {
    const bytes = await readBytes(ctx, rules.maxBytes, length)
    return await use({ bytes, encoding })
  } finally {
    reservation?.release()
  }
}

async function readBytes(ctx: Context, maxBytes: number, length: number | undefined): Promise<Buffer> {
  const request = ctx.req
  if (request.destroyed && !request.complete) throw incomplete()
  letContinue(ctx)
  const pace = expectPace(ctx)
  const count = (chunk: Buffer): void => pace.came(chunk.length)
  request.on('data', count)
  try {
    return await getRawBody(request, { limit: maxBytes, length: length ?? null })
  } catch (cause) {
    const { type } = cause as { type?: string }
    if (type === 'entity.too.large') throw tooLarge(maxBytes, cause)
    throw incomplete(cause)
  } finally {
    pace.stop()
    request.off('data', count)
  }
}

export function incomplete(cause?: unknown): Problem {
  return new Problem('incomplete-body', 'the body ended before it was whole', { cause })
}

/** Tells a client that waits for it to send the body. Once. */
export function letContinue(ctx: Context): void {
  if (!ctx.state.expectsContinue) return
  ctx.state.expectsContinue = false
  ctx.res.writeContinue()
}

/** Reads the body and keeps nothing of it, so that the connection can be used again. Bounded. */
export async function drainBody(ctx: Context, maxBytes: number): Promise<void> {
  const length = declaredLength(ctx, maxBytes) ?? maxBytes
  const request = ctx.req
  let seen = 0
  const pace = expectPace(ctx)
  try {
    // Left as it is when this ends early: destroying it would take the connection, and so the answer.
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      seen += (chunk as Buffer).length
      pace.came((chunk as Buffer).length)
      if (seen > length) throw tooLarge(maxBytes)
    }
  } catch (cause) {
    if (cause instanceof Problem) throw cause
    throw incomplete(cause)
  } finally {
    pace.stop()
  }
}

/**
 * Ends the request when nothing of its body comes for `idleMs`, or when all of it comes more slowly than
 * `minBytesPerMs`: what is reserved for it is memory that others wait for. Counts what comes, too.
 */
function expectPace(ctx: Context): { came(bytes: number): void; stop(): void } {
  const { idleMs } = ctx.state.patience
  const started = performance.now()
  let last = started
  let seen = 0
  const check = (): void => {
    const deadline = Math.min(last + idleMs, started + idleMs + seen / minBytesPerMs)
    const waitMs = deadline - performance.now()
    if (waitMs > 0) timer = setTimeout(check, Math.ceil(waitMs))
    else ctx.req.destroy(incomplete())
  }
  let timer = setTimeout(check, idleMs)
  return {
    came: (bytes) => {
      ctx.state.bytesIn += bytes
      seen += bytes
      last = performance.now()
    },
    stop: () => clearTimeout(timer),
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
