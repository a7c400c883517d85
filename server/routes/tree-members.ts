/** MKCOL and DELETE: RFC 4918, sections 9.3 and 9.6. */
import { isProblem, Problem } from '../../protocol/problem.ts'
import { encodeSegment } from '../../protocol/url.ts'
import type { Context } from '../http/context.ts'
import { depthOf } from '../http/dav-headers.ts'
import { errorXml } from '../http/dav-problem.ts'
import { multistatusEnd, multistatusStart } from '../http/dav-xml.ts'
import { withBody } from '../http/request-body.ts'
import { escapeXml } from '../http/xml.ts'
import type { Parts } from './parts.ts'
import { answerMultistatus } from './propfind.ts'
import { expectParent, parentOf, type TreeReads, TreeRequest } from './tree-request.ts'

/** Makes an empty collection. */
export async function makeTreeCollection(parts: Parts, ctx: Context): Promise<void> {
  const request = await TreeRequest.of(parts, ctx)
  const { vault, names } = request
  const judge = async (tree: TreeReads): Promise<void> => {
    const record = await tree.find(names)
    if (record !== undefined) throw new Problem('method-not-allowed', 'there is something already')
    await expectParent(tree, names)
    await request.expectPreconditions(tree, record)
    await request.expectUnlocked(tree, names, parentOf(names))
  }
  await judge(vault.tree)
  await expectNoBody(parts, ctx)
  await vault.tree.change(async (change) => {
    await judge(change)
    await change.makeCollection(names)
  })
  ctx.body = null
  ctx.status = 201
}

/** Clients send an empty body in chunks too. Problem `unsupported-media-type`. */
export async function expectNoBody(parts: Parts, ctx: Context): Promise<void> {
  const unknown = (cause?: unknown): Problem =>
    new Problem('unsupported-media-type', 'MKCOL takes no body', { cause })
  if (Number(ctx.get('Content-Length') || 0) > 0) throw unknown()
  try {
    await withBody(ctx, parts.questions, { maxBytes: 0 }, async () => {})
  } catch (error) {
    throw isProblem(error, 'body-too-large') ? unknown(error) : error
  }
}

/** Moves a file or a collection to the trash, whole or not at all. */
export async function deleteTreePath(parts: Parts, ctx: Context): Promise<void> {
  const request = await TreeRequest.of(parts, ctx)
  const { vault, names } = request
  if (names.length === 1) throw new Problem('forbidden', 'the tree itself stays')
  const locked = await vault.tree.change(async (change) => {
    const record = await request.existing(change)
    if (record.kind === 'directory') depthOf(ctx, ['infinity'], 'infinity')
    await request.expectPreconditions(change, record)
    await request.expectUnlocked(change, names, parentOf(names))
    const below = await request.lockedBelow(change, names)
    if (below.length === 0) await change.remove(names)
    return below
  })
  if (locked.length > 0) return answerMembers(ctx, locked.map(lockedMember))
  noteTreeEvent(parts, request, 'deleted')
  ctx.status = 204
}

/** In the audit: what was done at the path of a request. */
export function noteTreeEvent(
  parts: Parts,
  { ctx, vault, names }: TreeRequest,
  event: 'deleted' | 'trash-removed',
): void {
  const { who, client } = ctx.state
  parts.audit.note({
    event,
    who: who.name,
    from: client,
    vault: vault.name,
    path: names.map(encodeSegment).join('/'),
  })
}

/** Removes an item of the trash for good. */
export async function purgeTrashItem(parts: Parts, ctx: Context): Promise<void> {
  const request = await TreeRequest.of(parts, ctx)
  const { vault, names } = request
  if (names.length !== 2) throw new Problem('forbidden', 'things in the trash are removed item by item')
  await vault.tree.change(async (change) => {
    await request.expectPreconditions(change, await request.existing(change))
    await change.remove(names)
  })
  noteTreeEvent(parts, request, 'trash-removed')
  parts.vaults.noteRemoved(vault.name)
  ctx.status = 204
}

export interface RefusedMember {
  readonly href: string
  /** Such as `423 Locked`. */
  readonly status: string
  /** `D:error`, or nothing. */
  readonly error: string
}

export function lockedMember(href: string): RefusedMember {
  return { href, status: '423 Locked', error: errorXml('lock-token-submitted', [href]) }
}

/** The multistatus of a method that was refused because of members: section 9.6.1. */
export function answerMembers(ctx: Context, members: readonly RefusedMember[]): void {
  const responses = members.map(
    ({ href, status, error }) =>
      `<D:response><D:href>${escapeXml(href)}</D:href><D:status>HTTP/1.1 ${status}</D:status>${error}</D:response>\n`,
  )
  answerMultistatus(ctx, multistatusStart + responses.join('') + multistatusEnd)
}
