import { lstatSync } from 'node:fs'
import { filesBelow } from './files-below.ts'

/** The sizes of all files below a folder together. A server may remove one while it is looked at. */
export function folderBytes(folder: string): number {
  let bytes = 0
  for (const path of filesBelow(folder)) bytes += lstatSync(path, { throwIfNoEntry: false })?.size ?? 0
  return bytes
}
