import type Router from '@koa/router'
import Negotiator from 'negotiator'
import { type Block, payloadOf, verifyBlock } from '../../protocol/block.ts'
import { type Id, parseId } from '../../protocol/id.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { PutAnswer } from '../../protocol/schema.ts'
import { baseHeader, mediaTypes } from '../../protocol/url.ts'
import { isNotModified, requestedRange, setPartial } from '../http/conditional.ts'
import type { Context, RequestState } from '../http/context.ts'
import { sendHeld } from '../http/held-answer.ts'
import { immutableFor } from '../http/immutable.ts'
import { bodyEncoding, drainBody, withBody } from '../http/request-body.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import { chunkRoomBytes, maxEncodedBytes, receiveChunk, receiveDelta } from '../store/receive.ts'
import { idOf, type Parts, touchFor, vaultOf } from './parts.ts'
import { resource } from './resource.ts'

/** `/{vault}/chunks/{id}`: one chunk. */
export function chunkRoutes(router: Router<RequestState>, parts: Parts): void {
  resource(
    router,
    '/:vault/chunks/:id',
    {
      GET: (ctx) => getChunk(parts, ctx),
      PUT: (ctx) => putChunk(parts, ctx),
      PATCH: (ctx) => patchChunk(parts, ctx),
    },
    { acceptPatch: mediaTypes.delta, before: async (ctx) => void (await vaultOf(parts, ctx)) },
  )
}

async function putChunk(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const { store } = vault
  const id = idOf(ctx)
  const touch = await touchFor(parts, ctx, vault, id)
  const zstd = bodyEncoding(ctx, true) === 'zstd'
  const maxBytes = zstd ? maxEncodedBytes(parts.limits.maxChunkBytes) : parts.limits.maxChunkBytes
  const [size] = await store.stat([id])
  if (size !== undefined) {
    await touch.note([id])
    parts.metrics.spared(vault, [size])
    // Who waits for 100 Continue is spared the body; from others it is taken, so that the connection goes on.
    if (!ctx.state.expectsContinue) await drainBody(ctx, maxBytes)
    return answerPut(ctx, id, 'known')
  }
  const decodedBytes = zstd ? parts.limits.maxChunkBytes : 0
  const decoding = { budget: parts.decoding, bytes: () => decodedBytes }
  const rules = { maxBytes, zstd: true, decoding, roomBytes: chunkRoomBytes }
  const outcome = await withBody(ctx, parts.uploads, rules, async ({ bytes, withRoom, encoding }) => {
    const options = { maxBytes: parts.limits.maxChunkBytes, encoding, withRoom }
    return await receiveChunk(store, id, bytes, options)
  })
  await touch.note([id])
  answerPut(ctx, id, outcome)
}

async function patchChunk(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const id = idOf(ctx)
  if (ctx.is(mediaTypes.delta) === false) {
    throw new Problem('unsupported-media-type', `a chunk is patched by ${mediaTypes.delta}`)
  }
  bodyEncoding(ctx, false)
  const base = parseId(ctx.get(baseHeader))
  const touch = await touchFor(parts, ctx, vault, id)
  const { maxChunkBytes } = parts.limits
  if (await isPresent(vault.store, id)) {
    await touch.note([id])
    if (!ctx.state.expectsContinue) await drainBody(ctx, maxEncodedBytes(maxChunkBytes))
    return answerPut(ctx, id, 'known')
  }
  if (!(await isPresent(vault.store, base))) {
    throw new Problem('base-not-found', `${base} is not here`, { extensions: { base } })
  }
  const decoding = { budget: parts.decoding, bytes: () => 2 * maxChunkBytes }
  const rules = { maxBytes: maxEncodedBytes(maxChunkBytes), decoding }
  const outcome = await withBody(ctx, parts.uploads, rules, async ({ bytes }) => {
    return await receiveDelta(vault.store, id, base, bytes, { maxBytes: maxChunkBytes })
  })
  await touch.note([id])
  answerPut(ctx, id, outcome)
}

async function isPresent(store: ChunkStore, id: Id): Promise<boolean> {
  const [length] = await store.stat([id])
  return length !== undefined
}

function answerPut(ctx: Context, id: Id, outcome: PutAnswer['outcome']): void {
  ctx.status = outcome === 'stored' ? 201 : 200
  ctx.set('ETag', `"${id}"`)
  ctx.body = { id, outcome } satisfies PutAnswer
}

async function getChunk(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const id = idOf(ctx)
  const touch = await touchFor(parts, ctx, vault, id)
  const [size] = await vault.store.stat([id])
  if (size === undefined) throw chunkNotFound(id)
  await touch.note([id])
  const tag = `"${id}"`
  ctx.set('Cache-Control', immutableFor(ctx))
  ctx.set('Vary', 'Accept-Encoding')
  ctx.set('ETag', tag)
  if (isNotModified(ctx, [tag, `"${id}-zstd"`])) return
  ctx.set('Accept-Ranges', 'bytes')
  ctx.type = mediaTypes.chunk
  // Whether there is a zstd form is known only to who reads the block.
  if (ctx.method === 'HEAD' && !acceptsZstd(ctx)) {
    ctx.status = 200
    ctx.length = size
    return
  }
  const range = requestedRange(ctx, size, tag)
  await sendHeld(ctx, { budget: parts.downloads, pieceBytes: size }, async () => {
    const frame = range === undefined && acceptsZstd(ctx) ? await storedFrame(vault.store, id) : undefined
    if (frame !== undefined) {
      ctx.set('Content-Encoding', 'zstd')
      ctx.set('ETag', `"${id}-zstd"`)
      return frame
    }
    const plain = await vault.store.get(id)
    if (plain === undefined) throw chunkNotFound(id)
    // A copy: a view would keep all of the chunk in memory.
    return range === undefined ? plain : Buffer.from(plain.subarray(range.start, range.end))
  })
  if (range !== undefined) setPartial(ctx, range, size)
}

function acceptsZstd(ctx: Context): boolean {
  return new Negotiator(ctx.req).encodings(['zstd', 'identity'])[0] === 'zstd'
}

/**
 * The chunk's zstd frame as it is stored, when it has one to itself and decodes to what the id says; who
 * gets undefined reads the chunk by `get`, which finds the damage. Problem `chunk-corrupt`.
 */
async function storedFrame(store: ChunkStore, id: Id): Promise<Buffer | undefined> {
  for await (const block of store.blocks([id])) {
    const { encoding, rows } = block.header
    const isAlone = encoding === 'zstd' && rows.length === 1 && rows[0]?.id === id
    return isAlone && (await isTrue(block)) ? payloadOf(block) : undefined
  }
  throw new Problem('chunk-corrupt', `${id} is damaged on the receiver's disk`, { extensions: { id } })
}

/** Checksums say that the bytes are those that were written; only the hash says that they are the chunk. */
async function isTrue(block: Block): Promise<boolean> {
  try {
    await verifyBlock(block)
    return true
  } catch (error) {
    if (isProblem(error)) return false
    throw error
  }
}

function chunkNotFound(id: Id): Problem {
  return new Problem(
    'chunk-not-found',
    `chunk ${id} is not here, or was found damaged; sending it again brings it back`,
    { extensions: { id } },
  )
}
