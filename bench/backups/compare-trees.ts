import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Peer } from './peer.ts'

/** What differs below two folders, at most ten lines. Of a tool that keeps content alone only regular files count. */
export function differences(expected: string, actual: string, keeps: Peer['keeps']): string[] {
  const found: string[] = []
  const compare = (path: string): void => {
    for (const name of namesOf(join(expected, path), join(actual, path))) {
      if (found.length >= 10) return
      const inside = join(path, name)
      const [want, got] = [join(expected, inside), join(actual, inside)]
      const [a, b] = [want, got].map((each) => lstatSync(each, { bigint: true, throwIfNoEntry: false }))
      const isSkipped = keeps === 'content' && !(a?.isFile() || a?.isDirectory())
      if (isSkipped) continue
      // A folder without files is not copied by who copies content alone.
      if (keeps === 'content' && a?.isDirectory() && b === undefined) continue
      if (a === undefined) found.push(`${inside} is too much`)
      else if (b === undefined) found.push(`${inside} is missing`)
      else if ((a.mode & 0o170000n) !== (b.mode & 0o170000n)) found.push(`${inside} is of another type`)
      else if (keeps === 'everything' && a.mode !== b.mode) found.push(`${inside} has another mode`)
      else if (keeps === 'everything' && !a.isSymbolicLink() && a.mtimeNs !== b.mtimeNs)
        found.push(`${inside} has another mtime`)
      else if (a.isSymbolicLink() && readlinkSync(want) !== readlinkSync(got))
        found.push(`${inside} points elsewhere`)
      else if (a.isFile() && (a.size !== b.size || !readFileSync(want).equals(readFileSync(got))))
        found.push(`${inside} has other content`)
      if (a?.isDirectory() && b?.isDirectory()) compare(inside)
    }
  }
  compare('')
  return found
}

function namesOf(...folders: string[]): Set<string> {
  return new Set(folders.flatMap((folder) => readdirSync(folder)))
}
