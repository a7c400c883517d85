import { lstatSync } from 'node:fs'
import { filesBelow } from './files-below.ts'

/** The sizes of files, and of all files below folders, together. A server may remove one while it is looked at. */
export function storedBytes(paths: readonly string[]): number {
  const files = paths.flatMap((path) => (lstatSync(path).isDirectory() ? filesBelow(path) : path))
  return files.reduce((bytes, file) => bytes + (lstatSync(file, { throwIfNoEntry: false })?.size ?? 0), 0)
}
