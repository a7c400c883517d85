import { dirname } from 'node:path'
import { type FileLayer, nodeFiles, type StoreFile } from '../file-layer.ts'

/**
 * Makes the folder at `path` when there is none, in a folder that is there. On return its name survives a
 * power cut, also when somebody made it who died before he could see to that.
 */
export async function makeFolderDurably(path: string, files: FileLayer = nodeFiles): Promise<void> {
  await files.makeFolder(path)
  await files.syncFolder(dirname(path))
}

/**
 * Replaces the file at `path` by `text`, durably: on return the new text survives a power cut, at any
 * moment before that the old text (or nothing) stands there. Callers exclude each other per path.
 */
export async function replaceDurably(
  path: string,
  text: string,
  files: FileLayer = nodeFiles,
): Promise<void> {
  const temporary = `${path}.tmp`
  try {
    const file = await files.open(temporary, 'replace')
    try {
      await file.write([Buffer.from(text)], 0)
      await file.datasync()
    } finally {
      await file.close()
    }
    await files.rename(temporary, path)
  } catch (error) {
    await removeFile(temporary, files)
    throw error
  }
  await files.syncFolder(dirname(path))
}

/** Removes the file; false when there was none. */
export async function removeFile(path: string, files: FileLayer = nodeFiles): Promise<boolean> {
  try {
    await files.unlink(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

/** The whole text of a file; undefined when there is none. */
export async function readText(path: string, files: FileLayer = nodeFiles): Promise<string | undefined> {
  let file: StoreFile
  try {
    file = await files.open(path, 'read')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  try {
    const bytes = Buffer.allocUnsafe(await file.size())
    return bytes.toString('utf8', 0, await file.read(bytes, 0))
  } finally {
    await file.close()
  }
}
