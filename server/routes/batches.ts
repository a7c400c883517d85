import type { ServerResponse } from 'node:http'
import type Router from '@koa/router'
import {
  assembleBlock,
  type Block,
  batchMediaType,
  decodeBlock,
  discard,
  extentOf,
  sliceRow,
} from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import { FetchRequest, type MissingAnswer, MissingRequest, parseJson } from '../../protocol/schema.ts'
import type { Context, RequestState } from '../http/context.ts'
import { streamPieces } from '../http/held-answer.ts'
import { bodyEncoding, type RequestBody, withBody, withText } from '../http/request-body.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import { receiveBatch } from '../store/receive.ts'
import type { Judge } from '../store/verifying-thread.ts'
import { noTouch, type Parts, touchFor, vaultOf } from './parts.ts'
import { resource } from './resource.ts'

/** What a chunk and a block of a batch take in memory beside their bytes, until it is answered (measured). */
const chunkCost = 250
const blockCost = 500

/** `/{vault}/chunks/`, `…/missing` and `…/fetch`: many chunks in one request. */
export function batchRoutes(router: Router<RequestState>, parts: Parts): void {
  const before = async (ctx: Context): Promise<void> => void (await vaultOf(parts, ctx))
  resource(router, '/:vault/chunks/', { POST: (ctx) => postBatch(parts, ctx) }, { before })
  resource(router, '/:vault/chunks/missing', { POST: (ctx) => postMissing(parts, ctx) }, { before })
  resource(router, '/:vault/chunks/fetch', { POST: (ctx) => postFetch(parts, ctx) }, { before })
}

async function postBatch(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  if (ctx.is(batchMediaType) === false) {
    throw new Problem('unsupported-media-type', `a batch is ${batchMediaType}`)
  }
  const touch = await touchFor(parts, ctx, vault)
  bodyEncoding(ctx, false)
  const { maxBatchBytes, maxBatchChunks: maxChunks } = parts.limits
  const rules = { maxBytes: maxBatchBytes, decoding: { budget: parts.decoding, bytes: decodingBytes } }
  ctx.body = await withBody(ctx, parts.uploads, rules, async ({ bytes, moved }) => {
    const judge: Judge = async (body, plainBytes) => {
      const judged = await parts.verifying.judge(body, plainBytes)
      moved(judged.body)
      return judged
    }
    const { losses } = vault.store
    const { answer, kept, mayBeObject, objects } = await receiveBatch(vault.store, bytes, {
      maxChunks,
      lease: touch.lease,
      judge,
    })
    await touch.note(kept, (id) => !mayBeObject(id))
    vault.catalog.closure.arrivals.note(objects, losses)
    return answer
  })
}

function decodingBytes({ bytes }: RequestBody): number {
  const { decodedBytes, blocks, chunks } = extentOf(bytes)
  return decodedBytes + blocks * blockCost + chunks * chunkCost
}

async function postMissing(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const touch = await touchFor(parts, ctx, vault)
  const { maxJsonBytes, maxMissingIds } = parts.limits
  ctx.body = await withText(ctx, parts.questions, maxJsonBytes, async (text) => {
    const { ids } = parseJson(MissingRequest, text)
    if (ids.length > maxMissingIds) {
      throw new Problem('body-too-large', `one request asks about at most ${maxMissingIds} ids`)
    }
    const asked = [...new Set(ids)]
    for (const id of asked) touch.lease.add(id)
    const sizes = await vault.store.stat(asked)
    await touch.note(asked.filter((_, position) => sizes[position] !== undefined))
    parts.metrics.spared(vault, sizes)
    const missing = asked.filter((_, position) => sizes[position] === undefined)
    return { missing } satisfies MissingAnswer
  })
}

async function postFetch(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const touch = await touchFor(parts, ctx, vault)
  const { ids } = await withText(ctx, parts.questions, parts.limits.maxJsonBytes, async (text) => {
    return parseJson(FetchRequest, text)
  })
  for (const id of ids) touch.lease.add(id)
  if (touch !== noTouch) {
    const sizes = await vault.store.stat(ids)
    await touch.note(ids.filter((_, position) => sizes[position] !== undefined))
  }
  ctx.status = 200
  ctx.type = batchMediaType
  const holding = { budget: parts.downloads, pieceBytes: parts.limits.maxBlockBytes }
  ctx.body = await streamPieces(ctx, fetched(vault.store, ids, ctx.res), holding)
}

/** When the next piece is asked for and nothing waits to be sent, the one before has left, and its memory is free. */
async function* fetched(
  store: ChunkStore,
  ids: readonly Id[],
  answer: Pick<ServerResponse, 'writableLength'>,
): AsyncGenerator<Buffer> {
  const asked = new Set(ids)
  for await (const block of store.blocks(ids)) {
    const { bytes } = await narrowed(block, asked)
    yield bytes
    if (answer.writableLength === 0) discard(bytes)
  }
}

/** The block, or a new one of only what was asked for, where that is less than a quarter of it. */
async function narrowed(block: Block, asked: ReadonlySet<Id>): Promise<Block> {
  const rows = block.header.rows.filter(({ id }) => asked.has(id))
  const bytes = rows.reduce((sum, row) => sum + row.length, 0)
  if (bytes * 4 >= block.header.plainBytes) return block
  const plain = await decodeBlock(block)
  const narrow = assembleBlock(rows, 'identity', Buffer.concat(rows.map((row) => sliceRow(plain, row))))
  for (const { bytes } of [block, { bytes: plain }]) discard(bytes)
  return narrow
}
