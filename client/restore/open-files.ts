/**
 * The files that are not in their places yet, and how each of them ends: finished by a thread, or given up and cleared away.
 *
 * Invariant: a file is closed when none of its wants is left and no thread is at it: descriptors are shared with the threads.
 */
import { closeSync, rmSync } from 'node:fs'
import type { Problem } from '../../protocol/problem.ts'
import type { FileJob } from './file-steps.ts'
import { openPart } from './part-file.ts'
import type { RestoreLog } from './restore-log.ts'
import { errorOf, type FilePlace, partPathOf, type TargetEnd } from './write-tasks.ts'
import type { WritingThreads } from './writing-threads.ts'

/** A file that is not in its place yet. */
export interface OpenFile {
  readonly job: FileJob
  /** None for a file that is made in one go. */
  part?: { readonly fd: number; readonly resumed: boolean }
  /** All its chunks are known. */
  isListed: boolean
  /** Chunks that are not written yet, and those among them that a thread is at. */
  wants: number
  underWay: number
  /** Set when it failed; what is still wanted of it is passed over. */
  problem?: Problem
}

export class OpenFiles {
  readonly #threads: WritingThreads
  readonly #log: RestoreLog
  readonly #guard: (work: () => Promise<void>) => Promise<void>
  readonly #ended: () => void
  readonly #open = new Set<OpenFile>()
  #parts = 0

  /** `guard` runs what nobody waits for; `ended` is told of each file that is done with, one way or the other. */
  constructor(options: {
    threads: WritingThreads
    log: RestoreLog
    guard: (work: () => Promise<void>) => Promise<void>
    ended: () => void
  }) {
    this.#threads = options.threads
    this.#log = options.log
    this.#guard = options.guard
    this.#ended = options.ended
  }

  get count(): number {
    return this.#open.size
  }

  /** Those that have a descriptor. */
  get parts(): number {
    return this.#parts
  }

  get isAnyUnderWay(): boolean {
    return [...this.#open].some((file) => file.underWay > 0)
  }

  begin(job: FileJob): OpenFile {
    const file: OpenFile = { job, isListed: false, wants: 0, underWay: 0 }
    this.#open.add(file)
    return file
  }

  /** Makes its part, or opens the one that an interrupted run left. */
  openPartOf(file: OpenFile): void {
    if (file.part !== undefined) return
    file.part = openPart(partPathOf(placeOf(file.job)), file.job.resume)
    this.#parts++
  }

  /** Finishes a file of which all is written, or clears away one that failed. */
  settle(file: OpenFile): void {
    if (file.underWay > 0 || !this.#open.has(file)) return
    const { part, job, problem } = file
    if (problem !== undefined) {
      this.#open.delete(file)
      if (part !== undefined) {
        this.#closePart(part.fd)
        rmSync(partPathOf(placeOf(job)), { force: true })
      }
      this.#done(job, problem)
    } else if (part !== undefined && file.isListed && file.wants === 0) {
      void this.#guard(() => this.#finish(file, part.fd))
    }
  }

  async #finish(file: OpenFile, fd: number): Promise<void> {
    const { job } = file
    const { size, digest } = job
    file.underWay++
    let end: TargetEnd
    try {
      end = await this.#threads.run({ kind: 'finish', fd, size, digest, ...placeOf(job) })
    } finally {
      file.underWay--
    }
    const { fault, unset } = end
    if (fault !== undefined) this.fail(file, errorOf(fault))
    else {
      this.#closePart(fd)
      this.placed(file, unset)
    }
  }

  /** It stands in its place. */
  placed(file: OpenFile, unset: TargetEnd['unset']): void {
    const { job } = file
    this.#open.delete(file)
    this.#log.counts.files++
    this.#log.counts.bytes += job.size
    if (unset !== undefined) this.#log.failed(job.directory.shownPathOf(job.name), errorOf(unset))
    this.#done(job)
  }

  /** Notes what failed, once. Throws what is not about this file alone; its part is then left to the next run. */
  fail(file: OpenFile, error: unknown): void {
    if (file.problem !== undefined) return
    const { directory, name } = file.job
    file.problem = this.#log.failed(directory.shownPathOf(name), error)
    this.settle(file)
  }

  /** Leaves what is open for a later run. No thread may be at it. Idempotent. */
  close(): void {
    for (const { part } of this.#open) if (part !== undefined) closeSync(part.fd)
    this.#open.clear()
  }

  #closePart(fd: number): void {
    closeSync(fd)
    this.#parts--
  }

  #done(job: FileJob, problem?: Problem): void {
    job.finished?.(problem)
    job.directory.done()
    this.#ended()
  }
}

/** Where it goes, for a thread. Made when it is sent, so that it is garbage soon: thousands of files wait. */
export function placeOf({ directory, name, key, attributes }: FileJob): FilePlace {
  return { folder: directory.latin1Path, name: name.toString('latin1'), key, attributes }
}
