/** LOCK and UNLOCK: RFC 4918, sections 6, 7, 9.10 and 9.11. */
import { randomUUID } from 'node:crypto'
import { Problem } from '../../protocol/problem.ts'
import type { Lock, TreeChange, TreeRecord } from '../catalog/live-tree.ts'
import { pathOf } from '../catalog/tree-records.ts'
import { type Context, hasBody } from '../http/context.ts'
import { type LockInfo, lockInfo, xmlBody } from '../http/dav-bodies.ts'
import { depthOf, lockTokenOf, timeoutSeconds } from '../http/dav-headers.ts'
import { davProblem } from '../http/dav-problem.ts'
import { type IncomingFile, receiveSmallFile } from '../store/incoming-file.ts'
import type { Parts } from './parts.ts'
import { answerMembers, lockedMember } from './tree-members.ts'
import { expectParent, parentOf, type TreeReads, TreeRequest } from './tree-request.ts'
import { activeLocks } from './tree-view.ts'

/** Locks what is at the path, or makes an empty file there and locks that; without a body, refreshes a lock. */
export async function lockTreePath(parts: Parts, ctx: Context): Promise<void> {
  const request = await TreeRequest.of(parts, ctx)
  // Of a refresh Depth says nothing: section 9.10.2. Who sends a body is told before it has come.
  const depth = hasBody(ctx.req) ? depthOf(ctx, [0, 'infinity'], 'infinity') : 'infinity'
  const root = await xmlBody(ctx, parts.questions)
  if (root === undefined) return await refresh(request)
  const wanted = { ...lockInfo(root), depth, timeoutSeconds: timeoutSeconds(ctx) }
  await expectLockable(request, request.vault.tree)
  const since = request.vault.store.losses
  const empty = await receiveSmallFile(request.vault.store, Buffer.alloc(0))
  const outcome = await request.vault.tree.change((change) =>
    add(request, change, wanted, { ...empty, since }),
  )
  if ('refused' in outcome) {
    const self = { href: outcome.self, status: '424 Failed Dependency', error: '' }
    return answerMembers(ctx, [...outcome.refused.map(lockedMember), self])
  }
  const { lock, kind, isNew } = outcome
  ctx.set('Lock-Token', `<${lock.token}>`)
  answerLock(request, lock, kind, isNew ? 201 : 200)
}

type Wanted = LockInfo & Pick<Lock, 'depth' | 'timeoutSeconds'>
type Outcome =
  | { readonly lock: Lock; readonly kind: TreeRecord['kind']; readonly isNew: boolean }
  | { readonly refused: string[]; readonly self: string }

/** What speaks against it but other locks; what stands there. */
async function expectLockable(request: TreeRequest, tree: TreeReads): Promise<TreeRecord | undefined> {
  const { names, endsInSlash } = request
  const record = await request.find(tree)
  if (record === undefined) {
    if (endsInSlash) throw new Problem('conflict', 'a path that ends in a slash can be no file')
    await expectParent(tree, names)
  }
  await request.expectPreconditions(tree, record)
  if (record === undefined) await request.expectUnlocked(tree, names, parentOf(names))
  return record
}

async function add(
  request: TreeRequest,
  change: TreeChange,
  wanted: Wanted,
  empty: IncomingFile & { since: number },
): Promise<Outcome> {
  const { names } = request
  const record = await expectLockable(request, change)
  const conflicting = (locks: readonly Lock[]): Lock[] =>
    locks.filter(({ scope }) => scope === 'exclusive' || wanted.scope === 'exclusive')
  const inTheWay = conflicting(await change.locksOn(names))
  if (inTheWay.length > 0) {
    throw davProblem(
      'locked',
      'another lock is in the way',
      'no-conflicting-lock',
      await request.rootsOf(change, inTheWay),
    )
  }
  const below = wanted.depth === 'infinity' ? conflicting(await change.locksBelow(names)) : []
  if (below.length > 0) {
    return {
      refused: await request.rootsOf(change, below),
      self: request.hrefOf(names, record?.kind ?? 'file'),
    }
  }
  if (record === undefined) await change.putFile(names, empty)
  const lock: Lock = {
    ...wanted,
    path: pathOf(names),
    token: `urn:uuid:${randomUUID()}`,
    expiresAtMs: Date.now() + wanted.timeoutSeconds * 1000,
  }
  await change.addLock(lock)
  return { lock, kind: record?.kind ?? 'file', isNew: record === undefined }
}

/** Starts the time of the lock that `If` names again: section 9.10.2. */
async function refresh(request: TreeRequest): Promise<void> {
  const { ctx, vault, names, ifHeader } = request
  if (ifHeader === undefined) {
    throw new Problem('invalid-request', 'LOCK needs a body, or an If header with the lock to refresh')
  }
  const { lock, kind } = await vault.tree.change(async (change) => {
    const record = await request.existing(change)
    await request.expectPreconditions(change, record)
    const found = (await change.locksOn(names)).find(({ token }) => ifHeader.tokens.has(token))
    if (found === undefined) {
      throw davProblem(
        'precondition-failed',
        'none of the locks on this resource is named in the If header',
        'lock-token-matches-request-uri',
      )
    }
    const refreshed = await change.refreshLock(found, timeoutSeconds(ctx, found.timeoutSeconds))
    return { lock: refreshed, kind: record.kind }
  })
  answerLock(request, lock, kind, 200)
}

/** Section 9.10.1. */
function answerLock(
  { ctx, vault, names }: TreeRequest,
  lock: Lock,
  kind: TreeRecord['kind'],
  status: number,
): void {
  const discovery = activeLocks(vault.name, [lock], names, kind)
  ctx.status = status
  ctx.type = 'application/xml; charset=utf-8'
  ctx.body = `<?xml version="1.0" encoding="utf-8"?>\n<D:prop xmlns:D="DAV:"><D:lockdiscovery>${discovery}</D:lockdiscovery></D:prop>\n`
}

/** Removes the lock that `Lock-Token` names, from all that it holds for. */
export async function unlockTreePath(parts: Parts, ctx: Context): Promise<void> {
  const request = await TreeRequest.of(parts, ctx)
  const token = lockTokenOf(ctx)
  await request.vault.tree.change(async (change) => {
    await request.expectIf(change)
    const lock = (await change.locksOn(request.names)).find((one) => one.token === token)
    if (lock === undefined) {
      throw davProblem('conflict', 'there is no such lock on this resource', 'lock-token-matches-request-uri')
    }
    await change.removeLock(lock)
  })
  ctx.status = 204
}
