import type { Middleware } from 'koa'
import { encodeProblem, Problem, type ProblemCode, problemMediaType } from '../../protocol/problem.ts'
import { failureFields, failureText } from '../failure-fields.ts'
import { diskFull, isDiskFull } from '../full-disk.ts'
import type { RequestState } from './context.ts'
import { errorDocument } from './dav-problem.ts'
import { targetForLog } from './request-target.ts'

/** Headers that say something about the problem, not about the answer that did not come to be. */
const kept = new Set([
  'accept-patch',
  'chunkdav-version',
  'connection',
  'content-range',
  'retry-after',
  'www-authenticate',
  'x-content-type-options',
  'x-request-id',
])

/** Problems with a status of a server's fault that a request alone can bring about. */
const askedFor: ReadonlySet<ProblemCode> = new Set(['bad-gateway', 'insufficient-storage', 'unavailable'])

/** The one exit for errors: a Problem becomes its document (XML where RFC 4918 names it), anything else is the receiver's own fault. */
export function problemAnswers(): Middleware<RequestState> {
  return async (ctx, next) => {
    let problem: Problem
    try {
      await next()
      return
    } catch (error) {
      problem = asProblem(error)
      const document = encodeProblem(problem)
      // Without a cause some are no fault: too much is asked for at once, the receiver stops, or what a client
      // asks for is on another server.
      if (document.status >= 500 && (!askedFor.has(problem.code) || problem.cause !== undefined)) {
        const level = problem.code === 'insufficient-storage' ? 'warn' : 'error'
        const fields = { ...failureFields(error), path: targetForLog(ctx.req) }
        ctx.state.log[level](fields, failureText('request failed', error))
      }
      for (const name of ctx.res.getHeaderNames()) if (!kept.has(name)) ctx.remove(name)
      if (document.status !== 401) ctx.remove('WWW-Authenticate')
      const { retryAfter } = problem.extensions
      if (typeof retryAfter === 'number') ctx.set('Retry-After', String(Math.ceil(retryAfter)))
      else if (problem.code === 'unavailable') ctx.set('Retry-After', '1')
      // RFC 9110, section 15.5.6.
      if (document.status === 405) ctx.set('Allow', ctx.state.allow)
      const xml = errorDocument(problem)
      ctx.status = document.status
      ctx.type = xml === undefined ? problemMediaType : 'application/xml; charset=utf-8'
      ctx.body = xml ?? JSON.stringify(document)
    }
  }
}

/** Errors of the system that may pass, to a client. */
const passing: ReadonlySet<unknown> = new Set(['EIO', 'EMFILE', 'ENFILE', 'EROFS'])

function asProblem(error: unknown): Problem {
  if (error instanceof Problem && error.status !== undefined) return error
  if (isDiskFull(error)) return diskFull(error)
  if (passing.has((error as NodeJS.ErrnoException | undefined)?.code)) {
    // The message of a system error names paths; the log has it.
    const detail = 'the disk of the receiver failed; its log tells more under the request id'
    return new Problem('unavailable', detail, { cause: error })
  }
  return new Problem('internal-error', 'the receiver failed; its log tells more under the request id', {
    cause: error,
  })
}
