/**
 * A receiver is killed again and again (SIGKILL: what it had written is there, what it had in memory is not), at any
 * moment, in the middle of collections and commits and while it starts, with four clients at work on one vault. After
 * each start it has what it promised; at the end, when all is deleted, nothing is left.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ReceiverClient } from '../../client/receiver-client.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'
import { Dice } from '../support/dice.ts'
import { KillChecks } from './kill-checks.ts'
import { KillClient } from './kill-client.ts'
import { type KillFigures, noFigures, progressOf } from './kill-figures.ts'
import { KillModel } from './kill-model.ts'
import { LogBook, ReceiverLife } from './kill-process.ts'
import { frozenSource, KillTreeClient } from './kill-tree-client.ts'

export interface KillRunOptions {
  readonly kills: number
  readonly seed: number
  /** Everything is looked at after so many kills, and at the end. */
  readonly fullCheckEvery: number
  readonly tell?: (line: string) => void
}

type Moment = 'any' | 'collection' | 'commit' | 'start'

const vault = 'home'
const packBytes = 1024 * 1024
const maxFailures = 20
const pruned = new Map([
  ['alpha', 2],
  ['beta', 2],
  ['delta', 2],
])
const kept = ['gamma', frozenSource]
/** How often each, in so many. */
const moments: readonly Moment[] = Object.entries({ any: 3, collection: 4, commit: 2, start: 2 }).flatMap(
  ([moment, times]) => Array<Moment>(times).fill(moment as Moment),
)

export async function runKills(options: KillRunOptions): Promise<KillFigures> {
  const folder = mkdtempSync(join(tmpdir(), 'chunkdav-kill-'))
  const run = new KillRun(options, folder, await freePort(options.seed))
  const figures = await run.run()
  if (figures.failures.length === 0) rmSync(folder, { recursive: true, force: true })
  else options.tell?.(`what is left is in ${folder}`)
  return figures
}

/** None that the system gives to a client's end of a connection: it could meet itself there. */
async function freePort(seed: number): Promise<number> {
  for (let port = 20_000 + (seed % 8000); ; port++) {
    const isTaken = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false))
      socket.once('connect', () => socket.destroy())
    })
    if (!isTaken) return port
  }
}

class KillRun {
  readonly #options: KillRunOptions
  readonly #folder: string
  readonly #dataDir: string
  readonly #port: number
  readonly #dice: Dice
  readonly #model = new KillModel(pruned)
  readonly #book = new LogBook()
  readonly #admin: ReceiverClient
  readonly #clients: readonly KillClient[]
  readonly #checks: KillChecks
  readonly figures: KillFigures
  #life: ReceiverLife | undefined
  #lives = 0
  /** How long a start takes, about. */
  #startMs = 1000
  #isPaused = false
  #isOver = false
  #atWork = 0
  #listeningSince = Number.POSITIVE_INFINITY

  constructor(options: KillRunOptions, folder: string, port: number) {
    this.#options = options
    this.#folder = folder
    this.#port = port
    this.#dataDir = join(folder, 'data')
    this.#dice = new Dice(options.seed)
    for (const name of ['data', 'logs', 'clients']) mkdirSync(join(folder, name), { mode: 0o700 })
    this.figures = noFigures(this.#book)
    const vaultUrl = `http://127.0.0.1:${port}/${vault}`
    this.#admin = new ReceiverClient(parseVaultUrl(vaultUrl), { retries: 0 })
    const isUp = () => this.#isUp()
    const common = {
      vaultUrl,
      folder: join(folder, 'clients'),
      model: this.#model,
      tally: this.figures,
      isUp,
    }
    const of = (source: string, place: number) => ({
      ...common,
      source,
      as: source === 'beta' ? ('chunks' as const) : ('dir' as const),
      isPruned: pruned.has(source),
      dice: new Dice(options.seed * 10 + place),
    })
    const reader = new KillClient(of('alpha', 0))
    const tree = new KillTreeClient(of('delta', 3))
    this.#clients = [reader, new KillClient(of('beta', 1)), new KillClient(of('gamma', 2)), tree]
    this.#checks = new KillChecks({
      dataDir: this.#dataDir,
      vault,
      sources: [...pruned.keys(), ...kept],
      admin: this.#admin,
      reader,
      tree,
      model: this.#model,
      figures: this.figures,
      failed: (what, error) => this.#failed(what, error),
    })
  }

  async run(): Promise<KillFigures> {
    const begun = performance.now()
    let working: Promise<unknown> | undefined
    try {
      await this.#create()
      working = Promise.all(this.#clients.map((client) => this.#work(client)))
      for (let i = 1; i <= this.#options.kills && this.#mayGoOn; i++) {
        await this.#kill()
        if (i % this.#options.fullCheckEvery !== 0 || i === this.#options.kills) continue
        await this.#fullCheck()
        await this.#end('SIGKILL')
      }
      await this.#fullCheck()
      this.#isOver = true
      this.#isPaused = false
      await working
      await this.#lastWill()
    } catch (error) {
      this.#failed('run', error)
    } finally {
      this.#isOver = true
      this.#isPaused = false
      if (this.#life !== undefined) await this.#end('SIGKILL').catch((error) => this.#failed('end', error))
      await working
      await Promise.all([this.#admin.close(), ...this.#clients.map((client) => client.close())])
    }
    const { figures } = this
    figures.failures.push(...this.#book.failures)
    figures.seconds = (performance.now() - begun) / 1000
    return figures
  }

  get #mayGoOn(): boolean {
    return this.figures.failures.length + this.#book.failures.length < maxFailures
  }

  #failed(what: string, error: unknown): void {
    const text = `${what}, life ${this.#lives}: ${error instanceof Error ? (error.stack ?? error.message) : error}`
    this.figures.failures.push(text)
    this.#options.tell?.(`FAILED ${text}`)
  }

  // -- the receiver ---------------------------------------------------------------------------------------

  #start(): ReceiverLife {
    const dice = this.#dice
    this.#lives++
    this.#life = new ReceiverLife(
      {
        dataDir: this.#dataDir,
        port: this.#port,
        packBytes,
        trashMs: 1000,
        expireOpenMs: dice.of([500, 3000, 3_600_000]),
        houseMs: dice.of([300, 300, 5000]),
        upkeepShare: dice.of([0.3, 0.5, 1]),
      },
      { logPath: join(this.#folder, 'logs', `${this.#lives}.jsonl`), isServe: dice.once(5) },
    )
    return this.#life
  }

  async #startWell(): Promise<void> {
    const begun = performance.now()
    await this.#start().listening()
    this.#listeningSince = performance.now()
    this.#startMs = 0.8 * this.#startMs + 0.2 * (this.#listeningSince - begun)
  }

  /** Returns how many requests it had answered. */
  async #end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number> {
    const life = this.#life as ReceiverLife
    this.#life = undefined
    this.#listeningSince = Number.POSITIVE_INFINITY
    await life.end(signal)
    return this.#book.take(life)
  }

  async #create(): Promise<void> {
    await this.#startWell()
    await this.#admin.createVault()
    const { etag } = await this.#admin.settings()
    const sources = Object.fromEntries(kept.map((source) => [source, 'keep-all' as const]))
    await this.#admin.putSettings({ retention: { keepLast: 2 }, sources }, etag)
    await this.#end('SIGTERM')
  }

  /** One life, from its start to its sudden end. */
  async #kill(): Promise<void> {
    const moment = this.#dice.of(moments)
    const { figures } = this
    if (moment === 'start') {
      this.#start()
      await sleep(this.#dice.pick(this.#startMs * 1.4))
    } else {
      await this.#startWell()
      await this.#checks.quick(this.#dice).catch((error) => this.#failed('quick check', error))
      await this.#until(moment)
    }
    const isInCommit = this.#isInCommit
    const answered = await this.#end('SIGKILL')
    figures.kills++
    if (isInCommit) figures.inCommit++
    if (answered === 0) figures.inStart++
    if (figures.kills % 10 === 0) this.#options.tell?.(progressOf(figures))
  }

  async #until(moment: Moment): Promise<void> {
    const dice = this.#dice
    if (moment === 'any') await sleep(dice.pick(2500))
    if (moment === 'commit') {
      const until = performance.now() + 4000
      while (!this.#isInCommit && performance.now() < until) await sleep(2)
      await sleep(dice.pick(30))
    }
    if (moment === 'collection') {
      // There must be something to collect.
      await sleep(dice.pick(1200))
      const { running } = await this.#admin.startCollection({ minGarbage: 0 })
      this.#checks.struck = running
      const until = performance.now() + dice.pick(300)
      while (performance.now() < until) {
        await sleep(5)
        this.#checks.struck = (await this.#admin.collectionState()).running ?? this.#checks.struck
      }
    }
  }

  /** One that was begun while it was down is between two tries, as far as anybody knows. */
  get #isInCommit(): boolean {
    return [...this.figures.commitsSince].some((since) => since > this.#listeningSince)
  }

  async #isUp(): Promise<void> {
    while (this.#life?.isListening !== true && !this.#isOver) await sleep(5)
  }

  // -- the clients ----------------------------------------------------------------------------------------

  async #work(client: KillClient): Promise<void> {
    while (!this.#isOver && this.#mayGoOn) {
      await this.#isUp()
      if (this.#isPaused) {
        await sleep(5)
        continue
      }
      this.#atWork++
      try {
        await client.step()
      } catch (error) {
        this.#failed('a client', error)
      } finally {
        this.#atWork--
      }
    }
  }
  // -- the ends of it -------------------------------------------------------------------------------------

  /** On what the kill left, nobody being at work on it; then everything is read back. */
  async #fullCheck(): Promise<void> {
    await this.#checks.doctor('after a kill')
    await this.#startWell()
    this.#isPaused = true
    while (this.#atWork > 0) await sleep(5)
    try {
      await this.#checks.everything()
      this.figures.fullChecks++
    } catch (error) {
      this.#failed('full check', error)
    }
    this.#isPaused = false
    this.#options.tell?.(
      `full check ${this.figures.fullChecks}: ${this.figures.restored} checkpoints read so far`,
    )
  }

  /** With all that is there still readable after collections; then nothing is there, nor takes any space. */
  async #lastWill(): Promise<void> {
    await this.#checks.collectUntilNothing()
    await this.#checks.everything()
    await this.#end('SIGTERM')
    await this.#checks.doctor('at the end')
    await this.#startWell()
    await this.#checks.deleteAll()
    await this.#checks.collectUntilNothing()
    await this.#checks.nothing()
    await this.#end('SIGTERM')
    await this.#checks.doctor('when all was deleted')
    await this.#startWell()
    await this.#checks.nothing()
    await this.#end('SIGTERM')
  }
}
