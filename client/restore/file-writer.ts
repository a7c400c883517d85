/**
 * The last station of a restore: chunks are fetched, and files put together, checked, and put in their places.
 *
 *     steps → what is wanted, by id → requests, three at once → blocks, in slots → threads: decode, hash, write
 *                                                                                  last chunk: check, place
 *
 * The list of steps is read `horizonBytes` ahead of what is written. A block is asked for once: all that anybody within
 * the horizon wants of it is taken, whoever asked. So chunks come in the receiver's order, and each goes to its place
 * in its file; a file of one chunk is made in one go. What a block should have brought and did not is read alone.
 *
 * How a file ends stands in open-files.ts. Invariant: a want is in `#wanted` until its block has come. Memory: the slots, the
 * wants within the horizon, and one open file for each with several chunks.
 */
import { availableParallelism } from 'node:os'
import type { Block, BlockRow } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import { cancelledBy } from '../transport-problem.ts'
import type { ChunkOrProblem } from './chunk-reader.ts'
import type { ChunkStep, FileStep, FileSteps } from './file-steps.ts'
import { type OpenFile, OpenFiles, placeOf } from './open-files.ts'
import type { RestoreLog } from './restore-log.ts'
import type { Piece, TreeContent } from './tree-content.ts'
import { WantedChunks, type Want as WantOf } from './wanted-chunks.ts'
import { type BlockAnswer, type ChunkTask, errorOf, type TargetEnd } from './write-tasks.ts'
import { type Room, WritingThreads } from './writing-threads.ts'

type Want = WantOf<OpenFile>

const maxOpenFiles = 256
const requestsAtOnce = 3
const slots = 8

export class FileWriter {
  readonly #content: TreeContent
  readonly #log: RestoreLog
  readonly #written: (bytes: number) => void
  readonly #signal: AbortSignal
  readonly #stop = new AbortController()
  readonly #threads = new WritingThreads(Math.min(2, availableParallelism()), slots)
  readonly #wanted = new WantedChunks<OpenFile>()
  readonly #open: OpenFiles
  #current: OpenFile | undefined
  #isListed = false
  #isAhead = false
  #requests = 0
  /** What ends the restore. */
  #fatal: { error: unknown } | undefined
  #wake: () => void = () => {}
  #goOn: () => void = () => {}

  /** `written` is told of each piece that is in its file. */
  constructor(options: {
    content: TreeContent
    log: RestoreLog
    written: (bytes: number) => void
    signal: AbortSignal | undefined
  }) {
    this.#content = options.content
    this.#log = options.log
    this.#written = options.written
    const { signal } = options
    this.#open = new OpenFiles({
      threads: this.#threads,
      log: options.log,
      guard: (work) => this.#guard(work),
      ended: () => {
        this.#goOn()
        this.#wake()
      },
    })
    this.#signal = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal])
    signal?.addEventListener('abort', () => this.#end(cancelledBy(signal)), { once: true })
  }

  /**
   * Writes the files of a list; on return all are in their places or noted as failed. Rejects with what ends the restore;
   * then parts of large files are left for a later run.
   */
  async write(list: AsyncIterable<FileSteps>): Promise<void> {
    this.#isListed = false
    const listing = this.#guard(() => this.#list(list)).finally(() => {
      this.#isListed = true
      this.#wake()
    })
    while (this.#fatal === undefined && !this.#isDone()) {
      while (this.#requests < requestsAtOnce && this.#mayRequest()) this.#request()
      await this.#change()
    }
    await listing
    // Nobody may close a file that a thread writes to.
    while (this.#requests > 0 || this.#open.isAnyUnderWay) await this.#change()
    if (this.#fatal !== undefined) throw this.#fatal.error
  }

  /** Leaves the files that are under way for a later run. Idempotent. */
  async close(): Promise<void> {
    await this.#threads.close()
    this.#open.close()
  }

  #isDone(): boolean {
    return this.#isListed && this.#wanted.count === 0 && this.#requests === 0 && this.#open.count === 0
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #end(error: unknown): void {
    this.#fatal ??= { error }
    this.#stop.abort()
    this.#threads.stop()
    this.#wake()
    this.#goOn()
  }

  /** Runs what nobody waits for: what it throws ends the restore. */
  async #guard(work: () => void | Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      this.#end(error)
    }
  }

  // -- what is wanted ---------------------------------------------------------------------------------------

  async #list(list: AsyncIterable<FileSteps>): Promise<void> {
    for await (const steps of list) {
      for (const step of steps) {
        this.#take(step)
        while (this.#isFull()) {
          this.#isAhead = true
          this.#wake()
          await this.#room()
        }
        this.#isAhead = false
        if (this.#fatal !== undefined) return
      }
    }
  }

  #isFull(): boolean {
    if (this.#fatal !== undefined) return false
    return this.#open.parts >= maxOpenFiles || this.#wanted.isFull
  }

  #room(): Promise<void> {
    return new Promise((resolve) => {
      this.#goOn = resolve
    })
  }

  #take(step: FileStep): void {
    const { job } = step
    if (this.#current?.job !== job) this.#current = this.#open.begin(job)
    const file = this.#current
    if (file.problem !== undefined) return
    try {
      if (step.kind === 'broken') throw step.error
      if (step.kind === 'end') this.#listed(file)
      else if (step.kind === 'whole') {
        file.isListed = true
        this.#want(file, step.chunk, 0)
      } else this.#wantPart(file, step)
    } catch (error) {
      this.#open.fail(file, error)
    }
  }

  #listed(file: OpenFile): void {
    file.isListed = true
    this.#open.openPartOf(file)
    this.#open.settle(file)
  }

  #wantPart(file: OpenFile, { chunk, offset, isThere }: ChunkStep): void {
    this.#open.openPartOf(file)
    // What was looked at may not be what could be opened to write: then it is a new file, and empty.
    if (isThere && file.part?.resumed) this.#written(chunk.size)
    else this.#want(file, chunk, offset)
  }

  #want(file: OpenFile, chunk: Piece, offset: number): void {
    file.wants++
    this.#wanted.add(chunk, { file, offset, size: chunk.size })
    if (this.#wanted.isRequestFull || (this.#requests === 0 && this.#wanted.isWorthRequest)) this.#wake()
  }

  // -- what comes -------------------------------------------------------------------------------------------

  #mayRequest(): boolean {
    if (!this.#wanted.isQueued || this.#fatal !== undefined) return false
    // What little there is while others are under way would be a request each time, and blocks cut up for it.
    if (this.#wanted.isRequestFull || this.#isListed) return true
    // In the beginning most of the tree is still to come: the threads need not wait for it.
    return this.#requests === 0 && (this.#isAhead || this.#wanted.isWorthRequest)
  }

  #request(): void {
    const pieces = this.#wanted.nextRequest()
    if (pieces.length === 0) return
    this.#requests++
    void this.#guard(() => this.#fetch(pieces)).then(() => {
      this.#requests--
      this.#wake()
    })
  }

  async #fetch(pieces: readonly Piece[]): Promise<void> {
    if (this.#content.blocks !== undefined) await this.#fetchBlocks(pieces)
    const left = pieces.filter(({ id }) => this.#wanted.has(id))
    for (const [id, chunk] of await this.#content.read(left, this.#signal)) await this.#deliver(id, chunk)
  }

  async #fetchBlocks(pieces: readonly Piece[]): Promise<void> {
    let room: Room | undefined
    const allocate = async (bytes: number): Promise<Buffer> => {
      // A block that broke off, and comes again.
      if (room !== undefined) this.#threads.give(room)
      room = await this.#threads.take(bytes)
      return room.bytes
    }
    try {
      for await (const block of this.#content.blocks?.(pieces, allocate, this.#signal) ?? []) {
        const taken = room as Room
        room = undefined
        this.#takeBlock(block, taken)
      }
    } finally {
      if (room !== undefined) this.#threads.give(room)
    }
  }

  #takeBlock({ header }: Block, room: Room): void {
    const wanted: { row: BlockRow; wants: Want[] }[] = []
    for (const row of header.rows) {
      const wants = this.#wanted.take(row.id)
      if (wants !== undefined) wanted.push({ row, wants: this.#possible(row, wants) })
    }
    const payload = header.totalBytes - header.payloadBytes
    void this.#guard(() => this.#run(room, payload, header, wanted, false))
  }

  /** A chunk that was read alone. */
  async #deliver(id: string, chunk: ChunkOrProblem): Promise<void> {
    const wants = this.#wanted.take(id) ?? []
    if (chunk instanceof Problem) {
      for (const want of wants) this.#missed(want, withId(chunk, id))
      return
    }
    const room = await this.#threads.take(chunk.length)
    chunk.copy(room.bytes)
    const row = { id: id as Id, start: 0, length: chunk.length }
    const header = { encoding: 'identity', plainBytes: chunk.length, payloadBytes: chunk.length } as const
    const wanted = [{ row, wants: this.#possible(row, wants) }]
    void this.#guard(() => this.#run(room, 0, header, wanted, true))
  }

  /** Those whose files have not failed, and say the same of the chunk. */
  #possible({ id, length }: BlockRow, wants: readonly Want[]): Want[] {
    return wants.filter((want) => {
      if (want.file.problem === undefined && want.size === length) return true
      const text = `chunk ${id} has ${length} bytes, not the ${want.size} that the file says`
      this.#missed(want, new Problem('invalid-object', text, { extensions: { id } }))
      return false
    })
  }

  async #run(
    room: Room,
    payload: number,
    { encoding, plainBytes, payloadBytes }: Pick<Block['header'], 'encoding' | 'plainBytes' | 'payloadBytes'>,
    wanted: readonly { row: BlockRow; wants: Want[] }[],
    verified: boolean,
  ): Promise<void> {
    const chunks = wanted.filter(({ wants }) => wants.length > 0)
    if (chunks.length === 0) return this.#threads.give(room)
    for (const { wants } of chunks) for (const { file } of wants) file.underWay++
    let answer: BlockAnswer
    try {
      answer = await this.#threads.run({
        kind: 'block',
        memory: room.memory,
        offset: payload,
        header: { encoding, plainBytes, payloadBytes },
        chunks: chunks.map(({ row, wants }): ChunkTask => ({ row, targets: wants.map(targetOf) })),
        verified,
      })
    } finally {
      // Also when the thread has died: somebody may be waiting for the room, and for the files.
      this.#threads.give(room)
      for (const { wants } of chunks) for (const { file } of wants) file.underWay--
    }
    for (const [i, ends] of answer.chunks.entries()) {
      const { row, wants } = chunks[i] as (typeof chunks)[number]
      if (ends === false) await this.#readAlone(row, wants)
      else for (const [j, want] of wants.entries()) this.#came(want, ends[j] as TargetEnd)
    }
    this.#wake()
  }

  /** False bytes are as if they had not come. */
  async #readAlone({ id, length }: BlockRow, wants: Want[]): Promise<void> {
    this.#wanted.putBack(id, wants)
    for (const [, chunk] of await this.#content.read([{ id, size: length }], this.#signal)) {
      await this.#deliver(id, chunk)
    }
  }

  // -- what is written ----------------------------------------------------------------------------------------

  #came(want: Want, { fault, unset }: TargetEnd): void {
    const { file, size } = want
    this.#gone(want)
    if (fault !== undefined) this.#open.fail(file, errorOf(fault))
    else {
      this.#log.counts.bytesFetched += size
      this.#written(size)
      if (file.problem === undefined && file.part === undefined) this.#open.placed(file, unset)
    }
    this.#open.settle(file)
  }

  #missed(want: Want, problem: Problem): void {
    this.#gone(want)
    this.#open.fail(want.file, problem)
    this.#open.settle(want.file)
  }

  #gone(want: Want): void {
    want.file.wants--
    this.#wanted.done(want)
    if (!this.#isFull()) this.#goOn()
  }
}

function targetOf({ file, offset }: Want): ChunkTask['targets'][number] {
  const { part, job } = file
  if (part === undefined) return { kind: 'whole', sparse: job.sparse, ...placeOf(job) }
  return { kind: 'part', offset, sparse: job.sparse, ...part }
}

function withId(problem: Problem, id: string): Problem {
  if (typeof problem.extensions.id === 'string') return problem
  return new Problem(problem.code, problem.message, {
    cause: problem,
    extensions: { ...problem.extensions, id },
  })
}
