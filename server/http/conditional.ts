/** Conditional and range requests: RFC 9110, sections 13 and 14. */
import parseRange from 'range-parser'
import { Problem } from '../../protocol/problem.ts'
import type { Context } from './context.ts'

/** The entity tags of a list, each with whether it is weak. */
function tagsOf(header: string): { tag: string; weak: boolean }[] {
  return [...header.matchAll(/(W\/)?("[^"]*")/g)].map(([, weak, tag = '']) => ({
    tag,
    weak: weak !== undefined,
  }))
}

/** A date in a header, in seconds; undefined for none, and for what is no date: that is passed over. */
function dateOf(ctx: Context, name: string): number | undefined {
  const header = ctx.get(name)
  // Date.parse takes much that is no date of HTTP, such as a number.
  const ms = /^[A-Za-z]{3,9},? .*\d/.test(header) ? Date.parse(header) : Number.NaN
  return Number.isNaN(ms) ? undefined : Math.floor(ms / 1000)
}

/**
 * Judges If-Match, or else If-Unmodified-Since, for a resource that has these entity tags (its forms) and
 * was modified then. Weak tags match nothing here. Problem `precondition-failed`.
 */
function expectUnchanged(ctx: Context, tags: readonly string[], modifiedMs: number | undefined): void {
  const ifMatch = ctx.get('If-Match')
  if (ifMatch !== '') {
    if (ifMatch.trim() === '*') return
    if (tagsOf(ifMatch).some(({ tag, weak }) => !weak && tags.includes(tag))) return
    throw new Problem('precondition-failed', 'the resource has another ETag than If-Match says')
  }
  const since = dateOf(ctx, 'If-Unmodified-Since')
  if (since === undefined || modifiedMs === undefined || Math.floor(modifiedMs / 1000) <= since) return
  throw new Problem('precondition-failed', 'the resource was modified since')
}

/** The tag that If-None-Match names, '*' when it names every one; undefined when it names none of them. */
function tagNamed(ctx: Context, tags: readonly string[]): string | undefined {
  const header = ctx.get('If-None-Match')
  if (header.trim() === '*') return '*'
  return tagsOf(header).find(({ tag }) => tags.includes(tag))?.tag
}

/**
 * Judges the conditions of GET and HEAD for a resource that exists, has these entity tags (its forms) and
 * was modified then. True when the client's copy is good: the answer is then 304, and set, with the tag of
 * that copy. Problem `precondition-failed`.
 */
export function isNotModified(ctx: Context, tags: readonly string[], modifiedMs?: number): boolean {
  expectUnchanged(ctx, tags, modifiedMs)
  if (ctx.get('If-None-Match') !== '') {
    const named = tagNamed(ctx, tags)
    if (named === undefined) return false
    ctx.status = 304
    if (named !== '*') ctx.set('ETag', named)
    return true
  }
  const since = dateOf(ctx, 'If-Modified-Since')
  if (since === undefined || modifiedMs === undefined || Math.floor(modifiedMs / 1000) > since) return false
  ctx.status = 304
  return true
}

/** What a write finds under its path. */
export interface Judged {
  /** Undefined for what has no ETag, such as a collection. */
  readonly tag: string | undefined
  readonly modifiedMs: number
}

/**
 * Judges If-Match, If-None-Match and If-Unmodified-Since for a method that changes `found`, undefined when
 * nothing is there. Problem `precondition-failed`.
 */
export function expectConditions(ctx: Context, found: Judged | undefined): void {
  if (found === undefined) {
    if (ctx.get('If-Match') === '') return
    throw new Problem('precondition-failed', 'there is no resource that If-Match could speak of')
  }
  const tags = found.tag === undefined ? [] : [found.tag]
  expectUnchanged(ctx, tags, found.modifiedMs)
  if (ctx.get('If-None-Match') === '' || tagNamed(ctx, tags) === undefined) return
  throw new Problem('precondition-failed', 'the resource is what If-None-Match says it must not be')
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
