/** Looking for locks: RFC 4918, section 6. A lock is on a path, not on what stands there, so it does not move. */
import type { TreeReads, TreeWrites } from './tree-database.ts'
import { decodeLock, keys, type Lock, type Names, pathOf } from './tree-records.ts'

/** The locks that hold for this path: its own, and those of infinite depth on what it is in. Without expired ones. */
export async function locksOn(reads: TreeReads, names: Names): Promise<Lock[]> {
  const found: Lock[] = []
  for (let length = 1; length <= names.length; length++) {
    const path = pathOf(names.slice(0, length))
    for (const lock of await collect(reads, keys.locksOf(path))) {
      if (length === names.length || lock.depth === 'infinity') found.push(lock)
    }
  }
  return found
}

/** The locks on anything strictly below the path. Without expired ones. */
export async function locksBelow(reads: TreeReads, names: Names): Promise<Lock[]> {
  return await collect(reads, keys.locksBelow(pathOf(names)))
}

/** Removes those that have expired; returns how many are left. */
export async function dropExpired(writes: TreeWrites): Promise<number> {
  let left = 0
  for await (const { key, value } of writes.range(keys.allLocks)) {
    if (decodeLock(value).expiresAtMs <= Date.now()) writes.remove(key)
    else left++
  }
  return left
}

async function collect(reads: TreeReads, prefix: Buffer): Promise<Lock[]> {
  const found: Lock[] = []
  for await (const { value } of reads.range(prefix)) {
    const lock = decodeLock(value)
    if (lock.expiresAtMs > Date.now()) found.push(lock)
  }
  return found
}
