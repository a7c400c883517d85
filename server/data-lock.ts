import { access, constants, mkdir, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Level } from 'level'
import { Problem } from '../protocol/problem.ts'
import { nodeFiles } from './file-layer.ts'
import { isDiskFull } from './full-disk.ts'

/** Locks that this process has, or is about to get. */
const heldHere = new Set<string>()

export interface DataLock {
  /** Idempotent. */
  release(): Promise<void>
}

/**
 * Claims a data directory for this process, creating it when there is none; Problem `in-use` when
 * another has it. The claim is a lock of the operating system, which ends with the process however that ends.
 */
export async function lockDataDir(dataDir: string): Promise<DataLock> {
  await makeFolders(dataDir)
  if (!(await stat(dataDir)).isDirectory()) {
    throw new Problem('destination-failed', `${dataDir} is no directory; name another with --data`)
  }
  await access(dataDir, constants.W_OK)
  const lock = await lockFolder(join(dataDir, 'lock'))
  if (lock === undefined) throw new Problem('in-use', `a receiver is at work on ${dataDir}; stop it first`)
  return lock
}

/**
 * Claims the lock at `path`, in a folder that is there; undefined while another has it, of this process or of another.
 * It is an empty LevelDB: LevelDB takes a lock of the operating system, and Node has none of its own. A second try of the
 * same process must not get that far: it would open and close LevelDB's file, and by that POSIX frees the first one's lock.
 */
export async function lockFolder(path: string): Promise<DataLock | undefined> {
  const name = resolve(path)
  if (heldHere.has(name)) return undefined
  heldHere.add(name)
  const database = new Level(path)
  try {
    await database.open()
  } catch (cause) {
    heldHere.delete(name)
    const { code } = (cause as { cause?: { code?: string } }).cause ?? {}
    if (isDiskFull(cause)) {
      throw new Problem('insufficient-storage', `there is no space left on the disk of ${dirname(path)}`, {
        cause,
      })
    }
    if (code !== 'LEVEL_LOCKED') throw cause
    return undefined
  }
  let released: Promise<void> | undefined
  return {
    release: () => {
      released ??= database.close().finally(() => heldHere.delete(name))
      return released
    },
  }
}

/**
 * Creates a folder and those above it, durably. Node's own `recursive` never returns where a parent is there and yet
 * takes no folders, as in /proc.
 */
export async function makeFolders(path: string): Promise<void> {
  try {
    // Backups hold what their owners alone may read: nobody else gets in.
    await mkdir(path, { mode: 0o700 })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return await syncAround(path)
    if (code !== 'ENOENT' || dirname(path) === path) throw error
    await makeFolders(dirname(path))
    await mkdir(path, { mode: 0o700 })
  }
  await nodeFiles.syncFolder(dirname(path))
}

/** A folder that stood here already may have been made by a process that died before it synced this. */
async function syncAround(path: string): Promise<void> {
  try {
    await nodeFiles.syncFolder(dirname(path))
  } catch (error) {
    // The folder around it is somebody else's, or of another file system: then so is the name of this one.
    const { code } = error as NodeJS.ErrnoException
    if (!['EACCES', 'EPERM', 'EROFS', 'EINVAL'].includes(code ?? '')) throw error
  }
}
