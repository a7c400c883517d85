/**
 * COPY and MOVE: RFC 4918, sections 9.8 and 9.9. A MOVE out of the trash restores, and so does a COPY out of a
 * snapshot: a file manager that has the vault mounted needs nothing else.
 */
import { Problem } from '../../protocol/problem.ts'
import type { CopySource, Names, TreeChange, TreeRecord } from '../catalog/live-tree.ts'
import type { Context } from '../http/context.ts'
import { depthOf, destinationPath, mayOverwrite, ocMtimeNs } from '../http/dav-headers.ts'
import type { Parts } from './parts.ts'
import { answerMembers, lockedMember } from './tree-members.ts'
import { expectParent, parentOf, type TreeReadsBelow, TreeRequest, treePath } from './tree-request.ts'
import { treeTag } from './tree-view.ts'

interface Transfer {
  readonly request: TreeRequest
  readonly to: Names
  readonly overwrite: boolean
  readonly depth: 0 | 'infinity'
  readonly isMove: boolean
  /** What is copied, when it does not stand in the tree or the trash. */
  readonly outside?: OutsideSource
}

export interface OutsideSource extends CopySource {
  /** The ETag that it is shown with. */
  readonly etag: string | undefined
  /** The store's `losses` before it was looked up. */
  readonly since: number
}

interface Judgement {
  /** What stands at the destination. */
  readonly target: TreeRecord | undefined
  /** Hrefs of members that are locked. */
  readonly locked: readonly string[]
}

export async function copyTreePath(parts: Parts, ctx: Context, outside?: OutsideSource): Promise<void> {
  const transfer = { ...(await transferOf(parts, ctx)), ...(outside && { outside }) }
  const { request, to, depth } = transfer
  const { tree } = request.vault
  const mtimeNs = ocMtimeNs(ctx)
  let locked: readonly string[] = []
  const expectFree = async (change: TreeChange): Promise<void> => {
    const judged = await judge(transfer, change)
    locked = judged.locked
    if (locked.length > 0) throw new Problem('locked', 'members of the destination are locked')
  }
  try {
    const outcome =
      outside === undefined
        ? await tree.copy(request.names, to, depth, expectFree)
        : await tree.copyIn(outside, outside.since, to, depth, expectFree)
    if (mtimeNs !== undefined) await tree.change((change) => change.setTimes(to, { mtimeNs }))
    answer(ctx, outcome === 'replaced', mtimeNs)
  } catch (error) {
    if (locked.length === 0) throw error
    answerMembers(ctx, locked.map(lockedMember))
  }
}

/** Also what is in the trash. */
export async function moveTreePath(parts: Parts, ctx: Context): Promise<void> {
  const transfer = await transferOf(parts, ctx)
  const { request, to } = transfer
  const mtimeNs = ocMtimeNs(ctx)
  const { target, locked } = await request.vault.tree.change(async (change) => {
    const judged = await judge(transfer, change)
    if (judged.locked.length > 0) return judged
    if (judged.target !== undefined) await change.remove(to, 'overwritten')
    await change.move(request.names, to)
    if (mtimeNs !== undefined) await change.setTimes(to, { mtimeNs })
    return judged
  })
  if (locked.length > 0) answerMembers(ctx, locked.map(lockedMember))
  else answer(ctx, target !== undefined, mtimeNs)
}

async function transferOf(parts: Parts, ctx: Context): Promise<Transfer> {
  const request = await TreeRequest.of(parts, ctx)
  const isMove = ctx.method === 'MOVE'
  const destination = treePath(request.vault.name, destinationPath(ctx))
  if (destination === undefined || destination.names[0]?.toString() !== 'tree') {
    throw new Problem('forbidden', "the Destination must be in the vault's own tree/")
  }
  expectApart(request.names, destination.names, isMove)
  return {
    request,
    to: destination.names,
    overwrite: mayOverwrite(ctx),
    // Section 9.9.2: a collection moves whole. Of a file the header says nothing.
    depth: isMove ? 'infinity' : depthOf(ctx, [0, 'infinity'], 'infinity'),
    isMove,
  }
}

/** Problem `forbidden` when one of the two holds the other, or both are the same: sections 9.8.5 and 9.9.4. */
function expectApart(from: Names, to: Names, isMove: boolean): void {
  const stays = from[0]?.toString() === 'trash' ? 2 : 1
  if (from.length <= stays && isMove) throw new Problem('forbidden', 'this collection stays where it is')
  if (startsWith(from, to)) {
    throw new Problem('forbidden', 'the Destination is the resource itself, or a collection that holds it')
  }
  if (to.length === 1) throw new Problem('forbidden', 'the tree itself cannot be replaced')
}

/** Whether the first names of a path are those of another. */
function startsWith(names: Names, start: Names): boolean {
  return start.length <= names.length && start.every((name, i) => names[i]?.equals(name))
}

/** What speaks against it. */
async function judge(transfer: Transfer, change: TreeReadsBelow): Promise<Judgement> {
  const { request, to, overwrite, depth, isMove, outside } = transfer
  const from = request.names
  const source = outside?.record ?? (await request.existing(change))
  if (source.kind === 'directory' && isMove) depthOf(request.ctx, ['infinity'], 'infinity')
  if (source.kind === 'directory' && depth === 'infinity' && startsWith(to, from)) {
    throw new Problem('forbidden', 'the Destination is in the collection itself')
  }
  await request.expectPreconditions(change, source, outside === undefined ? treeTag(source) : outside.etag)
  await expectParent(change, to)
  const target = await change.find(to)
  if (target !== undefined && !overwrite) {
    throw new Problem('precondition-failed', 'there is something at the Destination, and Overwrite is F')
  }
  if (isMove) await request.expectUnlocked(change, from, parentOf(from))
  await request.expectUnlocked(change, to, ...(target === undefined ? [parentOf(to)] : []))
  const below = isMove ? await request.lockedBelow(change, from) : []
  return { target, locked: [...below, ...(await request.lockedBelow(change, to))] }
}

function answer(ctx: Context, replaced: boolean, mtimeNs: string | undefined): void {
  if (mtimeNs !== undefined) ctx.set('X-OC-Mtime', 'accepted')
  ctx.body = null
  ctx.status = replaced ? 204 : 201
}
