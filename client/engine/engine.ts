/**
 * The engine: runs one backup from a source to a target. It knows only their interfaces.
 *
 * Two threads of work run at once: the source's (source-thread.ts) scans and decides what must be read,
 * the target's (target-thread.ts) has it read and sends it. A bounded queue joins them, and a database
 * on the client's disk remembers what the receiver has acknowledged, so that any run, however it ended,
 * is gone on from.
 *
 *     source.scan → source thread → queue → target thread → source.fill → target.put
 *                        ↓                        ↓
 *                   database and tree  ←  acknowledged files   → objects → target.put → commit
 *
 * What the target turns out to lack at the commit is read and sent again: at most `maxRounds` times.
 */
import type { Id } from '../../protocol/id.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type {
  CheckpointState,
  CommitRequest,
  DirectoryEntry,
  MissingChunk,
  Part,
} from '../../protocol/schema.ts'
import { type Begun, begun } from '../begun.ts'
import { BoundedQueue } from './bounded-queue.ts'
import { ByteBudget } from './byte-budget.ts'
import type { CheckpointDatabase, State } from './checkpoint-database.ts'
import { type FileCommitOutcome, type FileTarget, isFileTarget } from './file-target.ts'
import { runFileTarget } from './file-target-thread.ts'
import { hydrate } from './hydrate.ts'
import { rememberTree, treeOf } from './placed-tree.ts'
import { type Counts, type FileProblem, Run, type Seen } from './run.ts'
import type { ScanEvent, Source } from './source.ts'
import { type FileTask, runSource } from './source-thread.ts'
import type { CommitOutcome, Target, TargetCounters } from './target.ts'
import { runTarget } from './target-thread.ts'
import { type PutObjects, Tree } from './tree.ts'

export interface EngineOptions {
  /** Let the source finish first, so that the totals are known before anything is sent. */
  readonly scanFirst?: boolean
  /** Read every file, whatever its stat says. */
  readonly verifyContent?: boolean
  /** Groups of files that are read and sent at once. */
  readonly fillers?: number
  readonly signal?: AbortSignal
  readonly onProblem?: (problem: FileProblem) => void
}

export interface Progress {
  readonly settled: Readonly<Seen>
  readonly seen: Readonly<Seen>
  /** The source has told all: `seen` is the total. */
  readonly scanned: boolean
}

export interface BackupSummary extends Readonly<Counts>, TargetCounters {
  /** Files and content bytes of the checkpoint, unread ones included. */
  readonly files: number
  readonly bytes: number
  readonly checkpoint: CheckpointState
  /** An unfinished checkpoint was gone on with. */
  readonly resumed: boolean
  /** The first thousand; `problemCount` counts all. */
  readonly problems: readonly FileProblem[]
  readonly problemCount: number
  readonly durationMs: number
}

const queuedFiles = 1024
const maxRounds = 3
/** Directory objects and lists that may be under way. */
const objectBytesInFlight = 16 * 1024 * 1024
/** Directory objects are only named where files are kept as files. */
const putNothing: PutObjects = async () => {}
/** The receiver lists no more than this many missing ids at once: so many means that there are more. */
const listedMissing = 1000

export class Engine {
  readonly #source: Source
  readonly #target: Target | FileTarget
  readonly #database: CheckpointDatabase
  readonly #options: EngineOptions
  #run: Run
  #scanned = false
  #scanAhead: Begun<readonly ScanEvent[]> | undefined
  #total: Seen | undefined

  /** Source, target and database stay the caller's, who closes them after `run`. */
  constructor(
    source: Source,
    target: Target | FileTarget,
    database: CheckpointDatabase,
    options: EngineOptions = {},
  ) {
    this.#source = source
    this.#target = target
    this.#database = database
    this.#options = options
    this.#run = new Run(options.signal, options.onProblem)
  }

  /** Both threads stop before their next piece of work; requests under way finish. */
  pause(): void {
    this.#run.pause()
  }

  resume(): void {
    this.#run.resume()
  }

  /** Ends the run with Problem `cancelled`. The checkpoint stays open and the next run goes on with it. */
  cancel(): void {
    this.#run.cancel()
  }

  get progress(): Progress {
    const { settled, seen } = this.#run
    return { settled, seen: this.#total ?? seen, scanned: this.#scanned }
  }

  /**
   * Backs up, once per engine. On return the checkpoint is committed and durable; what could not be read
   * is in `problems`. Rejects with a Problem when there is no checkpoint: everything acknowledged until
   * then is remembered.
   */
  async run(): Promise<BackupSummary> {
    const started = performance.now()
    try {
      return await this.#attempt(started)
    } catch (error) {
      if (!isProblem(error, 'checkpoint-committed') && !isProblem(error, 'checkpoint-not-found')) throw error
      // The open checkpoint was committed after all by a run that did not live to hear of it, or deleted.
      this.#run = new Run(this.#options.signal, this.#options.onProblem)
      return await this.#attempt(started)
    }
  }

  async #attempt(started: number): Promise<BackupSummary> {
    // While the receiver answers, the scan's thread is at work.
    if (!this.#options.scanFirst) this.#scanAhead = begun(this.#source.scan(this.#run.signal))
    try {
      return await this.#backUpOnce(started)
    } finally {
      // Its thread may be waiting for a slow disk: nobody else has to.
      this.#scanAhead?.return().catch((error: unknown) => error)
      this.#scanAhead = undefined
    }
  }

  async #backUpOnce(started: number): Promise<BackupSummary> {
    const resumed = await this.#begin()
    if (this.#options.scanFirst) await this.#scanFirst()
    const committed = await this.#backUpRounds()
    const { whole } = await this.#database.state()
    await this.#database.setState({ committed: committed.number, ...(whole && { whole }) })
    const { counts, totals, problems, problemCount } = this.#run
    return {
      ...counts,
      ...totals,
      ...this.#target.counters,
      checkpoint: committed,
      resumed,
      problems,
      problemCount,
      durationMs: performance.now() - started,
    }
  }

  /**
   * Begins or resumes a checkpoint, and sees to it that the database tells of this receiver's past.
   * Returns whether an unfinished checkpoint is gone on with.
   */
  async #begin(): Promise<boolean> {
    const run = this.#run
    const database = this.#database
    const state = await database.state()
    const { number, resumed, base } = await run.orEnd(this.#target.begin(state.open, this.#source.about))
    const isCurrent =
      resumed || (base !== undefined && base.number >= (state.committed ?? Number.POSITIVE_INFINITY))
    const trusted = isCurrent && !(await database.isEmpty())
    if (!trusted) await database.clear()
    const { whole } = trusted ? state : {}
    const next: State = { ...(base && { committed: base.number }), ...(whole && { whole }), open: number }
    await database.setState(next)
    if (trusted || base === undefined) return resumed
    const target = this.#target
    if (isFileTarget(target)) await rememberTree(database, target.readBase(run.signal))
    else await hydrate(database, target, base, run.signal)
    // A base that could not be read whole has emptied the database.
    await database.setState(next)
    return resumed
  }

  /** Leaves an open checkpoint whose list cannot be continued, for a new one. */
  async #beginAnew(): Promise<void> {
    const { open, ...state } = await this.#database.state()
    const { number } = await this.#run.orEnd(this.#target.begin(open, this.#source.about))
    await this.#database.setState({ ...state, open: number })
  }

  /** Counts what there is, before anything is read. What the second scan finds holds. */
  async #scanFirst(): Promise<void> {
    const total: Seen = { files: 0, bytes: 0 }
    this.#total = total
    for await (const events of this.#source.scan(this.#run.signal)) {
      await this.#run.gate()
      for (const event of events) {
        if (event.type !== 'entries') continue
        for (const { kind, stat } of event.entries) {
          if (kind !== 'file') continue
          total.files++
          total.bytes += stat.size
        }
      }
    }
    this.#scanned = true
  }

  async #backUpRounds(): Promise<CheckpointState> {
    const distrusted = new Set<string>()
    for (let round = 1; ; round++) {
      const outcome = await this.#backUp(distrusted)
      if ('committed' in outcome) return outcome.committed
      if ('lost' in outcome) {
        this.#tryAgain(outcome.lost, round)
        continue
      }
      if (!this.#source.capabilities.rereadable) {
        throw new Problem(
          'missing-chunks',
          `the receiver lost ${outcome.missing.length} chunks of this stream, which can be read only once; run the command again`,
          { extensions: { missing: outcome.missing } },
        )
      }
      if (round === maxRounds) {
        throw new Problem(
          'missing-chunks',
          `the receiver still lacks ${outcome.missing.length} chunks after they were sent again`,
          { extensions: { missing: outcome.missing } },
        )
      }
      await this.#distrust(distrusted, outcome.missing, round > 1)
    }
  }

  /** Files that a target of files turned out not to have are remembered no longer: a further round puts them. */
  #tryAgain(lost: number, round: number): void {
    if (round === maxRounds || !this.#source.capabilities.rereadable) {
      const text =
        `the server does not have ${lost} files that were sent to it; run the command again, and if that does ` +
        'not help, look whether it takes two names for one (A and a)'
      throw new Problem('missing-chunks', text)
    }
    this.#run.startOver(false)
  }

  /**
   * Makes the next round read again what is missing: everything, when there is more than can be listed,
   * or when that has not helped (an item of a list does not tell the file that a chunk belongs to).
   */
  async #distrust(
    distrusted: Set<string>,
    missing: readonly MissingChunk[],
    everything: boolean,
  ): Promise<void> {
    for (const { id, within } of missing) {
      distrusted.add(id)
      if (within !== undefined) distrusted.add(within)
    }
    if (everything || missing.length >= listedMissing) await this.#forget()
    else await this.#forgetLists()
    this.#run.startOver()
  }

  async #forget(): Promise<void> {
    const { whole: _, ...state } = await this.#database.state()
    await this.#database.clear()
    await this.#database.setState(state)
  }

  async #forgetLists(): Promise<void> {
    const { whole: _, ...state } = await this.#database.state()
    await this.#database.setState(state)
  }

  async #backUp(distrusted: ReadonlySet<string>): Promise<CommitOutcome | FileCommitOutcome> {
    const run = this.#run
    const { fillers = 3, verifyContent = false } = this.#options
    const budget = new ByteBudget(objectBytesInFlight)
    const queue = new BoundedQueue<FileTask>(queuedFiles)
    const target = this.#target
    const checkpoint = await this.#open()
    const withLists = target.capabilities.form === 'chunks'
    const onFailure = (error: unknown): void => run.fail(error)
    const putObjects = isFileTarget(target) ? putNothing : this.#putObjects(target, budget)
    const tree = new Tree(this.#database, putObjects, { withLists, distrusted, onFailure })
    const onAbort = (): void => queue.fail(run.signal.reason)
    run.signal.addEventListener('abort', onAbort, { once: true })
    if (run.signal.aborted) onAbort()
    const scanning = runSource(run, this.#scan(), tree, this.#database, (task) => queue.push(task), {
      verifyContent,
      distrusted,
    }).then(() => {
      this.#scanned = true
      queue.end()
    })
    const filling = isFileTarget(target)
      ? runFileTarget(run, this.#source, target, tree, queue, { fillers, checkpoint })
      : runTarget(run, this.#source, target, tree, queue, fillers)
    for (const thread of [scanning, filling]) thread.catch(onFailure)
    const threads = [scanning, filling]
    try {
      await Promise.all([...threads, run.orEnd(tree.finished)])
    } catch (error) {
      await Promise.allSettled(threads)
      throw run.signal.aborted ? run.signal.reason : error
    } finally {
      run.signal.removeEventListener('abort', onAbort)
    }
    const [problem] = run.problems
    // A stream is all there is: without it there is nothing to commit.
    if (this.#source.capabilities.form === 'chunks' && run.totals.files === 0 && problem !== undefined) {
      throw new Problem(problem.code, `the source could not be read: ${problem.detail}`)
    }
    return isFileTarget(target) ? this.#commitFiles(target, tree) : this.#commit(target, tree)
  }

  /** The scan that was begun ahead, once; then a new one. */
  #scan(): AsyncIterable<readonly ScanEvent[]> {
    const ahead = this.#scanAhead
    this.#scanAhead = undefined
    return ahead ?? this.#source.scan(this.#run.signal)
  }

  /** The number of the open checkpoint. */
  async #open(): Promise<number> {
    const { open } = await this.#database.state()
    if (open === undefined) throw new TypeError('no checkpoint was begun')
    return open
  }

  /** Directory and list objects go the way of all chunks, within a budget of their own. */
  #putObjects(target: Target, budget: ByteBudget): PutObjects {
    return async (objects) => {
      const release = await budget.take(objects.reduce((sum, { bytes }) => sum + bytes.length, 0))
      try {
        this.#run.countChunks(await target.put(objects))
      } finally {
        release()
      }
    }
  }

  /** What a commit says about the tree as a whole. */
  #commitRequest({ id, mode, uid, gid, mtimeNs }: DirectoryEntry) {
    const totals = { ...this.#run.totals, directories: this.#run.counts.directories }
    return { root: id, attributes: { mode, uid, gid, mtimeNs }, totals } satisfies CommitRequest
  }

  async #commitFiles(target: FileTarget, tree: Tree): Promise<FileCommitOutcome> {
    const run = this.#run
    const root = await tree.root()
    const entries = treeOf(this.#database, root, await this.#open())
    // Not raced against the end of the run: it reads the database, which is closed behind that.
    const outcome = await target.commit(this.#commitRequest(root.entry), entries, run.signal)
    await this.#database.flush()
    return outcome
  }

  async #commit(target: Target, tree: Tree): Promise<CommitOutcome> {
    const run = this.#run
    const { entry, number } = await tree.root()
    const request = this.#commitRequest(entry)
    if (target.capabilities.form === 'dir') return run.orEnd(target.commit(request))
    const { root: id, totals } = request
    const isStream = this.#source.capabilities.form === 'chunks'
    const item = isStream ? await this.#streamPart(number) : await this.#wholeList(tree, id)
    await run.orEnd(this.#addItem(target, item))
    return run.orEnd(target.commit(isStream ? { items: 1, totals } : { ...request, items: 1 }))
  }

  /** A round before may have left another item: then the checkpoint is left for a new one. */
  async #addItem(target: Target, item: Part): Promise<void> {
    try {
      await target.addItems(0, [item])
    } catch (error) {
      if (!isProblem(error, 'items-conflict')) throw error
      await this.#beginAnew()
      await target.addItems(0, [item])
    }
  }

  /** All chunks of the tree as one item; the one of the last run while the root is the same. */
  async #wholeList(tree: Tree, root: Id): Promise<Part> {
    const state = await this.#database.state()
    if (state.whole?.root === root) return state.whole.list
    const list = await this.#run.orEnd(tree.wholeList())
    await this.#database.setState({ ...state, whole: { root, list } })
    return list
  }

  /** The one file of a stream, as an item. */
  async #streamPart(root: number): Promise<Part> {
    for await (const { record } of this.#database.records(root)) {
      if (record.entry?.kind !== 'file') continue
      const { id, size, chunked } = record.entry
      return { id, size, ...(chunked ? { chunked } : {}) }
    }
    throw new Problem('internal-error', 'the stream was not settled')
  }
}
