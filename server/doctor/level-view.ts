/**
 * A LevelDB database read without a byte of it being changed. Opening one recovers: it writes a new log, a new manifest,
 * new tables. So it is opened in a temporary folder instead: tables never change once they are written, and stand there
 * as links; the log and the manifest, which are short, as copies. Only while nobody has the database open.
 */
import { copyFile, mkdtemp, readdir, rm, stat, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { Level } from 'level'

export interface LevelView extends AsyncDisposable {
  /** A folder that can be opened in the place of the database's. */
  readonly folder: string
}

export async function viewLevel(folder: string): Promise<LevelView> {
  const view = await mkdtemp(join(tmpdir(), 'chunkdav-doctor-'))
  const dispose = (): Promise<void> => rm(view, { recursive: true, force: true })
  try {
    for (const name of await readdir(folder)) {
      const path = join(resolve(folder), name)
      if (/\.(ldb|sst)$/.test(name)) await symlink(path, join(view, name))
      else if (name === 'CURRENT' || /^MANIFEST-|\.log$/.test(name)) await copyFile(path, join(view, name))
    }
    return { folder: view, [Symbol.asyncDispose]: dispose }
  } catch (error) {
    await dispose()
    throw error
  }
}

/**
 * Whether another process has the database in `folder` open; undefined when that cannot be told. Tries to take its lock,
 * by a link to the lock's file, and lets go of it at once.
 */
export async function isOpenElsewhere(folder: string): Promise<boolean | undefined> {
  const lock = join(resolve(folder), 'LOCK')
  try {
    await stat(lock)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  const view = await mkdtemp(join(tmpdir(), 'chunkdav-doctor-'))
  try {
    // Before there is a `Level`: one opens by itself once it is made, and would make a lock of its own here.
    await symlink(lock, join(view, 'LOCK'))
    return await isLocked(view)
  } finally {
    await rm(view, { recursive: true, force: true })
  }
}

async function isLocked(folder: string): Promise<boolean | undefined> {
  const database = new Level(folder)
  try {
    await database.open()
    return false
  } catch (error) {
    const { code } = (error as { cause?: { code?: string } }).cause ?? {}
    return code === 'LEVEL_LOCKED' ? true : undefined
  } finally {
    await database.close()
  }
}
