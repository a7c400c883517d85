/**
 * Makes a collection of the live tree a committed checkpoint.
 *
 * The collection is walked as it is at one moment, depth first. A directory that has not changed since a directory
 * object was made of it is that object: neither it nor anything below is read. So a freeze costs the directories
 * in which something differs, and those above them.
 *
 * - The commit walks what the root reaches and is the judge of whether all of it is here. What was remembered may
 *   have been collected with the checkpoint that kept it, and a stored object may be damaged: then everything
 *   remembered is forgotten, and all directory objects are made again, once.
 * - Objects stand in the checkpoint's log before they are looked for or stored, and so does the content of each
 *   directory that was read. A directory object in the log stands for all that it reaches.
 * - Memory: an unfinished part of a list for each directory on the path, and a group of objects on their way.
 */
import { isUtf8 } from 'node:buffer'
import type { Id } from '../../protocol/id.ts'
import { DirectoryListBuilder } from '../../protocol/list-builder.ts'
import { type EncodedObject, encodeName } from '../../protocol/objects.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CheckpointState, Entry, MissingChunk } from '../../protocol/schema.ts'
import { encodeSegment } from '../../protocol/url.ts'
import type { FrozenView, LiveTree } from '../catalog/live-tree.ts'
import type { DirectoryRecord, FileRecord, FrozenDirectory, Names } from '../catalog/tree-records.ts'
import { receiveChunk, storeHashed } from '../store/receive.ts'
import type { Vault } from '../vaults.ts'
import { OpenFreezes } from './open-freezes.ts'

export interface FreezeOptions {
  /** What the checkpoint is filed under. */
  readonly source: string
  readonly about?: Readonly<Record<string, string>>
  /** Gives it up, as long as the commit has not begun. */
  readonly signal?: AbortSignal | undefined
}

/** All that a freeze needs of a vault. */
export interface FreezableVault extends Pick<Vault, 'store' | 'catalog'> {
  readonly tree: Pick<LiveTree, 'find' | 'freeze' | 'forgetFrozen'>
}

/** Objects that are stored at the same time: so many, or so many bytes. */
const objectsAtOnce = 32
const objectBytesAtOnce = 4 * 1024 * 1024
/** Ids that go into the checkpoint's log in one write. */
const touchedAtOnce = 1000
/** Files that are named when their content is gone. */
const maxNamedPaths = 20

/** Who may read is not the tree's to know: what is restored belongs to whoever restores it. */
const ownership = { uid: 0, gid: 0 } as const
const directoryMode = 0o755
const fileMode = 0o644

/**
 * Commits a `dir` checkpoint of the collection at `names`. It survives a power cut on return. Writes go on
 * meanwhile; each is in it whole, or not at all. Several at once, also of one source: each commits its own. A
 * failure leaves no checkpoint. Problems: `not-found` when there is no collection; `missing-chunks` (extensions
 * `missing`, `paths`) when content of a file is gone; `unavailable` when the signal is aborted; those of the store.
 */
export async function freeze(
  vault: FreezableVault,
  names: Names,
  options: FreezeOptions,
): Promise<CheckpointState> {
  return (await freezeUnless(vault, names, options, undefined)) as CheckpointState
}

/** The same, unless the last checkpoint of the source says the same already: then undefined. */
export async function freezeIfChanged(
  vault: FreezableVault,
  names: Names,
  options: FreezeOptions,
): Promise<CheckpointState | undefined> {
  const latest = await vault.catalog.checkpoints.latest(options.source)
  if (latest?.root === undefined) return await freeze(vault, names, options)
  const known = await vault.tree.freeze(names, ({ root, frozen }) => frozen(root.node))
  if (known?.id === latest.root) return undefined
  return await freezeUnless(vault, names, options, latest.root)
}

/** What a collection is filed under when nobody says: `tree`, or `tree-a-b` for tree/a/b. */
export function freezeSource(names: Names): string {
  return names
    .map((name) => name.toString('utf8').replace(/[^A-Za-z0-9._-]/gu, '-'))
    .join('-')
    .replace(/\.(?=\.)/g, '-')
    .slice(0, 128)
}

/** What a checkpoint tells of where it comes from. */
export function aboutFreeze(names: Names): Record<string, string> {
  const path = names.map((name) => (isUtf8(name) ? name.toString('utf8') : encodeSegment(name))).join('/')
  return { path: path.slice(0, 4096) }
}

async function freezeUnless(
  vault: FreezableVault,
  names: Names,
  options: FreezeOptions,
  known: Id | undefined,
): Promise<CheckpointState | undefined> {
  const freezes = OpenFreezes.of(vault.catalog.checkpoints)
  // Before a number is given out for nothing.
  if ((await vault.tree.find(names))?.kind !== 'directory') {
    throw new Problem('not-found', `there is no collection at ${aboutFreeze(names).path}`)
  }
  const opened = await freezes.begin(options.source, options.about)
  let committed: CheckpointState | undefined
  const attempt = (isLast: boolean): Promise<CheckpointState | undefined> =>
    vault.tree.freeze(names, async (view) => {
      const run = new FreezeRun(vault, view, opened, options.signal)
      const root = await run.build()
      if (root.id === known) return undefined
      committed = await (isLast ? run.commitOrName(root) : run.commit(root))
      return committed
    })
  try {
    return await attempt(false).catch(async (error) => {
      if (!isProblem(error, 'missing-chunks')) throw error
      await vault.tree.forgetFrozen()
      return await attempt(true)
    })
  } catch (error) {
    // It is committed: what could not be remembered is made again next time.
    if (committed !== undefined && isProblem(error)) return committed
    throw error
  } finally {
    await freezes.end(opened, committed !== undefined)
  }
}

/** One walk over the collection. */
class FreezeRun {
  readonly #vault: FreezableVault
  readonly #view: FrozenView
  readonly #checkpoint: CheckpointState
  readonly #signal: AbortSignal | undefined
  #touched: Id[] = []
  #objects: EncodedObject[] = []
  #objectBytes = 0
  #emptyIsStored = false

  constructor(
    vault: FreezableVault,
    view: FrozenView,
    checkpoint: CheckpointState,
    signal: AbortSignal | undefined,
  ) {
    this.#vault = vault
    this.#view = view
    this.#checkpoint = checkpoint
    this.#signal = signal
  }

  /** The directory object of the collection; on return it and all others that it needs are stored. */
  async build(): Promise<FrozenDirectory> {
    const root = await this.#directory(this.#view.root)
    await this.#storeObjects()
    return root
  }

  /** Not deeper in itself than paths are: they have at most 4,096 bytes. */
  async #directory({ node }: DirectoryRecord): Promise<FrozenDirectory> {
    this.#expectWanted()
    const known = await this.#view.frozen(node)
    if (known !== undefined) {
      await this.#touch(known.id)
      return known
    }
    const list = new DirectoryListBuilder()
    const totals = { files: 0, directories: 1, bytes: 0 }
    for await (const { name, record } of this.#view.members(node)) {
      this.#expectWanted()
      if (record.kind === 'file') {
        totals.files++
        totals.bytes += record.size
        await this.#touch(record.id)
        if (record.size === 0 && record.chunked !== true) await this.#storeEmpty(record.id)
        await this.#take(list.add(fileEntry(name, record)))
      } else {
        const below = await this.#directory(record)
        totals.files += below.files
        totals.directories += below.directories
        totals.bytes += below.bytes
        await this.#take(list.add(directoryEntry(name, record, below.id)))
      }
    }
    const { objects, reference } = list.finish()
    await this.#take(objects)
    const frozen = { id: reference, ...totals }
    this.#view.remember(node, frozen)
    return frozen
  }

  #expectWanted(): void {
    if (this.#signal?.aborted) throw new Problem('unavailable', 'the freeze was given up')
  }

  async #touch(id: Id): Promise<void> {
    this.#touched.push(id)
    if (this.#touched.length >= touchedAtOnce) await this.#writeTouched()
  }

  async #writeTouched(): Promise<void> {
    const ids = this.#touched
    this.#touched = []
    await this.#vault.catalog.checkpoints.touch(this.#checkpoint, ids)
  }

  async #take(objects: readonly EncodedObject[]): Promise<void> {
    for (const object of objects) {
      this.#objects.push(object)
      this.#objectBytes += object.bytes.length
    }
    const isEnough = this.#objects.length >= objectsAtOnce || this.#objectBytes >= objectBytesAtOnce
    if (isEnough) await this.#storeObjects()
  }

  async #storeObjects(): Promise<void> {
    const objects = this.#objects
    this.#objects = []
    this.#objectBytes = 0
    this.#touched.push(...objects.map(({ id }) => id))
    await this.#writeTouched()
    const { store } = this.#vault
    const ends = await Promise.allSettled(objects.map(({ id, bytes }) => storeHashed(store, id, bytes)))
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  }

  /** The content of an empty file is the chunk of zero bytes. Whoever made the file may not have stored that. */
  async #storeEmpty(id: Id): Promise<void> {
    if (this.#emptyIsStored) return
    await receiveChunk(this.#vault.store, id, Buffer.alloc(0), { encoding: 'identity', maxBytes: 0 })
    this.#emptyIsStored = true
  }

  async commit({ id, files, directories, bytes }: FrozenDirectory): Promise<CheckpointState> {
    this.#expectWanted()
    const { mtimeNs } = this.#view.root
    return await this.#vault.catalog.checkpoints.commit(this.#checkpoint, {
      root: id,
      attributes: { mode: directoryMode, ...ownership, mtimeNs },
      totals: { files, directories, bytes },
    })
  }

  /** The same; a Problem `missing-chunks` names the files whose content it is. */
  async commitOrName(root: FrozenDirectory): Promise<CheckpointState> {
    try {
      return await this.commit(root)
    } catch (error) {
      if (!isProblem(error, 'missing-chunks')) throw error
      const missing = error.extensions.missing as readonly MissingChunk[]
      const paths = await this.#pathsOf(new Set(missing.flatMap(({ id, within = id }) => [id, within])))
      throw paths.length === 0 ? error : contentGone(paths, missing, error)
    }
  }

  /** Paths of files with this content, the first few. */
  async #pathsOf(ids: ReadonlySet<Id>): Promise<Buffer[][]> {
    const found: Buffer[][] = []
    for await (const { path, record } of this.#files(this.#view.root, [])) {
      this.#expectWanted()
      if (ids.has(record.id)) found.push(path)
      if (found.length === maxNamedPaths) break
    }
    return found
  }

  async *#files(
    directory: DirectoryRecord,
    above: Buffer[],
  ): AsyncGenerator<{ path: Buffer[]; record: FileRecord }> {
    for await (const { name, record } of this.#view.members(directory.node)) {
      const path = [...above, name]
      if (record.kind === 'file') yield { path, record }
      else yield* this.#files(record, path)
    }
  }
}

function fileEntry(name: Buffer, { id, size, chunked, mtimeNs }: FileRecord): Entry {
  const content = { id, size, ...(chunked && { chunked }) }
  return { kind: 'file', ...encodeName(name), mode: fileMode, ...ownership, mtimeNs, ...content }
}

function directoryEntry(name: Buffer, { mtimeNs }: DirectoryRecord, id: Id): Entry {
  return { kind: 'directory', ...encodeName(name), mode: directoryMode, ...ownership, mtimeNs, id }
}

function contentGone(
  paths: readonly (readonly Buffer[])[],
  missing: readonly MissingChunk[],
  cause: unknown,
): Problem {
  const [first = []] = paths
  const shown = first.map((name) => name.toString('utf8')).join('/')
  const others =
    paths.length === 1 ? '' : ` and of ${paths.length === maxNamedPaths ? 'many' : paths.length - 1} more`
  return new Problem(
    'missing-chunks',
    `the content of "${shown.slice(-500)}"${others} is damaged or gone; put the file again or delete it, then freeze again`,
    { cause, extensions: { missing, paths: paths.map((path) => path.map(encodeSegment).join('/')) } },
  )
}
