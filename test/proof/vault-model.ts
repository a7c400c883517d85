/**
 * What a vault must hold, whatever happened to it: what was acknowledged, and what was under way and may be either.
 *
 * A promise is noted when the vault has answered, and what is about to be asked for before. After a stop `settle`
 * looks at what became of what was under way; from then on that is what must be there.
 */
import assert from 'node:assert/strict'
import { isDeepStrictEqual } from 'node:util'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { nameBytes } from '../../protocol/objects.ts'
import { isProblem } from '../../protocol/problem.ts'
import type { CheckpointState, CommitRequest, OpenRequest, Part } from '../../protocol/schema.ts'
import { readContent } from '../../server/catalog/content.ts'
import { entriesOf } from '../../server/catalog/directory.ts'
import type { Names } from '../../server/catalog/live-tree.ts'
import type { Vault } from '../../server/vaults.ts'

/** A file's content, or a directory, by path below the root. */
export type Listing = ReadonlyMap<string, Id | 'directory'>

export interface ModelCheckpoint {
  readonly source: string
  readonly number: number
  readonly kind: OpenRequest['kind']
  readonly openedAt: string
  status: 'open' | 'committed' | 'deleted'
  /** Every item that was sent, in order; those behind `known` were on their way. */
  items: Part[]
  known: number
  request?: CommitRequest
  committedAt?: string
  /** Of a `dir` checkpoint, what its root must hold. */
  listing?: Listing
  isPinned: boolean
  /** What was asked for and not answered. */
  doubt?: 'commit' | 'delete' | 'pin' | 'several'
}

/** A change of the tree that may have come to pass. */
export type TreeDoubt = (tree: Map<string, Id | 'directory'>) => void

export class VaultModel {
  isCreated = false
  /** Every chunk there ever was. */
  readonly bytes = new Map<Id, Buffer>()
  /** Put, and not yet flushed. */
  readonly written = new Set<Id>()
  /** Put before the process was killed: these must be there once. */
  survived = new Set<Id>()
  /** These must be there. */
  readonly promised = new Set<Id>()
  readonly checkpoints = new Map<string, ModelCheckpoint>()
  readonly lastNumbers = new Map<string, number>()
  /** Checkpoints that may have been begun, by source; a freeze may have committed its own. */
  readonly begun = new Map<string, (Listing | undefined)[]>()
  readonly tree = new Map<string, Id | 'directory'>()
  treeDoubts: TreeDoubt[] = []
  /** The retention policy that was set, and one that may have been. */
  keepLast: number | undefined
  mayKeepLast: number[] = []
  /** Collections that have begun: what was concluded before is void. */
  collections = 0
  isCollecting = false

  chunk(bytes: Buffer): Id {
    const id = hashId(bytes)
    this.bytes.set(id, bytes)
    return id
  }

  sizeOf(id: Id): number {
    return (this.bytes.get(id) as Buffer).length
  }

  promise(ids: Iterable<Id>): void {
    for (const id of ids) this.promised.add(id)
  }

  addCheckpoint(state: CheckpointState): ModelCheckpoint {
    const { source, number } = state
    assert.ok(number > (this.lastNumbers.get(source) ?? 0), `${source}/${number} was given before`)
    return this.#add(state)
  }

  #add({ source, number, kind, openedAt }: CheckpointState): ModelCheckpoint {
    this.lastNumbers.set(source, Math.max(number, this.lastNumbers.get(source) ?? 0))
    const added: ModelCheckpoint = {
      source,
      number,
      kind,
      openedAt,
      status: 'open',
      items: [],
      known: 0,
      isPinned: false,
    }
    this.checkpoints.set(`${source}/${number}`, added)
    return added
  }

  open(): ModelCheckpoint[] {
    return this.#with('open')
  }

  committed(): ModelCheckpoint[] {
    return this.#with('committed')
  }

  #with(status: ModelCheckpoint['status']): ModelCheckpoint[] {
    return [...this.checkpoints.values()].filter((one) => one.status === status && one.doubt === undefined)
  }

  /** A collection begins: what nothing refers to may go. What is found or put from now on stays. */
  collectionBegins(): void {
    this.collections++
    this.isCollecting = true
    this.written.clear()
    this.mayForget()
  }

  /** To be called before something is removed: while a collection is under way what only it refers to may go. */
  mayForget(): void {
    if (!this.isCollecting) return
    const kept = new Set<Id>([...this.tree.values()].filter((id) => id !== 'directory'))
    for (const checkpoint of this.checkpoints.values()) {
      const { status, doubt, items, known, listing, request } = checkpoint
      if (status === 'deleted' || doubt === 'delete' || doubt === 'several') continue
      for (const { id } of items.slice(0, known)) kept.add(id)
      if (status === 'open') continue
      for (const id of listing?.values() ?? []) if (id !== 'directory') kept.add(id)
      if (request?.root !== undefined) kept.add(request.root)
    }
    for (const id of this.promised) if (!kept.has(id)) this.promised.delete(id)
  }

  // -- after a stop -------------------------------------------------------------------------------------

  /** Compares all of it. What was in doubt is what it turned out to be. */
  async check(vault: Vault): Promise<void> {
    this.isCollecting = false
    this.#checkSettings(vault)
    await this.#checkCheckpoints(vault)
    await this.checkTree(vault)
    await this.#checkChunks(vault)
  }

  /** The same in a vault that goes on: what is in doubt stays so, since it may not be durable. */
  async look(vault: Vault): Promise<void> {
    const { checkpoints, lastNumbers, begun, tree, treeDoubts, keepLast, mayKeepLast, written } = this
    const before = structuredClone({ checkpoints, lastNumbers, begun, tree, written })
    try {
      await this.check(vault)
    } finally {
      for (const name of ['checkpoints', 'lastNumbers', 'begun', 'tree'] as const) {
        const [now, was] = [this[name] as Map<unknown, unknown>, before[name] as Map<unknown, unknown>]
        now.clear()
        for (const [key, value] of was) now.set(key, value)
      }
      for (const id of before.written) this.written.add(id)
      Object.assign(this, { treeDoubts, keepLast, mayKeepLast })
    }
  }

  #checkSettings({ settings }: Vault): void {
    const { retention } = settings.value
    const keepLast = retention?.keepLast
    assert.ok([this.keepLast, ...this.mayKeepLast].includes(keepLast), `keepLast is ${keepLast}`)
    this.keepLast = keepLast
    this.mayKeepLast = []
  }

  async #checkCheckpoints(vault: Vault): Promise<void> {
    const { checkpoints } = vault.catalog
    const found = new Map<string, CheckpointState>()
    for (const source of await checkpoints.listSources()) {
      for (const state of await checkpoints.list(source)) found.set(`${source}/${state.number}`, state)
    }
    for (const [name, known] of this.checkpoints) {
      await this.#checkOne(vault, name, known, found.get(name))
      found.delete(name)
    }
    for (const [name, state] of found) await this.#adopt(vault, name, state)
    this.begun.clear()
  }

  async #checkOne(
    vault: Vault,
    name: string,
    known: ModelCheckpoint,
    state: CheckpointState | undefined,
  ): Promise<void> {
    const { doubt } = known
    delete known.doubt
    const was = known.status
    if (state === undefined) {
      assert.ok(was === 'deleted' || doubt === 'delete' || doubt === 'several', `${name}, ${was}, is gone`)
      known.status = 'deleted'
      return
    }
    const mayBe = doubt === 'commit' || doubt === 'several' ? ['open', 'committed'] : [was]
    assert.ok(
      mayBe.includes(state.state),
      `${name} was ${was}${doubt ? `, ${doubt} in doubt` : ''}, is ${state.state}`,
    )
    assert.equal(state.openedAt, known.openedAt, name)
    assert.equal(state.kind, known.kind, name)
    if (doubt !== 'pin' && doubt !== 'several')
      assert.equal(state.pinned === true, known.isPinned, `${name} is pinned`)
    known.isPinned = state.pinned === true
    known.status = state.state
    if (known.kind === 'chunks') await this.#checkItems(vault, name, known, state)
    if (state.state === 'committed') await this.#checkCommitted(vault, name, known, state)
  }

  async #checkItems(
    vault: Vault,
    name: string,
    known: ModelCheckpoint,
    state: CheckpointState,
  ): Promise<void> {
    const { source, number } = known
    const { items } = await vault.catalog.checkpoints.items({ source, number }, 0, 100_000)
    assert.equal(items.length, state.items, `${name} says how many items it has`)
    assert.deepEqual(items, known.items.slice(0, items.length), `${name} has the items that were sent`)
    if (state.state === 'committed') assert.equal(items.length, known.request?.items, `${name} has all items`)
    known.items = items
    known.known = items.length
  }

  async #checkCommitted(
    vault: Vault,
    name: string,
    known: ModelCheckpoint,
    state: CheckpointState,
  ): Promise<void> {
    const { root, attributes, totals } = state
    if (known.request !== undefined && known.listing === undefined) {
      const { items: _, ...request } = known.request
      assert.ok(
        isDeepStrictEqual({ root, attributes, totals }, { ...nothing, ...request }),
        `${name} is as asked for`,
      )
    }
    if (known.committedAt !== undefined) assert.equal(state.committedAt, known.committedAt, name)
    if (state.committedAt !== undefined) known.committedAt = state.committedAt
    for (const part of known.items) await this.checkContent(vault, name, part)
    if (root === undefined) return
    known.request ??= { root }
    const listing = await this.listingOf(vault, root)
    if (known.listing !== undefined) assert.deepEqual(listing, known.listing, `what ${name} holds`)
    known.listing = listing
  }

  /** A checkpoint whose number nobody was told. */
  async #adopt(vault: Vault, name: string, state: CheckpointState): Promise<void> {
    const begun = this.begun.get(state.source) ?? []
    assert.ok(begun.length > 0, `${name} was never begun`)
    const adopted = this.#add(state)
    assert.ok((state.items ?? 0) === 0, `${name} is empty`)
    adopted.status = state.state
    adopted.isPinned = state.pinned === true
    if (state.state === 'open') return
    await this.#checkCommitted(vault, name, adopted, state)
    const mayBe = begun.filter((listing) => listing !== undefined)
    assert.ok(
      mayBe.some((listing) => isDeepStrictEqual(listing, adopted.listing)),
      `${name} is one of the freezes that were under way`,
    )
  }

  /** Everything below a directory, each content compared. */
  async listingOf(vault: Vault, root: Id): Promise<Listing> {
    const listing = new Map<string, Id | 'directory'>()
    const walk = async (id: Id, prefix: string): Promise<void> => {
      for await (const entry of entriesOf(vault.catalog.reader, id)) {
        const path = prefix + nameBytes(entry).toString('latin1')
        if (entry.kind === 'directory') {
          listing.set(path, 'directory')
          await walk(entry.id, `${path}/`)
        } else if (entry.kind === 'file') {
          listing.set(path, entry.id)
          await this.checkContent(vault, path, entry)
        }
      }
    }
    await walk(root, '')
    return listing
  }

  async checkContent(vault: Vault, what: string, part: Part): Promise<void> {
    const pieces = await Array.fromAsync(readContent(vault.catalog.reader, part))
    const read = Buffer.concat(pieces)
    const bytes = this.bytes.get(part.id)
    assert.ok(bytes !== undefined, `${what}: ${part.id} was never put`)
    assert.ok(read.equals(bytes), `${what}: ${part.id} reads back`)
  }

  async checkTree(vault: Vault): Promise<void> {
    const found = await this.treeOf(vault)
    const doubts = this.treeDoubts
    for (let chosen = 0; chosen < 2 ** doubts.length; chosen++) {
      const mayBe = new Map(this.tree)
      for (const [i, doubt] of doubts.entries()) if (chosen & (2 ** i)) doubt(mayBe)
      if (!isDeepStrictEqual(found, mayBe)) continue
      this.tree.clear()
      for (const [path, content] of found) this.tree.set(path, content)
      this.treeDoubts = []
      return
    }
    assert.deepEqual(found, this.tree, `the live tree, with ${doubts.length} changes in doubt`)
  }

  /** The live tree; each content is compared, of the trash too. */
  async treeOf(vault: Vault): Promise<Listing> {
    const listing = new Map<string, Id | 'directory'>()
    const walk = async (names: Names, prefix: string): Promise<void> => {
      const record = await vault.tree.find(names)
      assert.ok(record?.kind === 'directory')
      for await (const { name, record: member } of vault.tree.members(record)) {
        const path = prefix + name.toString('latin1')
        listing.set(path, member.kind === 'file' ? member.id : 'directory')
        if (member.kind === 'directory') await walk([...names, name], `${path}/`)
      }
    }
    await walk([Buffer.from('tree')], '')
    for await (const content of vault.tree.contents()) {
      await this.checkContent(vault, 'the tree or the trash', content)
    }
    return listing
  }

  async #checkChunks(vault: Vault): Promise<void> {
    const { store } = vault
    let count = 0
    for await (const { id, length } of store.list()) {
      count++
      const bytes = await store.get(id)
      assert.equal(bytes?.length, length, `the index and the record of ${id}`)
      assert.equal(hashId(bytes as Buffer), id)
    }
    assert.equal(store.usage.chunks, count, 'chunks are counted')
    const promised = [...this.promised, ...this.survived]
    this.survived.clear()
    const lengths = await store.stat(promised)
    const gone = promised.filter((id, i) => lengths[i] !== this.sizeOf(id))
    assert.deepEqual(gone, [], 'what was flushed is there')
    this.written.clear()
  }

  /** After a full collection, when no checkpoint is open: nothing is left but what is reachable. */
  async checkGarbage(vault: Vault): Promise<Id[]> {
    const reachable = await this.#reachable(vault)
    const stored = new Set<Id>()
    for await (const { id } of vault.store.list()) stored.add(id)
    assert.deepEqual(
      [...reachable].filter((id) => !stored.has(id)),
      [],
      'what is reachable is there',
    )
    return [...stored].filter((id) => !reachable.has(id))
  }

  async #reachable(vault: Vault): Promise<Set<Id>> {
    const { catalog } = vault
    const reached = new Set<Id>()
    const directory = async (id: Id): Promise<void> => {
      reached.add(id)
      for await (const entry of entriesOf(catalog.reader, id)) {
        if (entry.kind === 'file') reached.add(entry.id)
        else if (entry.kind === 'directory') await directory(entry.id)
      }
    }
    for (const source of await catalog.checkpoints.listSources()) {
      for (const { number, root } of await catalog.checkpoints.list(source)) {
        if (root !== undefined) await directory(root)
        else for (const { id } of this.checkpoints.get(`${source}/${number}`)?.items ?? []) reached.add(id)
      }
    }
    for await (const { id } of vault.tree.contents()) reached.add(id)
    return reached
  }
}

const nothing = { root: undefined, attributes: undefined, totals: undefined }

/** Whether the disk, and nothing worse, kept it from being done. */
export function isDiskFault(error: unknown): boolean {
  return (
    isProblem(error, 'unavailable') ||
    isProblem(error, 'insufficient-storage') ||
    ['EIO', 'ENOSPC', 'EMFILE'].includes((error as NodeJS.ErrnoException).code ?? '')
  )
}
