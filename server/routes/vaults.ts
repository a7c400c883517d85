import { statfs } from 'node:fs/promises'
import type Router from '@koa/router'
import { hashAlgorithms } from '../../protocol/id.ts'
import { protocolVersion } from '../../protocol/limits.ts'
import { Problem } from '../../protocol/problem.ts'
import type { Capabilities, VaultList } from '../../protocol/schema.ts'
import { mediaTypes, paths } from '../../protocol/url.ts'
import { type Context, hasBody, param, type RequestState } from '../http/context.ts'
import { collection, multistatus } from '../http/dav-xml.ts'
import { type Parts, vaultOf } from './parts.ts'
import { answerMultistatus, readPropfind } from './propfind.ts'
import { resource } from './resource.ts'

/** What a vault has for WebDAV clients. */
const areas = ['tree', 'snapshots', 'trash']
/** Some clients ask here what they may do below. */
const dav = '1, 2, 3'

/** `/` and `/{vault}/`. */
export function vaultRoutes(router: Router<RequestState>, parts: Parts): void {
  resource(
    router,
    '/',
    {
      GET: (ctx) => listVaults(parts, ctx),
      PROPFIND: (ctx) => propfindVaults(parts, ctx),
    },
    { dav },
  )
  resource(
    router,
    '/:vault/',
    {
      GET: (ctx) => capabilities(parts, ctx),
      PROPFIND: (ctx) => propfindVault(parts, ctx),
      MKCOL: (ctx) => createVault(parts, ctx),
    },
    { dav },
  )
}

async function listVaults(parts: Parts, ctx: Context): Promise<void> {
  ctx.body = { vaults: await parts.vaults.list() } satisfies VaultList
}

async function propfindVaults(parts: Parts, ctx: Context): Promise<void> {
  const asked = await readPropfind(ctx, parts.questions)
  if (asked === undefined) return
  const names = asked.depth === 1 ? await parts.vaults.list() : []
  const vaults = names.map((name) => collection(paths.vault(name), Buffer.from(name)))
  answerMultistatus(ctx, multistatus([collection('/', Buffer.from('chunkdav')), ...vaults], asked))
}

/** The vault's areas for WebDAV, so that whoever mounts the vault sees them all. */
async function propfindVault(parts: Parts, ctx: Context): Promise<void> {
  const { name } = await vaultOf(parts, ctx)
  const asked = await readPropfind(ctx, parts.questions)
  if (asked === undefined) return
  const base = paths.vault(name)
  const members = asked.depth === 1 ? areas : []
  const resources = members.map((area) => collection(`${base}${area}/`, Buffer.from(area)))
  answerMultistatus(ctx, multistatus([collection(base, Buffer.from(name)), ...resources], asked))
}

/** MKCOL: RFC 4918, section 9.3. */
async function createVault(parts: Parts, ctx: Context): Promise<void> {
  if (hasBody(ctx.req)) throw new Problem('unsupported-media-type', 'MKCOL takes no body')
  await parts.vaults.create(param(ctx, 'vault'))
  ctx.body = null
  ctx.status = 201
}

async function capabilities(parts: Parts, ctx: Context): Promise<void> {
  const { store } = await vaultOf(parts, ctx)
  const { bavail, bsize } = await statfs(parts.vaults.path)
  ctx.body = {
    product: 'chunkdav',
    version: parts.version,
    protocol: protocolVersion,
    compliance: ['1', '2', '3'],
    hashAlgorithms: [...hashAlgorithms],
    encodings: ['identity', 'zstd'],
    deltas: [mediaTypes.delta],
    limits: { ...parts.limits },
    freeBytes: bavail * bsize,
    storedBytes: store.usage.storedBytes,
    chunks: store.usage.chunks,
  } satisfies Capabilities
}
