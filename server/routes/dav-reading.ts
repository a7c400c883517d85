/** GET, HEAD and PROPFIND of whatever WebDAV is shown: see dav-view.ts. */
import { lookup } from 'mime-types'
import Negotiator from 'negotiator'
import { Problem } from '../../protocol/problem.ts'
import type { Part } from '../../protocol/schema.ts'
import { readContent } from '../catalog/content.ts'
import { overSignal } from '../http/client-gone.ts'
import { isNotModified, requestedRange, setPartial } from '../http/conditional.ts'
import type { Context } from '../http/context.ts'
import {
  type DavResource,
  multistatusEnd,
  multistatusStart,
  type PropertyName,
  type PropertyValue,
  responseXml,
} from '../http/dav-xml.ts'
import { streamPieces } from '../http/held-answer.ts'
import { queryParameter } from '../http/parameters.ts'
import { encodeSegment } from '../http/path-names.ts'
import type { Vault } from '../vaults.ts'
import { htmlListing } from './dav-listing.ts'
import type { DavView, Names, Shown } from './dav-view.ts'
import type { Parts } from './parts.ts'
import { type Propfind, readPropfind } from './propfind.ts'
import type { Methods } from './resource.ts'

/** What a request wants to read. */
export interface Reading {
  readonly vault: Vault
  readonly view: DavView
  /** Percent-encoded path of the area, with a slash at its end. */
  readonly base: string
  readonly names: Names
  /** Of a file's answer. */
  readonly cacheControl: string
  /** A directory as a tar archive, where there is that. */
  readonly archive?: (shown: Shown, signal: AbortSignal) => AsyncIterable<Buffer>
}

export type ReadingOf = (ctx: Context) => Promise<Reading>

/** Text that is sent at once. */
export const pieceChars = 64 * 1024
const tarType = 'application/x-tar'

/** The methods that read, for `resource`. */
export function readingMethods(
  parts: Parts,
  readingOf: ReadingOf,
): Required<Pick<Methods, 'GET' | 'PROPFIND'>> {
  return {
    GET: async (ctx) => await get(parts, ctx, await readingOf(ctx)),
    PROPFIND: async (ctx) => await propfind(parts, ctx, await readingOf(ctx)),
  }
}

/** What anybody may have put here must do nothing in a browser but be looked at. */
export function guardContent(ctx: Context): void {
  ctx.set('X-Content-Type-Options', 'nosniff')
  ctx.set('Content-Security-Policy', "sandbox; default-src 'none'; style-src 'unsafe-inline'")
}

/** Media type by the name. */
export function mediaTypeOf(name: Buffer): string {
  return lookup(name.toString('latin1')) || 'application/octet-stream'
}

async function found(ctx: Context, { view, names }: Reading, signal: AbortSignal): Promise<Shown> {
  const shown = await view.find(names, signal)
  // A slash at the end says that it is a collection.
  if (shown !== undefined && !(shown.kind === 'file' && ctx.path.endsWith('/'))) return shown
  const path = names.map((name) => name.toString('utf8')).join('/')
  throw new Problem('not-found', `there is nothing at "${path.slice(-200)}"`)
}

async function get(parts: Parts, ctx: Context, reading: Reading): Promise<void> {
  guardContent(ctx)
  const signal = overSignal(ctx)
  const shown = await found(ctx, reading, signal)
  if (shown.kind === 'file') await sendFile(parts, ctx, reading, shown, signal)
  else await sendDirectory(parts, ctx, reading, shown, signal)
}

async function sendFile(
  parts: Parts,
  ctx: Context,
  reading: Reading,
  shown: Shown,
  signal: AbortSignal,
): Promise<void> {
  const { etag = '', mtimeNs } = shown
  const part = shown.part as Part
  ctx.set('Cache-Control', reading.cacheControl)
  ctx.set('ETag', etag)
  ctx.set('Last-Modified', httpDate(mtimeNs))
  if (isNotModified(ctx, [etag], dateOf(mtimeNs).getTime())) return
  ctx.set('Accept-Ranges', 'bytes')
  // Not by `ctx.type`, which would say that text is UTF-8: nobody knows.
  ctx.set('Content-Type', mediaTypeOf(shown.name))
  const range = requestedRange(ctx, part.size, etag)
  const { start, end } = range ?? { start: 0, end: part.size }
  if (ctx.method === 'HEAD') {
    ctx.status = 200
  } else {
    const pieces =
      reading.view.content?.(shown, { start, end }, signal) ??
      readContent(reading.vault.catalog.reader, part, { start, end }, signal)
    const { maxChunkBytes } = parts.limits
    const pieceBytes = part.chunked === true ? maxChunkBytes : Math.min(maxChunkBytes, part.size)
    ctx.body = await streamPieces(ctx, pieces, {
      budget: parts.downloads,
      pieceBytes,
      totalBytes: end - start,
    })
    if (range !== undefined) setPartial(ctx, range, part.size)
  }
  ctx.length = end - start
}

async function sendDirectory(
  parts: Parts,
  ctx: Context,
  reading: Reading,
  shown: Shown,
  signal: AbortSignal,
): Promise<void> {
  const href = hrefOf(reading.base, reading.names, 'directory')
  setCollectionLocation(ctx, href)
  ctx.set('Cache-Control', 'no-cache')
  if (reading.archive !== undefined) ctx.set('Vary', 'Accept')
  const archive = wantsArchive(ctx, reading) ? reading.archive?.(shown, signal) : undefined
  ctx.status = 200
  if (archive !== undefined) ctx.set('Content-Type', tarType)
  else ctx.type = 'text/html; charset=utf-8'
  if (ctx.method === 'HEAD') return
  const { maxChunkBytes, maxObjectBytes } = parts.limits
  ctx.body = await streamPieces(ctx, archive ?? htmlListing(href, reading.view.members(shown, signal)), {
    budget: archive === undefined ? parts.listings : parts.downloads,
    pieceBytes: archive === undefined ? maxObjectBytes : maxChunkBytes,
  })
}

/** Problems `invalid-request`, and `not-acceptable` where there is none. */
function wantsArchive(ctx: Context, { archive }: Reading): boolean {
  const asked = queryParameter(ctx, 'archive')
  if (asked === null) {
    return archive !== undefined && new Negotiator(ctx.req).mediaTypes(['text/html', tarType])[0] === tarType
  }
  if (asked !== 'tar') throw new Problem('invalid-request', 'archive must be tar')
  if (archive !== undefined) return true
  throw new Problem('not-acceptable', 'only what is in a snapshot can be had as a tar')
}

/** Where a collection was asked for without its slash: RFC 4918, section 5.2. */
function setCollectionLocation(ctx: Context, href: string): void {
  if (!ctx.path.endsWith('/')) ctx.set('Content-Location', href)
}

async function propfind(parts: Parts, ctx: Context, reading: Reading): Promise<void> {
  guardContent(ctx)
  const asked = await readPropfind(ctx, parts.questions)
  if (asked === undefined) return
  const signal = overSignal(ctx)
  const shown = await found(ctx, reading, signal)
  if (shown.kind === 'directory') {
    setCollectionLocation(ctx, hrefOf(reading.base, reading.names, 'directory'))
  }
  const stream = await streamPieces(ctx, listing(reading, shown, asked, signal), {
    budget: parts.listings,
    pieceBytes: parts.limits.maxObjectBytes,
  })
  ctx.status = 207
  ctx.type = 'application/xml; charset=utf-8'
  ctx.body = stream
}

/** The multistatus in pieces: a directory of any length is never in memory whole. */
async function* listing(
  reading: Reading,
  shown: Shown,
  asked: Propfind,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const { view, names } = reading
  let text = multistatusStart + responseXml(await davResource(reading, names, shown, asked), asked)
  if (asked.depth === 1 && shown.kind === 'directory') {
    for await (const member of view.members(shown, signal)) {
      text += responseXml(await davResource(reading, [...names, member.name], member, asked), asked)
      if (text.length < pieceChars) continue
      yield Buffer.from(text, 'utf8')
      text = ''
    }
  }
  yield Buffer.from(text + multistatusEnd, 'utf8')
}

/** What a multistatus tells of one resource: what was asked for, or all. Also for other answers than PROPFIND's. */
export async function davResource(
  { view, base }: Pick<Reading, 'view' | 'base'>,
  names: Names,
  shown: Shown,
  { want, names: asked }: Pick<Propfind, 'want' | 'names'>,
): Promise<DavResource> {
  const wanted = want === 'prop' ? new Set(asked) : undefined
  const properties = commonProperties(base, shown, wanted)
  for (const [name, value] of await view.properties(names, shown, wanted)) properties.set(name, value)
  const left = want === 'allprop' ? asked.filter((name) => !properties.has(name)) : []
  if (left.length > 0) {
    for (const [name, value] of await view.properties(names, shown, new Set(left))) {
      properties.set(name, value)
    }
  }
  return { href: hrefOf(base, names, shown.kind), properties }
}

/** Those that `Shown` tells. */
function commonProperties(
  base: string,
  { kind, name, mtimeNs, createdNs, etag, part }: Shown,
  wanted: ReadonlySet<PropertyName> | undefined,
): Map<PropertyName, PropertyValue> {
  const properties = new Map<PropertyName, PropertyValue>()
  const tell = (local: string, value: () => PropertyValue): void => {
    const property = `DAV: ${local}`
    if (wanted === undefined || wanted.has(property)) properties.set(property, value())
  }
  tell('resourcetype', () => (kind === 'directory' ? { xml: '<D:collection/>' } : ''))
  tell('displayname', () => (name.length === 0 ? (base.split('/').at(-2) ?? '') : name.toString('utf8')))
  tell('getlastmodified', () => httpDate(mtimeNs))
  if (createdNs !== undefined) tell('creationdate', () => dateOf(createdNs).toISOString())
  if (kind === 'file') {
    tell('getcontentlength', () => String(part?.size ?? 0))
    tell('getcontenttype', () => mediaTypeOf(name))
    if (etag !== undefined) tell('getetag', () => etag)
  }
  return properties
}

/** The path of a resource, percent-encoded; that of a collection ends in a slash. */
export function hrefOf(base: string, names: Names, kind: Shown['kind']): string {
  const path = base + names.map(encodeSegment).join('/')
  return kind === 'directory' && names.length > 0 ? `${path}/` : path
}

/** Times that a Date cannot hold are its ends. */
function dateOf(ns: string): Date {
  return new Date(Math.min(8.64e15, Math.max(-8.64e15, Number(BigInt(ns) / 1_000_000n))))
}

/** What a date of HTTP, whose years have four digits, can tell: clients set any time. */
const [earliest, latest] = [Date.parse('0001-01-01T00:00:00Z'), Date.parse('9999-12-31T23:59:59Z')]

/** RFC 9110, section 5.6.7. */
export function httpDate(ns: string): string {
  return new Date(Math.min(latest, Math.max(earliest, dateOf(ns).getTime()))).toUTCString()
}
