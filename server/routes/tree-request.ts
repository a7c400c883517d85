/**
 * A request on the live tree or its trash, and what every method has to get past: `If` (RFC 4918, section
 * 10.4), the conditions of RFC 9110, and locks (section 7). A write is judged on the tree as readers see it,
 * before its body is taken, and again on the state that it changes.
 */
import { Problem } from '../../protocol/problem.ts'
import type { Lock, Names, TreeRecord } from '../catalog/live-tree.ts'
import { checkNames } from '../catalog/tree-change.ts'
import { overSignal } from '../http/client-gone.ts'
import { expectConditions } from '../http/conditional.ts'
import type { Context } from '../http/context.ts'
import { ownPath } from '../http/dav-headers.ts'
import { davProblem } from '../http/dav-problem.ts'
import { holds, type IfHeader, parseIf, type ResourceState } from '../http/if-header.ts'
import { pathNames } from '../http/path-names.ts'
import type { Vault } from '../vaults.ts'
import { hrefOf } from './dav-reading.ts'
import { type Parts, vaultOf } from './parts.ts'
import { SnapshotView } from './snapshot-view.ts'
import { encodePath, treeTag } from './tree-view.ts'

/** Of the live tree, or of a change of it. */
export interface TreeReads {
  find(names: Names): Promise<TreeRecord | undefined>
  locksOn(names: Names): Promise<Lock[]>
}

export interface TreeReadsBelow extends TreeReads {
  locksBelow(names: Names): Promise<Lock[]>
}

const areas: readonly unknown[] = ['tree', 'trash', 'snapshots']

/** A place in the tree, the trash or the snapshots: the first name says in which. The tree finds nothing in the last. */
export interface TreePath {
  readonly names: Names
  /** It was written with a slash at its end: then it can be no file. */
  readonly endsInSlash: boolean
}

/** The place that a percent-encoded path names; undefined when it is in none of this vault's areas. Problem `invalid-request`. */
export function treePath(vault: string, path: string): TreePath | undefined {
  const [first, ...names] = pathNames(path, 0)
  if (first?.toString('latin1') !== vault || !areas.includes(names[0]?.toString('latin1'))) return undefined
  checkNames(names)
  return { names, endsInSlash: path.endsWith('/') }
}

export class TreeRequest implements TreePath {
  readonly ctx: Context
  readonly vault: Vault
  readonly names: Names
  readonly endsInSlash: boolean
  readonly ifHeader: IfHeader | undefined

  private constructor(ctx: Context, vault: Vault, { names, endsInSlash }: TreePath) {
    this.ctx = ctx
    this.vault = vault
    this.names = names
    this.endsInSlash = endsInSlash
    const header = ctx.get('If').trim()
    this.ifHeader = header === '' ? undefined : parseIf(header)
  }

  /** Problems `vault-not-found`, `invalid-request`. */
  static async of(parts: Parts, ctx: Context): Promise<TreeRequest> {
    const vault = await vaultOf(parts, ctx)
    const path = treePath(vault.name, ctx.path)
    if (path === undefined) throw new Problem('not-found', 'there is nothing at this path')
    return new TreeRequest(ctx, vault, path)
  }

  /** What stands at the path; undefined when nothing does, or a file where the path says that it is a collection. */
  async find(tree: TreeReads): Promise<TreeRecord | undefined> {
    const record = await tree.find(this.names)
    return record?.kind === 'file' && this.endsInSlash ? undefined : record
  }

  /** The same; Problem `not-found`. */
  async existing(tree: TreeReads): Promise<TreeRecord> {
    const record = await this.find(tree)
    if (record === undefined) throw new Problem('not-found', 'there is nothing at this path')
    return record
  }

  /** Judges `If`, on every method. Problem `precondition-failed`. */
  async expectIf(tree: TreeReads): Promise<void> {
    if (this.ifHeader === undefined) return
    if (await holds(this.ifHeader, (resource) => this.#stateOf(tree, resource))) return
    throw new Problem('precondition-failed', 'what the If header says does not hold')
  }

  /**
   * Judges `If` and the conditions of RFC 9110 for a method that changes or copies `record`, which stands at the
   * path; `tag` is its ETag. Problem `precondition-failed`.
   */
  async expectPreconditions(
    tree: TreeReads,
    record: TreeRecord | undefined,
    tag: string | undefined = record && treeTag(record),
  ): Promise<void> {
    await this.expectIf(tree)
    expectConditions(this.ctx, record && { tag, modifiedMs: Number(BigInt(record.mtimeNs) / 1_000_000n) })
  }

  async #stateOf(tree: TreeReads, resource: string | undefined): Promise<ResourceState> {
    const path = resource === undefined ? this : this.#placeOf(resource)
    // What is not in this vault has no state that could be known here.
    if (path === undefined) return { tag: undefined, tokens: new Set() }
    if (path.names[0]?.toString() === 'snapshots') {
      const view = new SnapshotView(this.vault)
      const shown = await view.find(path.names.slice(1), overSignal(this.ctx))
      return { tag: shown?.etag, tokens: new Set() }
    }
    const [record, locks] = await Promise.all([tree.find(path.names), tree.locksOn(path.names)])
    return { tag: record && treeTag(record), tokens: new Set(locks.map(({ token }) => token)) }
  }

  #placeOf(resource: string): TreePath | undefined {
    const path = ownPath(this.ctx, resource)
    return path === undefined ? undefined : treePath(this.vault.name, path)
  }

  /**
   * Problem `locked`, with the roots of the locks, when one of these paths is locked and the request submits the
   * token of none of its locks: of shared ones any is enough (section 7).
   */
  async expectUnlocked(tree: TreeReads, ...paths: readonly Names[]): Promise<void> {
    const locks = await Promise.all(paths.map((names) => this.#unsubmitted(tree, names)))
    const missing = locks.flat()
    if (missing.length === 0) return
    throw davProblem(
      'locked',
      'it is locked; the lock token must be submitted',
      'lock-token-submitted',
      await this.rootsOf(tree, missing),
    )
  }

  /** Hrefs of what is locked strictly below the path in the same way. */
  async lockedBelow(tree: TreeReadsBelow, names: Names): Promise<string[]> {
    const locks = await tree.locksBelow(names)
    const roots = new Map(locks.map((lock) => [lock.path.toString('latin1'), namesOf(lock)]))
    const missing = await Promise.all([...roots.values()].map((root) => this.#unsubmitted(tree, root)))
    const own = missing.flat().filter(({ path }) => roots.has(path.toString('latin1')))
    return await this.rootsOf(tree, own)
  }

  /** The locks that hold for a path, when the token of none is submitted. */
  async #unsubmitted(tree: TreeReads, names: Names): Promise<Lock[]> {
    const locks = await tree.locksOn(names)
    return locks.some(({ token }) => this.ifHeader?.tokens.has(token)) ? [] : locks
  }

  /** The hrefs of what the locks are on, each once. */
  async rootsOf(tree: TreeReads, locks: readonly Lock[]): Promise<string[]> {
    const hrefs = await Promise.all(locks.map((lock) => lockRoot(this.vault.name, tree, lock)))
    return [...new Set(hrefs)]
  }

  hrefOf(names: Names, kind: TreeRecord['kind']): string {
    return hrefOf(`/${this.vault.name}/`, names, kind)
  }
}

/** The href of what a lock is on. */
async function lockRoot(vault: string, tree: TreeReads, lock: Lock): Promise<string> {
  const record = await tree.find(namesOf(lock))
  return `/${vault}/${encodePath(lock.path)}${record?.kind === 'directory' ? '/' : ''}`
}

function namesOf({ path }: Lock): Names {
  const names = path.toString('latin1').split('/')
  return names.map((name) => Buffer.from(name, 'latin1'))
}

/** The collection that a path is in. */
export function parentOf(names: Names): Names {
  return names.slice(0, -1)
}

/** Problem `conflict` unless what the path is in is a collection: RFC 4918, section 9.7.1 among others. */
export async function expectParent(tree: TreeReads, names: Names): Promise<void> {
  if ((await tree.find(parentOf(names)))?.kind === 'directory') return
  throw new Problem('conflict', 'the collection that it would be in does not exist')
}
