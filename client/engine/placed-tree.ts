/**
 * The tree of a checkpoint as a target of files has it: the root, then each directory before what is in it,
 * names in the order of their bytes. From the database, and into it.
 */
import { nameBytes } from '../../protocol/objects.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { DirectoryEntry, Entry } from '../../protocol/schema.ts'
import type { CheckpointDatabase, EntryRecord } from './checkpoint-database.ts'
import type { MemberCounts, PlacedEntry, TreeEntry } from './file-target.ts'

const slash = Buffer.from('/')
const nothing = Buffer.alloc(0)
const noMembers: MemberCounts = { kept: 0, sent: 0, directories: 0 }

interface Level {
  readonly path: Buffer
  readonly number: number
  readonly records: AsyncGenerator<{ name: Buffer; record: EntryRecord }, void, undefined>
}

/**
 * Walks what the database remembers, when the tree is finished. `isSent` asks for files that were put in the
 * name of checkpoint `checkpoint`. `lose` makes the next scan read the file.
 */
export async function* treeOf(
  database: CheckpointDatabase,
  root: { readonly entry: DirectoryEntry; readonly number: number },
  checkpoint: number,
): AsyncGenerator<TreeEntry, void, undefined> {
  const directory = (path: Buffer, entry: Entry, number: number): TreeEntry => ({
    ...{ path, entry, lose: () => {} },
    isSent: () => holdsSent(database, number, checkpoint),
    members: () => membersOf(database, number, checkpoint),
  })
  yield directory(nothing, root.entry, root.number)
  const levels: Level[] = [{ path: nothing, number: root.number, records: database.records(root.number) }]
  try {
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const { value, done } = await level.records.next()
      if (done === true) {
        levels.pop()
        continue
      }
      const { name, record } = value as { name: Buffer; record: EntryRecord }
      const { entry, number, sent } = record
      if (entry === undefined) throw new TypeError('the tree is not finished')
      const path = level.path.length === 0 ? name : Buffer.concat([level.path, slash, name])
      if (number !== undefined) {
        yield directory(path, entry, number)
        levels.push({ path, number, records: database.records(number) })
      } else {
        const owner = level.number
        const lose = (): void => database.put(owner, name, {})
        yield { path, entry, isSent: async () => sent === checkpoint, members: async () => noMembers, lose }
      }
    }
  } finally {
    for (const { records } of levels) await records.return()
  }
}

async function membersOf(
  database: CheckpointDatabase,
  number: number,
  checkpoint: number,
): Promise<MemberCounts> {
  let [kept, sent, directories] = [0, 0, 0]
  for await (const { record } of database.records(number)) {
    if (record.number !== undefined) directories++
    else if (record.entry?.kind === 'file') record.sent === checkpoint ? sent++ : kept++
  }
  return { kept, sent, directories }
}

async function holdsSent(database: CheckpointDatabase, number: number, checkpoint: number): Promise<boolean> {
  const numbers = [number]
  for (let next = numbers.pop(); next !== undefined; next = numbers.pop()) {
    for await (const { record } of database.records(next)) {
      if (record.sent === checkpoint) return true
      if (record.number !== undefined) numbers.push(record.number)
    }
  }
  return false
}

/**
 * Fills an empty database from `tree`. False when that cannot be read to its end: then nothing is remembered
 * and the backup reads everything.
 */
export async function rememberTree(
  database: CheckpointDatabase,
  tree: AsyncIterable<PlacedEntry>,
): Promise<boolean> {
  let root: EntryRecord | undefined
  const open: { path: Buffer; number: number }[] = []
  let count = 0
  try {
    for await (const { path, entry } of tree) {
      const number = entry.kind === 'directory' ? database.newNumber() : undefined
      const record: EntryRecord = { entry, ...(number === undefined ? {} : { number }) }
      if (path.length === 0) {
        root = record
      } else {
        const name = nameBytes(entry)
        const parent = path.subarray(0, Math.max(0, path.length - name.length - 1))
        while (open.length > 0 && !open.at(-1)?.path.equals(parent)) open.pop()
        const owner = open.at(-1)
        if (owner === undefined) throw new Problem('invalid-object', `"${path}" stands outside its directory`)
        database.put(owner.number, name, record)
      }
      if (number !== undefined) open.push({ path, number })
      if (++count % 1000 === 0) await database.flush()
    }
  } catch (error) {
    if (!isProblem(error, 'invalid-object')) throw error
    await database.clear()
    return false
  }
  // Last: a database without its root counts as empty.
  if (root !== undefined) database.put(0, nothing, root)
  await database.flush()
  return root !== undefined
}
