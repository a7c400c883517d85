/**
 * Garbage collection of one vault, while it is in use: mark (mark.ts), then sweep, pack by pack.
 *
 * A pack is compacted when a good part of it is garbage, the most garbage first: those cost least, and a disk that is
 * full gets room by them. Of the others the oldest with any garbage goes too, so that none keeps it for ever: what is
 * kept of it moves to the end, and the next one is the oldest then. Whatever is stopped or fails anywhere leaves a sound
 * vault, and the next collection goes on with the packs that are left.
 *
 * What was removed is told to nobody: chunks that a client believes to be here are asked for by a commit, at the latest,
 * and that says what is missing.
 */
import { Mutex } from 'async-mutex'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CollectionProgress, CollectionReport, CollectionState } from '../../protocol/schema.ts'
import { withBallast } from '../ballast.ts'
import type { CollectableStore, Garbage, Pacing } from '../store/collectable.ts'
import { Job, type JobOptions, type Run } from './jobs.ts'
import { type MarkedVault, Marking } from './mark.ts'
import { Pace } from './pace.ts'

export interface CollectOptions {
  /** Packs are compacted when at least this share of them is garbage, from 0 to 1; 0: all with any garbage. */
  readonly minGarbage?: number
  /** Only tell how much is garbage. */
  readonly dryRun?: boolean
  readonly pacing?: Pacing
  /** What may be written before the disk is full. */
  readonly freeBytes?: () => Promise<number>
  readonly tell?: (progress: CollectionProgress) => void
}

export const defaultMinGarbage = 0.2
/** Of the time, how much it works. */
export const defaultShare = 0.5

/** A pack that is all garbage needs no room but for the index. */
const leastRoom = 1024

const begun: CollectionProgress = {
  phase: 'mark',
  checkpoints: 0,
  objects: 0,
  storedBytes: 0,
  garbageBytes: 0,
  freedBytes: 0,
  movedBytes: 0,
  packs: 0,
  packsDone: 0,
}

export interface CollectedVault extends Omit<MarkedVault, 'store'> {
  readonly store: CollectableStore
}

/**
 * Marks and sweeps. On return what was given back is gone durably. Problems: `store-corrupt` of `mark`, then nothing
 * was given back; those of the store, and of `pacing`, then some of it may be. TypeError while another is under way.
 */
export async function collect(
  vault: CollectedVault,
  {
    minGarbage = defaultMinGarbage,
    dryRun = false,
    pacing = new Pace(),
    freeBytes = async () => Number.POSITIVE_INFINITY,
    tell = () => {},
  }: CollectOptions = {},
): Promise<CollectionReport> {
  const { store } = vault
  const collection = store.collect()
  let progress = { ...begun, storedBytes: store.usage.storedBytes }
  const advance = (change: Partial<CollectionProgress>): void => {
    progress = { ...progress, ...change }
    tell(progress)
  }
  try {
    const marking = new Marking(vault, { collection, pacing, tell: advance })
    advance(await marking.run())
    const garbage = await collection.survey(pacing)
    const chosen = chooseForCompaction(garbage, minGarbage)
    advance({ phase: 'sweep', garbageBytes: garbageIn(garbage), packs: chosen.length })
    const left: Problem[] = []
    for (const { pack, garbageBytes, storedBytes } of dryRun ? [] : chosen) {
      await marking.catchUp()
      const keptBytes = storedBytes - garbageBytes
      // With room for half of it it is worth a try: there is the ballast, and what was moved need not be moved again.
      if (keptBytes > leastRoom && keptBytes / 2 > (await freeBytes())) {
        left.push(
          new Problem(
            'insufficient-storage',
            `there is no room on the disk to move ${keptBytes} bytes of pack ${pack}`,
          ),
        )
        continue
      }
      try {
        const { freedBytes, movedBytes, isDamaged } = await collection.compact(pack, pacing)
        advance({
          storedBytes: store.usage.storedBytes,
          freedBytes: progress.freedBytes + freedBytes - movedBytes,
          movedBytes: progress.movedBytes + movedBytes,
          garbageBytes: progress.garbageBytes - (isDamaged ? 0 : garbageBytes),
          packsDone: progress.packsDone + (isDamaged ? 0 : 1),
        })
        if (isDamaged)
          left.push(new Problem('store-corrupt', `pack ${pack} is damaged; "chunkdav check" tells more`))
      } catch (error) {
        // The others are not to wait for one that cannot be read.
        if (!isDiskError(error)) throw error
        left.push(
          new Problem('unavailable', `pack ${pack} could not be given back: ${(error as Error).message}`, {
            cause: error,
          }),
        )
      }
    }
    expectNoneLeft(left)
    const dueBytes = dryRun ? garbageIn(chosen) : 0
    return { ...reportOn(progress), dueBytes, dryRun }
  } finally {
    collection.end()
  }
}

/** Runs `work` when it is its turn, unless the signal is aborted first: who is told to stop must not wait for others. */
async function inTurn<T>(turn: Mutex, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const told = Promise.withResolvers<'stopped'>()
  const stop = (): void => told.resolve('stopped')
  signal.addEventListener('abort', stop, { once: true })
  const acquired = turn.acquire()
  const release = await Promise.race([acquired, told.promise])
  signal.removeEventListener('abort', stop)
  if (release === 'stopped') {
    void acquired.then((late) => late())
    throw new Problem('unavailable', 'the work was stopped')
  }
  try {
    return await work()
  } finally {
    release()
  }
}

/** An error of the system, about a file. Problems, those of the pacing among them, are not. */
function isDiskError(error: unknown): boolean {
  return !isProblem(error) && error instanceof Error && 'code' in error
}

/** What could not be given back is told when the rest is. */
function expectNoneLeft([first, ...others]: readonly Problem[]): void {
  if (first === undefined) return
  const more = others.length === 0 ? '' : `, and ${others.length} more are left as they are`
  throw new Problem(first.code, `${first.message}${more}`, { cause: first })
}

/** In the order in which they are to be compacted. */
export function chooseForCompaction(garbage: readonly Garbage[], minGarbage: number): Garbage[] {
  const withAny = garbage.filter(({ garbageBytes }) => garbageBytes > 0)
  const [oldest] = [...withAny].sort((a, b) => a.pack - b.pack)
  const share = ({ garbageBytes, storedBytes }: Garbage): number => garbageBytes / storedBytes
  return withAny
    .filter((each) => each === oldest || share(each) >= minGarbage)
    .sort((a, b) => share(b) - share(a) || a.pack - b.pack)
}

function garbageIn(garbage: readonly Garbage[]): number {
  return garbage.reduce((sum, { garbageBytes }) => sum + garbageBytes, 0)
}

function reportOn(progress: CollectionProgress): CollectionReport {
  const { phase: _, packs: __, packsDone, ...counts } = progress
  return { ...counts, packs: packsDone, dueBytes: 0, dryRun: false }
}

export interface CollectorOptions extends JobOptions {
  /** Of the time, how much it may work: above 0, up to 1. */
  readonly share?: number | undefined
  /** What may be written before the disk is full. */
  readonly freeBytes?: () => Promise<number>
  /** One collection at a time, of all vaults: each takes memory for what it knows. */
  readonly turn?: Mutex
  readonly minGarbage?: number | undefined
  /** On a full disk: gives up space that was held back; false when there is none left. */
  readonly makeRoom?: (() => Promise<boolean>) | undefined
}

/** The collections of one vault, one at a time: begun by a request, by the schedule, or after something was removed. */
export class Collector {
  readonly #vault: CollectedVault
  readonly #options: CollectorOptions
  readonly #job: Job<CollectionProgress, CollectionReport>
  /** Of what runs. */
  #isDryRun = false

  private constructor(
    vault: CollectedVault,
    options: CollectorOptions,
    job: Job<CollectionProgress, CollectionReport>,
  ) {
    this.#vault = vault
    this.#options = options
    this.#job = job
  }

  /** Nothing runs yet. */
  static async open(
    vaultPath: string,
    vault: CollectedVault,
    options: CollectorOptions = {},
  ): Promise<Collector> {
    const job = await Job.open(vaultPath, 'collection', begun, reportOn, options)
    return new Collector(vault, options, job)
  }

  get state(): CollectionState {
    return this.#job.state
  }

  /**
   * Begins, or joins one that runs; a dry run makes way for one that is none. Returns when it has begun; `ended` never
   * rejects: the state says how it ended.
   */
  async start({ dryRun = false, minGarbage }: Pick<CollectOptions, 'dryRun' | 'minGarbage'> = {}): Promise<{
    state: CollectionState
    ended: Promise<CollectionState>
  }> {
    if (this.#isDryRun && !dryRun) await this.#job.stop()
    const { makeRoom = async () => false, turn = new Mutex(), freeBytes } = this.#options
    const work = ({ signal, tell }: Run<CollectionProgress>): Promise<CollectionReport> =>
      inTurn(turn, signal, () =>
        withBallast(makeRoom, () =>
          collect(this.#vault, {
            minGarbage: minGarbage ?? this.#options.minGarbage ?? defaultMinGarbage,
            dryRun,
            pacing: new Pace({ share: this.#options.share ?? defaultShare, signal }),
            ...(freeBytes && { freeBytes }),
            tell,
          }),
        ),
      )
    const { begun, ended } = this.#job.start(work)
    if (begun) this.#isDryRun = dryRun
    return { state: this.state, ended }
  }

  /** Stops what runs; resolves when it has ended. What was given back by then is. */
  async stop(): Promise<void> {
    await this.#job.stop()
  }

  /** The same, for good. */
  async close(): Promise<void> {
    await this.#job.close()
  }
}
