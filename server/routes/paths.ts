import type Router from '@koa/router'
import type { Id } from '../../protocol/id.ts'
import { nameBytes } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { DirectoryEntry, Entry, FileEntry } from '../../protocol/schema.ts'
import { mediaTypes } from '../../protocol/url.ts'
import { entriesOf, resolvePath } from '../catalog/directory.ts'
import { readObjectBytes } from '../catalog/objects.ts'
import { overSignal } from '../http/client-gone.ts'
import type { Context, RequestState } from '../http/context.ts'
import {
  collection,
  type DavResource,
  multistatusEnd,
  multistatusStart,
  type PropertyName,
  type PropertyValue,
  responseXml,
} from '../http/dav-xml.ts'
import { streamPieces } from '../http/held-answer.ts'
import { encodeSegment, pathNames } from '../http/path-names.ts'
import type { Vault } from '../vaults.ts'
import { patchObject, putObject, sendContent, sendObject } from './objects.ts'
import { idOf, type Parts, touchFor, vaultOf } from './parts.ts'
import { type Propfind, readPropfind } from './propfind.ts'
import { resource } from './resource.ts'

/** What WebDAV can show: it knows no symlinks and no devices. */
type ShownEntry = FileEntry | DirectoryEntry

/** Text of a multistatus that is sent at once. */
const pieceChars = 64 * 1024

/** `/{vault}/dirs/{id}` and the paths below it. */
export function pathRoutes(router: Router<RequestState>, parts: Parts): void {
  const before = async (ctx: Context): Promise<void> => void (await vaultOf(parts, ctx))
  const reading = {
    GET: (ctx: Context) => getPath(parts, ctx),
    PROPFIND: (ctx: Context) => propfindPath(parts, ctx),
  }
  resource(
    router,
    '/:vault/dirs/:id',
    {
      ...reading,
      PUT: (ctx) => putObject(parts, ctx, 'directory'),
      PATCH: (ctx) => patchObject(parts, ctx, 'directory'),
    },
    { acceptPatch: mediaTypes.jsonPatch, before },
  )
  resource(router, '/:vault/dirs/:id/{*path}', reading, { before })
}

async function getPath(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const root = idOf(ctx)
  const names = pathNames(ctx.path, 3)
  const touch = await touchFor(parts, ctx, vault, root)
  const { reader } = vault.catalog
  const entry = await resolvePath(reader, root, names, overSignal(ctx))
  await touch.note([root])
  if (entry === undefined || entry.kind === 'directory') {
    const id = entry?.id ?? root
    return await sendObject(parts, ctx, vault, 'directory', id)
  }
  if (entry.kind !== 'file') throw new Problem('not-found', `a ${entry.kind} has no content`)
  await sendContent(parts, ctx, vault, entry)
}

async function propfindPath(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const root = idOf(ctx)
  const names = pathNames(ctx.path, 3)
  const asked = await readPropfind(ctx, parts.questions)
  if (asked === undefined) return
  const signal = overSignal(ctx)
  const entry = await resolvePath(vault.catalog.reader, root, names, signal)
  if (entry !== undefined && !isShown(entry)) throw new Problem('not-found', `a ${entry.kind} is not shown`)
  const base = ['', vault.name, 'dirs', root, ...names.map(encodeSegment)].join('/')
  const pieces = listing(vault, { base, root, entry }, asked, signal)
  const stream = await streamPieces(ctx, pieces, {
    budget: parts.downloads,
    pieceBytes: parts.limits.maxObjectBytes,
  })
  ctx.status = 207
  ctx.type = 'application/xml; charset=utf-8'
  ctx.body = stream
}

interface Listed {
  /** Path of what is listed, without a slash at its end. */
  readonly base: string
  readonly root: Id
  /** Undefined for the root itself. */
  readonly entry: ShownEntry | undefined
}

/** The multistatus in pieces: a directory of any length is never in memory whole. */
async function* listing(
  vault: Vault,
  { base, root, entry }: Listed,
  asked: Propfind,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const { reader } = vault.catalog
  const id = entry === undefined ? root : entry.id
  if (entry === undefined) await readObjectBytes(reader, 'directory', root)
  const self = entry === undefined ? rootResource(base, root) : entryResource(base, entry)
  let text = multistatusStart + responseXml(self, asked)
  if (asked.depth === 1 && entry?.kind !== 'file') {
    for await (const member of entriesOf(reader, id, signal)) {
      if (!isShown(member)) continue
      text += responseXml(entryResource(`${base}/${encodeSegment(nameBytes(member))}`, member), asked)
      if (text.length < pieceChars) continue
      yield Buffer.from(text, 'utf8')
      text = ''
    }
  }
  yield Buffer.from(text + multistatusEnd, 'utf8')
}

function isShown(entry: Entry): entry is ShownEntry {
  return entry.kind === 'file' || entry.kind === 'directory'
}

function rootResource(base: string, root: Id): DavResource {
  const { href, properties } = collection(`${base}/`, Buffer.from(root))
  return { href, properties: new Map([...properties, ['DAV: getetag', `"${root}"`]]) }
}

function entryResource(base: string, entry: ShownEntry): DavResource {
  const isDirectory = entry.kind === 'directory'
  return {
    href: isDirectory ? `${base}/` : base,
    properties: new Map<PropertyName, PropertyValue>([
      ['DAV: resourcetype', isDirectory ? { xml: '<D:collection/>' } : ''],
      ['DAV: displayname', nameBytes(entry).toString('utf8')],
      ...(isDirectory ? [] : ([['DAV: getcontentlength', String(entry.size)]] as const)),
      ['DAV: getlastmodified', httpDate(entry.mtimeNs)],
      ['DAV: getetag', `"${entry.id}"`],
    ]),
  }
}

/** RFC 9110, section 5.6.7. Times that a Date cannot hold are shown as its ends. */
function httpDate(mtimeNs: string): string {
  const ms = Math.min(8.64e15, Math.max(-8.64e15, Number(BigInt(mtimeNs) / 1_000_000n)))
  return new Date(ms).toUTCString()
}
