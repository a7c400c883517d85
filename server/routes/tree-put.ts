import { Problem } from '../../protocol/problem.ts'
import type { Part } from '../../protocol/schema.ts'
import { againAfterLoss } from '../catalog/again-after-loss.ts'
import type { TreeRecord } from '../catalog/live-tree.ts'
import { overSignal } from '../http/client-gone.ts'
import { clientOf } from '../http/client-name.ts'
import type { Context } from '../http/context.ts'
import { type Checksums, ocChecksums, ocMtimeNs } from '../http/dav-headers.ts'
import type { MemoryBudget } from '../http/memory-budget.ts'
import { uncountedTextBytes, withBody } from '../http/request-body.ts'
import { streamedBody } from '../http/streamed-body.ts'
import type { Lease } from '../store/collectable.ts'
import { type IncomingFile, receiveFile, receiveSmallFile, smallFileBytes } from '../store/incoming-file.ts'
import type { Vault } from '../vaults.ts'
import type { Parts } from './parts.ts'
import { expectParent, parentOf, type TreeReads, TreeRequest } from './tree-request.ts'
import { treeTag } from './tree-view.ts'

/**
 * PUT: RFC 4918, section 9.7. What stands there changes only when all of the new content is stored and was
 * found to be what the client says; the answer says that it is durable.
 */
export async function putTreeFile(parts: Parts, ctx: Context): Promise<void> {
  const request = await TreeRequest.of(parts, ctx)
  const { vault, names } = request
  if (ctx.get('Content-Range') !== '') {
    // RFC 9110, section 14.5: taken for the whole, a part would destroy the rest.
    throw new Problem('invalid-request', 'a part of a file cannot be put')
  }
  const mtimeNs = ocMtimeNs(ctx)
  const checksums = ocChecksums(ctx)
  await judge(request, vault.tree)
  // Nothing refers to the content until the record stands: garbage collection must not take it for garbage.
  const lease = vault.store.lease()
  try {
    const begun = vault.store.losses
    const { part, md5, sha1 } = await receive(parts, ctx, vault, lease)
    expectChecksums(checksums, { md5, sha1 })
    const { record, isNew } = await againAfterLoss(vault.store, async () => {
      const since = vault.store.losses
      if (since !== begun) await expectHere(vault, part)
      return await vault.tree.change(async (change) => {
        const old = await judge(request, change)
        const content = { part, md5, sha1, since, ...(mtimeNs !== undefined && { mtimeNs }) }
        return { record: await change.putFile(names, content), isNew: old === undefined }
      })
    })
    answerPut(ctx, record, isNew)
  } finally {
    lease.release()
  }
  if (mtimeNs !== undefined) ctx.set('X-OC-Mtime', 'accepted')
}

/** What speaks against the write; what stands there now. */
async function judge(request: TreeRequest, tree: TreeReads): Promise<TreeRecord | undefined> {
  const { names, endsInSlash } = request
  const record = await tree.find(names)
  if (record?.kind === 'directory') {
    throw new Problem('method-not-allowed', 'a collection has no content to replace')
  }
  if (endsInSlash) throw new Problem('conflict', 'a path that ends in a slash can be no file')
  await expectParent(tree, names)
  await request.expectPreconditions(tree, record)
  // A new name changes the collection that it is in: section 7.4.
  await request.expectUnlocked(tree, names, ...(record === undefined ? [parentOf(names)] : []))
  return record
}

/** Files up to here are there within a bounded time, and share the memory of the other bodies. */
const shortFileBytes = 4 * 1024 * 1024

/** Something was lost since the content was stored, of others perhaps. Problem `unavailable` when some of this is gone. */
async function expectHere({ catalog }: Vault, { id, size, chunked }: Part): Promise<void> {
  const wanted = { id, size, as: chunked === true ? 'file' : 'chunk', within: id } as const
  const [gone] = await catalog.closure.incomplete([wanted], 1)
  if (gone !== undefined)
    throw new Problem('unavailable', 'what was stored was lost meanwhile; send the request again')
}

/** A short body is taken whole; others go into the store as they come. */
async function receive(parts: Parts, ctx: Context, { store }: Vault, lease: Lease): Promise<IncomingFile> {
  let budget: MemoryBudget = parts.streams
  const body = streamedBody(ctx, () => budget.isPressed)
  const { announcedBytes = Number.POSITIVE_INFINITY } = body
  if (announcedBytes <= shortFileBytes) budget = parts.uploads
  if (announcedBytes <= smallFileBytes) {
    // What is stored is compressed: its bytes are there twice.
    const isNote = announcedBytes <= uncountedTextBytes
    const rules = {
      maxBytes: smallFileBytes,
      decoding: { budget: parts.decoding, bytes: isNote ? () => 0 : () => announcedBytes },
      // So that a note can be saved while large files come slowly, and hold all the memory that there is for them.
      uncountedBytes: uncountedTextBytes,
    }
    return await withBody(ctx, parts.uploads, rules, ({ bytes }) => receiveSmallFile(store, bytes, lease))
  }
  return await receiveFile(store, body, parts.cutting, {
    memory: budget.of(clientOf(ctx)),
    announcedBytes: body.announcedBytes,
    signal: overSignal(ctx),
    lease,
  })
}

function expectChecksums(wanted: Checksums, actual: Required<Checksums>): void {
  for (const kind of ['sha1', 'md5'] as const) {
    if (wanted[kind] === undefined || wanted[kind] === actual[kind]) continue
    // No status that makes a client delete the file that is there: rclone does for 403, 412 and 507.
    throw new Problem('digest-mismatch', `the body does not have the ${kind} that OC-Checksum says`, {
      extensions: { expected: wanted[kind], actual: actual[kind] },
    })
  }
}

function answerPut(ctx: Context, record: TreeRecord, isNew: boolean): void {
  const tag = treeTag(record) ?? ''
  ctx.set('ETag', tag)
  ctx.set('OC-ETag', tag)
  ctx.body = null
  ctx.status = isNew ? 201 : 204
}
