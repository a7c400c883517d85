/**
 * Reads back what checkpoints hold, as a restore would, and writes nothing.
 *
 *     walk            lists what the trees need, in order; what was read before is not fetched again
 *     orderedChunks   fetches and hashes ahead, bounded
 *     ReadBack        takes the chunks in order, hashes whole files, tells what is wrong with which path
 *
 * Each object, file and chunk is read once over all checkpoints. A directory below which all was right is not entered
 * again; of a file that was listed before, only how it ended is told again. Memory: the ids (seen-ids.ts), those that
 * failed, and the batches on their way.
 */
import { createHasher, type Hasher } from '../../protocol/hash.ts'
import { algorithmOf, type Id, idOfDigest } from '../../protocol/id.ts'
import { nameBytes } from '../../protocol/objects.ts'
import { isProblem, Problem, type ProblemCode } from '../../protocol/problem.ts'
import type { CheckpointState, FileEntry } from '../../protocol/schema.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { cancelledBy } from '../transport-problem.ts'
import { orderedChunks, type Wanting } from './ordered-chunks.ts'
import { localCodes } from './restore-log.ts'
import { SeenIds } from './seen-ids.ts'
import { type Piece, ReceiverContent } from './tree-content.ts'

/** What is wrong with one path of one checkpoint. */
export interface ReadBackProblem {
  readonly source: string
  readonly checkpoint: number
  /** Empty for the root, and for a stream. */
  readonly path: Buffer
  readonly code: ProblemCode
  readonly detail: string
  /** The chunk or object that is at fault. */
  readonly id?: string
}

export interface ReadBackCounts {
  checkpoints: number
  /** Files that were read, and those that were left out because others with their content were read. */
  filesRead: number
  filesKnown: number
  /** Left out by `share`. */
  filesSkipped: number
  /** Content bytes that were read and verified. */
  bytesRead: number
  problems: number
}

export interface ReadBackOptions {
  readonly client: ReceiverClient
  /** Committed ones, in the order in which they are read. */
  readonly checkpoints: readonly CheckpointState[]
  /** Of the files, how many are read: above 0, up to 1. Others the next time. Directories are read all. */
  readonly share?: number
  readonly onProgress?: (counts: Readonly<ReadBackCounts>) => void
  readonly onProblem?: (problem: ReadBackProblem) => void
  readonly signal?: AbortSignal | undefined
}

/** A file that is being read. */
interface FileJob {
  readonly id: Id | undefined
  readonly path: Buffer
  readonly digest: Id | undefined
  hasher?: Hasher
  problem?: Problem | undefined
}

type Step = Wanting &
  (
    | { readonly kind: 'chunk'; readonly file: FileJob; readonly fetch: Piece }
    | { readonly kind: 'end'; readonly file: FileJob }
    | { readonly kind: 'again'; readonly path: Buffer; readonly id: Id }
    | { readonly kind: 'broken'; readonly path: Buffer; readonly problem: Problem }
    | { readonly kind: 'enter' }
    | { readonly kind: 'leave'; readonly id: Id }
  )

/** Ids that failed, whose paths are told in further checkpoints too. */
const maxFailed = 100_000
const slash = Buffer.from('/')

/** Reads; resolves also when something is wrong. Rejects when nothing more can be done: `transport-failed`, … */
export async function readBack(options: ReadBackOptions): Promise<ReadBackCounts> {
  const run = new ReadBack(options)
  for (const checkpoint of options.checkpoints) await run.read(checkpoint)
  return run.counts
}

class ReadBack {
  readonly counts: ReadBackCounts = {
    checkpoints: 0,
    filesRead: 0,
    filesKnown: 0,
    filesSkipped: 0,
    bytesRead: 0,
    problems: 0,
  }
  readonly #options: ReadBackOptions
  readonly #content: ReceiverContent
  readonly #signal: AbortSignal | undefined
  /** Files that were listed, by the ids of their content. */
  readonly #listed = new SeenIds()
  /** Directories below which everything was right. */
  readonly #clean = new SeenIds()
  readonly #failed = new Map<Id, Problem>()
  /** Whichever share is read this time. */
  readonly #salt = Math.floor(Math.random() * 2 ** 32)
  /** Problems met below each directory that is open, the innermost last. */
  #open: number[] = []
  #checkpoint!: CheckpointState

  constructor(options: ReadBackOptions) {
    this.#options = options
    this.#signal = options.signal
    this.#content = new ReceiverContent(options.client, options.signal)
  }

  async read(checkpoint: CheckpointState): Promise<void> {
    this.#checkpoint = checkpoint
    this.#open = []
    const steps =
      checkpoint.root === undefined
        ? this.#stream(checkpoint)
        : this.#directory(checkpoint.root, Buffer.alloc(0))
    for await (const { items, chunks } of orderedChunks(steps, this.#content, this.#signal)) {
      for (const step of items) {
        this.#take(step, step.fetch && chunks.get(step.fetch.id))
        this.#options.onProgress?.(this.counts)
      }
    }
    this.counts.checkpoints++
  }

  // -- what is needed -----------------------------------------------------------------------------------

  async *#directory(id: Id, path: Buffer): AsyncGenerator<Step> {
    if (this.#clean.has(id)) return
    yield { kind: 'enter' }
    try {
      for await (const page of this.#content.pages(id)) {
        for (const entry of page) {
          if (this.#signal?.aborted) throw cancelledBy(this.#signal)
          const below = joined(path, nameBytes(entry))
          if (entry.kind === 'directory') yield* this.#directory(entry.id, below)
          else if (entry.kind === 'file') yield* this.#file(entry, below)
        }
      }
    } catch (error) {
      yield { kind: 'broken', path, problem: localProblem(error) }
    }
    yield { kind: 'leave', id }
  }

  async *#file(entry: FileEntry, path: Buffer): AsyncGenerator<Step> {
    if (!this.#isInShare(entry.id)) {
      this.counts.filesSkipped++
      return
    }
    if (this.#listed.has(entry.id)) {
      yield { kind: 'again', path, id: entry.id }
      return
    }
    this.#listed.add(entry.id)
    const job = { id: entry.id, path }
    let begun: FileJob | undefined
    try {
      begun = { ...job, digest: await this.#content.digestOf(entry) }
      for await (const fetch of this.#content.piecesOf(entry)) yield { kind: 'chunk', file: begun, fetch }
    } catch (error) {
      begun ??= { ...job, digest: undefined }
      begun.problem ??= localProblem(error)
    }
    yield { kind: 'end', file: begun }
  }

  async *#stream(checkpoint: CheckpointState): AsyncGenerator<Step> {
    const file: FileJob = { id: undefined, path: Buffer.alloc(0), digest: undefined }
    try {
      for await (const fetch of this.#content.itemPieces(checkpoint, this.#signal)) {
        const id = fetch.id as Id
        if (!this.#isInShare(id)) continue
        if (this.#listed.add(id)) yield { kind: 'chunk', file, fetch }
        else file.problem ??= this.#failed.get(id)
      }
    } catch (error) {
      file.problem ??= localProblem(error)
    }
    yield { kind: 'end', file }
  }

  #isInShare(id: Id): boolean {
    const { share = 1 } = this.#options
    if (share >= 1) return true
    const word = Number.parseInt(id.slice(-8), 16) ^ this.#salt
    return (Math.imul(word, 0x9e3779b1) >>> 0) / 2 ** 32 < share
  }

  // -- what came ----------------------------------------------------------------------------------------

  #take(step: Step, chunk: Buffer | Problem | undefined): void {
    switch (step.kind) {
      case 'enter':
        this.#open.push(0)
        return
      case 'leave': {
        const problems = this.#open.pop() ?? 0
        if (problems === 0 && (this.#options.share ?? 1) >= 1) this.#clean.add(step.id)
        const outer = this.#open.length - 1
        if (outer >= 0) this.#open[outer] = (this.#open[outer] ?? 0) + problems
        return
      }
      case 'broken':
        this.#tell(step.path, step.problem)
        return
      case 'again': {
        const problem = this.#failed.get(step.id)
        this.counts.filesKnown++
        if (problem !== undefined) this.#tell(step.path, problem)
        return
      }
      case 'chunk':
        this.#takeChunk(step.file, step.fetch, chunk)
        return
      case 'end':
        this.#end(step.file)
    }
  }

  #takeChunk(file: FileJob, { id, size }: Piece, chunk: Buffer | Problem | undefined): void {
    if (chunk === undefined) throw new TypeError('a chunk was not read')
    if (chunk instanceof Problem) {
      this.#fail(id as Id, chunk)
      file.problem ??= chunk
      return
    }
    this.counts.bytesRead += chunk.length
    if (chunk.length !== size) {
      const text = `chunk ${id} has ${chunk.length} bytes, the file says ${size}`
      file.problem ??= new Problem('invalid-object', text, { extensions: { id } })
    }
    if (file.digest === undefined || file.problem !== undefined) return
    file.hasher ??= createHasher(algorithmOf(file.digest))
    file.hasher.update(chunk)
  }

  #end(file: FileJob): void {
    this.counts.filesRead++
    const { digest, hasher } = file
    if (file.problem !== undefined) hasher?.dispose()
    else if (digest !== undefined) {
      const algorithm = algorithmOf(digest)
      const actual = idOfDigest(algorithm, (hasher ?? createHasher(algorithm)).digest())
      if (actual !== digest) {
        const text = `the whole file hashes to ${actual}, not to ${digest}`
        file.problem = new Problem('digest-mismatch', text, { extensions: { id: digest, actual } })
      }
    }
    if (file.problem === undefined) return
    if (file.id !== undefined) this.#fail(file.id, file.problem)
    this.#tell(file.path, file.problem)
  }

  #fail(id: Id, problem: Problem): void {
    if (this.#failed.size < maxFailed) this.#failed.set(id, problem)
  }

  #tell(path: Buffer, { code, message, extensions: { id } }: Problem): void {
    this.counts.problems++
    const innermost = this.#open.length - 1
    if (innermost >= 0) this.#open[innermost] = (this.#open[innermost] ?? 0) + 1
    const { source, number } = this.#checkpoint
    const fault = typeof id === 'string' ? { id } : {}
    this.#options.onProblem?.({ source, checkpoint: number, path, code, detail: message, ...fault })
  }
}

/** The Problem of one path; anything else is thrown again. */
function localProblem(error: unknown): Problem {
  if (isProblem(error) && localCodes.includes(error.code)) return error
  throw error
}

function joined(folder: Buffer, name: Buffer): Buffer {
  return folder.length === 0 ? name : Buffer.concat([folder, slash, name])
}
