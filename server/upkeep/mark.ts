/**
 * The first half of a garbage collection: everything that is reachable is told to the collection.
 *
 * Roots are the checkpoints, committed and open, what open ones asked about or sent, and the live tree with its trash.
 * What comes after the collection began need not be marked: it keeps whatever is found or stored since. Before each pack
 * is swept, what open checkpoints have asked about meanwhile is walked too, so that hardly any commit loses the race.
 *
 * The walk goes depth first. A frame holds what is still to be entered of one object; a few objects are read at once.
 * Each object is entered once. So memory is bounded by the depth times a few objects, 16 to 53 bytes for each object of
 * the vault (object-set.ts), and 2.5 bytes for each chunk, beside those of the collection.
 *
 * Below an object that cannot be read nobody knows what is reachable. When a committed checkpoint or the tree reaches
 * such a one, the marking fails, and nothing is given back.
 */
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { mayBeObject } from '../../protocol/may-be-object.ts'
import { type Reference, referencesOfDirectory, referencesOfFile } from '../../protocol/objects.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CheckpointRoots, TouchedId } from '../catalog/checkpoint-roots.ts'
import type { ChunkReader } from '../catalog/chunk-reader.ts'
import { decodeObject, type ObjectKind } from '../catalog/objects.ts'
import type { Collection, Pacing } from '../store/collectable.ts'
import { IdFilter } from '../store/id-filter.ts'
import type { Vault } from '../vaults.ts'
import { ObjectSet } from './object-set.ts'

/** Objects that are read at once. */
const readAtOnce = 8
/** Ids that are kept in one turn of the event loop: a millisecond or two. */
const keptAtOnce = 1000
const defaultSetBytes = 512 * 1024 * 1024
/** Of what keeps a collection from its work, so much is told. */
const maxTold = 20
/** Files of the live tree whose content is kept in one go. */
const contentsAtOnce = 256

/** A vault as far as it has roots. */
export interface MarkedVault extends Pick<Vault, 'catalog' | 'tree'> {
  readonly store: Pick<Vault['store'], 'usage'>
}

export interface MarkProgress {
  /** Committed checkpoints that were walked, and objects that were read. */
  readonly checkpoints: number
  readonly objects: number
}

export interface MarkOptions {
  readonly collection: Pick<Collection, 'keep'>
  readonly pacing: Pacing
  readonly tell?: (progress: MarkProgress) => void
  /** Memory for what is known of objects, in bytes. */
  readonly setBytes?: number
}

interface ObjectReference extends Reference {
  readonly as: ObjectKind
}

export class Marking {
  readonly #vault: MarkedVault
  readonly #reader: ChunkReader
  readonly #options: MarkOptions
  readonly #entered: ObjectSet
  /** What is content by what refers to it: nobody has to read it to learn that. */
  readonly #content: IdFilter
  readonly #damaged: string[] = []
  /** How far the logs of open checkpoints were read, in ids. */
  readonly #read = new Map<string, number>()
  #checkpoints = 0
  #objects = 0

  constructor(vault: MarkedVault, options: MarkOptions) {
    this.#vault = vault
    this.#reader = vault.catalog.reader
    this.#options = options
    this.#entered = new ObjectSet(options.setBytes ?? defaultSetBytes)
    this.#content = new IdFilter(vault.store.usage.chunks)
  }

  get progress(): MarkProgress {
    return { checkpoints: this.#checkpoints, objects: this.#objects }
  }

  /**
   * Keeps all that is reachable. Problem `store-corrupt` when that cannot be known: a checkpoint's file, the live tree or
   * an object is damaged or gone (extensions `damaged`: the first few, with what reaches them).
   */
  async run(): Promise<MarkProgress> {
    const open: CheckpointRoots[] = []
    for await (const root of this.#vault.catalog.checkpoints.roots()) {
      if (root.isCommitted) await this.#committed(root)
      else open.push(root)
    }
    await this.#tree()
    // Last: what others reach is marked, and known to be whole, by then.
    for (const root of open) {
      for await (const page of root.references()) await this.#reach(page, undefined)
      await this.#touchedSince(root)
    }
    this.#expectSound()
    return this.progress
  }

  /**
   * Keeps what was asked about or sent since in the name of open checkpoints, with all that it reaches. What is found is
   * kept anyhow; what a directory reaches that was asked about is not, for a while.
   */
  async catchUp(): Promise<void> {
    for (const root of this.#vault.catalog.checkpoints.openRoots()) await this.#touchedSince(root)
  }

  async #touchedSince({ name, touched }: CheckpointRoots): Promise<void> {
    const key = `${name.source}/${name.number}`
    for await (const page of touched(this.#read.get(key) ?? 0)) {
      this.#read.set(key, (this.#read.get(key) ?? 0) + page.length)
      await this.#touched(page)
    }
  }

  async #committed({ name, references }: CheckpointRoots): Promise<void> {
    for await (const page of references()) await this.#reach(page, `checkpoint ${name.source}/${name.number}`)
    this.#checkpoints++
  }

  async #tree(): Promise<void> {
    let page: Reference[] = []
    for await (const { id, size, chunked } of this.#vault.tree.contents()) {
      page.push({ id, size, as: chunked === true ? 'file' : 'chunk' })
      if (page.length < contentsAtOnce) continue
      await this.#reach(page, 'the live tree')
      page = []
    }
    await this.#reach(page, 'the live tree')
  }

  /** An id alone does not tell what it is of. */
  async #touched(page: readonly TouchedId[]): Promise<void> {
    this.#options.collection.keep(page.map(({ id }) => id))
    for (const { id, isContent } of page) {
      if (isContent || this.#content.has(id)) continue
      const [length] = await this.#reader.stat([id])
      if (length !== undefined && length <= limits.maxObjectBytes) {
        for (const as of await this.#kindsOf(id)) await this.#reach([{ id, as }], undefined)
      }
      await this.#options.pacing.step()
    }
  }

  async #kindsOf(id: Id): Promise<ObjectKind[]> {
    const bytes = await this.#bytesOf(id)
    if (bytes === undefined || !mayBeObject(bytes)) return []
    return (['directory', 'file'] as const).filter((as) => decoded(as, bytes) !== undefined)
  }

  /** Keeps these and all that they reach. `label` names what must be whole; undefined when some may be missing. */
  async #reach(references: readonly Reference[], label: string | undefined): Promise<void> {
    const frames = [{ objects: await this.#take(references), next: 0 }]
    for (let top = frames.at(-1); top !== undefined; top = frames.at(-1)) {
      const some = top.objects.slice(top.next, top.next + readAtOnce)
      top.next += some.length
      if (some.length === 0) {
        frames.pop()
        continue
      }
      const below = await Promise.all(some.map((object) => this.#enter(object, label)))
      const objects = await this.#take(below.flat())
      if (objects.length > 0) frames.push({ objects, next: 0 })
      this.#options.tell?.(this.progress)
      await this.#options.pacing.step()
    }
  }

  /** Keeps them; returns those that are to be entered. */
  async #take(references: readonly Reference[]): Promise<ObjectReference[]> {
    const objects: ObjectReference[] = []
    for (let first = 0; first < references.length; first += keptAtOnce) {
      const page = references.slice(first, first + keptAtOnce)
      this.#options.collection.keep(page.map(({ id }) => id))
      for (const { id, as } of page) {
        if (as === 'chunk') this.#content.add(id)
        else if (this.#entered.add(as, id)) objects.push({ id, as })
      }
      if (first > 0) await this.#options.pacing.step()
    }
    return objects
  }

  async #enter({ id, as }: ObjectReference, label: string | undefined): Promise<Reference[]> {
    this.#objects++
    const bytes = await this.#bytesOf(id)
    const object = bytes && decoded(as, bytes)
    if (object !== undefined) {
      return object.type === 'file' ? referencesOfFile(object) : referencesOfDirectory(object)
    }
    if (label !== undefined && this.#damaged.length < maxTold) this.#damaged.push(`${label} needs ${id}`)
    return []
  }

  /** Undefined when it is not here, or damaged. */
  async #bytesOf(id: Id): Promise<Buffer | undefined> {
    try {
      return await this.#reader.get(id)
    } catch (error) {
      if (isProblem(error, 'chunk-corrupt')) return undefined
      throw error
    }
  }

  #expectSound(): void {
    const [first] = this.#damaged
    if (first === undefined) return
    const others = this.#damaged.length === 1 ? '' : `, and ${this.#damaged.length - 1} more`
    throw new Problem(
      'store-corrupt',
      `nothing can be given back: a file or directory list is damaged or gone (${first}${others}). Back up again, or delete that checkpoint`,
      { extensions: { damaged: this.#damaged } },
    )
  }
}

function decoded(as: ObjectKind, bytes: Buffer): ReturnType<typeof decodeObject> | undefined {
  try {
    return decodeObject(as, bytes)
  } catch (error) {
    if (isProblem(error, 'invalid-object')) return undefined
    throw error
  }
}
