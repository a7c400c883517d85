/** The live tree and its trash as WebDAV shows them: what stands there, and its properties. */
import type { LiveTree } from '../catalog/live-tree.ts'
import { type DeadProperty, type Lock, pathOf, type TreeRecord } from '../catalog/tree-records.ts'
import type { Context } from '../http/context.ts'
import { ownNamespace, type PropertyName, type PropertyValue } from '../http/dav-xml.ts'
import { encodeSegment, pathNames } from '../http/path-names.ts'
import { formatSyncToken } from '../http/sync-token.ts'
import { storedBytesOf, type Vault } from '../vaults.ts'
import type { Reading } from './dav-reading.ts'
import type { DavView, Names, Shown } from './dav-view.ts'
import { freeBytesOf } from './free-space.ts'
import { type Parts, vaultOf } from './parts.ts'

export type TreeArea = 'tree' | 'trash'

/** All that a view needs of the tree. */
export type ReadableTree = Pick<
  LiveTree,
  'find' | 'members' | 'deadProperties' | 'locksOn' | 'locksBelow' | 'trashNote' | 'syncToken'
>

const lockEntries = (['exclusive', 'shared'] as const)
  .map(
    (scope) =>
      `<D:lockentry><D:lockscope><D:${scope}/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>`,
  )
  .join('')
const syncReport = '<D:supported-report><D:report><D:sync-collection/></D:report></D:supported-report>'
const checksums = 'http://owncloud.org/ns checksums'

/** What a request below `/{vault}/tree/` or `/{vault}/trash/` reads. Problem `invalid-request` for a malformed path. */
export async function treeReading(parts: Parts, ctx: Context, area: TreeArea): Promise<Reading> {
  const vault = await vaultOf(parts, ctx)
  return {
    vault,
    view: new TreeView(vault, vault.tree, area, () => freeBytesOf(parts, ctx, vault)),
    base: `/${vault.name}/${area}/`,
    names: pathNames(ctx.path, 2),
    // What is there may change at any time; asking whether it has is cheap.
    cacheControl: 'no-cache',
  }
}

/** The strong ETag of a file: changed by every write, also by one of the same content. */
export function treeTag(record: TreeRecord): string | undefined {
  if (record.kind === 'directory') return undefined
  const hex = record.id.slice(record.id.indexOf(':') + 1)
  return `"${record.version.toString(36)}-${hex.slice(0, 16)}"`
}

/** A record as it is shown. */
export function shownRecord(name: Buffer, record: TreeRecord): Shown {
  const { kind, mtimeNs, createdNs } = record
  const common = { kind, name, mtimeNs, createdNs, extra: record }
  if (record.kind === 'directory') return common
  const { id, size, chunked } = record
  return {
    ...common,
    etag: treeTag(record) as string,
    part: { id, size, ...(chunked === true && { chunked }) },
  }
}

/** The locks of a collection's members. */
interface LocksIn {
  readonly parent: string
  known?: Promise<{ readonly inherited: readonly Lock[]; readonly own: ReadonlyMap<string, readonly Lock[]> }>
}

/** The view of one request. */
export class TreeView implements DavView {
  private readonly vault: Vault
  private readonly tree: ReadableTree
  private readonly area: TreeArea
  private readonly askFreeBytes: () => Promise<number>
  private freeBytes: Promise<number> | undefined
  private locksIn: LocksIn | undefined

  /** `askFreeBytes` is asked once, for the quota properties. */
  constructor(vault: Vault, tree: ReadableTree, area: TreeArea, askFreeBytes: () => Promise<number>) {
    this.vault = vault
    this.tree = tree
    this.area = area
    this.askFreeBytes = askFreeBytes
  }

  private inVault(names: Names): Names {
    return [Buffer.from(this.area), ...names]
  }

  async find(names: Names): Promise<Shown | undefined> {
    const record = await this.tree.find(this.inVault(names))
    return record === undefined ? undefined : shownRecord(names.at(-1) ?? Buffer.alloc(0), record)
  }

  async *members({ extra }: Shown): AsyncGenerator<Shown> {
    const record = extra as TreeRecord
    if (record.kind !== 'directory') return
    for await (const member of this.tree.members(record)) yield shownRecord(member.name, member.record)
  }

  async properties(
    names: Names,
    { extra }: Shown,
    wanted: ReadonlySet<PropertyName> | undefined,
  ): Promise<ReadonlyMap<PropertyName, PropertyValue>> {
    const record = extra as TreeRecord
    const found = new Map<PropertyName, PropertyValue>()
    const asks = (name: PropertyName): boolean => wanted?.has(name) === true
    const asksOrAll = (name: PropertyName): boolean => wanted === undefined || wanted.has(name)
    for (const { name, xml } of await this.dead(record)) {
      if (asksOrAll(name)) found.set(name, { element: xml })
    }
    if (record.kind === 'file' && asks(checksums)) setChecksums(found, record)
    if (record.kind === 'directory' && wanted !== undefined) await this.collectionProperties(found, wanted)
    if (this.area === 'trash') await this.trashProperties(found, names, asksOrAll)
    else await this.lockProperties(found, names, record, asksOrAll)
    return found
  }

  private async dead(record: TreeRecord): Promise<readonly DeadProperty[]> {
    return record.dead === true ? await this.tree.deadProperties(record) : []
  }

  /** Those that only come when they are asked for by name: RFC 4331, section 3; RFC 6578, sections 3.2 and 4. */
  private async collectionProperties(
    found: Map<PropertyName, PropertyValue>,
    wanted: ReadonlySet<PropertyName>,
  ): Promise<void> {
    if (wanted.has('DAV: quota-available-bytes')) {
      this.freeBytes ??= this.askFreeBytes()
      found.set('DAV: quota-available-bytes', String(await this.freeBytes))
    }
    if (wanted.has('DAV: quota-used-bytes')) {
      found.set('DAV: quota-used-bytes', String(storedBytesOf(this.vault)))
    }
    if (this.area === 'trash') return
    if (wanted.has('DAV: supported-report-set')) found.set('DAV: supported-report-set', { xml: syncReport })
    if (wanted.has('DAV: sync-token')) {
      found.set('DAV: sync-token', formatSyncToken(await this.tree.syncToken()))
    }
  }

  private async lockProperties(
    found: Map<PropertyName, PropertyValue>,
    names: Names,
    record: TreeRecord,
    asks: (name: PropertyName) => boolean,
  ): Promise<void> {
    if (asks('DAV: supportedlock')) found.set('DAV: supportedlock', { xml: lockEntries })
    if (!asks('DAV: lockdiscovery')) return
    const locks = await this.locksOn(this.inVault(names))
    found.set('DAV: lockdiscovery', {
      xml: activeLocks(this.vault.name, locks, this.inVault(names), record.kind),
    })
  }

  /** What holds for the path. From the second member of a collection on it is known for all of them. */
  private async locksOn(names: Names): Promise<readonly Lock[]> {
    const above = names.slice(0, -1)
    const parent = pathOf(above).toString('latin1')
    if (this.locksIn?.parent !== parent) {
      this.locksIn = { parent }
      return await this.tree.locksOn(names)
    }
    this.locksIn.known ??= Promise.all([this.tree.locksOn(above), this.tree.locksBelow(above)]).then(
      ([on, below]) => ({
        inherited: on.filter(({ depth }) => depth === 'infinity'),
        own: Map.groupBy(below, ({ path }) => path.toString('latin1')),
      }),
    )
    const { inherited, own } = await this.locksIn.known
    return [...inherited, ...(own.get(pathOf(names).toString('latin1')) ?? [])]
  }

  /** Of the item, and of what is in it. */
  private async trashProperties(
    found: Map<PropertyName, PropertyValue>,
    names: Names,
    asks: (name: PropertyName) => boolean,
  ): Promise<void> {
    const [path, deletedAt] = [`${ownNamespace} original-path`, `${ownNamespace} deleted-at`] as const
    const [item] = names
    const isNamed = names.length === 1 && asks('DAV: displayname')
    if (item === undefined || names.length > 2 || !(isNamed || asks(path) || asks(deletedAt))) return
    const note = await this.tree.trashNote(Number(item.toString('latin1')))
    if (note === undefined) return
    // The name of an item is a number, which tells a person nothing.
    if (isNamed) found.set('DAV: displayname', note.path.toString('utf8'))
    if (asks(path)) found.set(path, encodePath(note.path))
    if (asks(deletedAt)) found.set(deletedAt, note.deletedAt.toISOString())
  }
}

/** `oc:checksums` as ownCloud's clients and rclone read it. */
function setChecksums(
  found: Map<PropertyName, PropertyValue>,
  { md5, sha1 }: TreeRecord & { kind: 'file' },
): void {
  const known = [
    ...(sha1 === undefined ? [] : [`SHA1:${sha1}`]),
    ...(md5 === undefined ? [] : [`MD5:${md5}`]),
  ]
  if (known.length === 0) return
  const element = `<oc:checksums xmlns:oc="http://owncloud.org/ns"><oc:checksum>${known.join(' ')}</oc:checksum></oc:checksums>`
  found.set(checksums, { element })
}

/** A path as bytes, percent-encoded; its slashes stay. */
export function encodePath(path: Buffer): string {
  return path
    .toString('latin1')
    .split('/')
    .map((name) => encodeSegment(Buffer.from(name, 'latin1')))
    .join('/')
}

/**
 * The content of DAV:lockdiscovery for the resource at `names` in the vault: RFC 4918, section 15.8. Locks that are
 * not its own are those of collections above it.
 */
export function activeLocks(
  vault: string,
  locks: readonly Lock[],
  names: Names,
  kind: TreeRecord['kind'],
): string {
  const own = names.map((name) => name.toString('latin1')).join('/')
  return locks
    .map(({ path, token, scope, depth, owner, expiresAtMs }) => {
      const isCollection = kind === 'directory' || path.toString('latin1') !== own
      const root = `/${vault}/${encodePath(path)}${isCollection ? '/' : ''}`
      const seconds = Math.max(1, Math.ceil((expiresAtMs - Date.now()) / 1000))
      return [
        '<D:activelock><D:locktype><D:write/></D:locktype>',
        `<D:lockscope><D:${scope}/></D:lockscope><D:depth>${depth}</D:depth>`,
        owner === '' ? '' : `<D:owner>${owner}</D:owner>`,
        `<D:timeout>Second-${seconds}</D:timeout><D:locktoken><D:href>${token}</D:href></D:locktoken>`,
        `<D:lockroot><D:href>${root}</D:href></D:lockroot></D:activelock>`,
      ].join('')
    })
    .join('')
}
