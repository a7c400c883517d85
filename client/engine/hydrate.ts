/**
 * Where the client's database is gone, the last committed checkpoint on the receiver serves instead: its
 * directories are read and their entries remembered, without ctime and inode.
 */

import type { Id } from '../../protocol/id.ts'
import { decodeDirectoryObject, nameBytes } from '../../protocol/objects.ts'
import { isProblem, type ProblemCode } from '../../protocol/problem.ts'
import type { CheckpointState, Entry } from '../../protocol/schema.ts'
import type { CheckpointDatabase } from './checkpoint-database.ts'
import type { Target } from './target.ts'

/** Directory objects asked for at once. */
const groupObjects = 64
/**
 * What is wrong with the tree itself; and that it is not for us to read, where we may only append. Anything else (a
 * broken connection, a cancelled run) ends the run.
 */
const unreadableTree: ReadonlySet<ProblemCode> = new Set<ProblemCode>([
  'chunk-not-found',
  'chunk-corrupt',
  'digest-mismatch',
  'forbidden',
  'invalid-object',
  'not-found',
])
const rootAttributes = { mode: 0o755, uid: 0, gid: 0, mtimeNs: '0' }

/**
 * Fills an empty database from `base`. False when the checkpoint has no tree, or its tree cannot be read
 * whole: then nothing is remembered and the backup reads everything.
 */
export async function hydrate(
  database: CheckpointDatabase,
  target: Target,
  base: CheckpointState,
  signal: AbortSignal,
): Promise<boolean> {
  if (base.root === undefined) return false
  const root = { kind: 'directory', ...(base.attributes ?? rootAttributes), id: base.root } as const
  const number = database.newNumber()
  /** Directory objects still to be read, and the number of the directory whose entries they hold. */
  let pending: { id: Id; number: number }[] = [{ id: base.root, number }]
  try {
    while (pending.length > 0) {
      const group = pending.splice(-groupObjects)
      let i = 0
      for await (const { bytes } of target.read(
        group.map(({ id }) => id),
        signal,
      )) {
        const owner = (group[i++] as { number: number }).number
        const object = decodeDirectoryObject(bytes)
        if ('parts' in object) pending.push(...object.parts.map(({ id }) => ({ id, number: owner })))
        else pending = pending.concat(remember(database, owner, object.entries))
      }
      await database.flush()
    }
  } catch (error) {
    if (!isProblem(error) || !unreadableTree.has(error.code)) throw error
    await database.clear()
    return false
  }
  database.put(0, Buffer.alloc(0), { entry: root, number })
  await database.flush()
  return true
}

function remember(
  database: CheckpointDatabase,
  owner: number,
  entries: readonly Entry[],
): { id: Id; number: number }[] {
  const directories: { id: Id; number: number }[] = []
  for (const entry of entries) {
    if (entry.kind === 'directory') {
      const number = database.newNumber()
      directories.push({ id: entry.id, number })
      database.put(owner, nameBytes(entry), { entry, number })
    } else {
      database.put(owner, nameBytes(entry), { entry })
    }
  }
  return directories
}
