import { access, constants, mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Level } from 'level'
import { Problem } from '../protocol/problem.ts'

export interface DataLock {
  /** Idempotent. */
  release(): Promise<void>
}

/**
 * Claims a data directory for this process, creating it when there is none; Problem `in-use` when
 * another has it. The claim is an empty LevelDB in `{data}/lock`: LevelDB takes a lock of the operating
 * system, which ends with the process however that ends, and Node has none of its own.
 */
export async function lockDataDir(dataDir: string): Promise<DataLock> {
  await makeFolders(dataDir)
  await access(dataDir, constants.W_OK)
  const database = new Level(join(dataDir, 'lock'))
  try {
    await database.open()
  } catch (cause) {
    const { code } = (cause as { cause?: { code?: string } }).cause ?? {}
    if (code !== 'LEVEL_LOCKED') throw cause
    throw new Problem('in-use', `another receiver is at work on ${dataDir}; stop it first`, { cause })
  }
  return { release: () => database.close() }
}

/**
 * Creates a folder and those above it. Node's own `recursive` never returns where a parent is there and yet
 * takes no folders, as in /proc.
 */
async function makeFolders(path: string): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return
    if (code !== 'ENOENT' || dirname(path) === path) throw error
    await makeFolders(dirname(path))
    await mkdir(path)
  }
}
