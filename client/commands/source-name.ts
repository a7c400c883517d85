/** What a backup is filed under when nobody says it. */
import { createHash } from 'node:crypto'
import { resolve } from 'node:path'

const maxLength = 128

/**
 * Host name and path, in the letters that a source's name may have: `laptop-home-alice`. Where letters had
 * to be replaced or cut off, and for several paths, a hash of what was meant keeps names apart that would
 * look the same. The order of the paths says nothing.
 */
export function defaultSourceName(hostName: string, workingFolder: string, paths: readonly string[]): string {
  const meant = paths.map((path) => (path === '-' ? 'stdin' : resolve(workingFolder, path))).sort()
  const text = [hostName, ...(meant[0] ?? '').split('/')].filter((word) => word !== '').join('-')
  const words = text
    .normalize('NFKD')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/\.{2,}/g, '.')
    .replace(/^[^A-Za-z0-9]+/, '')
  if (words === text && words !== '' && words.length <= maxLength && meant.length === 1) return words
  const hash = createHash('sha256')
    .update(JSON.stringify([hostName, ...meant]))
    .digest('hex')
    .slice(0, 8)
  const stem = words.slice(0, maxLength - hash.length - 1).replace(/[^A-Za-z0-9]+$/, '')
  return `${stem || 'backup'}-${hash}`
}
