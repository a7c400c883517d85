import type Router from '@koa/router'
import Negotiator from 'negotiator'
import { type Id, parseId } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, FileObject, ObjectAnswer, Part } from '../../protocol/schema.ts'
import { baseHeader, mediaTypes } from '../../protocol/url.ts'
import type { InTurn } from '../catalog/closure.ts'
import { readContent } from '../catalog/content.ts'
import { applyObjectPatch, parsePatch } from '../catalog/object-patch.ts'
import { decodeObject, type ObjectKind, readObject, readObjectBytes } from '../catalog/objects.ts'
import { overSignal } from '../http/client-gone.ts'
import { clientOf } from '../http/client-name.ts'
import { isNotModified, requestedRange, setPartial } from '../http/conditional.ts'
import type { Context, RequestState } from '../http/context.ts'
import { sendHeld, streamPieces } from '../http/held-answer.ts'
import { immutableFor } from '../http/immutable.ts'
import { bodyEncoding, drainBody, plainBytes, type RequestBody, withBody } from '../http/request-body.ts'
import { maxEncodedBytes, receiveChunk } from '../store/receive.ts'
import type { Vault } from '../vaults.ts'
import { idOf, inWalk, type Parts, touchFor, vaultOf } from './parts.ts'
import { resource } from './resource.ts'

/** What an object takes in memory, decoded, for each of its bytes: the bytes, their text and the values. */
const decodedFactor = 3

type StoredObject = FileObject | DirectoryObject

/** `/{vault}/files/{id}`: a file object. PUT and PATCH of `/{vault}/dirs/{id}` work alike and are here too. */
export function objectRoutes(router: Router<RequestState>, parts: Parts): void {
  resource(
    router,
    '/:vault/files/:id',
    {
      GET: (ctx) => getFile(parts, ctx),
      PUT: (ctx) => putObject(parts, ctx, 'file'),
      PATCH: (ctx) => patchObject(parts, ctx, 'file'),
    },
    { acceptPatch: mediaTypes.jsonPatch, before: async (ctx) => void (await vaultOf(parts, ctx)) },
  )
}

/** Takes an object. What is here already is answered at once, with what is missing below it. */
export async function putObject(parts: Parts, ctx: Context, kind: ObjectKind): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const id = idOf(ctx)
  const touch = await touchFor(parts, ctx, vault, id)
  const zstd = bodyEncoding(ctx, true) === 'zstd'
  const { maxObjectBytes } = parts.limits
  const maxBytes = zstd ? maxEncodedBytes(maxObjectBytes) : maxObjectBytes
  if (await answerKnown(parts, ctx, vault, kind, id)) {
    await touch.note([id])
    if (!ctx.state.expectsContinue) await drainBody(ctx, maxBytes)
    return
  }
  const decodedBytes = ({ bytes }: RequestBody): number =>
    decodedFactor * (zstd ? maxObjectBytes : bytes.length)
  await withBody(
    ctx,
    parts.uploads,
    { maxBytes, zstd, decoding: { budget: parts.decoding, bytes: decodedBytes } },
    async (body) => {
      const bytes = await plainBytes(body, maxObjectBytes)
      await storeObject(parts, ctx, vault, kind, id, bytes)
    },
  )
  await touch.note([id])
}

/**
 * Sets the answer about an object that is here; false when it is not. The object is in memory meanwhile only,
 * not until its body has come.
 */
async function answerKnown(
  parts: Parts,
  ctx: Context,
  vault: Vault,
  kind: ObjectKind,
  id: Id,
): Promise<boolean> {
  const [length] = await vault.store.stat([id])
  if (length === undefined || length > parts.limits.maxObjectBytes) return false
  const reservation = await parts.decoding.of(clientOf(ctx)).reserve(decodedFactor * length, overSignal(ctx))
  try {
    const known = await storedObject(vault, kind, id)
    if (known === undefined) return false
    parts.metrics.spared(vault, [length])
    await answerObject(parts, ctx, vault, kind, id, known, 'known')
    return true
  } finally {
    reservation.release()
  }
}

/** The object, when it is here; undefined when it is absent, damaged, or no object of that kind. */
async function storedObject({ catalog }: Vault, kind: ObjectKind, id: Id): Promise<StoredObject | undefined> {
  try {
    return decodeObject(kind, await readObjectBytes(catalog.reader, kind, id))
  } catch (error) {
    if (isProblem(error, 'not-found') || isProblem(error, 'chunk-corrupt')) return undefined
    throw error
  }
}

async function storeObject(
  parts: Parts,
  ctx: Context,
  vault: Vault,
  kind: ObjectKind,
  id: Id,
  bytes: Buffer,
): Promise<void> {
  const object = decodeObject(kind, bytes)
  const outcome = await receiveChunk(vault.store, id, bytes, { maxBytes: bytes.length, encoding: 'identity' })
  await answerObject(parts, ctx, vault, kind, id, object, outcome)
}

async function answerObject(
  parts: Parts,
  ctx: Context,
  vault: Vault,
  kind: ObjectKind,
  id: Id,
  object: StoredObject,
  outcome: ObjectAnswer['outcome'],
): Promise<void> {
  const inTurn: InTurn = (walk) => inWalk(parts, ctx, walk)
  const missing = await vault.catalog.closure.lacking({ id, as: kind, within: id }, object, inTurn)
  ctx.status = outcome === 'stored' ? 201 : 200
  ctx.body = { id, outcome, whole: missing.length === 0, missing } satisfies ObjectAnswer
}

/** Makes an object from another: RFC 6902. */
export async function patchObject(parts: Parts, ctx: Context, kind: ObjectKind): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const id = idOf(ctx)
  if (ctx.is(mediaTypes.jsonPatch) === false) {
    throw new Problem('unsupported-media-type', `an object is patched by ${mediaTypes.jsonPatch}`)
  }
  const base = parseId(ctx.get(baseHeader))
  const touch = await touchFor(parts, ctx, vault, id)
  const noBase = new Problem('base-not-found', `there is no ${kind} object ${base}`, { extensions: { base } })
  const [length] = await vault.store.stat([base])
  if (length === undefined) throw noBase
  const { maxJsonBytes, maxObjectBytes } = parts.limits
  // The base and what becomes of it.
  const decodedBytes = decodedFactor * (length + maxObjectBytes)
  const rules = { maxBytes: maxJsonBytes, decoding: { budget: parts.decoding, bytes: () => decodedBytes } }
  await withBody(ctx, parts.uploads, rules, async ({ bytes }) => {
    const object = await storedObject(vault, kind, base)
    if (object === undefined) throw noBase
    const patched = await applyObjectPatch(object, parsePatch(bytes.toString('utf8')), maxObjectBytes)
    await storeObject(parts, ctx, vault, kind, id, patched)
  })
  await touch.note([id])
}

async function getFile(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const id = idOf(ctx)
  const touch = await touchFor(parts, ctx, vault, id)
  const accepted = new Negotiator(ctx.req).mediaTypes([
    mediaTypes.file,
    'application/json',
    mediaTypes.chunk,
  ])[0]
  if (accepted === undefined) {
    throw new Problem('not-acceptable', `a file is ${mediaTypes.file} or ${mediaTypes.chunk}`)
  }
  ctx.set('Vary', 'Accept')
  if (accepted === mediaTypes.chunk) {
    const bytes = await decodingBytes(vault, 'file', id)
    const reservation = await parts.decoding.of(clientOf(ctx)).reserve(bytes, overSignal(ctx))
    const { size } = await readObject(vault.catalog.reader, 'file', id).finally(() => reservation.release())
    await sendContent(parts, ctx, vault, { id, size, chunked: true })
  } else {
    await sendObject(parts, ctx, vault, 'file', id)
  }
  await touch.note([id])
}

/** An object's JSON, as it was stored. Problem `not-found` when it is not here. */
export async function sendObject(
  parts: Parts,
  ctx: Context,
  vault: Vault,
  kind: ObjectKind,
  id: Id,
): Promise<void> {
  const { reader } = vault.catalog
  const holding = { budget: parts.downloads, pieceBytes: await decodingBytes(vault, kind, id) }
  await sendHeld(ctx, holding, () => readObjectBytes(reader, kind, id))
  // The content of a file has the tag `"{id}"`, under the same path; a directory has but one form.
  const tag = kind === 'file' ? `"${id}-object"` : `"${id}"`
  setImmutable(ctx, tag)
  if (isNotModified(ctx, [tag])) return
  ctx.type = kind === 'file' ? mediaTypes.file : mediaTypes.directory
}

/**
 * Memory for reading and decoding an object: its bytes, and what is made of them. Problem `not-found` when
 * there is no object under the id.
 */
async function decodingBytes({ catalog }: Vault, kind: ObjectKind, id: Id): Promise<number> {
  const [length] = await catalog.reader.stat([id])
  if (length === undefined || length > limits.maxObjectBytes) {
    throw new Problem('not-found', `there is no ${kind} object ${id}`)
  }
  return decodedFactor * length
}

/** A file's content, or the range of it that is asked for, as fast as the client takes it. */
export async function sendContent(parts: Parts, ctx: Context, vault: Vault, part: Part): Promise<void> {
  const tag = `"${part.id}"`
  setImmutable(ctx, tag)
  if (isNotModified(ctx, [tag])) return
  ctx.set('Accept-Ranges', 'bytes')
  ctx.type = mediaTypes.chunk
  const range = requestedRange(ctx, part.size, tag)
  const { start, end } = range ?? { start: 0, end: part.size }
  if (ctx.method === 'HEAD') {
    ctx.status = 200
  } else {
    const pieces = readContent(vault.catalog.reader, part, { start, end }, overSignal(ctx))
    const { maxChunkBytes } = parts.limits
    const holding = { budget: parts.downloads, pieceBytes: maxChunkBytes, totalBytes: end - start }
    ctx.body = await streamPieces(ctx, pieces, holding)
    if (range !== undefined) setPartial(ctx, range, part.size)
  }
  ctx.length = end - start
}

function setImmutable(ctx: Context, tag: string): void {
  ctx.set('Cache-Control', immutableFor(ctx))
  ctx.set('ETag', tag)
}
