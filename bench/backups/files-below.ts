import { readdirSync } from 'node:fs'
import { join } from 'node:path'

/**
 * The paths of all regular files below a folder, in an order that does not depend on the disk. By hand: Node's own
 * `recursive` follows links to folders, and /usr/bin/X11 leads to where it stands.
 */
export function filesBelow(root: string): string[] {
  const files: string[] = []
  const folders = [root]
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name)
      if (entry.isDirectory()) folders.push(path)
      else if (entry.isFile()) files.push(path)
    }
  }
  return files.toSorted()
}
