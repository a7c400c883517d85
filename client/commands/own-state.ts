/** The client's own databases: where each stands, and how a backup of the folder around them leaves them out. */
import { createHash } from 'node:crypto'
import { realpath } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve } from 'node:path'
import type { VaultLocation } from '../vault-url.ts'

const nameLength = 32

/** The folder of the database of `source` in a vault (or another place of this origin), by the form that it is kept in. */
export function databaseFolder(
  stateFolder: string,
  { origin, vault }: Pick<VaultLocation, 'origin' | 'vault'>,
  source: string,
  form: string,
): string {
  const key = JSON.stringify([origin, vault, source, form])
  return join(stateFolder, createHash('sha256').update(key).digest('hex').slice(0, nameLength))
}

/**
 * Exclude patterns for the databases in `stateFolder`, as far as it lies below these paths (absolute). They
 * change while the backup runs and are worth nothing elsewhere. Of the folder nothing else is left out: it
 * may be one that holds other things too.
 */
export async function ownStatePatterns(stateFolder: string, paths: readonly string[]): Promise<string[]> {
  const state = await realPathOf(resolve(stateFolder))
  const patterns: string[] = []
  for (const path of paths) {
    const inside = relative(await realPathOf(path), state)
    if (inside === '..' || inside.startsWith('../')) continue
    // Several paths stand side by side under a root, by their last names.
    const folder = join('/', paths.length > 1 ? basename(path) || 'root' : '', inside, '/')
    const database = `${escapePattern(folder)}${'[0-9a-f]'.repeat(nameLength)}`
    patterns.push(database, `${database}.damaged`)
  }
  return patterns
}

/** `path` without symlinks; of what is not there yet, the part that is. */
async function realPathOf(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    const parent = dirname(path)
    return parent === path ? path : join(await realPathOf(parent), basename(path))
  }
}

/** A path as a pattern of gitignore that means nothing but itself. */
function escapePattern(path: string): string {
  return path.replace(/[\\*?[\]!# ]/g, '\\$&')
}
