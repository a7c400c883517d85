/**
 * A receiver is killed again and again (SIGKILL: what it had written is there, what it had in memory is not), at any
 * moment, in the middle of collections and commits and while it starts, with four clients at work on one vault. After
 * each start it has what it promised; at the end, when all is deleted, nothing is left.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ReceiverClient } from '../../client/receiver-client.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'
import type { CollectionState } from '../../protocol/schema.ts'
import { Dice } from '../support/dice.ts'
import { KillClient, type KillTally } from './kill-client.ts'
import { KillModel } from './kill-model.ts'
import { askDoctor, LogBook, ReceiverLife } from './kill-process.ts'
import { frozenSource, KillTreeClient } from './kill-tree-client.ts'

export interface KillRunOptions {
  readonly kills: number
  readonly seed: number
  /** Everything is looked at after so many kills, and at the end. */
  readonly fullCheckEvery: number
  readonly tell?: (line: string) => void
}

export interface KillFigures extends KillTally {
  kills: number
  /** Of these, how many hit a collection that ran, a commit, a receiver that had answered nobody yet. */
  inCollection: number
  /** Of those, how many hit the part that gives space back. */
  inSweep: number
  inCommit: number
  inStart: number
  collectionsDone: number
  freedBytes: number
  movedBytes: number
  requests: number
  bytesIn: number
  quickChecks: number
  fullChecks: number
  /** At the end, when all was deleted: bytes of packs, and collections that it took. */
  leftBytes: number
  lastCollections: number
  readonly removed: LogBook['removed']
  logKinds: ReadonlyMap<string, number>
  doctorWarnings: ReadonlySet<string>
  failures: string[]
  seconds: number
}

type Moment = 'any' | 'collection' | 'commit' | 'start'

const vault = 'home'
const packBytes = 1024 * 1024
const maxFailures = 20
/** A pack that nothing was written to yet. */
const emptyPackBytes = 16
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
  readonly #clients: KillClient[]
  readonly #tree: KillTreeClient
  readonly figures: KillFigures
  #life: ReceiverLife | undefined
  #lives = 0
  /** How long a start takes, about. */
  #startMs = 1000
  #isPaused = false
  #isOver = false
  #atWork = 0
  /** The collection that was running when the receiver was killed, as far as anybody knows. */
  #struck: CollectionState['running']
  #lastSeen: string | undefined

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
    this.#tree = new KillTreeClient(of('delta', 4))
    this.#clients = [
      ...['alpha', 'beta', 'gamma'].map((source, place) => new KillClient(of(source, place))),
      this.#tree,
    ]
  }

  async run(): Promise<KillFigures> {
    const begun = performance.now()
    let working: Promise<unknown> | undefined
    try {
      await this.#create()
      working = Promise.all(this.#clients.map((client) => this.#work(client)))
      for (let i = 1; i <= this.#options.kills && this.#mayGoOn; i++) {
        await this.#kill()
        if (i % this.#options.fullCheckEvery === 0 && i < this.#options.kills) await this.#fullCheck()
      }
      await this.#fullCheck()
      this.#isOver = true
      this.#isPaused = false
      await working
      await this.#deleteAll()
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
    this.#startMs = 0.8 * this.#startMs + 0.2 * (performance.now() - begun)
  }

  /** Returns how many requests it had answered. */
  async #end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number> {
    const life = this.#life as ReceiverLife
    this.#life = undefined
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
      await this.#quickCheck()
      await this.#until(moment)
    }
    const isInCommit = figures.commitsUnderWay > 0 && this.#life?.isListening === true
    const answered = await this.#end('SIGKILL')
    figures.kills++
    if (isInCommit) figures.inCommit++
    if (answered === 0) figures.inStart++
    if (figures.kills % 10 === 0) this.#options.tell?.(progress(figures))
  }

  async #until(moment: Moment): Promise<void> {
    const dice = this.#dice
    if (moment === 'any') await sleep(dice.pick(2500))
    if (moment === 'commit') {
      await this.#within(4000, async () => this.figures.commitsUnderWay > 0)
      await sleep(dice.pick(30))
    }
    if (moment === 'collection') {
      // There must be something to collect.
      await sleep(dice.pick(1200))
      const { running } = await this.#admin.startCollection({ minGarbage: 0 })
      this.#struck = running
      const until = performance.now() + dice.pick(300)
      while (performance.now() < until) {
        await sleep(5)
        this.#struck = (await this.#admin.collectionState()).running ?? this.#struck
      }
    }
  }

  async #within(ms: number, holds: () => Promise<boolean>): Promise<void> {
    const until = performance.now() + ms
    while (performance.now() < until) {
      if (await holds()) return
      await sleep(2)
    }
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

  // -- checks ---------------------------------------------------------------------------------------------

  /** It is well, it lists what it promised, and one of these is read back. */
  async #quickCheck(): Promise<void> {
    try {
      const { status } = await this.#admin.health()
      if (status !== 'ok') throw new Error(`it is ${status}`)
      this.#note(await this.#admin.collectionState())
      for (const source of [...pruned.keys(), ...kept]) await this.#checker.checkList(source)
      await this.#checker.restoreOne(this.#dice.of([...pruned.keys(), ...kept]))
      this.figures.quickChecks++
    } catch (error) {
      this.#failed('quick check', error)
    }
  }

  get #checker(): KillClient {
    return this.#clients[0] as KillClient
  }

  #note({ last }: CollectionState): void {
    if (this.#struck !== undefined && (last === undefined || last.startedAt < this.#struck.startedAt)) {
      this.figures.inCollection++
      if (this.#struck.progress.phase === 'sweep') this.figures.inSweep++
    }
    this.#struck = undefined
    if (last === undefined || last.startedAt === this.#lastSeen) return
    this.#lastSeen = last.startedAt
    if (last.outcome === 'failed') this.#failed('collection', last.detail)
    if (last.outcome === 'done') this.figures.collectionsDone++
    this.figures.freedBytes += last.report.freedBytes
    this.figures.movedBytes += last.report.movedBytes
  }

  /** On what the kill left, nobody being at work on it; then everything is read back. */
  async #fullCheck(): Promise<void> {
    await this.#doctor('after a kill')
    await this.#startWell()
    this.#isPaused = true
    while (this.#atWork > 0) await sleep(5)
    try {
      await this.#readAll()
      this.#note(await this.#admin.collectionState())
      this.figures.fullChecks++
    } catch (error) {
      this.#failed('full check', error)
    }
    this.#isPaused = false
    this.#options.tell?.(
      `full check ${this.figures.fullChecks}: ${this.figures.restored} checkpoints read so far`,
    )
    if (!this.#isLast) await this.#end('SIGKILL')
  }

  get #isLast(): boolean {
    return this.figures.kills >= this.#options.kills || !this.#mayGoOn
  }

  async #readAll(): Promise<void> {
    for (const source of [...pruned.keys(), ...kept]) {
      await this.#checker.checkList(source)
      for (const number of await this.#checker.committed(source)) {
        const known = this.#model.get(source, number)
        if (known !== undefined) await this.#checker.restore(known)
      }
    }
    await this.#tree.checkTree()
  }

  async #doctor(when: string): Promise<void> {
    const { problems, warnings } = await askDoctor(this.#dataDir)
    for (const what of problems) this.#failed(`doctor ${when}`, what)
    for (const what of warnings) (this.figures.doctorWarnings as Set<string>).add(what)
  }

  // -- the end --------------------------------------------------------------------------------------------

  /** With all that is there still readable after collections; then nothing is there, nor takes any space. */
  async #deleteAll(): Promise<void> {
    await this.#collectUntilNothing()
    await this.#readAll()
    await this.#end('SIGTERM')
    await this.#doctor('at the end')
    await this.#startWell()
    for (const source of await this.#admin.sources()) {
      for (const { number } of await this.#admin.listCheckpoints(source)) {
        await this.#admin.removeCheckpoint({ source, number })
      }
    }
    await this.#tree.clear()
    await this.#collectUntilNothing()
    for (const isAgain of [false, true]) {
      const { chunks, storedBytes } = await this.#admin.capabilities()
      const packs = join(this.#dataDir, 'vaults', vault, 'packs')
      const onDisk = readdirSync(packs).reduce((sum, name) => sum + statSync(join(packs, name)).size, 0)
      this.figures.leftBytes = onDisk
      if (chunks !== 0) this.#failed('the end', `${chunks} chunks are left, ${storedBytes} bytes`)
      if (onDisk > 2 * emptyPackBytes) this.#failed('the end', `${onDisk} bytes of packs are left`)
      if (storedBytes !== onDisk)
        this.#failed('the end', `${storedBytes} bytes are told of, ${onDisk} are there`)
      await this.#end('SIGTERM')
      await this.#doctor('when all was deleted')
      if (!isAgain) await this.#startWell()
    }
  }

  async #collectUntilNothing(): Promise<void> {
    for (let i = 1; i <= 10; i++) {
      this.figures.lastCollections = i
      await this.#admin.startCollection({ minGarbage: 0 })
      let state = await this.#admin.collectionState()
      while (state.running !== undefined) {
        await sleep(20)
        state = await this.#admin.collectionState()
      }
      this.#note(state)
      if (state.last?.outcome === 'done' && state.last.report.packs === 0) return
    }
    this.#failed('the end', 'ten collections have not given back all')
  }
}

function noFigures(book: LogBook): KillFigures {
  return {
    backups: 0,
    frozen: 0,
    treeChanges: 0,
    prunes: 0,
    pruned: 0,
    deleted: 0,
    collectionsAsked: 0,
    restored: 0,
    bytesSent: 0,
    commitsUnderWay: 0,
    refusals: new Map(),
    kills: 0,
    inCollection: 0,
    inSweep: 0,
    inCommit: 0,
    inStart: 0,
    collectionsDone: 0,
    freedBytes: 0,
    movedBytes: 0,
    get requests() {
      return book.requests
    },
    get bytesIn() {
      return book.bytesIn
    },
    quickChecks: 0,
    fullChecks: 0,
    leftBytes: 0,
    lastCollections: 0,
    removed: book.removed,
    logKinds: book.kinds,
    doctorWarnings: new Set(),
    failures: [],
    seconds: 0,
  }
}

function progress({ kills, backups, inCollection, inCommit, inStart, failures }: KillFigures): string {
  return `${kills} kills (${inCollection} in a collection, ${inCommit} in a commit, ${inStart} in a start), ${backups} backups, ${failures.length} failures`
}
