/**
 * Real files of this machine, chosen by a rule that knows nothing about them but their sizes: what lies two levels
 * below /usr (/usr/bin/ls, /usr/share/perl5), in the order of the SHA-256 of its path, is taken whole with all that is
 * below it, unless the number of files or bytes would then be exceeded; what does not fit is passed over. Hard links,
 * modes, owners and times are copied.
 */
import { createHash } from 'node:crypto'
import { accessSync, constants, lstatSync, mkdirSync, readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Facts } from './corpora.ts'
import { outputOf } from './timed-program.ts'

/** Copies to `path`; says how much it was. */
export async function copySystemTree(path: string, bounds: Facts, root = '/usr'): Promise<Facts> {
  const total = { files: 0, bytes: 0 }
  const chosen = new Map<string, string[]>()
  for (const subtree of subtrees(root)) {
    const facts = measure(subtree, bounds)
    if (facts === undefined) continue
    if (total.files + facts.files > bounds.files || total.bytes + facts.bytes > bounds.bytes) continue
    total.files += facts.files
    total.bytes += facts.bytes
    const folder = dirname(subtree)
    chosen.set(folder, [...(chosen.get(folder) ?? []), subtree])
  }
  for (const [folder, entries] of chosen) {
    const target = join(path, basename(folder))
    mkdirSync(target, { recursive: true })
    await outputOf(['cp', '-a', '--', ...entries, target])
  }
  return total
}

function subtrees(root: string): string[] {
  const order = (name: string): string => createHash('sha256').update(name).digest('hex')
  return readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap((entry) => readdirSync(join(root, entry.name)).map((name) => join(root, entry.name, name)))
    .toSorted((a, b) => (order(a) < order(b) ? -1 : 1))
}

/** Undefined when it is larger than the bounds, or when something in it cannot be read. */
function measure(path: string, bounds: Facts): Facts | undefined {
  const total = { files: 0, bytes: 0 }
  const waiting = [path]
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const stats = lstatSync(next)
    if (stats.isSymbolicLink()) continue
    if (!stats.isFile() && !stats.isDirectory()) return undefined
    if (!isReadable(next)) return undefined
    if (stats.isDirectory()) for (const name of readdirSync(next)) waiting.push(join(next, name))
    else {
      total.files++
      total.bytes += stats.size
    }
    if (total.files > bounds.files || total.bytes > bounds.bytes) return undefined
  }
  return total
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') throw error
    return false
  }
}
