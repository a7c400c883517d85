/** REPORT: what changed in a collection, RFC 6578. */
import type { Changes, DirectoryRecord } from '../catalog/live-tree.ts'
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

/** The members of a collection that are new, changed or gone since the client's token; at first, all that are there. */
export async function reportTreeChanges(parts: Parts, ctx: Context): Promise<void> {
  guardContent(ctx)
  const request = await TreeRequest.of(parts, ctx)
  const { tree } = request.vault
  const record = await request.existing(tree)
  // Section 3.2: the level says what Depth says elsewhere.
  depthOf(ctx, [0], 0)
  const asked = syncRequest(await xmlBody(ctx, parts.questions))
  if (asked === undefined || record.kind !== 'directory') {
    throw davProblem('forbidden', 'only DAV:sync-collection of a collection is answered', 'supported-report')
  }
  const changes = await changesFor(request, record, asked)
  const reading = await treeReading(parts, ctx, 'tree')
  const stream = await streamPieces(ctx, listing(reading, changes, asked), {
    budget: parts.listings,
    pieceBytes: parts.limits.maxObjectBytes,
  })
  ctx.status = 207
  ctx.type = 'application/xml; charset=utf-8'
  ctx.body = stream
}

async function changesFor(
  { vault }: TreeRequest,
  record: DirectoryRecord,
  { token, level, limit }: SyncRequest,
): Promise<Changes> {
  if (level !== '1') {
    throw davProblem(
      'forbidden',
      'only changes directly in a collection are told',
      'sync-traversal-supported',
    )
  }
  const since = token === '' ? 0 : parseSyncToken(token)
  const changes = since === undefined ? undefined : await vault.tree.changesSince(record, since)
  if (changes === undefined) {
    throw davProblem('forbidden', 'the sync token is none of ours, or too old', 'valid-sync-token')
  }
  if (limit !== undefined && changes.changed.length + changes.removed.length > limit) {
    // Section 3.7: whoever cannot cut the answer short refuses.
    throw davProblem(
      'insufficient-storage',
      `more than ${limit} members have changed`,
      'number-of-matches-within-limits',
    )
  }
  return changes
}

async function* listing(
  reading: Reading,
  { changed, removed, token }: Changes,
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
  text += `<D:sync-token>${escapeXml(formatSyncToken(token))}</D:sync-token>\n`
  yield Buffer.from(text + multistatusEnd, 'utf8')
}
