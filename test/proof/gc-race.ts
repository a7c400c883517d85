/**
 * One client against one garbage collection, over real packs, a real index and a real catalogue, in an order that
 * somebody chooses. Whatever the order, the client ends with a committed checkpoint, of which every byte is there after
 * this collection and the next: losing a race costs a 409 and a second upload, never a hole.
 */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encodeBlock } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { DirectoryListBuilder } from '../../protocol/list-builder.ts'
import { isProblem } from '../../protocol/problem.ts'
import type { MissingChunk } from '../../protocol/schema.ts'
import type { CheckpointName } from '../../protocol/url.ts'
import { readContent } from '../../server/catalog/content.ts'
import { entriesOf } from '../../server/catalog/directory.ts'
import type { CollectableStore, Collection } from '../../server/store/collectable.ts'
import { PackChunkStore } from '../../server/store/pack-chunk-store.ts'
import { verified } from '../../server/store/receive.ts'
import { collect } from '../../server/upkeep/collect.ts'
import { type Vault, Vaults } from '../../server/vaults.ts'
import { type Choose, type Gate, interleave } from './interleave.ts'

export const behaviours = [
  'asks and sends in the name of its checkpoint',
  'asks before it has a checkpoint, and never again',
  'relies on a directory of a checkpoint that is deleted',
  'commits the root of a checkpoint that is deleted, and sends nothing',
  'commits a list of items',
  'puts a file into the live tree',
] as const
export type Behaviour = (typeof behaviours)[number]

export interface RaceOptions {
  readonly behaviour: Behaviour
  readonly choose: Choose
  /** Steps are calls of the store, instead of requests. */
  readonly fine?: boolean
}

export interface RaceResult {
  /** Commits that were answered with what is missing. */
  readonly conflicts: number
  readonly order: readonly string[]
}

interface Chunk {
  readonly id: Id
  readonly bytes: Buffer
}

const source = 'laptop'

/** Runs one race in a vault of its own, and checks how it ended. */
export async function race({ behaviour, choose, fine = false }: RaceOptions): Promise<RaceResult> {
  const folder = await mkdtemp(join(tmpdir(), 'chunkdav-race-'))
  const gates = new StoreGates()
  const vaults = await Vaults.open(folder, {
    trashMs: 1e9,
    openStore: async (path) => gates.around(await PackChunkStore.open(path, { packBytes: 3000 })),
  })
  try {
    await vaults.create('home')
    const vault = await vaults.get('home')
    const client = new Client(vault, behaviour)
    await client.prepare()
    const order = await interleave(
      [
        {
          name: 'client',
          run: async (gate) => {
            if (fine) gates.client = gate
            await client.run(gate)
            gates.client = undefined
          },
        },
        { name: 'gc', run: (gate) => collectStepByStep(vault, gate, fine) },
      ],
      choose,
    )
    await client.expectWhole()
    await collect(vault, { minGarbage: 0, pacing: { step: async () => {} } })
    await client.expectWhole()
    return { conflicts: client.conflicts, order }
  } finally {
    await vaults.close()
    await rm(folder, { recursive: true })
  }
}

/** Gates in front of what the client's requests ask of the store. The collection goes to the store itself. */
class StoreGates {
  client: Gate | undefined

  around(store: PackChunkStore): CollectableStore {
    const gated: readonly PropertyKey[] = ['stat', 'put', 'get', 'flush']
    return new Proxy<CollectableStore>(store, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name, target)
        if (typeof value !== 'function') return value
        if (!gated.includes(name)) return value.bind(target)
        return async (...args: unknown[]) => {
          // Calls of the collection come through here too, while the client stands at a gate: they are not its steps.
          if (!collecting) await this.client?.()
          return await value.apply(target, args)
        }
      },
    })
  }
}

/** Whether it is the collection's turn: its own calls of the store are no steps of the client. */
let collecting = false

async function collectStepByStep(vault: Vault, gate: Gate, fine: boolean): Promise<void> {
  const turn = async (): Promise<void> => {
    collecting = false
    await gate()
    collecting = true
  }
  collecting = true
  let steps = 0
  // By requests: a step for the marking, one for the survey, one for each pack.
  const store = new Proxy(vault.store, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      if (name !== 'collect') return value.bind(target)
      return (): Collection => {
        const collection = target.collect()
        return {
          ...collection,
          survey: async (pacing) => {
            await turn()
            return await collection.survey(pacing)
          },
          compact: async (pack, pacing) => {
            if (steps++ < 2 || fine) await turn()
            return await collection.compact(pack, pacing)
          },
        }
      }
    },
  })
  const pacing = { step: async () => void (fine && (await turn())) }
  try {
    await collect({ store, catalog: vault.catalog, tree: vault.tree }, { minGarbage: 0, pacing })
  } finally {
    collecting = false
  }
}

class Client {
  conflicts = 0
  readonly #vault: Vault
  readonly #behaviour: Behaviour
  /** What is garbage when the collection begins, or is about to be. */
  #old: Chunk[] = []
  #new: Chunk[] = []
  /** The directories, by id. */
  readonly #objects = new Map<Id, Buffer>()
  #oldRoot: Id | undefined
  #root: Id | undefined
  #committed: CheckpointName | undefined

  constructor(vault: Vault, behaviour: Behaviour) {
    this.#vault = vault
    this.#behaviour = behaviour
  }

  /** Stores a tree, commits it, and deletes the checkpoint; beside it one that stays, and plain garbage. */
  async prepare(): Promise<void> {
    this.#old = Array.from({ length: 4 }, (_, i) => chunkOf(`old ${i} `, 700))
    this.#new = Array.from({ length: 2 }, (_, i) => chunkOf(`new ${i} `, 600))
    const kept = chunkOf('kept ', 500)
    const inner = this.#directory(this.#old.slice(0, 2).map((chunk, i) => [`f${i}`, chunk]))
    this.#oldRoot = this.#directory(
      this.#old.slice(2).map((chunk, i) => [`g${i}`, chunk]),
      [['inner', inner]],
    )
    for (const chunk of [...this.#old, kept, chunkOf('garbage ', 900)]) await this.#put(chunk)
    for (const id of [inner, this.#oldRoot]) await this.#put({ id, bytes: this.#bytesOf(id) })
    const keptRoot = this.#directory([['kept', kept]])
    await this.#put({ id: keptRoot, bytes: this.#bytesOf(keptRoot) })
    const { checkpoints } = this.#vault.catalog
    const old = await checkpoints.begin(source, { kind: 'dir' })
    await checkpoints.commit(old, { root: this.#oldRoot })
    const other = await checkpoints.begin('other', { kind: 'dir' })
    await checkpoints.commit(other, { root: keptRoot })
    await checkpoints.delete(old)
    // What it builds on: an old directory below a new one.
    this.#root =
      this.#behaviour === behaviours[3]
        ? this.#oldRoot
        : this.#directory(
            this.#new.map((chunk, i) => [`n${i}`, chunk]),
            [['old', this.#oldRoot]],
          )
  }

  async run(gate: Gate): Promise<void> {
    if (this.#behaviour === behaviours[5]) return await this.#putFile(gate)
    const { checkpoints } = this.#vault.catalog
    // Of the directories only the first asks: what it reaches is kept, too.
    const all = [...this.#old, ...this.#new].map(({ id }) => id)
    if (this.#behaviour === behaviours[0]) all.push(this.#oldRoot as Id)
    const asksFirst = this.#behaviour === behaviours[1]
    let missing: ReadonlySet<Id> = new Set(this.#new.map(({ id }) => id))
    if (asksFirst) {
      missing = await this.#missing(all)
      await gate()
    }
    const kind = this.#behaviour === behaviours[4] ? 'chunks' : 'dir'
    const opened = await checkpoints.begin(source, { kind })
    await gate()
    if (this.#behaviour === behaviours[0] || kind === 'chunks') {
      missing = await this.#missing(all, opened)
      await gate()
    }
    for (const chunk of [...this.#old, ...this.#new])
      if (missing.has(chunk.id)) await this.#put(chunk, opened)
    await gate()
    const root = this.#root as Id
    if (kind === 'dir') {
      await this.#put(
        { id: root, bytes: this.#bytesOf(root) },
        this.#behaviour === behaviours[3] ? undefined : opened,
      )
    } else {
      const items = [...this.#old, ...this.#new].map(({ id, bytes }) => ({ id, size: bytes.length }))
      await checkpoints.addItems(opened, { first: 0, items })
    }
    await gate()
    await this.#commit(opened, gate)
  }

  /** What is missing is sent again, as often as it is said to be. */
  async #commit(opened: CheckpointName & { kind: 'dir' | 'chunks' }, gate: Gate): Promise<void> {
    const request =
      opened.kind === 'dir' ? { root: this.#root as Id } : { items: this.#old.length + this.#new.length }
    const known = new Map([...this.#old, ...this.#new].map(({ id, bytes }) => [id, bytes]))
    for (;;) {
      try {
        await this.#vault.catalog.checkpoints.commit(opened, request)
        this.#committed = opened
        return
      } catch (error) {
        if (!isProblem(error, 'missing-chunks')) throw error
        this.conflicts++
        assert.ok(this.conflicts < 20, 'a commit that misses something again and again')
        await gate()
        for (const { id } of error.extensions.missing as MissingChunk[]) {
          await this.#put({ id, bytes: known.get(id) ?? this.#bytesOf(id) }, opened)
        }
        await gate()
      }
    }
  }

  async #putFile(gate: Gate): Promise<void> {
    const { store, tree, catalog } = this.#vault
    const [content] = this.#old as [Chunk]
    const lease = store.lease()
    lease.add(content.id)
    let since = store.losses
    await this.#put(content)
    await gate()
    for (let placed = false; !placed; ) {
      try {
        const part = { id: content.id, size: content.bytes.length }
        await tree.change((change) =>
          change.putFile([Buffer.from('tree'), Buffer.from('file')], { part, md5: '', sha1: '', since }),
        )
        placed = true
      } catch (error) {
        if (!isProblem(error, 'unavailable')) throw error
        this.conflicts++
        since = store.losses
        const wanted = { id: content.id, as: 'chunk', within: content.id } as const
        assert.deepEqual(await catalog.closure.incomplete([wanted]), [], 'what is leased is collected')
      }
    }
    await gate()
    lease.release()
  }

  /** Everything that was committed is there, byte for byte. */
  async expectWhole(): Promise<void> {
    const { reader, checkpoints } = this.#vault.catalog
    if (this.#committed === undefined) {
      const [content] = this.#old as [Chunk]
      assert.deepEqual(await reader.get(content.id), content.bytes)
      return
    }
    const state = await checkpoints.state(this.#committed)
    assert.equal(state.state, 'committed')
    const found = new Map<Id, Buffer>()
    const walk = async (id: Id): Promise<void> => {
      for await (const entry of entriesOf(reader, id)) {
        if (entry.kind === 'directory') await walk(entry.id)
        if (entry.kind === 'file')
          found.set(entry.id, Buffer.concat(await Array.fromAsync(readContent(reader, entry))))
      }
    }
    if (state.root !== undefined) await walk(state.root)
    else for (const { id } of [...this.#old, ...this.#new]) found.set(id, (await reader.get(id)) as Buffer)
    const expected = this.#behaviour === behaviours[3] ? this.#old : [...this.#old, ...this.#new]
    for (const { id, bytes } of expected) assert.deepEqual(found.get(id), bytes)
  }

  /** As the route does it. */
  async #missing(ids: readonly Id[], opened?: CheckpointName): Promise<Set<Id>> {
    const { store, catalog } = this.#vault
    const lease = store.lease()
    if (opened !== undefined) for (const id of ids) lease.add(id)
    const lengths = await store.stat(ids)
    const isHere = (place: number): boolean => lengths[place] !== undefined
    if (opened !== undefined)
      await catalog.checkpoints.touch(
        opened,
        ids.filter((_, place) => isHere(place)),
      )
    lease.release()
    return new Set(ids.filter((_, place) => !isHere(place)))
  }

  /** As a batch's: directories are looked into. */
  async #put({ id, bytes }: Chunk, opened?: CheckpointName): Promise<void> {
    const { store, catalog } = this.#vault
    const lease = store.lease()
    if (opened !== undefined) lease.add(id)
    const { losses } = store
    const [outcome] = await store.put(
      await verified(await encodeBlock([{ id, length: bytes.length }], bytes)),
    )
    if (opened !== undefined) await catalog.checkpoints.touch(opened, [id])
    lease.release()
    if (outcome !== 'stored' || !this.#objects.has(id)) return
    catalog.closure.arrivals.note([{ id, bytes }], losses)
    await catalog.closure.arrivals.settled()
  }

  #directory(files: [string, Chunk][], below: [string, Id][] = []): Id {
    const inode = { mode: 0o644, uid: 0, gid: 0, mtimeNs: '0' }
    const entries = [
      ...files.map(
        ([name, { id, bytes }]) => ({ kind: 'file', name, ...inode, id, size: bytes.length }) as const,
      ),
      ...below.map(([name, id]) => ({ kind: 'directory', name, ...inode, id }) as const),
    ].sort((a, b) => (a.name < b.name ? -1 : 1))
    const list = new DirectoryListBuilder()
    const made = entries.flatMap((entry) => list.add(entry))
    const { objects, reference } = list.finish()
    for (const { id, bytes } of [...made, ...objects]) this.#objects.set(id, bytes)
    return reference
  }

  #bytesOf(id: Id): Buffer {
    const bytes = this.#objects.get(id)
    if (bytes === undefined) throw new Error(`there is no object ${id}`)
    return bytes
  }
}

/** Content that does not compress away, and is the same in every run. */
function chunkOf(text: string, length: number): Chunk {
  const bytes = Buffer.alloc(length)
  for (let at = 0, i = 0; at < length; i++) at += bytes.write(hashId(Buffer.from(`${text}${i}`)).slice(7), at)
  return { id: hashId(bytes), bytes }
}
