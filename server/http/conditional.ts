/** Conditional and range requests: RFC 9110, sections 13 and 14. */
import parseRange from 'range-parser'
import { Problem } from '../../protocol/problem.ts'
import type { Context } from './context.ts'

/** The entity tags of an If-Match or If-None-Match list. Weak ones count by their opaque part. */
function tagsOf(header: string): string[] {
  return [...header.matchAll(/"[^"]*"/g)].map(([tag]) => tag)
}

/**
 * Judges If-Match and If-None-Match for a resource that exists and has these entity tags (its forms).
 * True when the client's copy is good: the answer is then 304, and set, with the tag of that copy. Problem
 * `precondition-failed`.
 */
export function isNotModified(ctx: Context, tags: readonly string[]): boolean {
  const ifMatch = ctx.get('If-Match')
  if (ifMatch !== '' && ifMatch.trim() !== '*' && !tagsOf(ifMatch).some((tag) => tags.includes(tag))) {
    throw new Problem('precondition-failed', 'the resource has another ETag than If-Match says')
  }
  const ifNoneMatch = ctx.get('If-None-Match')
  if (ifNoneMatch === '') return false
  const matching = tagsOf(ifNoneMatch).find((tag) => tags.includes(tag))
  if (ifNoneMatch.trim() !== '*' && matching === undefined) return false
  ctx.status = 304
  if (matching !== undefined) ctx.set('ETag', matching)
  return true
}

export interface ByteRange {
  readonly start: number
  /** The position behind the last byte. */
  readonly end: number
}

/**
 * The one range that is asked for, or undefined when the whole is to be sent: no Range, several, one in
 * another unit, a malformed one, or an If-Range that names another ETag. Problem
 * `range-not-satisfiable`, with Content-Range set.
 */
export function requestedRange(ctx: Context, size: number, tag: string): ByteRange | undefined {
  const header = ctx.get('Range')
  if (header === '' || ctx.method !== 'GET') return undefined
  const ifRange = ctx.get('If-Range').trim()
  if (ifRange !== '' && ifRange !== tag) return undefined
  if (!isOneRange(header)) return undefined
  const ranges = parseRange(size, header)
  if (ranges === -1) {
    ctx.set('Content-Range', `bytes */${size}`)
    throw new Problem('range-not-satisfiable', `the content has ${size} bytes`)
  }
  if (ranges === -2 || ranges.type !== 'bytes' || ranges.length !== 1) return undefined
  const [range] = ranges
  return range === undefined ? undefined : { start: range.start, end: range.end + 1 }
}

/** Whether the header asks for one range of bytes, by its form. The package takes any unit and a range that runs backwards. */
function isOneRange(header: string): boolean {
  const match = /^bytes=\s*(?:(\d+)-(\d*)|-\d+)\s*$/i.exec(header)
  return match !== null && !(match[2] && Number(match[2]) < Number(match[1]))
}

/** Status and headers of a partial answer. */
export function setPartial(ctx: Context, range: ByteRange, size: number): void {
  ctx.status = 206
  ctx.set('Content-Range', `bytes ${range.start}-${range.end - 1}/${size}`)
}
