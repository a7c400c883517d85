/**
 * Random work on a vault, as backups, WebDAV clients and upkeep do it at the same time; all of it is told to the model.
 */

import assert from 'node:assert/strict'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { encodeBlock } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { DirectoryListBuilder } from '../../protocol/list-builder.ts'
import { type EncodedObject, encodeName } from '../../protocol/objects.ts'
import { isProblem, type ProblemCode } from '../../protocol/problem.ts'
import type { CollectionReport, CommitRequest, Entry, Part } from '../../protocol/schema.ts'
import type { Names } from '../../server/catalog/live-tree.ts'
import { receiveSmallFile } from '../../server/store/incoming-file.ts'
import { receiveBatch, receiveChunk } from '../../server/store/receive.ts'
import { collect } from '../../server/upkeep/collect.ts'
import { freeze } from '../../server/upkeep/freeze.ts'
import { prune } from '../../server/upkeep/prune.ts'
import type { Vault } from '../../server/vaults.ts'
import type { Dice } from '../support/dice.ts'
import type { ProcessFiles } from '../support/power-cut-files.ts'
import { isDiskFault, type Listing, type ModelCheckpoint, type VaultModel } from './vault-model.ts'

/** The process is gone: nothing is asked, and no answer counts. */
export class Stopped extends Error {}

export interface WorkOptions {
  readonly vault: Vault
  readonly model: VaultModel
  readonly files: ProcessFiles
  readonly dice: Dice
  /** The disk may fail: then what was asked for may be so or not. */
  readonly mayFail?: boolean
}

const ownership = { uid: 0, gid: 0 } as const
/** How much garbage is in a pack is an estimate. */
const estimateBytes = 16
const backupSource = 'backup'
const frozenSource = 'frozen'

function at(path: string): Names {
  return ['tree', ...path.split('/')].map((name) => Buffer.from(name))
}

function isAt(path: string, top: string): boolean {
  return path === top || path.startsWith(`${top}/`)
}

export class VaultWork {
  readonly #vault: Vault
  readonly #model: VaultModel
  readonly #files: ProcessFiles
  readonly #dice: Dice
  readonly #mayFail: boolean
  #losses: number
  operations = 0
  bytes = 0
  /** What was asked for, for a failure's report. */
  readonly history: string[] = []

  constructor({ vault, model, files, dice, mayFail = false }: WorkOptions) {
    this.#vault = vault
    this.#losses = vault.store.losses
    this.#model = model
    this.#files = files
    this.#dice = dice
    this.#mayFail = mayFail
  }

  /** All at the same time, until the process is gone or each has done this much. */
  async run(each: number): Promise<void> {
    await Promise.all([
      this.#repeat(each, () => this.#backup()),
      this.#repeat(each, () => this.#tree()),
      this.#repeat(Math.ceil(each / 12), () => this.#upkeep()),
    ])
  }

  async #repeat(times: number, step: () => Promise<void>): Promise<void> {
    try {
      for (let i = 0; i < times; i++) await step()
    } catch (error) {
      if (!(error instanceof Stopped)) throw error
    }
  }

  /** Asks the vault for something. Problems that are `expected` are undefined, as are a failing disk's where it may fail. */
  async #ask<T>(
    what: string,
    work: () => Promise<T>,
    expected: () => ProblemCode[] = () => [],
  ): Promise<T | undefined> {
    if (!this.#files.isAlive) throw new Stopped()
    this.operations++
    this.history.push(what)
    try {
      const answer = await work()
      if (!this.#files.isAlive) throw new Stopped()
      this.history.push(`${what}, done`)
      return answer
    } catch (error) {
      if (!this.#files.isAlive) throw new Stopped()
      this.history.push(`${what}: ${error}`)
      if (this.#mayFail && isDiskFault(error)) return undefined
      if (isProblem(error) && expected().includes(error.code)) return undefined
      throw error
    }
  }

  /** A new backup, which must go well. */
  async backUp(): Promise<void> {
    await this.begin('chunks')
    await this.begin('dir')
    for (let i = 0; i < 3; i++) await this.put()
    await this.items()
    for (let i = 0; i < 4; i++) await this.commit()
    await this.putFiles()
    await this.freeze()
    await this.flush()
  }

  // -- backups --------------------------------------------------------------------------------------------

  async #backup(): Promise<void> {
    const dice = this.#dice
    const choice = dice.pick(100)
    if (choice < 22) await this.put()
    else if (choice < 34) await this.batch()
    else if (choice < 42) await this.flush()
    else if (choice < 54) await this.begin(dice.of(['chunks', 'chunks', 'dir']))
    else if (choice < 70) await this.items()
    else if (choice < 76) await this.touch()
    else if (choice < 90) await this.commit()
    else if (choice < 94) await this.delete()
    else if (choice < 97) await this.pin()
    else await this.prune(backupSource)
  }

  #newChunk(): Id {
    const dice = this.#dice
    const known = [...this.#model.bytes.keys()]
    if (known.length > 0 && dice.once(5)) return dice.of(known)
    const length = dice.once(12) ? dice.pick(30_000) : dice.pick(3000)
    const bytes = dice.once(2) ? dice.bytes(length) : Buffer.alloc(length, dice.bytes(5))
    return this.#model.chunk(bytes)
  }

  /** Puts what the ids name; what was answered is written. */
  async #store(what: string, ids: readonly Id[], work: () => Promise<unknown>): Promise<boolean> {
    const { collections } = this.#model
    const { losses } = this.#vault.store
    const done = await this.#ask(what, async () => {
      await work()
      return true
    })
    if (done !== true) return false
    for (const id of ids) this.bytes += this.#model.sizeOf(id)
    this.#noteLosses()
    if (collections === this.#model.collections && losses === this.#vault.store.losses) {
      for (const id of ids) this.#model.written.add(id)
    }
    return true
  }

  /** After a loss a client asks what is missing. */
  #noteLosses(): void {
    const { losses } = this.#vault.store
    if (losses !== this.#losses) this.#model.written.clear()
    this.#losses = losses
  }

  async #putOne(id: Id): Promise<boolean> {
    const bytes = this.#model.bytes.get(id) as Buffer
    const options = { encoding: 'identity', maxBytes: bytes.length } as const
    return await this.#store(`put ${short(id)}`, [id], () =>
      receiveChunk(this.#vault.store, id, bytes, options),
    )
  }

  async put(): Promise<void> {
    await this.#putOne(this.#newChunk())
  }

  async batch(): Promise<void> {
    const dice = this.#dice
    const blocks = await Promise.all(
      Array.from({ length: 1 + dice.pick(3) }, async () => {
        const ids = Array.from({ length: 1 + dice.pick(6) }, () => this.#newChunk())
        const chunks = ids.map((id) => this.#model.bytes.get(id) as Buffer)
        const rows = ids.map((id, i) => ({ id, length: (chunks[i] as Buffer).length }))
        const encoding = dice.once(2) ? 'zstd' : 'identity'
        return { ids, bytes: (await encodeBlock(rows, Buffer.concat(chunks), { encoding })).bytes }
      }),
    )
    const ids = blocks.flatMap((block) => block.ids)
    const body = Buffer.concat(blocks.map(({ bytes }) => bytes))
    await this.#store(`batch of ${ids.length}`, ids, () => receiveBatch(this.#vault.store, body))
  }

  async flush(): Promise<void> {
    const model = this.#model
    this.#noteLosses()
    const written = [...model.written]
    const done = await this.#ask('flush', async () => {
      await this.#vault.store.flush()
      return true
    })
    this.#noteLosses()
    if (done === true) model.promise(written.filter((id) => model.written.delete(id)))
  }

  async begin(kind: 'chunks' | 'dir'): Promise<void> {
    if (this.#model.open().length > 4) return
    this.#noteBegun(backupSource, undefined)
    const state = await this.#ask(`begin ${kind}`, () =>
      this.#vault.catalog.checkpoints.begin(backupSource, { kind }),
    )
    if (state === undefined) return
    this.#model.begun.get(backupSource)?.pop()
    this.#model.addCheckpoint(state)
  }

  #noteBegun(source: string, listing: Listing | undefined): void {
    const { begun } = this.#model
    begun.set(source, [...(begun.get(source) ?? []), listing])
  }

  #anOpen(kind: ModelCheckpoint['kind']): ModelCheckpoint | undefined {
    const open = this.#model.open().filter((one) => one.kind === kind && one.source === backupSource)
    return open.length === 0 ? undefined : this.#dice.of(open)
  }

  async items(): Promise<void> {
    const dice = this.#dice
    const checkpoint = this.#anOpen('chunks')
    const written = [...this.#model.written, ...this.#model.promised]
    if (checkpoint === undefined || written.length === 0) return
    const parts = Array.from({ length: 1 + dice.pick(8) }, (): Part => {
      const id = dice.of(written)
      return { id, size: this.#model.sizeOf(id) }
    })
    const { source, number } = checkpoint
    const first = checkpoint.known
    checkpoint.items = [...checkpoint.items.slice(0, first), ...parts]
    const answer = await this.#ask(`${parts.length} items of ${number} from ${first}`, () =>
      this.#vault.catalog.checkpoints.addItems({ source, number }, { first, items: parts }),
    )
    if (answer !== undefined) checkpoint.known = checkpoint.items.length
  }

  async touch(): Promise<void> {
    const open = this.#model.open()
    const ids = this.#dice.some([...this.#model.bytes.keys()], 5)
    if (open.length === 0 || ids.length === 0) return
    const { source, number } = this.#dice.of(open)
    await this.#ask(`touch ${number}`, () => this.#vault.catalog.checkpoints.touch({ source, number }, ids))
  }

  async commit(): Promise<void> {
    const checkpoint = this.#anOpen(this.#dice.of(['chunks', 'chunks', 'dir']))
    if (checkpoint === undefined) return
    const root = checkpoint.kind === 'dir' ? await this.#directory(checkpoint) : undefined
    if (checkpoint.kind === 'dir' && root === undefined) return
    const request: CommitRequest = root === undefined ? { items: checkpoint.known } : { root: root.id }
    const { source, number } = checkpoint
    checkpoint.request = request
    checkpoint.doubt = 'commit'
    const state = await this.#ask(
      `commit ${number}`,
      () => this.#vault.catalog.checkpoints.commit({ source, number }, request),
      // What was written in an earlier life and not flushed.
      () => ['missing-chunks'],
    )
    if (state === undefined) {
      if (!this.#mayFail) delete checkpoint.doubt
      return
    }
    delete checkpoint.doubt
    checkpoint.status = 'committed'
    if (state.committedAt !== undefined) checkpoint.committedAt = state.committedAt
    checkpoint.items = checkpoint.items.slice(0, checkpoint.known)
    this.#model.promise(checkpoint.items.map(({ id }) => id))
    this.#model.promise(root?.ids ?? [])
  }

  /** Stores a directory of files and one of directories; notes what it must list. */
  async #directory(checkpoint: ModelCheckpoint): Promise<{ id: Id; ids: Id[] } | undefined> {
    const ids = Array.from({ length: 1 + this.#dice.pick(5) }, () => this.#newChunk())
    const files = new Map(ids.map((id, i) => [`f${i}`, id]))
    const inner = objectsOf([...files].map(([name, id]) => fileEntry(name, id, this.#model.sizeOf(id))))
    const outer = objectsOf([
      directoryEntry('d', inner.id),
      fileEntry('e', ids[0] as Id, this.#model.sizeOf(ids[0] as Id)),
    ])
    const objects = [...inner.objects, ...outer.objects]
    for (const { id, bytes } of objects) this.#model.bytes.set(id, bytes)
    checkpoint.listing = new Map<string, Id | 'directory'>([
      ['d', 'directory'],
      ...[...files].map(([name, id]) => [`d/${name}`, id] as const),
      ['e', ids[0] as Id],
    ])
    const objectIds = objects.map(({ id }) => id)
    const inBatch = this.#dice.once(2)
    for (const id of inBatch ? ids : [...ids, ...objectIds]) if (!(await this.#putOne(id))) return undefined
    if (inBatch && !(await this.#putObjects(objectIds))) return undefined
    return { id: outer.id, ids: [...ids, ...objectIds] }
  }

  /** In one batch, after which the receiver looks into the directories, as the route has it. */
  async #putObjects(ids: readonly Id[]): Promise<boolean> {
    const rows = ids.map((id) => ({ id, length: this.#model.sizeOf(id) }))
    const bytes = Buffer.concat(ids.map((id) => this.#model.bytes.get(id) as Buffer))
    const block = await encodeBlock(rows, bytes, { encoding: 'zstd' })
    return await this.#store(`batch of ${ids.length} objects`, ids, async () => {
      const { store, catalog } = this.#vault
      const { losses } = store
      const { objects } = await receiveBatch(store, block.bytes)
      catalog.closure.arrivals.note(objects, losses)
      await catalog.closure.arrivals.settled()
    })
  }

  async delete(): Promise<void> {
    const all = [...this.#model.open(), ...this.#model.committed()]
    const mayGo = all.filter((one) => one.source === backupSource && !one.isPinned)
    if (mayGo.length === 0) return
    const checkpoint = this.#dice.of(mayGo)
    const { source, number } = checkpoint
    checkpoint.doubt = 'delete'
    this.#model.mayForget()
    const done = await this.#ask(`delete ${number}`, async () => {
      await this.#vault.catalog.checkpoints.delete({ source, number })
      return true
    })
    if (done !== true) return
    delete checkpoint.doubt
    checkpoint.status = 'deleted'
  }

  async pin(): Promise<void> {
    const committed = this.#model.committed().filter((one) => one.source === backupSource)
    if (committed.length === 0) return
    const checkpoint = this.#dice.of(committed)
    const { source, number } = checkpoint
    const isPinned = !checkpoint.isPinned
    const { checkpoints } = this.#vault.catalog
    checkpoint.doubt = 'pin'
    const done = await this.#ask(`${isPinned ? 'pin' : 'unpin'} ${number}`, async () => {
      if (isPinned) await checkpoints.pin({ source, number })
      else await checkpoints.unpin({ source, number })
      return true
    })
    if (done !== true) return
    delete checkpoint.doubt
    checkpoint.isPinned = isPinned
  }

  async prune(source: string): Promise<void> {
    const mayGo = this.#model.committed().filter((one) => one.source === source && !one.isPinned)
    if (mayGo.length === 0) return
    if (source === backupSource) await this.#setPolicy()
    for (const checkpoint of this.#model.checkpoints.values()) {
      if (checkpoint.source === source && checkpoint.doubt !== undefined) checkpoint.doubt = 'several'
    }
    for (const checkpoint of mayGo) checkpoint.doubt = 'delete'
    this.#model.mayForget()
    const answer = await this.#ask(`prune ${source}`, () => prune(this.#vault, { source }))
    if (answer === undefined) return
    const gone = new Set(answer.sources.flatMap(({ removed }) => removed.map(({ number }) => number)))
    for (const checkpoint of mayGo) {
      delete checkpoint.doubt
      if (gone.has(checkpoint.number)) checkpoint.status = 'deleted'
    }
  }

  async #setPolicy(): Promise<void> {
    const model = this.#model
    const keepLast = 1 + this.#dice.pick(3)
    model.mayKeepLast = [keepLast]
    const done = await this.#ask(`keep ${keepLast}`, async () => {
      await this.#vault.settings.replace({ retention: { keepLast } }, () => {})
      return true
    })
    if (done !== true) return
    model.keepLast = keepLast
    model.mayKeepLast = []
  }

  // -- the live tree --------------------------------------------------------------------------------------

  async #tree(): Promise<void> {
    const choice = this.#dice.pick(100)
    if (choice < 45) await this.putFiles()
    else if (choice < 58) await this.makeCollection()
    else if (choice < 70) await this.move()
    else if (choice < 76) await this.copy()
    else if (choice < 84) await this.remove()
    else if (choice < 97) await this.freeze()
    else await this.prune(frozenSource)
  }

  /** Asks for changes of the tree at the same time; each is there or not. */
  async #change(
    what: string,
    changes: { work: () => Promise<unknown>; effect: (tree: Map<string, Id | 'directory'>) => void }[],
  ): Promise<void> {
    const model = this.#model
    if (model.treeDoubts.length > 0) await this.#ask('look at the tree', () => model.checkTree(this.#vault))
    model.treeDoubts = changes.map(({ effect }) => effect)
    // Also what goes to the trash: an empty file, and what is the same as what comes, do not.
    model.mayForget()
    const { collections } = model
    const ends = await Promise.allSettled(
      changes.map(async ({ work, effect }) => {
        const done = await this.#ask(
          what,
          async () => {
            await work()
            return true
          },
          // A collection that began meanwhile voids what was found present: the client sends it again.
          () => (collections === model.collections ? [] : ['unavailable']),
        )
        if (done !== true) return
        effect(model.tree)
        model.treeDoubts = model.treeDoubts.filter((doubt) => doubt !== effect)
      }),
    )
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  }

  #directories(): string[] {
    return [...this.#model.tree].filter(([, content]) => content === 'directory').map(([path]) => path)
  }

  #aPath(): string {
    const parent = this.#dice.of(['', ...this.#directories()])
    return `${parent === '' ? '' : `${parent}/`}${this.#dice.of(['a', 'b', 'c', 'd'])}`
  }

  async putFiles(): Promise<void> {
    const { store, tree } = this.#vault
    const mayBe = Array.from({ length: 1 + this.#dice.pick(3) }, () => this.#aPath())
    const paths = new Set(mayBe.filter((path) => this.#model.tree.get(path) !== 'directory'))
    const changes = [...paths].map((path) => {
      const id = this.#newChunk()
      const bytes = this.#model.bytes.get(id) as Buffer
      const work = async (): Promise<void> => {
        const since = store.losses
        const content = await receiveSmallFile(store, bytes)
        await tree.change((change) => change.putFile(at(path), { ...content, since }))
        this.bytes += bytes.length
      }
      return { work, effect: (listing: Map<string, Id | 'directory'>) => void listing.set(path, id) }
    })
    await this.#change(`put ${[...paths].join(', ')}`, changes)
  }

  async makeCollection(): Promise<void> {
    const path = this.#aPath()
    if (this.#model.tree.has(path) || path.length > 7) return
    await this.#change(`make ${path}`, [
      {
        work: () => this.#vault.tree.change((change) => change.makeCollection(at(path))),
        effect: (listing) => void listing.set(path, 'directory'),
      },
    ])
  }

  async move(): Promise<void> {
    const paths = [...this.#model.tree.keys()]
    if (paths.length === 0) return
    const from = this.#dice.of(paths)
    const to = this.#aPath()
    if (isAt(to, from) || isAt(from, to)) return
    await this.#change(`move ${from} to ${to}`, [
      {
        work: () =>
          this.#vault.tree.change(async (change) => {
            if ((await change.find(at(to))) !== undefined) await change.remove(at(to), 'overwritten')
            await change.move(at(from), at(to))
          }),
        effect: (listing) => {
          for (const path of [...listing.keys()]) if (isAt(path, to)) listing.delete(path)
          for (const [path, content] of [...listing]) {
            if (!isAt(path, from)) continue
            listing.delete(path)
            listing.set(to + path.slice(from.length), content)
          }
        },
      },
    ])
  }

  async copy(): Promise<void> {
    const paths = [...this.#model.tree.keys()]
    if (paths.length === 0) return
    const from = this.#dice.of(paths)
    const to = this.#aPath()
    if (isAt(to, from) || isAt(from, to) || to.length > 9) return
    await this.#change(`copy ${from} to ${to}`, [
      {
        work: () => this.#vault.tree.copy(at(from), at(to), 'infinity', async () => {}),
        effect: (listing) => {
          for (const path of [...listing.keys()]) if (isAt(path, to)) listing.delete(path)
          for (const [path, content] of [...listing]) {
            if (isAt(path, from)) listing.set(to + path.slice(from.length), content)
          }
        },
      },
    ])
  }

  async remove(): Promise<void> {
    const paths = [...this.#model.tree.keys()]
    if (paths.length === 0) return
    const path = this.#dice.of(paths)
    await this.#change(`remove ${path}`, [
      {
        work: () => this.#vault.tree.change((change) => change.remove(at(path))),
        effect: (listing) => {
          for (const below of [...listing.keys()]) if (isAt(below, path)) listing.delete(below)
        },
      },
    ])
  }

  async freeze(): Promise<void> {
    const model = this.#model
    if (model.treeDoubts.length > 0) await this.#ask('look at the tree', () => model.checkTree(this.#vault))
    const listing = new Map(model.tree)
    this.#noteBegun(frozenSource, listing)
    // One that a stop left open is deleted first.
    for (const one of model.open()) if (one.source === frozenSource) one.doubt = 'delete'
    model.mayForget()
    const state = await this.#ask('freeze', () =>
      freeze(this.#vault, [Buffer.from('tree')], { source: frozenSource }),
    )
    if (state === undefined) return
    model.begun.get(frozenSource)?.pop()
    const checkpoint = model.addCheckpoint(state)
    checkpoint.status = 'committed'
    checkpoint.listing = listing
    if (state.committedAt !== undefined) checkpoint.committedAt = state.committedAt
    for (const one of model.checkpoints.values()) {
      if (one.source !== frozenSource || one.status !== 'open') continue
      delete one.doubt
      one.status = 'deleted'
    }
  }

  // -- upkeep ---------------------------------------------------------------------------------------------

  async #upkeep(): Promise<void> {
    // So that there is something to keep, and others are at work.
    for (let turns = this.#dice.pick(400); turns > 0; turns--) await nextTurn()
    const choice = this.#dice.pick(10)
    if (choice < 3) await this.scrub()
    else if (choice < 4) await this.#ask('expire', () => this.#vault.tree.expire(new Date(Date.now() + 1000)))
    else await this.collect(this.#dice.of([0, 0.2, 0.5]))
  }

  async collect(minGarbage: number): Promise<CollectionReport | undefined> {
    return await this.#ask(`collect from ${minGarbage}`, () => {
      // The collection begins in the same turn.
      this.#model.collectionBegins()
      const pacing = { step: () => nextTurn() }
      return collect(this.#vault, { minGarbage, pacing }).finally(() => {
        this.#model.isCollecting = false
      })
    })
  }

  async scrub(): Promise<void> {
    const state = await this.#ask('scrub', async () => (await this.#vault.scrub.everything()).ended)
    if (state === undefined || this.#mayFail) return
    assert.equal(state.last?.outcome, 'done', state.last?.detail)
    assert.equal(state.last?.report.lostChunks, 0, 'chunks lost by a power cut are none that the index has')
  }

  /** Everything open is deleted, and then everything that nothing refers to. */
  async collectAll(): Promise<void> {
    const { catalog, tree } = this.#vault
    const { checkpoints } = catalog
    await tree.settled()
    for (const checkpoint of this.#model.open()) {
      await checkpoints.delete(checkpoint)
      checkpoint.status = 'deleted'
    }
    let left: Id[] = []
    // What one collection keeps by mistake the next does not.
    for (let i = 0; i < 3; i++) {
      await this.collect(0)
      left = (await this.#model.checkGarbage(this.#vault)).filter(
        (id) => this.#model.sizeOf(id) > estimateBytes,
      )
      if (left.length === 0) return
    }
    assert.deepEqual(left, [], 'what nothing refers to is gone')
  }
}

function objectsOf(entries: readonly Entry[]): { id: Id; objects: EncodedObject[] } {
  const list = new DirectoryListBuilder()
  const objects = entries.flatMap((entry) => list.add(entry))
  const { objects: last, reference } = list.finish()
  return { id: reference, objects: [...objects, ...last] }
}

function fileEntry(name: string, id: Id, size: number): Entry {
  return { kind: 'file', ...encodeName(Buffer.from(name)), mode: 0o644, ...ownership, mtimeNs: '0', id, size }
}

function directoryEntry(name: string, id: Id): Entry {
  return { kind: 'directory', ...encodeName(Buffer.from(name)), mode: 0o755, ...ownership, mtimeNs: '0', id }
}

function short(id: Id): string {
  return id.slice(7, 15)
}
