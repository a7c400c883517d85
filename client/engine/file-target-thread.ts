/**
 * The target's half of a run to a target of files: takes files from the queue, has the source fill them, and
 * puts each as it is read.
 *
 * Several fillers are at work at once, as with chunks (target-thread.ts). A file whose content comes in one
 * piece of work is put from the source's own memory, which is borrowed until the server has acknowledged it.
 * A larger one is streamed: its bytes are given back as fast as the server takes them. A file is settled,
 * and remembered as sent in this checkpoint, when all of it is acknowledged.
 *
 * The length of a file is told before it is sent; a file that then has another one, and one whose
 * connection broke, is read and sent again, at most `maxTries` times in all.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isProblem, type Problem, type ProblemCode } from '../../protocol/problem.ts'
import type { BoundedQueue } from './bounded-queue.ts'
import type { FileTarget } from './file-target.ts'
import { PieceStream } from './piece-stream.ts'
import { plainStat } from './plain-stat.ts'
import type { Run } from './run.ts'
import type { FillEvent, Filled, Source } from './source.ts'
import { type FileTask, giveUpFile, settleFile } from './source-thread.ts'
import { fitsGroup, mixture } from './target-thread.ts'
import type { Tree } from './tree.ts'

const maxTries = 4
/** Before a file is sent again; doubled each time. */
const pauseMs = 400
/** What is wrong with one file only: the server does not take its name, or not its size. */
const refusals: readonly ProblemCode[] = [
  'forbidden',
  'not-found',
  'method-not-allowed',
  'conflict',
  'invalid-request',
  'body-too-large',
  'unsupported-media-type',
  'locked',
  'precondition-failed',
]
/** Reading and sending the file again may help. */
const passing: readonly ProblemCode[] = ['source-changed', 'transport-failed', 'unavailable']

/** A file to be put, and how often that was tried. */
interface Attempt {
  readonly task: FileTask
  readonly tries: number
  /** Its length is not to be relied on. */
  readonly unsized: boolean
}

export interface FileTargetThreadOptions {
  readonly fillers: number
  /** The number of the open checkpoint. */
  readonly checkpoint: number
}

/** Runs until the queue has ended and everything taken from it is settled. */
export async function runFileTarget(
  run: Run,
  source: Source,
  target: FileTarget,
  tree: Tree,
  queue: BoundedQueue<FileTask>,
  { fillers, checkpoint }: FileTargetThreadOptions,
): Promise<void> {
  const unsized = source.capabilities.form === 'chunks'
  const fill = async (): Promise<void> => {
    for (;;) {
      await run.gate()
      const tasks = await queue.take(fitsGroup())
      if (tasks === undefined) return
      let attempts = tasks.map((task): Attempt => ({ task, tries: 1, unsized }))
      while (attempts.length > 0) {
        attempts = await new FileFiller({ run, source, target, tree, checkpoint }, attempts).run()
      }
    }
  }
  await Promise.all(Array.from({ length: fillers }, fill))
}

interface Surroundings {
  readonly run: Run
  readonly source: Source
  readonly target: FileTarget
  readonly tree: Tree
  readonly checkpoint: number
}

/** One file of a group, while it is read. */
interface Filling {
  /** Bytes of the batch at hand. */
  pieces: Buffer[]
  /** Where they go when the file does not end within one batch. */
  stream: PieceStream | undefined
  abort: AbortController
  /** Settles with the put; an earlier one of the same path has settled before it begins. */
  putting: Promise<void>
  /** Content bytes that count as settled already, for the progress of large files. */
  settledBytes: number
}

const begin = (before: Promise<unknown> = Promise.resolve()): Filling => ({
  pieces: [],
  stream: undefined,
  abort: new AbortController(),
  putting: before.then(
    () => {},
    () => {},
  ),
  settledBytes: 0,
})

/** Puts one group of files. */
class FileFiller {
  readonly #around: Surroundings
  readonly #attempts: readonly Attempt[]
  readonly #filling: Filling[]
  readonly #ends: Promise<void>[] = []
  /** To be read once more when this group is through. */
  readonly #again: Attempt[] = []

  constructor(around: Surroundings, attempts: readonly Attempt[]) {
    this.#around = around
    this.#attempts = attempts
    this.#filling = attempts.map(() => begin())
  }

  /** Resolves, when all puts have ended, with what must be read again. */
  async run(): Promise<Attempt[]> {
    const { run, source } = this.#around
    const tasks = this.#attempts.map(({ task }) => task)
    try {
      for await (const filled of source.fill(tasks, run.signal)) {
        await this.#take(filled)
        await run.gate()
      }
    } catch (error) {
      for (const { stream } of this.#filling) stream?.fail(error)
      throw error
    } finally {
      await Promise.all(this.#ends)
    }
    await this.#pause()
    return this.#again
  }

  /** A server needs a moment to notice that a connection is gone. */
  async #pause(): Promise<void> {
    if (this.#again.length === 0) return
    const tries = Math.max(...this.#again.map(({ tries }) => tries))
    await sleep(pauseMs * 2 ** (tries - 2), undefined, { signal: this.#around.run.signal })
  }

  async #take({ events, release }: Filled): Promise<void> {
    const uses: Promise<unknown>[] = []
    const unfinished = new Set<number>()
    for (const event of events) {
      const filling = this.#filling[event.file] as Filling
      if (event.type === 'chunk') {
        filling.pieces.push(event.bytes)
        unfinished.add(event.file)
      } else if (event.type === 'again') {
        this.#void(filling, new Error('it is read again'))
        this.#filling[event.file] = begin(filling.putting)
        unfinished.delete(event.file)
      } else if (event.type === 'failed') {
        this.#void(filling, event.problem)
        unfinished.delete(event.file)
        await this.#giveUp(this.#attempts[event.file] as Attempt, event.problem)
      } else {
        unfinished.delete(event.file)
        uses.push(this.#finish(event))
      }
    }
    for (const file of unfinished) uses.push(this.#extend(file))
    void Promise.allSettled(uses).then(release)
  }

  /** What was read of the file counts for nothing. */
  #void(filling: Filling, reason: unknown): void {
    filling.pieces = []
    this.#unsettle(filling)
    if (filling.stream === undefined) return
    filling.stream.fail(reason)
    filling.abort.abort(reason)
    // What it has left is gone when the put has settled: not to be committed before.
    this.#ends.push(filling.putting.catch(() => {}))
  }

  /** The file counts as a whole when it is settled. */
  #unsettle(filling: Filling): void {
    this.#around.run.settled.bytes -= filling.settledBytes
    filling.settledBytes = 0
  }

  #put(file: number, filling: Filling, content: Parameters<FileTarget['put']>[1]): Promise<void> {
    const { run, target } = this.#around
    const { task } = this.#attempts[file] as Attempt
    const signal = AbortSignal.any([run.signal, filling.abort.signal])
    const putting = filling.putting.then(() => target.put(task.path, content, signal))
    filling.putting = putting
    putting.catch((error: unknown) => {
      // Nothing else of the run will fare better: no need to wait until the file is read.
      if (!filling.abort.signal.aborted && !concernsOneFile(error)) run.fail(error)
    })
    return putting
  }

  /** Sends on what has come of a file that goes on. Resolves when its bytes are needed no longer. */
  async #extend(file: number): Promise<void> {
    const filling = this.#filling[file] as Filling
    const pieces = filling.pieces.splice(0)
    if (filling.stream === undefined) {
      const stream = new PieceStream()
      const { task, unsized } = this.#attempts[file] as Attempt
      filling.stream = stream
      const size = unsized ? undefined : task.stat.size
      const putting = this.#put(file, filling, { stream, size, mtimeNs: task.stat.mtimeNs })
      putting.catch(() => {}).finally(() => stream.close())
    }
    const { stream } = filling
    await Promise.all(
      pieces.map(async (piece) => {
        await stream.push(piece)
        if (filling.abort.signal.aborted) return
        filling.settledBytes += piece.length
        this.#around.run.settled.bytes += piece.length
      }),
    )
  }

  /** The file ended. Resolves when its bytes are needed no longer. */
  async #finish(event: FillEvent & { type: 'done' }): Promise<void> {
    const filling = this.#filling[event.file] as Filling
    if (filling.stream === undefined) {
      const content = { pieces: filling.pieces.splice(0), mtimeNs: event.stat.mtimeNs }
      const putting = this.#put(event.file, filling, content)
      this.#ends.push(this.#settle(event, filling))
      await putting
      return
    }
    const extended = this.#extend(event.file)
    filling.stream.end()
    this.#ends.push(this.#settle(event, filling))
    await extended
  }

  /** Never rejects. */
  async #settle(event: FillEvent & { type: 'done' }, filling: Filling): Promise<void> {
    const { run, tree, checkpoint } = this.#around
    const attempt = this.#attempts[event.file] as Attempt
    try {
      await filling.putting
    } catch (error) {
      this.#unsettle(filling)
      await this.#refused(attempt, error)
      return
    }
    try {
      this.#unsettle(filling)
      // Without a matching ctime the next run reads it again.
      const stat = event.changed || event.uncertain ? { ...plainStat(event.stat), ctimeNs: '' } : event.stat
      const content = { id: event.digest, chunked: false, stat }
      const { task } = attempt
      run.counts.filesRead++
      run.counts.bytesRead += event.bytesRead
      // The other names of an inode are not at the target yet: a commit makes them there.
      for (const settled of [task, ...run.links.settle(task, content)]) {
        const own = settled === task ? { ...content, sent: checkpoint } : content
        await settleFile(run, tree, settled, own)
        if (event.changed) run.report(settled.path, 'source-changed', mixture)
      }
    } catch (error) {
      run.fail(error)
    }
  }

  async #refused(attempt: Attempt, error: unknown): Promise<void> {
    const { run, source } = this.#around
    try {
      if (run.signal.aborted) return
      if (!isProblem(error) || !concernsOneFile(error)) {
        run.fail(error)
      } else if (refusals.includes(error.code)) {
        await this.#giveUp(attempt, error)
      } else if (attempt.tries < maxTries && source.capabilities.rereadable) {
        const unsized = attempt.unsized || error.code === 'source-changed'
        this.#again.push({ task: attempt.task, tries: attempt.tries + 1, unsized })
      } else {
        run.fail(error)
      }
    } catch (failure) {
      run.fail(failure)
    }
  }

  async #giveUp({ task, unsized }: Attempt, problem: Problem): Promise<void> {
    const { run, tree } = this.#around
    const heir = await giveUpFile(run, tree, task, problem)
    if (heir !== undefined) this.#again.push({ task: heir, tries: 1, unsized })
  }
}

function concernsOneFile(error: unknown): boolean {
  if (!isProblem(error)) return false
  // Who the server does not know may put no file at all.
  if (error.extensions.status === 401) return false
  return refusals.includes(error.code) || passing.includes(error.code)
}
