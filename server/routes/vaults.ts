import type Router from '@koa/router'
import { hashAlgorithms } from '../../protocol/id.ts'
import { protocolVersion } from '../../protocol/limits.ts'
import { isProblem } from '../../protocol/problem.ts'
import type { Capabilities, VaultList } from '../../protocol/schema.ts'
import { mediaTypes, paths } from '../../protocol/url.ts'
import { allows } from '../access/identity.ts'
import { overSignal } from '../http/client-gone.ts'
import { type Context, param, type RequestState } from '../http/context.ts'
import { collection, type DavResource, multistatus, type PropfindBody } from '../http/dav-xml.ts'
import { storedBytesOf, type Vault } from '../vaults.ts'
import { davResource } from './dav-reading.ts'
import type { DavView } from './dav-view.ts'
import { freeBytesOf } from './free-space.ts'
import { type Parts, vaultOf } from './parts.ts'
import { answerMultistatus, readPropfind } from './propfind.ts'
import { type Methods, resource } from './resource.ts'
import { SnapshotView } from './snapshot-view.ts'
import { expectNoBody } from './tree-members.ts'
import { TreeView } from './tree-view.ts'

/** What a vault has for WebDAV clients. */
const areas = ['tree', 'snapshots', 'trash'] as const
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
  const methods: Methods = {
    GET: (ctx) => capabilities(parts, ctx),
    PROPFIND: (ctx) => propfindVault(parts, ctx),
    MKCOL: (ctx) => createVault(parts, ctx),
  }
  // Without its slash too, as people type it when they mount it: RFC 4918, section 5.2.
  for (const path of ['/:vault', '/:vault/']) resource(router, path, methods, { dav })
}

async function listVaults(parts: Parts, ctx: Context): Promise<void> {
  ctx.body = { vaults: await seenVaults(parts, ctx) } satisfies VaultList
}

/** Those that exist for who asks. */
async function seenVaults(parts: Parts, ctx: Context): Promise<string[]> {
  const names = await parts.vaults.list()
  return names.filter((name) => ctx.state.who.rightOn(name) !== undefined)
}

async function propfindVaults(parts: Parts, ctx: Context): Promise<void> {
  const asked = await readPropfind(ctx, parts.questions)
  if (asked === undefined) return
  const names = asked.depth === 1 ? await seenVaults(parts, ctx) : []
  const vaults = names.map((name) => collection(paths.vault(name), Buffer.from(name)))
  answerMultistatus(ctx, multistatus([collection('/', Buffer.from('chunkdav')), ...vaults], asked))
}

/** The vault's areas for WebDAV, so that whoever mounts the vault sees them all. Who may not read them sees none. */
async function propfindVault(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const asked = await readPropfind(ctx, parts.questions)
  if (asked === undefined) return
  const base = paths.vault(vault.name)
  if (!ctx.path.endsWith('/')) ctx.set('Content-Location', base)
  const own = collection(base, Buffer.from(vault.name))
  const right = ctx.state.who.rightOn(vault.name)
  const mayRead = right !== undefined && allows(right, 'restore')
  const quota = asked.names.filter((name) => name.startsWith('DAV: quota-'))
  // It is one disk and one store: the tree tells of both.
  const known =
    quota.length === 0
      ? undefined
      : await areaResource(parts, ctx, vault, 'tree', { want: 'prop', names: quota })
  const resources: DavResource[] = [
    { ...own, properties: new Map([...own.properties, ...(known?.properties ?? [])]) },
  ]
  for (const area of asked.depth === 1 && mayRead ? areas : [])
    resources.push(await areaResource(parts, ctx, vault, area, asked))
  answerMultistatus(ctx, multistatus(resources, asked))
}

async function areaResource(
  parts: Parts,
  ctx: Context,
  vault: Vault,
  area: (typeof areas)[number],
  asked: PropfindBody,
): Promise<DavResource> {
  const base = `${paths.vault(vault.name)}${area}/`
  try {
    const view: DavView =
      area === 'snapshots'
        ? new SnapshotView(vault)
        : new TreeView(vault, vault.tree, area, () => freeBytesOf(parts, ctx, vault))
    const shown = await view.find([], overSignal(ctx))
    if (shown !== undefined) return await davResource({ view, base }, [], shown, asked)
  } catch (error) {
    // A damaged tree must not hide the snapshots.
    if (!isProblem(error)) throw error
  }
  return collection(base, Buffer.from(area))
}

/** MKCOL: RFC 4918, section 9.3. */
async function createVault(parts: Parts, ctx: Context): Promise<void> {
  await expectNoBody(parts, ctx)
  const vault = param(ctx, 'vault')
  await parts.vaults.create(vault)
  parts.audit.note({ event: 'vault-created', who: ctx.state.who.name, from: ctx.state.client, vault })
  ctx.body = null
  ctx.status = 201
}

async function capabilities(parts: Parts, ctx: Context): Promise<void> {
  const vault = await vaultOf(parts, ctx)
  const { store, settings } = vault
  ctx.body = {
    product: 'chunkdav',
    version: parts.version,
    protocol: protocolVersion,
    compliance: ['1', '2', '3'],
    hashAlgorithms: [...hashAlgorithms],
    encodings: ['identity', 'zstd'],
    deltas: [mediaTypes.delta],
    limits: { ...parts.limits },
    freeBytes: await freeBytesOf(parts, ctx, vault),
    storedBytes: storedBytesOf(vault),
    chunks: store.usage.chunks,
    ...(settings.quotaBytes === undefined ? {} : { quotaBytes: settings.quotaBytes }),
  } satisfies Capabilities
}
