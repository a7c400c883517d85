/**
 * Work on a vault that takes long: one of each kind at a time, begun by a request or by the schedule, told of while it
 * runs, stopped by anybody who may begin it. What came of the last one that ended stands in
 * `{vault}/upkeep/{kind}.json`, so that it is known after a restart too.
 */
import { join } from 'node:path'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { makeFolderDurably, readText, replaceDurably } from '../catalog/durable-file.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import { isDiskFull } from '../full-disk.ts'

export type JobOutcome = 'done' | 'stopped' | 'failed'

/** What a job is at, and what came of the last; both of the kind's own shapes. */
export interface JobState<Progress, Report> {
  readonly running?: { readonly startedAt: string; readonly progress: Progress }
  readonly last?: {
    readonly startedAt: string
    readonly finishedAt: string
    readonly outcome: JobOutcome
    /** Why it failed. */
    readonly detail?: string
    /** As far as it came. */
    readonly report: Report
  }
}

export interface Run<Progress> {
  readonly signal: AbortSignal
  /** Tells how far it is; cheap. */
  tell(progress: Progress): void
}

/** Does the work. What it throws makes it `failed`, or `stopped` after the signal; `reportOf` makes a report of how far it came. */
export type Work<Progress, Report> = (run: Run<Progress>) => Promise<Report>

export interface JobOptions {
  readonly files?: FileLayer | undefined
  /** Told when what came of a job could not be kept; not when the disk is full. */
  readonly onFault?: ((error: unknown) => void) | undefined
}

interface Running<Progress, Report> {
  readonly startedAt: string
  readonly stop: AbortController
  progress: Progress
  ended: Promise<JobState<Progress, Report>>
}

/** The jobs of one kind in one vault. */
export class Job<Progress, Report> {
  readonly #path: string
  readonly #begun: Progress
  readonly #reportOf: (progress: Progress) => Report
  readonly #files: FileLayer
  readonly #onFault: (error: unknown) => void
  #running: Running<Progress, Report> | undefined
  #last: JobState<Progress, Report>['last']
  #isClosed = false

  private constructor(
    path: string,
    begun: Progress,
    reportOf: (progress: Progress) => Report,
    { files = nodeFiles, onFault = () => {} }: JobOptions,
  ) {
    this.#path = path
    this.#files = files
    this.#onFault = onFault
    this.#begun = begun
    this.#reportOf = reportOf
  }

  /** `begun` is the progress of a run that has just begun. A file that does not parse counts as none. */
  static async open<Progress, Report>(
    vaultPath: string,
    kind: string,
    begun: Progress,
    reportOf: (progress: Progress) => Report,
    options: JobOptions = {},
  ): Promise<Job<Progress, Report>> {
    const { files = nodeFiles } = options
    const folder = join(vaultPath, 'upkeep')
    const job = new Job<Progress, Report>(join(folder, `${kind}.json`), begun, reportOf, options)
    await makeFolderDurably(folder, files)
    try {
      const text = await readText(job.#path, files)
      if (text !== undefined) job.#last = JSON.parse(text)
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
    }
    return job
  }

  get state(): JobState<Progress, Report> {
    const running = this.#running && {
      startedAt: this.#running.startedAt,
      progress: this.#running.progress,
    }
    return { ...(running && { running }), ...(this.#last && { last: this.#last }) }
  }

  /** Begins, unless one runs. Returns when it has begun; `ended` resolves when it has ended and never rejects. */
  start(work: Work<Progress, Report>): { begun: boolean; ended: Promise<JobState<Progress, Report>> } {
    if (this.#isClosed) throw new Problem('unavailable', 'the vault is being closed')
    if (this.#running !== undefined) return { begun: false, ended: this.#running.ended }
    const running: Running<Progress, Report> = {
      startedAt: new Date().toISOString(),
      stop: new AbortController(),
      progress: this.#begun,
      ended: Promise.resolve({}),
    }
    this.#running = running
    running.ended = this.#run(running, work)
    return { begun: true, ended: running.ended }
  }

  async #run(
    running: Running<Progress, Report>,
    work: Work<Progress, Report>,
  ): Promise<JobState<Progress, Report>> {
    const { signal } = running.stop
    const tell = (progress: Progress): void => {
      running.progress = progress
    }
    let end: { outcome: JobOutcome; report: Report; detail?: string }
    try {
      end = { outcome: 'done', report: await work({ signal, tell }) }
    } catch (error) {
      const report = this.#reportOf(running.progress)
      const detail = isProblem(error) || error instanceof Error ? error.message : String(error)
      end = signal.aborted ? { outcome: 'stopped', report } : { outcome: 'failed', report, detail }
    }
    this.#last = { startedAt: running.startedAt, finishedAt: new Date().toISOString(), ...end }
    this.#running = undefined
    await this.#keep()
    return this.state
  }

  /** What it says is worth keeping, and nothing hangs on it: that it cannot be kept does not make of it a failure. */
  async #keep(): Promise<void> {
    try {
      await replaceDurably(this.#path, JSON.stringify(this.#last), this.#files)
    } catch (error) {
      // Of a full disk whoever keeps watch over it knows already.
      if (!isDiskFull(error)) this.#onFault(error)
    }
  }

  /** Stops what runs and waits until it has ended. */
  async stop(): Promise<void> {
    this.#running?.stop.abort()
    await this.#running?.ended
  }

  /** The same, for good. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.stop()
  }
}
