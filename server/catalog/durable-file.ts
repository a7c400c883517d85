import { mkdir, open, rename, rm, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Makes renames, creations and removals in a folder durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Makes the folder at `path` when there is none, in a folder that is there. On return its name survives a
 * power cut, also when somebody made it who died before he could see to that.
 */
export async function makeFolderDurably(path: string): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  await syncDirectory(dirname(path))
}

/**
 * Replaces the file at `path` by `text`, durably: on return the new text survives a power cut, at any
 * moment before that the old text (or nothing) stands there. Callers exclude each other per path.
 */
export async function replaceDurably(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`
  try {
    const handle = await open(temporary, 'w')
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncDirectory(dirname(path))
}

/** Removes the file; false when there was none. */
export async function removeFile(path: string): Promise<boolean> {
  try {
    await unlink(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}
