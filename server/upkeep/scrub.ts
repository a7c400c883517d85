/**
 * Reads all that a vault stores, hashes every chunk, and tells what is harmed by what is damaged.
 *
 * A round reads every pack from front to back, once; then it looks whether each row of the index points at a record,
 * and whether all that is kept is whole (harm.ts). It goes in runs: a share each hour, or all of it at once.
 *
 *     {vault}/upkeep/scrub-position.json   the round: how far it is, what it found
 *     {vault}/upkeep/scrub.json            the last run (jobs.ts)
 *     {vault}/quarantine/                  bytes of bad records (quarantine.ts)
 *
 * What is bad is read once more; then its bytes are copied aside, then its rows are forgotten durably, so that whoever
 * asks what is missing sends it again. A crash between any two of these finds it bad again. The round is noted every so
 * often: after a crash some of it is read twice. A chunk of which there is another sound copy is stored again from that.
 *
 * Packs that were written while a round is at work belong to it until it reaches what was the end; then the end moves
 * once more, for what a compaction has carried behind it.
 */
import { join } from 'node:path'
import type { Id } from '../../protocol/id.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type {
  ScrubFinding,
  ScrubHarm,
  ScrubProgress,
  ScrubReport,
  ScrubState,
} from '../../protocol/schema.ts'
import { readText, replaceDurably } from '../catalog/durable-file.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import type { BadStretch, PackAudit, StrayRow } from '../store/pack-audit.ts'
import { PackChunkStore } from '../store/pack-chunk-store.ts'
import { isBefore, type Location, type Position, packHeaderBytes, packName } from '../store/pack-file.ts'
import { verified } from '../store/receive.ts'
import { findHarm, type HarmedVault, isGone, isHarmless } from './harm.ts'
import { Job, type JobOptions, type Run } from './jobs.ts'
import { Pace } from './pace.ts'
import { maxBlockBytes, Quarantine } from './quarantine.ts'

export const defaultScrubBytesPerSecond = 32 * 1024 * 1024
export const defaultScrubMs = 30 * 24 * 3_600_000
/** How often a share is due. */
export const shareEveryMs = 3_600_000

export interface ScrubOptions extends JobOptions {
  readonly vaultPath: string
  readonly store: ChunkStore
  /** Its tree may throw the Problem that kept it from opening. */
  readonly vault: HarmedVault
  readonly bytesPerSecond?: number | undefined
  /** Told of everything that is found damaged. */
  readonly onDamage?: ((problem: Problem) => void) | undefined
}

interface Round {
  startedAt: string
  /** Somebody asked for all of it: it goes on without a rest after a restart. */
  everything: boolean
  next: Position
  end: Position
  /** The end has moved once already. */
  extended: boolean
  complete: boolean
  lastCompleteAt?: string
  bytes: number
  totalBytes: number
  records: number
  chunks: number
  badRecords: number
  strayRows: number
  lostChunks: number
  healedChunks: number
  found: ScrubFinding[]
  harm?: ScrubHarm
  /** The first of the chunks that are missing by `harm`. */
  missing: Id[]
  /** Something was lost since `harm` was looked at. */
  harmIsDue: boolean
}

type Counts = Pick<ScrubProgress, 'bytes' | 'totalBytes' | 'records' | 'chunks' | 'badRecords'>

const noCounts: Counts = { bytes: 0, totalBytes: 0, records: 0, chunks: 0, badRecords: 0 }
const begun: ScrubProgress = { everything: false, phase: 'packs', ...noCounts }
/** When a round began of which nothing is known. */
const never = new Date(0).toISOString()
const namedFindings = 100
/** Lost chunks of which copies are looked for in one run. */
const maxSought = 100_000
/** The round is noted when so much was read since. */
const noteEveryBytes = 256 * 1024 * 1024

export class Scrub {
  readonly #options: ScrubOptions
  readonly #files: FileLayer
  readonly #path: string
  readonly #quarantine: Quarantine
  #round: Round
  #job!: Job<ScrubProgress, ScrubReport>

  private constructor(options: ScrubOptions, round: Round) {
    this.#options = options
    this.#files = options.files ?? nodeFiles
    this.#path = positionPath(options.vaultPath)
    this.#quarantine = new Quarantine(options.vaultPath, this.#files)
    this.#round = round
  }

  /** Nothing runs yet. A position that does not parse counts as none. */
  static async open(options: ScrubOptions): Promise<Scrub> {
    const files = options.files ?? nodeFiles
    const round = await readRound(positionPath(options.vaultPath), files)
    const scrub = new Scrub(options, round ?? newRound({ complete: true, startedAt: never }))
    const reportOf = (): ScrubReport => reportOn(scrub.#round)
    scrub.#job = await Job.open(options.vaultPath, 'scrub', begun, reportOf, options)
    return scrub
  }

  /**
   * To be called, before the store is opened, when packs are gone: whoever dies after it leaves word that harm is to be
   * looked for. Durable on return.
   */
  static async doubt(vaultPath: string, files: FileLayer = nodeFiles): Promise<void> {
    const path = positionPath(vaultPath)
    const round = (await readRound(path, files)) ?? newRound({ complete: true, startedAt: never })
    await files.makeFolder(join(vaultPath, 'upkeep'))
    await replaceDurably(path, JSON.stringify({ ...round, harmIsDue: true }), files)
  }

  /** Whether content of what is kept is missing as far as is known, or may be until a run has looked for harm. */
  get isInDoubt(): boolean {
    const { harm, harmIsDue } = this.#round
    return harmIsDue || (harm !== undefined && !isHarmless(harm))
  }

  get state(): ScrubState {
    return this.#job.state
  }

  /**
   * Begins to read all of it at once, or goes on where such a run was interrupted; joins one that runs. Returns when it
   * has begun; `ended` resolves when it has ended.
   */
  async everything(): Promise<{ state: ScrubState; ended: Promise<ScrubState> }> {
    if (this.state.running?.progress.everything === false) await this.#job.stop()
    const { ended } = this.#job.start((run) => this.#run(run, true, Number.POSITIVE_INFINITY))
    return { state: this.state, ended }
  }

  /** Reads what is due for everything to be read once within `periodMs`; resolves when that has ended. */
  async share(periodMs: number, nowMs = Date.now()): Promise<void> {
    const round = this.#round
    if (!round.complete && round.everything) {
      await this.#job.start((run) => this.#run(run, true, Number.POSITIVE_INFINITY)).ended
      return
    }
    const due = this.#dueBytes(periodMs, nowMs)
    if (due > 0) await this.#job.start((run) => this.#run(run, false, due)).ended
    else if (round.harmIsDue || (await this.#mayBeHealed()))
      await this.#job.start((run) => this.#lookAgain(run)).ended
  }

  #dueBytes(periodMs: number, nowMs: number): number {
    const { complete, startedAt, bytes } = this.#round
    const ageMs = Math.max(0, nowMs - Date.parse(startedAt))
    if (complete && ageMs < periodMs - shareEveryMs) return 0
    const elapsedMs = complete ? 0 : ageMs
    const { storedBytes } = this.#options.store.usage
    return storedBytes * Math.min(1, (elapsedMs + shareEveryMs) / periodMs) - (complete ? 0 : bytes)
  }

  /** Ends what runs. What is left of it is read by shares. */
  async stop(): Promise<void> {
    await this.#job.stop()
    if (this.#round.complete || !this.#round.everything) return
    this.#round.everything = false
    await this.#note()
  }

  /** Ends what runs; it goes on after the next opening. Idempotent. */
  async close(): Promise<void> {
    await this.#job?.close()
  }

  // -- a run --------------------------------------------------------------------------------------------

  async #run(run: Run<ScrubProgress>, everything: boolean, budget: number): Promise<ScrubReport> {
    // At once: whoever asks for all of it must not take it for a share.
    run.tell({ ...begun, everything })
    const pace = new Pace({
      bytesPerSecond: this.#options.bytesPerSecond ?? defaultScrubBytesPerSecond,
      signal: run.signal,
    })
    const audit = auditOf(this.#options.store)
    await this.#beginRound(audit, everything)
    const pass = new Pass(this.#round, audit, pace, {
      ...this.#options,
      quarantine: this.#quarantine,
      note: () => this.#note(),
      tell: (phase) => run.tell(progressOf(this.#round, phase)),
    })
    try {
      const reachedEnd = await pass.packs(budget)
      if (reachedEnd) await pass.rows()
      await pass.heal()
      const isDue = reachedEnd || this.#round.harmIsDue || (await this.#mayBeHealed())
      if (isDue) await this.#findHarm(run, pace)
      if (reachedEnd) {
        this.#round.complete = true
        this.#round.lastCompleteAt = new Date().toISOString()
      }
    } finally {
      await this.#note()
    }
    return reportOn(this.#round)
  }

  /** What is lost may have been sent again since it was told of, or what lacked it be gone. */
  async #mayBeHealed(): Promise<boolean> {
    const { harm, missing } = this.#round
    if (harm === undefined || isHarmless(harm)) return false
    if (missing.length === 0) return true
    if ((await this.#options.store.stat(missing)).some((length) => length !== undefined)) return true
    for (const name of harm.checkpoints) if (await isGone(this.#options.vault, name)) return true
    return false
  }

  async #lookAgain(run: Run<ScrubProgress>): Promise<ScrubReport> {
    await this.#findHarm(run, new Pace({ signal: run.signal }))
    await this.#note()
    return reportOn(this.#round)
  }

  async #findHarm(run: Run<ScrubProgress>, pace: Pace): Promise<void> {
    run.tell(progressOf(this.#round, 'checkpoints'))
    const { harm, missing } = await findHarm(this.#options.vault, pace)
    this.#round.harm = harm
    this.#round.missing = missing
    this.#round.harmIsDue = false
  }

  async #beginRound(audit: PackAudit | undefined, everything: boolean): Promise<void> {
    const before = this.#round
    const goesOn = !before.complete && (before.everything || !everything)
    const end = (await audit?.end()) ?? { pack: 0, offset: 0 }
    if (!goesOn) {
      this.#round = newRound({
        everything,
        end,
        ...(before.lastCompleteAt && { lastCompleteAt: before.lastCompleteAt }),
        ...(before.harm && { harm: before.harm, missing: before.missing }),
        harmIsDue: before.harmIsDue,
      })
    } else if (isBefore(end, before.end)) {
      // Its packs were cut off, or put in place of others.
      this.#round.end = end
    }
    this.#round.totalBytes = this.#round.bytes + (await bytesLeft(audit, this.#round))
  }

  /** Nothing hangs on it but that some is read twice: a full disk must not end a scrub. */
  async #note(): Promise<void> {
    await replaceDurably(this.#path, JSON.stringify(this.#round), this.#files).catch(() => undefined)
  }
}

interface PassOptions {
  readonly store: ChunkStore
  readonly onDamage?: ((problem: Problem) => void) | undefined
  readonly quarantine: Quarantine
  note(): Promise<void>
  tell(phase: ScrubProgress['phase']): void
}

/** One run over packs and rows. */
class Pass {
  readonly #round: Round
  readonly #audit: PackAudit | undefined
  readonly #pace: Pace
  readonly #options: PassOptions
  readonly #lost = new Set<Id>()
  #bytesSinceNote = 0

  constructor(round: Round, audit: PackAudit | undefined, pace: Pace, options: PassOptions) {
    this.#round = round
    this.#audit = audit
    this.#pace = pace
    this.#options = options
  }

  /** Reads packs until the round's end, or until `budget` bytes are read; whether the end is reached. */
  async packs(budget: number): Promise<boolean> {
    const audit = this.#audit
    if (audit === undefined) return true
    const round = this.#round
    const until = round.bytes + budget
    for (;;) {
      for (const { pack } of await audit.packs()) {
        if (pack < round.next.pack || pack > round.end.pack) continue
        if (!(await this.#pack(audit, pack, until))) return false
        round.next = { pack: pack + 1, offset: 0 }
      }
      if (round.extended) return true
      round.extended = true
      const end = await audit.end()
      // The pack that was the last is read on from where it ended.
      round.next = isBefore(round.next, round.end) ? round.next : round.end
      round.end = end
      round.totalBytes = round.bytes + (await bytesLeft(audit, round))
    }
  }

  /** Whether there is budget left. */
  async #pack(audit: PackAudit, pack: number, until: number): Promise<boolean> {
    const round = this.#round
    const start = pack === round.next.pack ? round.next.offset : 0
    const end = pack === round.end.pack ? round.end.offset : Number.POSITIVE_INFINITY
    for await (const step of audit.scan(pack, start, end)) {
      const bytes = 'block' in step ? step.block.header.totalBytes : step.damagedBytes
      if ('block' in step) {
        round.records++
        round.chunks += step.block.header.rows.length
      } else {
        await this.#bad(audit, { pack, offset: step.offset, bytes, damage: step.damage })
      }
      round.bytes += bytes
      round.totalBytes = Math.max(round.totalBytes, round.bytes)
      round.next = { pack, offset: Math.max(step.offset + bytes, packHeaderBytes) }
      this.#options.tell('packs')
      this.#bytesSinceNote += bytes
      if (this.#bytesSinceNote > noteEveryBytes) await this.#note()
      await this.#pace.step(bytes)
      if (round.bytes >= until) return false
    }
    return true
  }

  async #bad(audit: PackAudit, stretch: BadStretch): Promise<void> {
    const bad = await audit.again(stretch)
    if (bad === undefined) return
    const ids = await audit.rowsIn(bad, () => this.#pace.step())
    // Told of before, and nothing is read from there any more.
    if (ids.length === 0 && (await this.#options.quarantine.has(bad))) return
    const foundAt = new Date().toISOString()
    const bytes = await audit.bytesOf(bad, maxBlockBytes)
    const quarantined = await this.#options.quarantine.keep({ ...bad, ids: bad.ids ?? ids }, bytes, foundAt)
    this.#round.badRecords++
    await this.#lose(ids)
    await audit.forget((at) => isInside(at, bad), ids)
    const { pack, offset, damage } = bad
    this.#found({ pack, offset, bytes: bad.bytes, damage, foundAt, lostChunks: ids.length, quarantined })
    await this.#note()
  }

  /** Looks at every row of the index, and forgets those that point at nothing. */
  async rows(): Promise<void> {
    const audit = this.#audit
    if (audit === undefined) return
    this.#options.tell('index')
    const gone = new Map<string, ScrubFinding>()
    for await (const { stray } of audit.rows()) {
      if (stray.length > 0) await this.#stray(audit, stray, gone)
      await this.#pace.step()
    }
    for (const finding of gone.values()) this.#found(finding)
  }

  async #stray(audit: PackAudit, stray: readonly StrayRow[], gone: Map<string, ScrubFinding>): Promise<void> {
    const places = new Set(stray.map(({ location }) => `${location.pack}:${location.offset}`))
    const ids = stray.map(({ id }) => id)
    this.#round.strayRows += stray.length
    await this.#lose(ids)
    await audit.forget(({ pack, offset }) => places.has(`${pack}:${offset}`), ids)
    for (const { location, damage } of stray) {
      const { pack } = location
      const key = `${pack} ${damage}`
      const known = gone.get(key)
      const foundAt = known?.foundAt ?? new Date().toISOString()
      const lostChunks = (known?.lostChunks ?? 0) + 1
      gone.set(key, { pack, damage, foundAt, lostChunks, quarantined: false })
    }
  }

  /** To be called before they are forgotten: whoever dies then leaves word that harm is to be looked for. */
  async #lose(ids: readonly Id[]): Promise<void> {
    if (ids.length === 0) return
    this.#round.lostChunks += ids.length
    this.#round.harmIsDue = true
    await this.#note()
    for (const id of ids) if (this.#lost.size < maxSought) this.#lost.add(id)
  }

  #found(finding: ScrubFinding): void {
    if (this.#round.found.length < namedFindings) this.#round.found.push(finding)
    const { pack, offset, damage, lostChunks } = finding
    const place = offset === undefined ? packName(pack) : `${packName(pack)} at byte ${offset}`
    this.#options.onDamage?.(
      new Problem('chunk-corrupt', `${place}: ${damage}; chunks to be sent again: ${lostChunks}`, {
        extensions: { pack, ...(offset !== undefined && { offset }), lostChunks },
      }),
    )
  }

  /** Stores chunks that were lost again, from other records that hold them. */
  async heal(): Promise<void> {
    if (this.#audit === undefined || this.#lost.size === 0) return
    const { store } = this.#options
    for await (const block of this.#audit.copiesOf(this.#lost)) {
      await this.#pace.step(block.bytes.length)
      try {
        await store.put(await verified(block))
      } catch (error) {
        // There is no room for it: the next backup is told so, too.
        if (isProblem(error, 'insufficient-storage')) break
        // This one is no better.
        if (!isProblem(error, 'digest-mismatch') && !isProblem(error, 'invalid-encoding')) throw error
        continue
      }
      for (const { id } of block.header.rows) if (this.#lost.delete(id)) this.#round.healedChunks++
      if (this.#lost.size === 0) break
    }
    await store.flush()
  }

  async #note(): Promise<void> {
    this.#bytesSinceNote = 0
    await this.#options.note()
  }
}

function isInside(at: Location, { pack, offset, bytes }: Location): boolean {
  return at.pack === pack && at.offset >= offset && at.offset < offset + bytes
}

/** A store that has no packs has nothing that rots unseen. */
function auditOf(store: ChunkStore): PackAudit | undefined {
  return store instanceof PackChunkStore ? store.audit() : undefined
}

async function bytesLeft(audit: PackAudit | undefined, { next, end }: Round): Promise<number> {
  let bytes = 0
  for (const pack of (await audit?.packs()) ?? []) {
    if (pack.pack < next.pack || pack.pack > end.pack) continue
    const from = pack.pack === next.pack ? next.offset : 0
    const to = pack.pack === end.pack ? Math.min(end.offset, pack.bytes) : pack.bytes
    bytes += Math.max(0, to - Math.max(from, packHeaderBytes))
  }
  return bytes
}

function newRound(round: Partial<Round>): Round {
  return {
    startedAt: new Date().toISOString(),
    everything: false,
    next: { pack: 1, offset: 0 },
    end: { pack: 0, offset: 0 },
    extended: false,
    complete: false,
    ...noCounts,
    strayRows: 0,
    lostChunks: 0,
    healedChunks: 0,
    found: [],
    missing: [],
    harmIsDue: false,
    ...round,
  }
}

function reportOn(round: Round): ScrubReport {
  const { startedAt, complete, lastCompleteAt, bytes, totalBytes, records, chunks, badRecords } = round
  const { strayRows, lostChunks, healedChunks, found, harm } = round
  return {
    startedAt,
    complete,
    ...(lastCompleteAt && { lastCompleteAt }),
    ...{ bytes, totalBytes, records, chunks, badRecords, strayRows, lostChunks, healedChunks },
    found: [...found],
    ...(harm && { harm }),
  }
}

function progressOf(round: Round, phase: ScrubProgress['phase']): ScrubProgress {
  const { everything, bytes, totalBytes, records, chunks, badRecords } = round
  return { everything, phase, bytes, totalBytes, records, chunks, badRecords }
}

function positionPath(vaultPath: string): string {
  return join(vaultPath, 'upkeep', 'scrub-position.json')
}

async function readRound(path: string, files: FileLayer): Promise<Round | undefined> {
  const text = await readText(path, files)
  if (text === undefined) return undefined
  try {
    const round = JSON.parse(text) as Round
    return Number.isSafeInteger(round.next.pack) && Number.isSafeInteger(round.end.pack) ? round : undefined
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined
    throw error
  }
}
