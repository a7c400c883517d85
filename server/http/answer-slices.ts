import { Readable } from 'node:stream'
import type { Middleware } from 'koa'
import type { RequestState } from './context.ts'

/** So much is handed to the connection at once: of what is handed over, nothing shows how much the client has taken. */
export const sliceBytes = 64 * 1024

/** Answers that are made whole leave in slices, so that connections.ts sees whether the client takes them. */
export function answersInSlices(): Middleware<RequestState> {
  return async (ctx, next) => {
    await next()
    if (ctx.method === 'HEAD' || ctx.res.headersSent) return
    const bytes = bytesOf(ctx.body)
    if (bytes === undefined) return
    ctx.body = bytes.length <= sliceBytes ? bytes : Readable.from(slicesOf(bytes), { highWaterMark: 1 })
    ctx.length = bytes.length
  }
}

/** As Koa makes them. */
function bytesOf(body: unknown): Buffer | undefined {
  if (Buffer.isBuffer(body)) return body
  if (typeof body === 'string') return Buffer.from(body)
  const isJson =
    typeof body === 'object' && body !== null && !('pipe' in body) && !(body instanceof Uint8Array)
  return isJson ? Buffer.from(JSON.stringify(body)) : undefined
}

function* slicesOf(bytes: Buffer): Generator<Buffer> {
  for (let start = 0; start < bytes.length; start += sliceBytes)
    yield bytes.subarray(start, start + sliceBytes)
}
