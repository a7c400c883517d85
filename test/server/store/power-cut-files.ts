import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import {
  type FileLayer,
  type FileStat,
  nodeFiles,
  type OpenMode,
  type StoreFile,
} from '../../../server/file-layer.ts'

interface UnsyncedWrite {
  readonly position: number
  readonly length: number
}

interface PackState {
  /** The file's bytes at its last datasync. */
  synced: Buffer
  writes: UnsyncedWrite[]
  nameIsSynced: boolean
}

/** Picks a number from 0 up to, not including, `bound`. */
export type Pick = (bound: number) => number

const pageBytes = 64

/**
 * The real files, and what of them a power cut could leave. A page that was written and not synced may be
 * there or not, each by itself; a file may be as long as its last synced or written byte, or anything
 * between; a file whose folder was not synced may be missing. LevelDB is not below this layer: its
 * batches are written with `sync`, so its folder is copied as it is.
 */
export class PowerCutFiles implements FileLayer {
  readonly #packs: Map<string, PackState>
  /** The next datasync fails. */
  failNextSync = false
  /** The next write fails after half of its bytes. */
  failNextWrite = false

  /** `before` is what a process that was killed leaves: the page cache lives on, and what is unsynced in it. */
  constructor(before?: PowerCutFiles) {
    this.#packs = new Map()
    for (const [name, state] of before === undefined ? [] : before.#packs) {
      this.#packs.set(name, { ...state, writes: [...state.writes] })
    }
  }

  async open(path: string, mode: OpenMode): Promise<StoreFile> {
    const file = await nodeFiles.open(path, mode)
    const name = basename(path)
    if (!this.#packs.has(name)) {
      const synced = mode === 'create' ? Buffer.alloc(0) : await readFile(path)
      this.#packs.set(name, { synced, writes: [], nameIsSynced: mode !== 'create' })
    }
    const state = this.#packs.get(name) as PackState
    return {
      read: (target, position) => file.read(target, position),
      write: async (parts, position) => {
        const whole = Buffer.concat(parts)
        const failing = this.failNextWrite
        this.failNextWrite = false
        const bytes = failing ? whole.subarray(0, whole.length >>> 1) : whole
        await file.write([bytes], position)
        state.writes.push({ position, length: bytes.length })
        if (failing) throw Object.assign(new Error('injected'), { code: 'ENOSPC' })
      },
      datasync: async () => {
        if (this.failNextSync) {
          this.failNextSync = false
          throw Object.assign(new Error('injected'), { code: 'EIO' })
        }
        state.writes = []
        state.synced = await readFile(path)
      },
      truncate: async (length) => {
        await file.truncate(length)
        // A truncation may or may not survive; that it does not is the harder case, so the bytes stay.
      },
      size: () => file.size(),
      close: () => file.close(),
    }
  }

  stat(path: string): Promise<FileStat | undefined> {
    return nodeFiles.stat(path)
  }

  rename(from: string, to: string): Promise<void> {
    return nodeFiles.rename(from, to)
  }

  makeFolder(path: string): Promise<boolean> {
    return nodeFiles.makeFolder(path)
  }

  names(folder: string): Promise<string[]> {
    return nodeFiles.names(folder)
  }

  async unlink(path: string): Promise<void> {
    await nodeFiles.unlink(path)
    this.#packs.delete(basename(path))
  }

  async syncFolder(path: string): Promise<void> {
    await nodeFiles.syncFolder(path)
    if (basename(path) !== 'packs') return
    for (const state of this.#packs.values()) state.nameIsSynced = true
  }

  /** Copies a vault as the power cut leaves it. No call may be under way. */
  async cutPower(vaultDir: string, copyDir: string, pick: Pick): Promise<void> {
    await cp(join(vaultDir, 'index'), join(copyDir, 'index'), { recursive: true })
    await mkdir(join(copyDir, 'packs'), { recursive: true })
    for (const name of await readdir(join(vaultDir, 'packs'))) {
      const now = await readFile(join(vaultDir, 'packs', name))
      const state = this.#packs.get(name)
      if (state === undefined) await writeFile(join(copyDir, 'packs', name), now)
      else if (state.nameIsSynced || pick(2) === 0) {
        await writeFile(join(copyDir, 'packs', name), whatIsLeft(state, now, pick))
      }
    }
  }
}

function whatIsLeft({ synced, writes }: PackState, now: Buffer, pick: Pick): Buffer {
  const longest = Math.max(synced.length, ...writes.map(({ position, length }) => position + length))
  const left = Buffer.alloc(longest)
  synced.copy(left)
  for (const { position, length } of writes) {
    for (let at = position; at < position + length; at += pageBytes) {
      // What was cut off since is not there any more; Buffer.copy refuses to begin behind the end.
      if (pick(3) > 0 && at < now.length) now.copy(left, at, at, Math.min(at + pageBytes, position + length))
    }
  }
  return left.subarray(0, synced.length + pick(longest - synced.length + 1))
}
