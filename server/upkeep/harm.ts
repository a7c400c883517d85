/**
 * Which checkpoints, and which files in them and in the live tree, reach something that is not here.
 *
 * One walk over all of it. What was found whole is remembered by its id, so that what checkpoints share is walked
 * once. What was not is walked wherever it stands, to name its files there, until enough of them are named; then it is
 * counted by its id, too: directories that contain each other many times over make no endless walk. Chunks are looked
 * up, not read; objects are read. Memory: the ids remembered, and a page of a list per level.
 */
import { LRUCache } from 'lru-cache'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { nameBytes } from '../../protocol/objects.ts'
import { isProblem, Problem, type ProblemCode } from '../../protocol/problem.ts'
import type { CheckpointState, Part, ScrubHarm } from '../../protocol/schema.ts'
import { type CheckpointName, encodeSegment } from '../../protocol/url.ts'
import type { Catalog } from '../catalog/catalog.ts'
import type { ChunkReader } from '../catalog/chunk-reader.ts'
import { entriesOf } from '../catalog/directory.ts'
import type { DirectoryRecord, LiveTree } from '../catalog/live-tree.ts'
import { readObject } from '../catalog/objects.ts'
import type { Pace } from './pace.ts'

/** All that is needed of a vault. */
export interface HarmedVault {
  readonly catalog: Pick<Catalog, 'reader' | 'checkpoints'>
  readonly tree: Pick<LiveTree, 'find' | 'members'>
}

/** Ids of objects and directories that were found whole: some 50 MiB. */
const rememberedIds = 250_000
/** Of missing chunks, so that each counts once. */
const countedIds = 100_000
const statBatch = 1000
const namedPaths = 100
const namedCheckpoints = 1000
/** Text of all paths that are named: the answer that tells them is kept in memory and in a file. */
const namedText = 256 * 1024

/** How what is reached says that it is not here, or not what it should be. */
const harms: ReadonlySet<ProblemCode> = new Set([
  'not-found',
  'chunk-corrupt',
  'invalid-object',
  'store-corrupt',
  'internal-error',
])

/**
 * Looks at everything that is committed, and at the live tree. `missing` are the first of the chunks that are not here.
 * Problem `unavailable` when the pace ends it.
 */
export async function findHarm(
  vault: HarmedVault,
  pace: Pick<Pace, 'step'>,
): Promise<{ harm: ScrubHarm; missing: Id[] }> {
  const walk = new HarmWalk(vault, pace)
  await walk.checkpoints()
  await walk.tree()
  return { harm: walk.harm(), missing: [...walk.missing].slice(0, statBatch) }
}

/** Nothing that is kept lacks anything. */
export function isHarmless(harm: ScrubHarm | undefined): boolean {
  return harm === undefined || (harm.checkpoints.length === 0 && harm.tree === undefined)
}

/** Whether the checkpoint was deleted. */
export async function isGone(vault: Pick<HarmedVault, 'catalog'>, name: CheckpointName): Promise<boolean> {
  try {
    await vault.catalog.checkpoints.state(name)
    return false
  } catch (error) {
    if (isProblem(error, 'checkpoint-not-found')) return true
    // It is there, whatever is wrong with it.
    if (isProblem(error, 'store-corrupt')) return false
    throw error
  }
}

/** A damaged index tells nothing of what is here: it ends the walk, as any other failure. */
function withoutIndexFaults(reader: ChunkReader): ChunkReader {
  const guarded = async <T>(read: () => Promise<T>): Promise<T> => {
    try {
      return await read()
    } catch (error) {
      if (!isProblem(error, 'store-corrupt')) throw error
      throw new Problem('unavailable', error.message, { cause: error })
    }
  }
  return {
    get losses() {
      return reader.losses
    },
    stat: (ids) => guarded(() => reader.stat(ids)),
    get: (id) => guarded(() => reader.get(id)),
    flush: () => reader.flush(),
  }
}

/** The paths of one checkpoint, or of the tree. */
class Harmed {
  count = 0
  /** Rises with each harm, also when the count can rise no more. */
  marks = 0
  readonly paths: string[] = []

  add(count: number): void {
    this.marks++
    this.count = Math.min(Number.MAX_SAFE_INTEGER, this.count + count)
  }
}

class HarmWalk {
  readonly missing = new Set<Id>()
  readonly #vault: HarmedVault
  readonly #reader: ChunkReader
  readonly #pace: Pick<Pace, 'step'>
  readonly #clean = new LRUCache<Id, true>({ max: rememberedIds })
  /** Objects that lack something below them, and how many paths that harms. */
  readonly #harmful = new LRUCache<Id, number>({ max: rememberedIds })
  readonly #harmed: ScrubHarm['checkpoints'] = []
  #harmedTree: Harmed | undefined
  #textLeft = namedText
  #isTextFull = false

  constructor(vault: HarmedVault, pace: Pick<Pace, 'step'>) {
    this.#vault = vault
    this.#reader = withoutIndexFaults(vault.catalog.reader)
    this.#pace = pace
  }

  harm(): ScrubHarm {
    return {
      at: new Date().toISOString(),
      missingChunks: this.missing.size,
      checkpoints: this.#harmed,
      ...(this.#harmedTree && { tree: { count: this.#harmedTree.count, paths: this.#harmedTree.paths } }),
    }
  }

  async checkpoints(): Promise<void> {
    const { checkpoints } = this.#vault.catalog
    for (const source of await checkpoints.listSources()) {
      for (const state of await checkpoints.list(source)) {
        if (state.state !== 'committed') continue
        const harmed = new Harmed()
        await this.#unlessDeleted(() => this.#checkpoint(state, harmed))
        if (harmed.count === 0 || this.#harmed.length === namedCheckpoints) continue
        // What it alone reached may have been collected after it was deleted.
        if (await isGone(this.#vault, state)) continue
        this.#harmed.push({ source, number: state.number, count: harmed.count, paths: harmed.paths })
      }
    }
  }

  /** A checkpoint may be deleted while it is looked at. */
  async #unlessDeleted(look: () => Promise<void>): Promise<void> {
    try {
      await look()
    } catch (error) {
      if (!isProblem(error, 'checkpoint-not-found')) throw error
    }
  }

  async #checkpoint(state: CheckpointState, harmed: Harmed): Promise<void> {
    if (state.root !== undefined) await this.#directory(state.root, '', harmed)
    if (state.kind !== 'chunks' || harmed.count > 0) return
    // A stream has no paths: its items count.
    const { checkpoints } = this.#vault.catalog
    await this.#unlessHarmed(undefined, harmed, '', async () => {
      for (let first = 0; first < (state.items ?? 0); ) {
        const { items } = await checkpoints.items(state, first, limits.maxPageItems)
        if (items.length === 0) return
        harmed.count += (await this.#broken(items)).length
        first += items.length
      }
    })
  }

  /** Notes what cannot be read below a directory object; false when something cannot. */
  async #directory(id: Id, path: string, harmed: Harmed): Promise<boolean> {
    if (this.#clean.has(id)) return true
    const known = this.#harmful.get(id)
    if (known !== undefined && (this.#isTextFull || harmed.paths.length === namedPaths)) {
      harmed.add(known)
      return false
    }
    await this.#pace.step()
    const { count, marks } = harmed
    let files: { part: Part; path: string }[] = []
    const look = async (): Promise<void> => {
      for (const at of await this.#broken(files.map(({ part }) => part))) {
        this.#note(harmed, files[at]?.path ?? '')
      }
      files = []
    }
    await this.#unlessHarmed(id, harmed, path, async () => {
      for await (const entry of entriesOf(this.#reader, id)) {
        const below = () => path + encodeSegment(nameBytes(entry))
        if (entry.kind === 'file') files.push({ part: entry, path: below() })
        else if (entry.kind === 'directory') await this.#directory(entry.id, `${below()}/`, harmed)
        if (files.length === statBatch) await look()
      }
    })
    await look()
    const isSound = harmed.marks === marks
    if (isSound) this.#clean.set(id, true)
    else this.#harmful.set(id, Math.max(1, harmed.count - count))
    return isSound
  }

  /** The places in the list of what cannot be read whole. */
  async #broken(parts: readonly Part[]): Promise<number[]> {
    const broken: number[] = []
    for (let first = 0; first < parts.length; first += statBatch) {
      const some = parts.slice(first, first + statBatch)
      const lengths = await this.#reader.stat(some.map(({ id }) => id))
      for (const [i, { id, chunked }] of some.entries()) {
        const isHere = lengths[i] !== undefined
        if (!isHere) this.#miss(id)
        if (!isHere || (chunked === true && !(await this.#isWhole(id, 0)))) broken.push(first + i)
      }
      await this.#pace.step()
    }
    return broken
  }

  /** Whether all parts of a file object are here. */
  async #isWhole(id: Id, depth: number): Promise<boolean> {
    if (this.#clean.has(id)) return true
    if (this.#harmful.has(id) || depth > limits.maxPartDepth) return false
    await this.#pace.step()
    const harmed = new Harmed()
    await this.#unlessHarmed(id, harmed, '', async () => {
      const { parts } = await readObject(this.#reader, 'file', id)
      harmed.count += (await this.#broken(parts.filter(({ chunked }) => chunked !== true))).length
      for (const part of parts) {
        if (part.chunked === true && !(await this.#isWhole(part.id, depth + 1))) harmed.count++
      }
    })
    if (harmed.count === 0) this.#clean.set(id, true)
    else this.#harmful.set(id, 1)
    return harmed.count === 0
  }

  /** Runs `read`; what is wrong with what it reads is noted for `path`. */
  async #unlessHarmed(
    id: Id | undefined,
    harmed: Harmed,
    path: string,
    read: () => Promise<void>,
  ): Promise<void> {
    try {
      await read()
    } catch (error) {
      if (!isProblem(error) || !harms.has(error.code)) throw error
      if (id !== undefined) this.#miss(id)
      this.#note(harmed, path)
    }
  }

  #note(harmed: Harmed, path: string): void {
    harmed.add(1)
    if (harmed.paths.length === namedPaths) return
    if (path.length > this.#textLeft) {
      this.#isTextFull = true
      return
    }
    this.#textLeft -= path.length
    harmed.paths.push(path)
  }

  #miss(id: Id): void {
    if (this.missing.size < countedIds) this.missing.add(id)
  }

  // -- the live tree ------------------------------------------------------------------------------------

  async tree(): Promise<void> {
    const harmed = new Harmed()
    for (const area of ['tree', 'trash']) {
      await this.#unlessHarmed(undefined, harmed, `${area}/`, async () => {
        const names = [Buffer.from(area)]
        const record = await this.#vault.tree.find(names)
        if (record?.kind === 'directory') await this.#collection(record, names, harmed)
      })
    }
    if (harmed.count > 0) this.#harmedTree = harmed
  }

  async #collection(record: DirectoryRecord, names: readonly Buffer[], harmed: Harmed): Promise<void> {
    await this.#pace.step()
    let files: { part: Part; names: readonly Buffer[] }[] = []
    const look = async (): Promise<void> => {
      for (const at of await this.#broken(files.map(({ part }) => part))) {
        const file = files[at]
        // It may have been replaced or removed meanwhile, and its content collected.
        const now = file && (await this.#vault.tree.find(file.names))
        if (file && now?.kind === 'file' && now.id === file.part.id) this.#note(harmed, shown(file.names))
      }
      files = []
    }
    for await (const { name, record: member } of this.#vault.tree.members(record)) {
      const below = [...names, name]
      if (member.kind === 'file') {
        // Nobody reads the chunk of no bytes, and it may never have been stored.
        if (member.size > 0) files.push({ part: member, names: below })
      } else {
        await this.#unlessHarmed(undefined, harmed, `${shown(below)}/`, () =>
          this.#collection(member, below, harmed),
        )
      }
      if (files.length === statBatch) await look()
    }
    await look()
  }
}

function shown(names: readonly Buffer[]): string {
  return names.map(encodeSegment).join('/')
}
