/** REPORT: what changed in a collection, RFC 6578. */
import type { Changes } from '../catalog/live-tree.ts'
import type { Context } from '../http/context.ts'
import { type SyncRequest, syncRequest, xmlBody } from '../http/dav-bodies.ts'
import { depthOf } from '../http/dav-headers.ts'
import { davProblem } from '../http/dav-problem.ts'
import { multistatusEnd, multistatusStart, responseXml } from '../http/dav-xml.ts'
import { streamPieces } from '../http/held-answer.ts'
import { formatSyncToken, parseSyncToken } from '../http/sync-token.ts'
import { escapeXml } from '../http/xml.ts'
import { davResource, guardContent, hrefOf, pieceChars, type Reading } from './dav-reading.ts'
import type { Parts } from './parts.ts'
import { TreeRequest } from './tree-request.ts'
import { shownRecord, treeReading } from './tree-view.ts'

/** Told in one answer: what follows is asked for with the token that comes with it. */
const maxMembers = 10_000

/** The members of a collection that are new, changed or gone since the client's token; at first, all that are there. */
export async function reportTreeChanges(parts: Parts, ctx: Context): Promise<void> {
  guardContent(ctx)
  const request = await TreeRequest.of(parts, ctx)
  const record = await request.existing(request.vault.tree)
  // Section 3.2: the level says what Depth says elsewhere.
  depthOf(ctx, [0], 0)
  const asked = syncRequest(await xmlBody(ctx, parts.questions))
  if (asked === undefined || record.kind !== 'directory') {
    throw davProblem('forbidden', 'only DAV:sync-collection of a collection is answered', 'supported-report')
  }
  const changes = await changesFor(request, asked)
  const reading = await treeReading(parts, ctx, 'tree')
  const stream = await streamPieces(ctx, listing(reading, changes, asked), {
    budget: parts.listings,
    pieceBytes: parts.limits.maxObjectBytes,
  })
  ctx.status = 207
  ctx.type = 'application/xml; charset=utf-8'
  ctx.body = stream
}

async function changesFor({ vault, names }: TreeRequest, asked: SyncRequest): Promise<Changes> {
  const { token, level, limit = maxMembers } = asked
  if (level !== '1') {
    throw davProblem(
      'forbidden',
      'only changes directly in a collection are told',
      'sync-traversal-supported',
    )
  }
  const since = token === '' ? undefined : parseSyncToken(token)
  const isOurs = token === '' || since !== undefined
  const changes = isOurs ? await vault.tree.changesIn(names, since, Math.min(limit, maxMembers)) : undefined
  if (changes !== undefined) return changes
  throw davProblem('forbidden', 'the sync token is none of ours, or too old', 'valid-sync-token')
}

async function* listing(
  reading: Reading,
  { changed, removed, token, isCut }: Changes,
  { names: wanted }: SyncRequest,
): AsyncGenerator<Buffer> {
  const { base, names } = reading
  const asked = { want: 'prop', names: wanted } as const
  let text = multistatusStart
  for (const { name, record } of changed) {
    const shown = shownRecord(name, record)
    text += responseXml(await davResource(reading, [...names, name], shown, asked), asked)
    if (text.length < pieceChars) continue
    yield Buffer.from(text, 'utf8')
    text = ''
  }
  for (const name of removed) {
    const href = escapeXml(hrefOf(base, [...names, name], 'file'))
    text += `<D:response><D:href>${href}</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>\n`
  }
  if (isCut) text += cutXml(hrefOf(base, names, 'directory'))
  text += `<D:sync-token>${escapeXml(formatSyncToken(token))}</D:sync-token>\n`
  yield Buffer.from(text + multistatusEnd, 'utf8')
}

/** That there is more: section 3.6. */
function cutXml(href: string): string {
  return `<D:response><D:href>${escapeXml(href)}</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status><D:error><D:number-of-matches-within-limits/></D:error></D:response>\n`
}
