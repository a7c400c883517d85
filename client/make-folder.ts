import { mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

/**
 * Creates a folder and those above it that are not there; `mode` is that of each it makes. True when it made
 * the folder itself, false when that was there already. Throws the system's error about the first that cannot
 * be made (EEXIST when a file stands in its place). Not synced. Node's own `recursive` never returns where a
 * parent is there and yet takes no folders, as in /proc, and tells other errors as ENOENT.
 */
export function makeFolder(path: string, mode: number): boolean {
  try {
    mkdirSync(path, mode)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path) {
      if (isFolder(path)) return false
      throw error
    }
  }
  makeFolder(dirname(path), mode)
  mkdirSync(path, mode)
  return true
}

function isFolder(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
  } catch (error) {
    // What mkdir said tells more.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    return false
  }
}
