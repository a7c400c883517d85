/** Looking into checkpoints without restoring them: what a directory holds, what differs between two trees. */
import type { Id } from '../protocol/id.ts'
import { nameBytes, targetBytes } from '../protocol/objects.ts'
import { Problem } from '../protocol/problem.ts'
import type { Entry } from '../protocol/schema.ts'
import { namesOf } from './restore/include-filter.ts'
import type { TreePages } from './restore/tree-content.ts'

export interface FoundEntry {
  /** The path's bytes from the checkpoint's root on, without a leading slash. */
  readonly path: Buffer
  readonly entry: Entry
}

export interface Change {
  readonly change: 'added' | 'removed' | 'changed'
  readonly path: Buffer
  readonly before?: Entry
  readonly after?: Entry
}

const slash = Buffer.from('/')
const join = (folder: Buffer, name: Buffer): Buffer =>
  folder.length === 0 ? name : Buffer.concat([folder, slash, name])

/** What stands in the directory `path` below `root`, in order of names; what is no directory, alone. Problem `not-found`. */
export async function* listPath(objects: TreePages, root: Id, path: Buffer): AsyncIterable<FoundEntry> {
  let folder: Buffer = Buffer.alloc(0)
  let directory = root
  const names = namesOf(path)
  for (const [index, name] of names.entries()) {
    const entry = await objects.entryOf(directory, name)
    if (entry === undefined) throw new Problem('not-found', `the backup holds nothing at "${path}"`)
    folder = join(folder, name)
    if (entry.kind === 'directory') {
      directory = entry.id
      continue
    }
    if (index < names.length - 1) throw new Problem('not-found', `"${folder}" in the backup is no directory`)
    yield { path: folder, entry }
    return
  }
  for await (const page of objects.pages(directory)) {
    for (const entry of page) yield { path: join(folder, nameBytes(entry)), entry }
  }
}

/**
 * What is different in tree `after` from tree `before`, in order of names, a directory before what is in it.
 * `objects` are read at both ids; for each tree its own, where a tree can be walked only once. Equal ids are skipped whole. A path that changed its kind is removed and added.
 */
export function diffTrees(
  objects: TreePages | readonly [before: TreePages, after: TreePages],
  before: Id,
  after: Id,
): AsyncIterable<Change> {
  const both = 'pages' in objects ? ([objects, objects] as const) : objects
  return diffDirectories(both, before, after, Buffer.alloc(0))
}

/** Where the one tree and the other are read from: two places when each can be walked only once. */
type Both = readonly [before: TreePages, after: TreePages]

async function* diffDirectories(
  objects: Both,
  before: Id | undefined,
  after: Id | undefined,
  folder: Buffer,
): AsyncIterable<Change> {
  if (before === after) return
  const olds = entriesOf(objects[0], before)[Symbol.asyncIterator]()
  const news = entriesOf(objects[1], after)[Symbol.asyncIterator]()
  let old = await olds.next()
  let young = await news.next()
  while (!old.done || !young.done) {
    const order = old.done
      ? 1
      : young.done
        ? -1
        : Buffer.compare(nameBytes(old.value), nameBytes(young.value))
    const gone = order <= 0 ? (old.value as Entry) : undefined
    const come = order >= 0 ? (young.value as Entry) : undefined
    yield* diffEntries(objects, gone, come, folder)
    if (order <= 0) old = await olds.next()
    if (order >= 0) young = await news.next()
  }
}

async function* entriesOf(tree: TreePages, id: Id | undefined): AsyncGenerator<Entry, undefined> {
  if (id === undefined) return
  for await (const page of tree.pages(id)) yield* page
}

async function* diffEntries(
  objects: Both,
  before: Entry | undefined,
  after: Entry | undefined,
  folder: Buffer,
): AsyncIterable<Change> {
  if (before !== undefined && after !== undefined && before.kind === after.kind) {
    const path = join(folder, nameBytes(after))
    if (!looksEqual(before, after)) yield { change: 'changed', path, before, after }
    if (before.kind === 'directory') yield* diffDirectories(objects, before.id, directoryId(after), path)
    return
  }
  if (before !== undefined) {
    const path = join(folder, nameBytes(before))
    yield { change: 'removed', path, before }
    yield* diffDirectories(objects, directoryId(before), undefined, path)
  }
  if (after !== undefined) {
    const path = join(folder, nameBytes(after))
    yield { change: 'added', path, after }
    yield* diffDirectories(objects, undefined, directoryId(after), path)
  }
}

function directoryId(entry: Entry): Id | undefined {
  return entry.kind === 'directory' ? entry.id : undefined
}

/** Whether the entries themselves are equal; what is below a directory is another matter. */
function looksEqual(before: Entry, after: Entry): boolean {
  const fields = ['mode', 'uid', 'gid', 'mtimeNs'] as const
  if (fields.some((field) => before[field] !== after[field])) return false
  if (before.kind === 'file' && after.kind === 'file') return before.id === after.id
  if (before.kind === 'symlink' && after.kind === 'symlink') {
    return targetBytes(before).equals(targetBytes(after))
  }
  if ('major' in before && 'major' in after) {
    return before.major === after.major && before.minor === after.minor
  }
  return true
}
