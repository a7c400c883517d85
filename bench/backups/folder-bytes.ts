import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'

/** The sizes of all files below a folder together; 0 when there is none. */
export async function folderBytes(folder: string): Promise<number> {
  let bytes = 0
  try {
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) bytes += (await lstat(join(entry.parentPath, entry.name))).size
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  return bytes
}
