/** The last station of a restore: files are put together, checked, and put in their places. */
import { createHasher, type Hasher } from '../../protocol/hash.ts'
import { algorithmOf, type Id, idOfDigest } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import type { Attributes } from '../../protocol/schema.ts'
import { cancelledBy } from '../transport-problem.ts'
import { setAttributes } from './attributes.ts'
import type { ReadyBatch, Wanting } from './ordered-chunks.ts'
import { PartFile, partName } from './part-file.ts'
import type { RestoreLog } from './restore-log.ts'
import type { RestoredDirectory } from './restored-directory.ts'
import type { Piece } from './tree-content.ts'

/** A file to write. Steps refer to it; the writer keeps how far it is. */
export interface FileJob {
  readonly directory: RestoredDirectory
  readonly name: Buffer
  /** What the temporary file is named after: the same content, the same name. */
  readonly key: string
  readonly size: number
  readonly sparse: boolean
  /** The id of the whole content, where there is more than one chunk and the backup tells it. */
  readonly digest: Id | undefined
  /** Left as the system made them when absent. */
  readonly attributes: Attributes | undefined
  /** An interrupted run left a part of it. */
  readonly resume: boolean
  /** Called when it stands in its place, or with what failed; before its directory is done. */
  readonly finished?: (problem?: Problem) => void
}

/** One step of one file. Steps of a file come in order, nothing between. */
export type FileStep = Wanting & { readonly job: FileJob } & (
    | {
        readonly kind: 'chunk'
        readonly offset: number
        readonly chunk: Piece
      }
    /** All chunks have come. */
    | { readonly kind: 'end' }
    /** The list of its chunks could not be read to the end. */
    | { readonly kind: 'broken'; readonly error: unknown }
  )

interface Current {
  readonly job: FileJob
  readonly part: PartFile
  readonly hasher: Hasher | undefined
}

export class FileWriter {
  readonly #log: RestoreLog
  readonly #written: (bytes: number) => void
  #current: Current | undefined
  /** The last job that failed: the rest of its steps is passed over. */
  #failed: FileJob | undefined

  /** `written` is told of each piece that is in its file. */
  constructor(log: RestoreLog, written: (bytes: number) => void) {
    this.#log = log
    this.#written = written
  }

  /** Takes the steps of a batch. What is wrong with one file is noted; rejects with what ends the restore. */
  async write({ items, chunks }: ReadyBatch<FileStep>, signal?: AbortSignal): Promise<void> {
    for (const step of items) {
      if (signal?.aborted) throw cancelledBy(signal)
      if (step.job === this.#failed) continue
      try {
        await this.#step(step, chunks)
      } catch (error) {
        this.#fail(step.job, error)
      }
    }
  }

  async #step(step: FileStep, chunks: ReadyBatch<FileStep>['chunks']): Promise<void> {
    if (step.kind === 'broken') throw step.error
    const current = this.#currentFor(step.job)
    if (step.kind === 'end') {
      this.#finish(current)
      return
    }
    const { offset, chunk, job } = step
    const bytes =
      step.fetch === undefined ? await current.part.read(offset, chunk.size) : chunks.get(chunk.id)
    if (bytes === undefined) throw new TypeError(`chunk ${chunk.id} was never fetched`)
    if (bytes instanceof Problem) throw withId(bytes, chunk.id)
    if (bytes.length !== chunk.size) {
      const text = `chunk ${chunk.id} has ${bytes.length} bytes, not the ${chunk.size} that the file says`
      throw new Problem('invalid-object', text, { extensions: { id: chunk.id } })
    }
    current.hasher?.update(bytes)
    if (step.fetch !== undefined) {
      await current.part.write(bytes, offset, job.sparse)
      this.#log.counts.bytesFetched += bytes.length
    }
    this.#written(bytes.length)
  }

  #currentFor(job: FileJob): Current {
    if (this.#current?.job === job) return this.#current
    const part = PartFile.open(job.directory.pathOf(partName(job.name, job.key)), job.resume)
    const hasher = job.digest === undefined ? undefined : createHasher(algorithmOf(job.digest))
    this.#current = { job, part, hasher }
    return this.#current
  }

  #finish({ job, part, hasher }: Current): void {
    const { digest } = job
    if (hasher !== undefined && digest !== undefined) {
      const actual = idOfDigest(algorithmOf(digest), hasher.digest())
      if (actual !== digest) {
        const text = `the whole file hashes to ${actual}, not to ${digest}`
        throw new Problem('digest-mismatch', text, { extensions: { id: digest, actual } })
      }
    }
    part.truncate(job.size)
    const unset = this.#setAttributes(job, part)
    part.rename(job.directory.pathOf(job.name))
    this.#current = undefined
    this.#log.counts.files++
    this.#log.counts.bytes += job.size
    if (unset !== undefined) this.#log.failed(job.directory.shownPathOf(job.name), unset)
    this.#done(job)
  }

  /** The content is right even where owner or mode cannot be set: that is told, and the file kept. */
  #setAttributes(job: FileJob, part: PartFile): unknown {
    try {
      if (job.attributes !== undefined) setAttributes(part.path, 'file', job.attributes)
      return undefined
    } catch (error) {
      return error
    }
  }

  #fail(job: FileJob, error: unknown): void {
    // What is not about this file alone is thrown on here, and its part is left to the next run.
    const problem = this.#log.failed(job.directory.shownPathOf(job.name), error)
    if (this.#current?.job === job) {
      this.#current.part.discard()
      this.#current.hasher?.dispose()
      this.#current = undefined
    }
    this.#failed = job
    this.#done(job, problem)
  }

  #done(job: FileJob, problem?: Problem): void {
    job.finished?.(problem)
    job.directory.done()
  }

  /** Leaves the file that is under way for a later run. Idempotent. */
  close(): void {
    this.#current?.part.close()
    this.#current?.hasher?.dispose()
    this.#current = undefined
  }
}

function withId(problem: Problem, id: string): Problem {
  if (typeof problem.extensions.id === 'string') return problem
  return new Problem(problem.code, problem.message, {
    cause: problem,
    extensions: { ...problem.extensions, id },
  })
}
