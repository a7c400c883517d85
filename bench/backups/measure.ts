/**
 * The rounds. In each one every tool does the same work once, with a fresh repository and a fresh home, one after
 * the other, on servers that run on; who begins moves on from round to round. The source is read once before a tool's turn, so that all of
 * it is cached, and `sync` runs before every timing, so that nobody writes for somebody else. Before the timed rounds
 * there is one that is not timed: what goes over the wire is counted, and the restored tree compared with its source.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { BenchOptions } from '../section.ts'
import { changeFiles, putBack } from './change-files.ts'
import { differences } from './compare-trees.ts'
import { asideOf, type Corpus, type CorpusName, fullSizes, prepareCorpora, quickSizes } from './corpora.ts'
import { showVersion } from './disk-image.ts'
import type { Peer, Repository } from './peer.ts'
import { borg } from './peers/borg.ts'
import { casync } from './peers/casync.ts'
import { chunkdav } from './peers/chunkdav.ts'
import { rclone } from './peers/rclone.ts'
import { restic } from './peers/restic.ts'
import type { Sample, Samples, Step, Traffic } from './samples.ts'
import { Servers } from './served-repository.ts'
import { outputOf, runTimed } from './timed-program.ts'

interface Plan {
  readonly corpus: CorpusName
  readonly peers: readonly Peer[]
  readonly steps: readonly Step[]
  /** Fewer where no bar is set: all of it is to be through in half an hour. */
  readonly rounds: 3 | 5
}

const withHistory = [chunkdav, restic, borg, casync]
const all = [...withHistory, rclone]

// rclone waits 10 ms between any two requests to a WebDAV server: 20,000 files would take it a quarter of an hour.
const plans: readonly Plan[] = [
  { corpus: 'tree', peers: withHistory, steps: ['first', 'again', 'changed', 'restore'], rounds: 5 },
  { corpus: 'few', peers: [chunkdav, rclone], steps: ['first', 'again', 'changed', 'restore'], rounds: 3 },
  { corpus: 'random', peers: all, steps: ['first'], rounds: 5 },
  { corpus: 'source', peers: withHistory, steps: ['first', 'again'], rounds: 3 },
  { corpus: 'image', peers: all, steps: ['first', 'changed'], rounds: 3 },
]

/** It is slow, and no bar is set by it: five rounds of it would be ten minutes. */
const casyncRounds = 2

export async function measure(options: BenchOptions): Promise<Samples> {
  await checkPrograms()
  const folder = join(options.work, options.quick ? 'corpora-quick' : 'corpora')
  const corpora = await prepareCorpora(folder, options.quick ? quickSizes : fullSizes, options.log)
  const found: Found = { samples: [], traffic: [], compared: [] }
  const chosen = plans.filter(
    ({ corpus }) => options.corpora.length === 0 || options.corpora.includes(corpus),
  )
  if (chosen.length === 0) throw new Error(`there is no corpus ${options.corpora.join(', ')}`)
  for (const plan of chosen) {
    const corpus = corpora.get(plan.corpus)
    if (corpus === undefined) throw new TypeError(`no corpus is called ${plan.corpus}`)
    const folder = await mkdtemp(join(options.work, 'backups-'))
    try {
      await using servers = new Servers(folder)
      await measurePlan({ plan, corpus, options, servers, folder }, found)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
  const tools = await Promise.all(
    all.map(async (peer) => ({ name: peer.name, version: await peer.version(), usage: peer.usage })),
  )
  return {
    rounds: roundsOf(options),
    corpora: Object.fromEntries(
      [...corpora].filter(([name]) => chosen.some(({ corpus }) => corpus === name)),
    ),
    tools,
    ...found,
  }
}

interface Found {
  readonly samples: Sample[]
  readonly traffic: Traffic[]
  /** Tools whose restored tree was compared with its source. */
  readonly compared: string[]
}

interface PlanOptions {
  readonly plan: Plan
  readonly corpus: Corpus
  readonly options: BenchOptions
  readonly servers: Servers
  /**
   * Removed with all that the tools have written when the plan is through: ext4 gives out no inode for seconds after it was
   * freed, and looks at each of them in vain for every file that is made meanwhile.
   */
  readonly folder: string
}

function roundsOf({ quick }: BenchOptions): number {
  return quick ? 2 : 5
}

async function measurePlan(about: PlanOptions, { samples, traffic, compared }: Found): Promise<void> {
  const { plan, options } = about
  for (const peer of plan.peers) {
    const hasTree = plan.steps.includes('restore')
    const isServed = peer !== borg && peer !== casync
    // Whoever has no wire has nothing to count, and is looked at only where there is something to compare.
    if (!hasTree && !isServed) continue
    const turn = new Turn({ ...about, peer, round: 0 })
    await turn.take()
    traffic.push(...turn.traffic)
    if (hasTree && !compared.includes(peer.name)) compared.push(peer.name)
  }
  const rounds = Math.min(plan.rounds, options.quick && plan.corpus !== 'tree' ? 1 : roundsOf(options))
  for (let round = 1; round <= rounds; round++) {
    const first = (round - 1) % plan.peers.length
    for (const peer of [...plan.peers.slice(first), ...plan.peers.slice(0, first)]) {
      if (peer === casync && round > casyncRounds) continue
      const turn = new Turn({ ...about, peer, round })
      await turn.take()
      samples.push(...turn.samples)
      const times = turn.samples.map(({ step, seconds }) => `${step} ${seconds.toFixed(2)} s`).join(', ')
      options.log(`${plan.corpus}, round ${round} of ${rounds}, ${peer.name}: ${times}`)
    }
  }
}

interface TurnOptions extends PlanOptions {
  readonly peer: Peer
  /** 0 is the round that is counted and compared, but not timed. */
  readonly round: number
}

/** What one tool does in one round. */
class Turn {
  readonly samples: Sample[] = []
  readonly traffic: Traffic[] = []
  readonly #about: TurnOptions
  #scratch = ''

  constructor(about: TurnOptions) {
    this.#about = about
  }

  async take(): Promise<void> {
    const { peer, plan, corpus, folder, servers, round } = this.#about
    this.#scratch = join(folder, `${peer.name}-${round}`)
    await mkdir(join(this.#scratch, 'home'), { recursive: true })
    await warm(corpus.path)
    try {
      await using repository = await peer.open({
        scratch: this.#scratch,
        round,
        servers,
        isCounted: round === 0,
      })
      for (const step of plan.steps) await this.#step(repository, step)
    } finally {
      putBack(corpus.path, asideOf(corpus.path))
      if (corpus.name === 'image') showVersion(dirname(corpus.path), 1)
    }
  }

  async #step(repository: Repository, step: Step): Promise<void> {
    const { peer, plan, corpus, round } = this.#about
    if (step === 'changed') await this.#change()
    const restore = step === 'restore' ? repository.restore(corpus.path) : undefined
    await outputOf(['sync'])
    await repository.served?.beginStep()
    const command = restore?.command ?? repository.backup(corpus.path)
    const { seconds, cpuSeconds, peakBytes } = await runTimed(command, this.#scratch)
    const server = await repository.served?.endStep()
    const relay = repository.served?.relay
    const about = { corpus: plan.corpus, step, tool: peer.name }
    if (relay !== undefined) {
      this.traffic.push({ ...about, sentBytes: relay.sentBytes, receivedBytes: relay.receivedBytes })
    }
    if (round > 0) {
      this.samples.push({
        ...about,
        round,
        seconds,
        clientCpuSeconds: cpuSeconds,
        clientPeakBytes: peakBytes,
        ...(server && { server }),
        ...(restore === undefined && { storedBytes: await repository.storedBytes() }),
      })
    } else if (restore !== undefined) {
      const found = differences(corpus.path, restore.tree, peer.keeps)
      if (found.length > 0) throw new Error(`${peer.name} restored something else: ${found.join('; ')}`)
    }
  }

  async #change(): Promise<void> {
    const { corpus, round } = this.#about
    if (corpus.name === 'image') showVersion(dirname(corpus.path), 2)
    else changeFiles(corpus.path, asideOf(corpus.path), 1000 + round)
    await warm(corpus.path)
  }
}

/** Reads everything once. */
async function warm(path: string): Promise<void> {
  await outputOf(['sh', '-c', 'find "$0" -type f -exec cat {} + > /dev/null', path])
}

/** Says in one line what is missing, and how to get it. */
async function checkPrograms(): Promise<void> {
  const wanted = Object.assign({ '/usr/bin/time': 'time' }, ...all.map(({ programs }) => programs))
  const absent: string[] = []
  for (const [program, debianPackage] of Object.entries<string>(wanted)) {
    const isThere = await outputOf(['sh', '-c', 'command -v "$0"', program]).then(
      () => true,
      () => false,
    )
    if (!isThere) absent.push(debianPackage)
  }
  if (absent.length > 0) {
    throw new Error(`the benchmarks need programs that are not there: apt-get install ${absent.join(' ')}`)
  }
}
