/** One client of a kill proof: backs up, looks for what it backed up, deletes, prunes, collects; through all kills. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Target } from '../../client/engine/target.ts'
import { ReceiverClient } from '../../client/receiver-client.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'
import { isProblem } from '../../protocol/problem.ts'
import { backUp, restoreTo, wrapTarget } from '../support/backup.ts'
import type { Dice } from '../support/dice.ts'
import { listing } from '../support/tree.ts'
import { changeSource, contentListing } from './kill-content.ts'
import type { KillTally } from './kill-figures.ts'
import type { KillModel, Known } from './kill-model.ts'

export interface KillClientOptions {
  readonly source: string
  readonly as: 'dir' | 'chunks'
  /** Whether older ones are deleted by prunes, or by this client. */
  readonly isPruned: boolean
  readonly vaultUrl: string
  readonly folder: string
  readonly dice: Dice
  readonly model: KillModel
  readonly tally: KillTally
  /** Resolves when the receiver is there, as far as anybody knows, or all is over. */
  readonly isUp: () => Promise<void>
}

const impatient = { retries: 5, firstPauseMs: 40, firstContactMs: 20_000 } as const
/** Of those that no prune deletes. */
const keptAtMost = 5

/** Whether the receiver was killed under it, or is not up again. */
export function isInterruption(error: unknown): boolean {
  return isProblem(error, 'transport-failed') || isProblem(error, 'unavailable')
}

/** The folder itself is made by whoever restores. */
function treeListing(root: string): string {
  return listing(root).slice(1).join('\n')
}

export class KillClient {
  protected readonly options: KillClientOptions
  protected readonly client: ReceiverClient
  readonly #from: string
  #isFresh = false

  constructor(options: KillClientOptions) {
    this.options = options
    this.#from = join(options.folder, options.source, 'from')
    mkdirSync(this.#from, { recursive: true })
    this.client = new ReceiverClient(parseVaultUrl(options.vaultUrl), impatient)
  }

  async close(): Promise<void> {
    await this.client.close()
  }

  /** One thing to do. What the kill of the receiver makes fail is no failure. */
  async step(): Promise<void> {
    const { dice } = this.options
    const choice = dice.pick(100)
    try {
      if (choice < 50) await this.backUp()
      else if (choice < 62) await this.restoreOne(this.options.source)
      else if (choice < 72) await this.#prune()
      else if (choice < 84) await this.deleteOld(this.options.source)
      else await this.#collect()
    } catch (error) {
      if (!isInterruption(error)) throw error
    }
  }

  /** Backs up what there is, changed before, until it is committed; once in a while it changes in between, or nobody goes on with it. */
  async backUp(): Promise<void> {
    const { dice, model, tally, source, as, vaultUrl, folder } = this.options
    const state = join(folder, source, 'state')
    for (let tries = 0; tries < 50; tries++) {
      if (!this.#isFresh || dice.once(4)) changeSource(this.#from, dice)
      this.#isFresh = true
      const text = treeListing(this.#from)
      model.attempt(source, text)
      const transport = dice.once(3) ? { ...impatient, retries: 0 } : impatient
      try {
        const wrap = (target: Target): Target => this.#counted(target)
        const setup = { vaultUrl, state, source, as, transport, wrapTarget: wrap }
        const { checkpoint, problemCount, bytesSent } = await backUp(this.#from, setup)
        if (problemCount > 0) throw new Error(`${problemCount} files could not be read`)
        model.committed(source, checkpoint.number, text)
        tally.backups++
        tally.bytesSent += bytesSent
        this.#isFresh = false
        return
      } catch (error) {
        if (!isProblem(error)) throw error
        if (!isInterruption(error)) this.refused('backup', error)
        else if (dice.once(3)) return
        await this.options.isUp()
      }
    }
    throw new Error(`${source} could not be backed up in fifty runs`)
  }

  #counted(target: Target): Target {
    return wrapTarget(target, {
      commit: (request) => this.committing(() => target.commit(request)),
    })
  }

  protected async committing<T>(commit: () => Promise<T>): Promise<T> {
    const { commitsSince } = this.options.tally
    const since = performance.now()
    commitsSince.add(since)
    try {
      return await commit()
    } finally {
      commitsSince.delete(since)
    }
  }

  protected refused(what: string, error: unknown): void {
    const { refusals } = this.options.tally
    const code = isProblem(error) ? error.code : String(error)
    if (!['missing-chunks', 'checkpoint-not-found', 'chunk-not-found'].includes(code)) throw error
    refusals.set(`${what}: ${code}`, (refusals.get(`${what}: ${code}`) ?? 0) + 1)
  }

  /** Reads one back that must be there. */
  async restoreOne(source: string): Promise<void> {
    const due = this.options.model.of(source).filter((known) => this.options.model.isDue(known, []))
    if (due.length > 0) await this.restore(this.options.dice.of(due))
  }

  /** Throws when it is not as it was, unless it may have been deleted meanwhile. */
  async restore(known: Known): Promise<void> {
    const { vaultUrl, folder, model, tally } = this.options
    const { source, number } = known
    const to = mkdtempSync(join(folder, 'restored-'))
    try {
      const { problems, problemList } = await restoreTo(to, { vaultUrl, source, number })
      if (problems > 0) throw new Error(`${source}/${number}: ${JSON.stringify(problemList.slice(0, 3))}`)
      const found = source === 'frozen' ? contentListing(to).join('\n') : treeListing(to)
      if (!model.isRight(known, found)) {
        throw new Error(`${source}/${number} is not as it was:\n${found}\nit was\n${known.content}`)
      }
      tally.restored++
    } catch (error) {
      if (isInterruption(error)) throw error
      const listed = await this.committed(source)
      if (model.isDue(known, listed) || listed.includes(number)) throw error
    } finally {
      rmSync(to, { recursive: true, force: true })
    }
  }

  /** Numbers of the committed checkpoints of a source. */
  async committed(source: string): Promise<number[]> {
    try {
      const states = await this.client.listCheckpoints(source)
      return states.filter(({ state }) => state === 'committed').map(({ number }) => number)
    } catch (error) {
      if (isProblem(error, 'checkpoint-not-found') || isProblem(error, 'not-found')) return []
      throw error
    }
  }

  /** Compares the list of a source with what was promised. */
  async checkList(source: string): Promise<void> {
    const { model } = this.options
    const before = model.of(source).filter(({ standing }) => standing === 'there')
    const wereGone = model.of(source).filter(({ standing }) => standing === 'gone')
    const gone = wereGone.map(({ number }) => number)
    const wrong = model.compare(source, await this.committed(source), before, gone)
    if (wrong.length > 0) throw new Error(wrong.join('; '))
  }

  async #prune(): Promise<void> {
    const { dice, model, tally, source } = this.options
    const { sources } = await this.client.prune(dice.once(2) ? { source } : {}).catch((error: unknown) => {
      // Before its first backup.
      if (!isProblem(error, 'checkpoint-not-found')) throw error
      return { sources: [] }
    })
    for (const { source, removed } of sources) for (const { number } of removed) model.gone(source, number)
    tally.prunes++
    tally.pruned += sources.reduce((sum, { removed }) => sum + removed.length, 0)
  }

  /** Deletes one, seldom the newest; those that nobody prunes must not become too many. */
  protected async deleteOld(source: string): Promise<void> {
    const { dice, model, tally, isPruned } = this.options
    const standing = model.of(source).filter((known) => known.standing === 'there')
    const mayGo = dice.once(6) ? standing : standing.slice(0, -2)
    const surplus = isPruned && source !== 'frozen' ? 0 : standing.length - keptAtMost
    const chosen = surplus > 0 ? dice.some(mayGo, surplus) : dice.some(mayGo, 1)
    for (const known of chosen) {
      model.asked(known)
      await this.client.removeCheckpoint(known)
      model.gone(known.source, known.number)
      tally.deleted++
    }
  }

  async #collect(): Promise<void> {
    const { dice, tally } = this.options
    if (dice.once(10)) {
      await this.client.stopCollection()
      return
    }
    await this.client.startCollection({ minGarbage: 0 })
    tally.collectionsAsked++
  }
}
