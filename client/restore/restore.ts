/**
 * Restore: from a committed checkpoint to a directory, or a stream to a file.
 *
 *     tree-restore.ts     walks the tree, makes directories and links, lists what files need
 *     file-writer.ts      fetches ahead, bounded, and has files written, checked and placed by threads
 *
 * Every chunk is hashed, and every file of more than one chunk as a whole again. What is wrong with one
 * path is noted and the rest goes on. A run that was killed is taken up by running it again: what stands
 * rightly is kept, of a large file the chunks that stand rightly.
 */
import { realpathSync } from 'node:fs'
import { resolve } from 'node:path'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { Attributes, CheckpointState, Entry } from '../../protocol/schema.ts'
import { errnoReason, isSystemError } from '../errno.ts'
import { makeFolder } from '../make-folder.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import type { WebDavBackups } from '../targets/webdav-backups.ts'
import type { FileSteps } from './file-steps.ts'
import { FileWriter } from './file-writer.ts'
import { IncludeFilter, namesOf } from './include-filter.ts'
import { openContent } from './open-content.ts'
import { lookAt, openRegular, partName } from './part-file.ts'
import { localCodes, type RestoreCounts, RestoreLog, type RestoreProblem } from './restore-log.ts'
import { RestoredDirectory } from './restored-directory.ts'
import { ReceiverContent, type TreeContent, type TreePages } from './tree-content.ts'
import { fileSteps, TreeRestore } from './tree-restore.ts'

export interface RestoreOptions {
  /** Of the vault, or of the place on a WebDAV server, that holds it. */
  readonly client: ReceiverClient | WebDavBackups
  /** A committed one. */
  readonly checkpoint: CheckpointState
  /**
   * The directory to restore into. Made when it is not there, and then it gets the attributes of the backup's
   * root; one that is there keeps its own. For a checkpoint that is one stream, the file to write; when a
   * directory stands there, the file gets the source's name in it.
   */
  readonly to: string
  /** Only what is at or below these paths in the backup. */
  readonly include?: readonly Buffer[]
  /** Replaces what stands there and differs. Directories are never replaced. */
  readonly overwrite?: boolean
  /** Is told of every piece that is in its place; the object is the same each time and changes. */
  readonly onProgress?: (counts: Readonly<RestoreCounts>, bytesDone: number) => void
  /** Is told what goes wrong with a path as it happens. */
  readonly onProblem?: (problem: RestoreProblem) => void
  readonly signal?: AbortSignal | undefined
}

export interface RestoreSummary extends Readonly<RestoreCounts> {
  readonly source: string
  readonly checkpoint: number
  /** The first thousand; the count is `problems`. */
  readonly problemList: readonly RestoreProblem[]
  readonly durationMs: number
}

/**
 * Restores; resolves also when some paths could not be (see `problems`). Rejects with a Problem when
 * nothing more can be done: `transport-failed`, `destination-failed`, `cancelled`, …, and `not-found` when the
 * backup holds nothing of what `include` names: then nothing has been made. What was restored by
 * then stays, and running it again goes on from there. Memory is bounded, except for a path per group of hard links.
 */
export async function restore(options: RestoreOptions): Promise<RestoreSummary> {
  const startedAt = performance.now()
  const { client, checkpoint, signal } = options
  if (checkpoint.state !== 'committed') throw new TypeError('only a committed checkpoint can be restored')
  const log = new RestoreLog(options.onProblem)
  let bytesDone = 0
  const done = (bytes: number): void => {
    bytesDone += bytes
    options.onProgress?.(log.counts, bytesDone)
  }
  const content = await openContent(client, checkpoint, signal)
  try {
    await restoreContent(content, options, log, done)
  } finally {
    await content.close()
  }
  return {
    ...log.counts,
    source: checkpoint.source,
    checkpoint: checkpoint.number,
    problemList: log.problems,
    durationMs: performance.now() - startedAt,
  }
}

async function restoreContent(
  content: TreeContent,
  options: RestoreOptions,
  log: RestoreLog,
  done: (bytes: number) => void,
): Promise<void> {
  const { checkpoint, signal, overwrite = false } = options
  const filter = IncludeFilter.of(options.include ?? [])
  if (checkpoint.root !== undefined && options.include?.length) {
    await requireAny(content, checkpoint.root, options.include)
  }
  const { root, steps, leftover } =
    checkpoint.root === undefined
      ? planStream(options, content, log)
      : planTree(options, checkpoint.root, filter, { content, log, overwrite, kept: done, signal })
  const writer = new FileWriter({ content, log, written: done, signal })
  try {
    for (let list: typeof steps | undefined = steps; list !== undefined; list = leftover?.()) {
      await writer.write(list)
    }
  } finally {
    await writer.close()
    root.abandon()
  }
  if (checkpoint.root === undefined) return
  for (const path of filter.unmet) {
    log.failed(path, new Problem('not-found', 'the backup holds nothing there'))
  }
}

/** Problem `not-found` unless one of these paths, at least, stands in the tree below `root`. */
async function requireAny(tree: TreePages, root: Id, include: readonly Buffer[]): Promise<void> {
  for (const path of include) if (await mayHold(tree, root, namesOf(path))) return
  const paths = include.map((path) => `"${path}"`).join(', ')
  throw new Problem('not-found', `the backup holds nothing at ${paths}; nothing is restored`)
}

/** Whether something stands at this path. True where a damaged directory leaves it open: the walk tells that. */
async function mayHold(tree: TreePages, root: Id, names: readonly Buffer[]): Promise<boolean> {
  let directory: Id | undefined = root
  for (const name of names) {
    if (directory === undefined) return false
    let entry: Entry | undefined
    try {
      entry = await tree.entryOf(directory, name)
    } catch (error) {
      if (isProblem(error) && localCodes.includes(error.code)) return true
      throw error
    }
    if (entry === undefined) return false
    directory = entry.kind === 'directory' ? entry.id : undefined
  }
  return true
}

interface Plan {
  readonly root: RestoredDirectory
  readonly steps: AsyncIterable<FileSteps>
  /** Asked for more when everything so far is written. */
  readonly leftover?: () => AsyncIterable<FileSteps> | undefined
}

function planTree(
  { to, checkpoint }: RestoreOptions,
  id: NonNullable<CheckpointState['root']>,
  filter: IncludeFilter,
  settings: ConstructorParameters<typeof TreeRestore>[0],
): Plan {
  const { log } = settings
  const { path, made } = openDestination(to)
  // Somebody who restores into /tmp does not mean that /tmp gets the owner and mode of the backup's root.
  const attributes = made ? realAttributes(checkpoint) : undefined
  const root = RestoredDirectory.root(path, attributes, (directory, error) =>
    log.failed(directory.shownPath, error),
  )
  log.counts.directories++
  const tree = new TreeRestore(settings)
  return { root, steps: tree.steps(root, id, filter), leftover: () => tree.leftover() }
}

/** The root's attributes, unless the root was made up to hold several sources or a stream. */
function realAttributes({ attributes }: CheckpointState): Attributes | undefined {
  return attributes?.mtimeNs === '0' ? undefined : attributes
}

/** The destination's real path, and whether it had to be made. */
function openDestination(to: string): { path: Buffer; made: boolean } {
  return atDestination(to, () => {
    const made = makeFolder(to, 0o700)
    return { path: realpathSync(to, 'buffer'), made }
  })
}

/** Does `work` at `to`; what the system says against it becomes Problem `destination-failed`. */
function atDestination<T>(to: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (!isSystemError(cause)) throw cause
    const text = `cannot restore to ${to}: ${errnoReason(cause.code)}; choose another place with --to`
    throw new Problem('destination-failed', text, { cause })
  }
}

function planStream(options: RestoreOptions, content: TreeContent, log: RestoreLog): Plan {
  if (!(content instanceof ReceiverContent)) throw new TypeError('only a receiver holds streams')
  const { checkpoint, include = [] } = options
  if (include.length > 0)
    throw new Problem('usage', 'this checkpoint is one stream; --include does not apply')
  const to = resolve(options.to)
  const isDirectory = atDestination(to, () => lookAt(Buffer.from(to)))?.isDirectory() ?? false
  const folder = isDirectory ? to : resolve(to, '..')
  const name = Buffer.from(isDirectory ? checkpoint.source : to.slice(folder.length).replace(/^\//, ''))
  const root = RestoredDirectory.root(openDestination(folder).path, undefined, () => {})
  return { root, steps: streamSteps(options, content, log, root, name) }
}

async function* streamSteps(
  options: RestoreOptions,
  content: ReceiverContent,
  log: RestoreLog,
  directory: RestoredDirectory,
  name: Buffer,
): AsyncIterable<FileSteps> {
  const { checkpoint, client, signal } = options
  const existing = lookAt(directory.pathOf(name))
  if (existing !== undefined && (existing.isDirectory() || !options.overwrite)) {
    const text = existing.isDirectory()
      ? 'a directory stands there'
      : 'a file stands there; --overwrite replaces it'
    log.failed(name, new Problem('destination-exists', text))
    return
  }
  // The checkpoint, not the source's number, names the content: the same number may stand in another vault.
  const key = hashId(Buffer.from(JSON.stringify([client.location.shown, checkpoint])))
  directory.begin()
  yield* fileSteps(
    {
      directory,
      name,
      key,
      size: checkpoint.itemBytes ?? 0,
      sparse: false,
      digest: undefined,
      attributes: undefined,
      resume: true,
    },
    content,
    content.itemPieces(checkpoint, signal),
    openRegular(directory.pathOf(partName(name, key))),
  )
}
