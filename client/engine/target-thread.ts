/**
 * The target's half of a run: takes files from the queue, has the source fill them, and sends what comes.
 *
 * Several fillers are at work at once. Each takes a group of small files, or one large one, and follows
 * its events. What is read is borrowed from the source until the receiver has acknowledged it: the source
 * lends a bounded number of bytes, which is the bound on memory. A file is settled when all of it is
 * acknowledged; only then is it remembered.
 */
import type { PlainChunk } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { FileListBuilder } from '../../protocol/list-builder.ts'
import type { Part } from '../../protocol/schema.ts'
import type { BoundedQueue } from './bounded-queue.ts'
import type { LinkedContent } from './hard-links.ts'
import { plainStat } from './plain-stat.ts'
import type { Run } from './run.ts'
import type { FillEvent, Filled, Source } from './source.ts'
import { type FileTask, giveUpFile, settleFile } from './source-thread.ts'
import type { Target } from './target.ts'
import type { Tree } from './tree.ts'

/** A group of files for one reading thread. */
const groupBytes = 16 * 1024 * 1024
const groupFiles = 1024
/** What is told of a file that never held still. */
export const mixture = 'it changed while it was read; what was read is a mixture'

/** Runs `fillers` fillers until the queue has ended and everything taken from it is settled. */
export async function runTarget(
  run: Run,
  source: Source,
  target: Target,
  tree: Tree,
  queue: BoundedQueue<FileTask>,
  fillers: number,
): Promise<void> {
  const fill = async (): Promise<void> => {
    for (;;) {
      await run.gate()
      const tasks = await queue.take(fitsGroup())
      if (tasks === undefined) return
      await new Filler(run, source, target, tree, tasks).run()
    }
  }
  await Promise.all(Array.from({ length: fillers }, fill))
}

/** Lets a task into a group while the group stays below its bounds. */
export function fitsGroup(): (task: FileTask, taken: readonly FileTask[]) => boolean {
  let bytes = 0
  return (task, taken) => {
    if (taken.length === 1) bytes = taken[0]?.stat.size ?? 0
    bytes += task.stat.size
    return bytes <= groupBytes && taken.length < groupFiles
  }
}

type Done = FillEvent & { type: 'done' }

/** One file of a group, while it is read. */
interface Filling {
  /** The first chunk; further ones go into `list`. */
  first: Part | undefined
  list: FileListBuilder | undefined
  /** How many `put`s that carry some of it are not acknowledged yet. */
  open: number
  /** All of it is read and put. */
  done: Done | undefined
  /** Content bytes that count as settled already, for the progress of large files. */
  settledBytes: number
  /** It must be read again, or could not be read: what is still on its way counts for nothing. */
  isVoid: boolean
}

const empty = (): Filling => ({
  first: undefined,
  list: undefined,
  open: 0,
  done: undefined,
  settledBytes: 0,
  isVoid: false,
})

class Filler {
  readonly #run: Run
  readonly #source: Source
  readonly #target: Target
  readonly #tree: Tree
  readonly #tasks: readonly FileTask[]
  readonly #filling: Filling[]
  /** Further names of inodes that could not be read under the first: to be read when this group is through. */
  readonly #heirs: FileTask[] = []

  constructor(run: Run, source: Source, target: Target, tree: Tree, tasks: readonly FileTask[]) {
    this.#run = run
    this.#source = source
    this.#target = target
    this.#tree = tree
    this.#tasks = tasks
    this.#filling = tasks.map(empty)
  }

  async run(): Promise<void> {
    for await (const filled of this.#source.fill(this.#tasks, this.#run.signal)) {
      await this.#take(filled)
      await this.#run.gate()
    }
    if (this.#heirs.length > 0) {
      await new Filler(this.#run, this.#source, this.#target, this.#tree, this.#heirs).run()
    }
  }

  async #take({ events, release }: Filled): Promise<void> {
    const chunks: PlainChunk[] = []
    const shares: Share[] = []
    for (const event of events) {
      const filling = this.#filling[event.file] as Filling
      if (event.type === 'chunk') {
        chunks.push(event)
        addChunk(filling, event, chunks)
        shareOf(filling, shares).bytes += event.bytes.length
      } else if (event.type === 'again') {
        this.#unsettle(filling)
        filling.isVoid = true
        this.#filling[event.file] = empty()
      } else if (event.type === 'failed') {
        await this.#failed(event)
      } else {
        finishList(filling, event.digest, chunks)
        filling.done = event
        shareOf(filling, shares)
      }
    }
    // One promise for all files in it: thousands of small ones a second would otherwise cost several each.
    this.#put(chunks)
      .finally(release)
      .then(() => this.#acknowledged(shares))
      .catch((error: unknown) => this.#run.fail(error))
  }

  async #acknowledged(shares: readonly Share[]): Promise<void> {
    for (const { filling, bytes } of shares) {
      filling.open--
      if (filling.isVoid) continue
      filling.settledBytes += bytes
      this.#run.settled.bytes += bytes
      if (filling.open > 0 || filling.done === undefined) continue
      const settling = this.#settle(filling, filling.done)
      if (settling !== undefined) await settling
    }
  }

  /** The file counts as a whole when it is settled, and not at all when it must be read again. */
  #unsettle(filling: Filling): void {
    this.#run.settled.bytes -= filling.settledBytes
    filling.settledBytes = 0
  }

  /** Resolves when all of it has arrived. */
  async #put(chunks: readonly PlainChunk[]): Promise<void> {
    if (chunks.length === 0) return
    this.#run.countChunks(await this.#target.put(chunks))
  }

  /** All of it has arrived. A promise where there is something to wait for. */
  #settle(filling: Filling, done: Done): Promise<void> | undefined {
    const { stat: read, changed, uncertain } = done
    const task = this.#tasks[done.file] as FileTask
    const { id, chunked } = finishedPart(filling)
    this.#unsettle(filling)
    // Without a matching ctime the next run reads it again.
    const stat = changed || uncertain ? { ...plainStat(read), ctimeNs: '' } : read
    const content = { id, chunked: chunked === true, stat }
    const { counts, links } = this.#run
    counts.filesRead++
    counts.bytesRead += done.bytesRead
    const others = links.settle(task, content)
    const settling = settleFile(this.#run, this.#tree, task, content)
    if (settling === undefined && others.length === 0 && !changed) return undefined
    return this.#settleAll([task, ...others], content, settling, changed)
  }

  /** The same for all names of one inode; of the first it was begun. */
  async #settleAll(
    [task, ...others]: readonly FileTask[],
    content: LinkedContent,
    settling: Promise<void> | undefined,
    changed: boolean,
  ): Promise<void> {
    await settling
    for (const other of others) await settleFile(this.#run, this.#tree, other, content)
    if (!changed) return
    for (const { path } of [task as FileTask, ...others]) this.#run.report(path, 'source-changed', mixture)
  }

  async #failed({ file, problem }: FillEvent & { type: 'failed' }): Promise<void> {
    const task = this.#tasks[file] as FileTask
    const filling = this.#filling[file] as Filling
    this.#unsettle(filling)
    filling.isVoid = true
    const heir = await giveUpFile(this.#run, this.#tree, task, problem)
    if (heir !== undefined) this.#heirs.push(heir)
  }
}

/** What a file has in one put, or that it ends with it. */
interface Share {
  readonly filling: Filling
  /** Of content. */
  bytes: number
}

/** The share of a file, whose events come one behind the other. */
function shareOf(filling: Filling, shares: Share[]): Share {
  const last = shares.at(-1)
  if (last?.filling === filling) return last
  const share = { filling, bytes: 0 }
  shares.push(share)
  filling.open++
  return share
}

/** Adds a chunk to a file, and the list objects that are final now to `chunks`. */
function addChunk(filling: Filling, chunk: PlainChunk, chunks: PlainChunk[]): void {
  const part = { id: chunk.id, size: chunk.bytes.length }
  if (filling.first === undefined) {
    filling.first = part
    return
  }
  if (filling.list === undefined) {
    filling.list = new FileListBuilder()
    chunks.push(...filling.list.add(filling.first))
  }
  chunks.push(...filling.list.add(part))
}

/** Ends a file: afterwards `first` is the reference to all of it. The list objects that are final now go to `chunks`. */
function finishList(filling: Filling, digest: Id, chunks: PlainChunk[]): void {
  if (filling.list === undefined) return
  const { objects, reference } = filling.list.finish(digest)
  filling.first = reference
  filling.list = undefined
  chunks.push(...objects)
}

function finishedPart(filling: Filling): Part {
  if (filling.first === undefined) throw new TypeError('a file ended without a chunk')
  return filling.first
}
