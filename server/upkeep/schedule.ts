/**
 * What the receiver does by itself while it runs. It freezes live trees when they are due. It removes for good what has
 * been in a trash for too long, open checkpoints that nobody goes on with, and backups that the retention policies do not
 * keep; it collects the garbage that is left by that. And it reads a share of what is stored, to see whether it is sound.
 *
 * Each job tells the log how it ended and never rejects: the next one runs all the same. A freeze that is still
 * running when it is due again is left to run. Jobs see `stop` and end soon; a commit under way is finished.
 */
import type { Cron } from 'croner'
import type { Logger } from 'pino'
import type { ProblemCode } from '../../protocol/problem.ts'
import type { CollectionState } from '../../protocol/schema.ts'
import type { Audit } from '../audit.ts'
import { failureFields, failureText, knownProblem } from '../failure-fields.ts'
import type { Vault, Vaults } from '../vaults.ts'
import { aboutFreeze, freezeIfChanged, freezeSource } from './freeze.ts'
import { OpenExpiry } from './open-expiry.ts'
import { mayPruneItself, prune, prunedNumbers } from './prune.ts'
import { cronJob, type ScheduledFreeze } from './schedule-options.ts'
import { shareEveryMs } from './scrub.ts'
import { SoonCollections } from './soon-collections.ts'
import { SteadyClock } from './steady-clock.ts'

export type { ScheduledFreeze }

const expireEveryMs = 3_600_000
/** A receiver that has just begun has other things to do. */
const firstScrubMs = 300_000
/** What is to be frozen is not there, or not yet: nothing has failed. */
const absent: ReadonlySet<ProblemCode | undefined> = new Set(['not-found', 'vault-not-found'])

export interface ScheduleOptions {
  readonly freezes: readonly ScheduledFreeze[]
  readonly trashMs: number
  /** Everything stored is read once within this time. Never, when it is left out. */
  readonly scrubMs?: number | undefined
  /** When every vault's garbage is collected: a cron pattern. Never, when it is left out. */
  readonly collect?: string | undefined
  /** Open checkpoints without a sign of life for so long are deleted. Never, when it is left out. */
  readonly expireOpenMs?: number | undefined
  readonly audit?: Pick<Audit, 'note'>
  /** Told when something was removed from a vault for good, so that some of what it stores may be garbage now. */
  readonly onRemoved?: (vault: string) => void
  readonly log: Logger
}

export class Schedule {
  readonly #vaults: Pick<Vaults, 'list' | 'get' | 'visit'>
  readonly #options: ScheduleOptions
  readonly #jobs: { readonly cron: Cron; readonly freeze: ScheduledFreeze }[]
  readonly #running = new Set<Promise<void>>()
  readonly #stopping = new AbortController()
  #expiry: NodeJS.Timeout | undefined
  #scrubTimer: NodeJS.Timeout | undefined
  #scrubbing: Promise<void> | undefined
  #expiring: Promise<void> | undefined
  readonly #collections: Cron | undefined
  #collecting: Promise<void> | undefined
  readonly #soon = new SoonCollections((names) => void this.#collectVaults(async () => names))
  readonly #openExpiry: OpenExpiry | undefined
  readonly #clock = new SteadyClock()
  #pruning: Promise<void> | undefined

  /** Nothing runs yet. Problem `usage` for a pattern that is none. */
  constructor(vaults: Pick<Vaults, 'list' | 'get' | 'visit'>, options: ScheduleOptions) {
    this.#vaults = vaults
    this.#options = options
    const { expireOpenMs } = options
    this.#openExpiry = expireOpenMs === undefined ? undefined : new OpenExpiry(expireOpenMs)
    this.#collections = options.collect === undefined ? undefined : cronJob(options.collect)
    this.#jobs = options.freezes.map((freeze) => ({ cron: cronJob(freeze.cron), freeze }))
  }

  /** Looks through the trashes now and every hour; freezes when it is time. */
  start(): void {
    const { log } = this.#options
    for (const { cron, freeze } of this.#jobs) {
      cron.schedule(() => this.freeze(freeze))
      cron.resume()
      log.info({ ...described(freeze), next: cron.nextRun() }, 'freezes are scheduled')
    }
    this.#collections?.schedule(() => this.collect())
    this.#collections?.resume()
    const keepHouse = async (): Promise<void> => {
      await this.expireTrash()
      await this.prune()
    }
    this.#expiry = setInterval(keepHouse, expireEveryMs).unref()
    void keepHouse()
    if (this.#options.scrubMs !== undefined) this.#scrubIn(firstScrubMs)
  }

  /** When the next collection of every vault begins; undefined when there is none. */
  get nextCollection(): Date | undefined {
    return this.#collections?.nextRun() ?? undefined
  }

  /**
   * To be called when something was removed from a vault: its garbage is collected soon, with what is removed until then;
   * later, when it was just collected.
   */
  collectSoon(vault: string): void {
    if (this.#collections === undefined || this.#stopping.signal.aborted) return
    this.#soon.add(vault)
  }

  /** Collects the garbage of every vault, one after the other. Whoever asks while it is at that waits for the same. Never rejects. */
  collect(): Promise<void> {
    this.#collecting ??= this.#collectVaults(() => this.#vaults.list()).finally(() => {
      this.#collecting = undefined
    })
    return this.#collecting
  }

  async #collectVaults(names: () => Promise<string[]>): Promise<void> {
    const failure = 'garbage could not be collected'
    await this.#tracked(failure, {}, async (signal) => {
      for (const vault of await names()) {
        if (signal.aborted) return
        await this.#tracked(failure, { vault }, async (_, log) => {
          const { last } = await this.#collectVault(vault)
          if (last?.outcome === 'failed') log.error({ detail: last.detail }, failure)
          else if (last?.outcome === 'done') log.info({ ...last.report }, 'garbage collected')
        })
      }
    })
  }

  async #collectVault(vault: string): Promise<CollectionState> {
    const removedAt = this.#soon.begin(vault) ?? Number.NEGATIVE_INFINITY
    let lengthMs = 0
    try {
      return await this.#vaults.visit(vault, async ({ collector }) => {
        for (;;) {
          const { running } = collector.state
          const state = await (await collector.start()).ended
          const { last } = state
          if (last !== undefined) lengthMs = Date.parse(last.finishedAt) - Date.parse(last.startedAt)
          // One that ran already may have been stopped, or have marked what was removed after it began.
          const isEnough = last?.outcome === 'done'
          if (running === undefined || (isEnough && Date.parse(running.startedAt) > removedAt)) return state
        }
      })
    } finally {
      this.#soon.end(vault, lengthMs)
    }
  }

  #scrubIn(ms: number): void {
    if (this.#stopping.signal.aborted) return
    this.#scrubTimer = setTimeout(() => {
      this.#scrubIn(shareEveryMs)
      void this.scrub()
    }, ms).unref()
  }

  /**
   * Reads the share of each vault that is due, in one vault after the other. Whoever asks while it is at that waits
   * for the same. Never rejects.
   */
  scrub(): Promise<void> {
    this.#scrubbing ??= this.#scrub().finally(() => {
      this.#scrubbing = undefined
    })
    return this.#scrubbing
  }

  async #scrub(): Promise<void> {
    const { scrubMs } = this.#options
    if (scrubMs === undefined) return
    const failure = 'what is stored could not be checked'
    await this.#tracked(failure, {}, async (signal) => {
      for (const vault of await this.#vaults.list()) {
        if (signal.aborted) return
        await this.#tracked(failure, { vault }, async (_, log) => {
          const { last } = await this.#vaults.visit(vault, async ({ scrub }) => {
            await scrub.share(scrubMs)
            return scrub.state
          })
          if (last?.outcome === 'failed') log.error({ detail: last.detail }, failure)
        })
      }
    })
  }

  /** Freezes now, unless nothing has changed since the last checkpoint of the source. Never rejects. */
  freeze(freeze: ScheduledFreeze): Promise<void> {
    return this.#tracked('a scheduled freeze failed', described(freeze), async (signal, log) => {
      const { names, source = freezeSource(names) } = freeze
      const started = performance.now()
      const vault = await this.#vaults.get(freeze.vault)
      const state = await freezeIfChanged(vault, names, { source, about: aboutFreeze(names), signal })
      const durationMs = Math.round(performance.now() - started)
      if (state === undefined) log.info({ source, durationMs }, 'not frozen: nothing has changed')
      else log.info({ source, checkpoint: state.number, ...state.totals, durationMs }, 'frozen')
    })
  }

  /**
   * Removes what has been in a trash for too long, in one vault after the other; those that nobody uses are
   * closed again. Whoever asks while it is at that waits for the same. Never rejects.
   */
  expireTrash(): Promise<void> {
    this.#expiring ??= this.#expireTrash().finally(() => {
      this.#expiring = undefined
    })
    return this.#expiring
  }

  async #expireTrash(): Promise<void> {
    const before = new Date(Date.now() - this.#options.trashMs)
    await this.#tracked('the trash could not be looked through', {}, async (signal) => {
      for (const vault of await this.#vaults.list()) {
        if (signal.aborted) return
        await this.#tracked('the trash could not be looked through', { vault }, async (_, log) => {
          const items = await this.#vaults.visit(vault, async ({ tree }) => {
            const removed = await tree.expire(before)
            // A vault that is closed clears nothing away.
            await tree.settled(signal)
            return removed
          })
          if (items === 0) return
          log.info({ items }, 'removed from the trash for good')
          this.#options.audit?.note({ event: 'trash-removed', vault, items })
          this.#options.onRemoved?.(vault)
        })
      }
    })
  }

  /**
   * Deletes open checkpoints that nobody goes on with, and what the retention policies do not keep, in one vault after
   * the other. Whoever asks while it is at that waits for the same. Never rejects.
   */
  prune(): Promise<void> {
    this.#pruning ??= this.#prune().finally(() => {
      this.#pruning = undefined
    })
    return this.#pruning
  }

  async #prune(): Promise<void> {
    const failure = 'a vault could not be pruned'
    await this.#tracked(failure, {}, async (signal) => {
      for (const name of await this.#vaults.list()) {
        if (signal.aborted) return
        await this.#tracked(failure, { vault: name }, (_, log) =>
          this.#vaults.visit(name, async (vault) => {
            await this.#tracked('open checkpoints could not be looked through', { vault: name }, () =>
              this.#expireOpen(vault, log),
            )
            await this.#pruneVault(vault, log)
          }),
        )
      }
    })
  }

  async #expireOpen(vault: Vault, log: Logger): Promise<void> {
    const expired = (await this.#openExpiry?.run(vault, this.#stopping.signal)) ?? []
    for (const { source, number } of expired) {
      log.info({ source, checkpoint: number }, 'an open checkpoint that nobody went on with was deleted')
      this.#options.audit?.note({ event: 'checkpoint-expired', vault: vault.name, source, number })
    }
    if (expired.length > 0) this.#options.onRemoved?.(vault.name)
  }

  async #pruneVault(vault: Vault, log: Logger): Promise<void> {
    if (!vault.settings.hasPolicy || !mayPruneItself(vault, log)) return
    if (this.#clock.isDoubtful()) {
      log.warn('not pruned: the clock was set forward; see that it is right. It is believed a day later')
      return
    }
    const answer = await prune(vault, { signal: this.#stopping.signal })
    const { kept, removed } = answer
    if (removed === 0) return
    log.info({ kept, removed }, 'pruned')
    this.#options.audit?.note({
      event: 'pruned',
      vault: vault.name,
      removed,
      checkpoints: prunedNumbers(answer),
    })
    this.#options.onRemoved?.(vault.name)
  }

  async #tracked(
    failure: string,
    about: Record<string, unknown>,
    work: (signal: AbortSignal, log: Logger) => Promise<void>,
  ): Promise<void> {
    const { signal } = this.#stopping
    if (signal.aborted) return
    const log = this.#options.log.child(about)
    const running = work(signal, log).catch((error: unknown) => {
      if (!signal.aborted) tellFailure(log, failure, error)
    })
    this.#running.add(running)
    try {
      await running
    } finally {
      this.#running.delete(running)
    }
  }

  /** Nothing begins any more, and what runs is told to end. */
  stop(): void {
    clearInterval(this.#expiry)
    this.#soon.stop()
    this.#collections?.stop()
    clearTimeout(this.#scrubTimer)
    for (const { cron } of this.#jobs) cron.stop()
    this.#stopping.abort()
  }

  /** The same, and waits until nothing runs. Idempotent. */
  async close(): Promise<void> {
    this.stop()
    while (this.#running.size > 0) await Promise.all(this.#running)
  }
}

function tellFailure(log: Logger, failure: string, error: unknown): void {
  const fields = failureFields(error)
  if (absent.has(knownProblem(error)?.code)) log.warn(fields, failureText('not frozen', error))
  else log.error(fields, failureText(failure, error))
}

function described({ vault, names, cron }: ScheduledFreeze): Record<string, unknown> {
  return { vault, ...aboutFreeze(names), cron }
}
