/**
 * The files of one source's checkpoints, in one folder:
 *
 *     last            the highest number ever given, decimal
 *     owner           whose it is (source-owner.ts)
 *     {n}.open.json   an open checkpoint's state
 *     {n}.items       a `chunks` checkpoint's list (item-list.ts)
 *     {n}.touched     ids used in the open checkpoint's name (touched-log.ts)
 *     {n}.json        a committed checkpoint's state
 *     {n}.pin         empty: the committed checkpoint is pinned. Its state file never changes
 *
 * Invariants: `{n}.json` is there means committed, whatever else is there. Without it, `{n}.open.json`
 * means open, and its items and touched files were there before it. Any other file of n is a remainder.
 * Each state file is replaced as a whole and durably, so a crash leaves the state before or after. Names that depend on
 * one another are synced one after the other: a power cut may leave any of those that are not.
 * Recovery, at opening: remainders are removed, the files of open checkpoints cut to whole records, the folder synced.
 *
 * A state file that cannot be read costs that checkpoint and no other. An open one counts as absent, a
 * committed one is in no list; the files stay, and so does the number, until somebody deletes it.
 */
import { join } from 'node:path'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { CheckpointState, parseJson } from '../../protocol/schema.ts'
import { parseCheckpointNumber } from '../../protocol/url.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import { fileSpace } from './checkpoint-space.ts'
import { makeFolderDurably, readText, removeFile, replaceDurably } from './durable-file.ts'
import { recoverItems } from './item-list.ts'
import { decodeOwner, encodeOwner } from './source-owner.ts'
import { recoverTouched } from './touched-log.ts'

/** Files whose lengths are asked for at the same time. */
const statsAtOnce = 64

export interface RecoveredCheckpoint {
  readonly state: CheckpointState
  readonly items: number
  readonly itemBytes: number
}

/** One source's folder. Callers exclude each other per checkpoint, and for `nextNumber`. */
export class CheckpointFolder {
  readonly path: string
  private readonly onDamage: (problem: Problem) => void
  private readonly files: FileLayer

  /** `onDamage` is told of every checkpoint that is left out. */
  constructor(path: string, onDamage: (problem: Problem) => void = () => {}, files: FileLayer = nodeFiles) {
    this.path = path
    this.onDamage = onDamage
    this.files = files
  }

  itemsPath(number: number): string {
    return join(this.path, `${number}.items`)
  }

  touchedPath(number: number): string {
    return join(this.path, `${number}.touched`)
  }

  private openPath(number: number): string {
    return join(this.path, `${number}.open.json`)
  }

  private committedPath(number: number): string {
    return join(this.path, `${number}.json`)
  }

  private pinPath(number: number): string {
    return join(this.path, `${number}.pin`)
  }

  /** Creates the folder when there is none; durable on return. */
  async create(): Promise<void> {
    await makeFolderDurably(this.path, this.files)
  }

  /** Whether a number was ever given. */
  async isBegun(): Promise<boolean> {
    const names = await this.names()
    return (
      names.includes('last') ||
      numbersOf(names, '.json').length > 0 ||
      numbersOf(names, '.open.json').length > 0
    )
  }

  /** Durable on return. Undefined for nobody. */
  async setOwner(name: string | undefined): Promise<void> {
    const path = join(this.path, 'owner')
    if (name !== undefined) await replaceDurably(path, encodeOwner(name), this.files)
    else if (await this.removeFile(path)) await this.files.syncFolder(this.path)
  }

  /** Undefined when the source belongs to nobody, also when the file is damaged. */
  async readOwner(): Promise<string | undefined> {
    const path = join(this.path, 'owner')
    const text = await readText(path, this.files)
    return text === undefined ? undefined : await this.unlessDamaged(async () => decodeOwner(path, text))
  }

  /** Numbers of committed checkpoints, ascending. None when there is no folder. */
  async committedNumbers(): Promise<number[]> {
    return numbersOf(await this.names(), '.json').sort((a, b) => a - b)
  }

  private async names(): Promise<string[]> {
    try {
      return await this.files.names(this.path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    }
  }

  /** A committed checkpoint's state; undefined when there is none. Problem `store-corrupt` when it is damaged. */
  async readCommitted(number: number): Promise<CheckpointState | undefined> {
    const state = await this.readState(this.committedPath(number), number)
    return state === undefined || !(await this.isPinned(number)) ? state : { ...state, pinned: true }
  }

  async isPinned(number: number): Promise<boolean> {
    return (await this.files.stat(this.pinPath(number))) !== undefined
  }

  /** Pins a committed checkpoint; durable on return. */
  async pin(number: number): Promise<void> {
    await (await this.files.open(this.pinPath(number), 'replace')).close()
    await this.files.syncFolder(this.path)
  }

  /** Durable on return; false when it was not pinned. */
  async unpin(number: number): Promise<boolean> {
    const wasPinned = await this.removeFile(this.pinPath(number))
    if (wasPinned) await this.files.syncFolder(this.path)
    return wasPinned
  }

  /** The states of all committed checkpoints, ascending; damaged ones are left out. */
  async listCommitted(): Promise<CheckpointState[]> {
    const names = await this.names()
    const pinned = new Set(numbersOf(names, '.pin'))
    const states: CheckpointState[] = []
    for (const number of numbersOf(names, '.json').sort((a, b) => a - b)) {
      const state = await this.unlessDamaged(() => this.readState(this.committedPath(number), number))
      if (state !== undefined) states.push(pinned.has(number) ? { ...state, pinned: true } : state)
    }
    return states
  }

  /** The state of the committed checkpoint with the highest number that is not damaged, and not among `open`. */
  async lastCommitted(
    open: Pick<ReadonlySet<number>, 'has'> = new Set(),
  ): Promise<CheckpointState | undefined> {
    for (const number of (await this.committedNumbers()).reverse()) {
      if (open.has(number)) continue
      const state = await this.unlessDamaged(() => this.readCommitted(number))
      if (state !== undefined) return state
    }
    return undefined
  }

  private async unlessDamaged<T>(read: () => Promise<T>): Promise<T | undefined> {
    try {
      return await read()
    } catch (error) {
      if (!isProblem(error, 'store-corrupt')) throw error
      this.onDamage(error)
      return undefined
    }
  }

  /** The number after the highest that was ever given; durably noted before it returns. */
  async nextNumber(): Promise<number> {
    const names = await this.names()
    const lastPath = join(this.path, 'last')
    // One by one: as arguments of Math.max a hundred thousand of them are too many.
    let highest = 0
    for (const number of [...numbersOf(names, '.json'), ...numbersOf(names, '.open.json')]) {
      highest = Math.max(highest, number)
    }
    if (names.includes('last')) {
      const text = await readText(lastPath, this.files)
      highest = Math.max(highest, parseCheckpointNumber(text?.trim() ?? '') ?? 0)
    }
    await replaceDurably(lastPath, `${highest + 1}\n`, this.files)
    return highest + 1
  }

  /** Writes an open checkpoint's files; durable on return. */
  async begin(state: CheckpointState): Promise<void> {
    for (const path of [this.itemsPath(state.number), this.touchedPath(state.number)]) {
      await (await this.files.open(path, 'replace')).close()
    }
    // Not every file system keeps the order in which names came.
    await this.files.syncFolder(this.path)
    await replaceDurably(this.openPath(state.number), JSON.stringify(state), this.files)
  }

  /** Publishes; durable on return. The moment of truth is the rename of `{n}.json`. */
  async commit(state: CheckpointState): Promise<void> {
    await replaceDurably(this.committedPath(state.number), JSON.stringify(state), this.files)
  }

  /** Removes what nobody needs of a checkpoint that has been published. What is left of it is a remainder. */
  async tidy(state: CheckpointState): Promise<void> {
    await this.removeFile(this.openPath(state.number))
    await this.removeFile(this.touchedPath(state.number))
    if (state.kind === 'dir') await this.removeFile(this.itemsPath(state.number))
  }

  /** The length of an open checkpoint's items and touched files. */
  async openBytes(number: number): Promise<number> {
    const paths = [this.itemsPath(number), this.touchedPath(number)]
    const found = await Promise.all(paths.map((path) => this.files.stat(path)))
    return found.reduce((sum, stat) => sum + (stat?.bytes ?? 0), 0)
  }

  /** What the files of each checkpoint take, as CheckpointSpace counts; of damaged ones too. */
  async space(): Promise<Map<number, number>> {
    const space = new Map<number, number>()
    const names = (await this.names()).filter((name) => !name.endsWith('.pin'))
    for (let first = 0; first < names.length; first += statsAtOnce) {
      const some = names.slice(first, first + statsAtOnce)
      const found = await Promise.all(some.map((name) => this.files.stat(join(this.path, name))))
      for (const [place, name] of some.entries()) {
        const number = parseCheckpointNumber(name.split('.', 1)[0] as string)
        if (number !== undefined)
          space.set(number, (space.get(number) ?? 0) + fileSpace(found[place]?.bytes ?? 0))
      }
    }
    return space
  }

  /** Removes a checkpoint in whatever state, but its remainders; durable on return. False when there was none. */
  async remove(number: number): Promise<boolean> {
    const wasOpen = await this.removeFile(this.openPath(number))
    const isCommitted = (await this.files.stat(this.committedPath(number))) !== undefined
    if (isCommitted) {
      // Were both removed at once, here or by the commit and here, a crash could leave it open again.
      await this.files.syncFolder(this.path)
      await this.removeFile(this.committedPath(number))
    }
    if (wasOpen || isCommitted) await this.files.syncFolder(this.path)
    return wasOpen || isCommitted
  }

  /** Removes what is left of a checkpoint that has been removed. While its state was there they belonged to it. */
  async removeRemainders(number: number): Promise<void> {
    await this.removeFile(this.itemsPath(number))
    await this.removeFile(this.touchedPath(number))
  }

  /** Puts the folder in order after a stop of any kind; returns the open checkpoints, without damaged ones. */
  async recover(): Promise<RecoveredCheckpoint[]> {
    const names = await this.names()
    const committed = new Set(numbersOf(names, '.json'))
    const opened = new Set(numbersOf(names, '.open.json').filter((number) => !committed.has(number)))
    for (const name of names) {
      if (isRemainder(name, committed, opened)) await this.removeFile(join(this.path, name))
    }
    const recovered: RecoveredCheckpoint[] = []
    for (const number of opened) {
      const opened = await this.unlessDamaged(() => this.recoverOpen(number))
      if (opened !== undefined) recovered.push(opened)
    }
    // What a process that died had not synced yet is told to everybody from now on.
    await this.files.syncFolder(this.path)
    return recovered
  }

  private async recoverOpen(number: number): Promise<RecoveredCheckpoint | undefined> {
    const state = await this.readState(this.openPath(number), number)
    if (state === undefined) return undefined
    const { count, contentBytes } = await recoverItems(this.files, this.itemsPath(number))
    await recoverTouched(this.files, this.touchedPath(number))
    return { state, items: count, itemBytes: contentBytes }
  }

  private async removeFile(path: string): Promise<boolean> {
    return await removeFile(path, this.files)
  }

  private async readState(path: string, number: number): Promise<CheckpointState | undefined> {
    const text = await readText(path, this.files)
    if (text === undefined) return undefined
    let state: CheckpointState
    try {
      state = parseJson(CheckpointState, text)
    } catch (cause) {
      throw new Problem('store-corrupt', `the checkpoint file ${path} is damaged`, { cause })
    }
    if (state.number === number) return state
    throw new Problem('store-corrupt', `the checkpoint file ${path} says that it is number ${state.number}`)
  }
}

function isRemainder(name: string, committed: Set<number>, opened: Set<number>): boolean {
  if (name.endsWith('.tmp')) return true
  const [digits = '', ...rest] = name.split('.')
  const number = parseCheckpointNumber(digits)
  if (number === undefined || opened.has(number)) return false
  const suffix = rest.join('.')
  if (suffix === 'items' || suffix === 'pin') return !committed.has(number)
  return suffix === 'open.json' || suffix === 'touched'
}

function numbersOf(names: readonly string[], suffix: string): number[] {
  return names
    .filter((name) => name.endsWith(suffix))
    .map((name) => parseCheckpointNumber(name.slice(0, -suffix.length)))
    .filter((number) => number !== undefined)
}
