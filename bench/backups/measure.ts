/**
 * The rounds. In each one every tool does the same work once, with a fresh repository and a fresh home, one after the
 * other, on servers that run on; who begins moves on from round to round. Before every timing the source and what the
 * tool keeps are read once, so that all of it is cached, `sync` runs, so that nobody writes for somebody else, and memory
 * is filled and given back, so that it is there for everybody. Before the timed rounds there is one that is not timed: what
 * goes over the wire is counted, and the restored tree compared with its source.
 */
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { commitNow } from '../machine.ts'
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
import { storedBytes } from './stored-bytes.ts'
import { outputOf, runTimed } from './timed-program.ts'

interface Plan {
  readonly corpus: CorpusName
  readonly peers: readonly Peer[]
  readonly steps: readonly Step[]
  /** How long it takes on two processors that nobody else uses (measured). */
  readonly seconds: { readonly full: number; readonly quick: number }
}

const withHistory = [chunkdav, restic, borg, casync]
const all = [...withHistory, rclone]

const everything: readonly Step[] = ['first', 'again', 'changed', 'restore']

// rclone waits 10 ms between any two requests to a WebDAV server: 20,000 files would take it a quarter of an hour.
const plans: readonly Plan[] = [
  { corpus: 'tree', peers: withHistory, steps: everything, seconds: { full: 480, quick: 25 } },
  { corpus: 'few', peers: [chunkdav, rclone], steps: everything, seconds: { full: 90, quick: 10 } },
  { corpus: 'random', peers: all, steps: ['first'], seconds: { full: 180, quick: 5 } },
  { corpus: 'source', peers: withHistory, steps: ['first', 'again'], seconds: { full: 540, quick: 6 } },
  { corpus: 'image', peers: all, steps: ['first', 'changed'], seconds: { full: 420, quick: 9 } },
]

/** A tool that takes longer than that for its turn is done with after `roundsOfSlow`. */
const slowSeconds = 60
const roundsOfSlow = 3

export function expectedSeconds({ quick, corpora }: Pick<BenchOptions, 'quick' | 'corpora'>): number {
  return chosenPlans(corpora).reduce((sum, { seconds }) => sum + seconds[quick ? 'quick' : 'full'], 0)
}

function chosenPlans(names: readonly string[]): readonly Plan[] {
  const unknown = names.find((name) => plans.every(({ corpus }) => corpus !== name))
  if (unknown !== undefined) throw new Error(`there is no corpus ${unknown}`)
  return names.length === 0 ? plans : plans.filter(({ corpus }) => names.includes(corpus))
}

/** Of `before` those corpora stay that are not measured again; `save` gets all that is known whenever one is through. */
export async function measure(
  options: BenchOptions,
  before: Samples | undefined,
  save: (all: Samples) => void,
): Promise<Samples> {
  const chosen = chosenPlans(options.corpora)
  await checkPrograms()
  const folder = join(options.work, options.quick ? 'corpora-quick' : 'corpora')
  const corpora = await prepareCorpora(folder, options.quick ? quickSizes : fullSizes, options.log)
  const tools = await Promise.all(
    all.map(async (peer) => ({ name: peer.name, version: await peer.version(), usage: peer.usage })),
  )
  let known: Samples = { corpora: {}, samples: [], traffic: [], compared: [], ...before, tools }
  for (const plan of chosen) {
    const corpus = corpora.get(plan.corpus)
    if (corpus === undefined) throw new TypeError(`no corpus is called ${plan.corpus}`)
    const found: Found = { samples: [], traffic: [], compared: [] }
    const folder = await mkdtemp(join(options.work, 'backups-'))
    try {
      await using servers = new Servers(folder)
      await measurePlan({ plan, corpus, options, servers, folder }, found)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
    known = withCorpus(known, corpus, found)
    save(known)
  }
  return known
}

/** What was known, with one corpus measured anew. */
function withCorpus(known: Samples, { name, files, bytes }: Corpus, found: Found): Samples {
  const isOther = ({ corpus }: { corpus: CorpusName }): boolean => corpus !== name
  const measured = { files, bytes, at: new Date().toISOString(), commit: commitNow() }
  return {
    tools: known.tools,
    corpora: { ...known.corpora, [name]: measured },
    samples: [...known.samples.filter(isOther), ...found.samples],
    traffic: [...known.traffic.filter(isOther), ...found.traffic],
    compared: [...new Set([...known.compared, ...found.compared])],
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
  const rounds = options.quick ? 1 : 5
  const slow = new Set<Peer>()
  for (let round = 1; round <= rounds; round++) {
    const first = (round - 1) % plan.peers.length
    for (const peer of [...plan.peers.slice(first), ...plan.peers.slice(0, first)]) {
      if (slow.has(peer) && round > roundsOfSlow) continue
      const turn = new Turn({ ...about, peer, round })
      await turn.take()
      samples.push(...turn.samples)
      if (turn.samples.reduce((sum, { seconds }) => sum + seconds, 0) > slowSeconds) slow.add(peer)
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
    if (step === 'changed') this.#change()
    const restore = step === 'restore' ? repository.restore(corpus.path) : undefined
    await warm([corpus.path, ...repository.kept()])
    await outputOf(['sync'])
    await takeMemory(this.#scratch)
    await repository.served?.beginStep()
    const command = restore?.command ?? repository.backup(corpus.path)
    const { seconds, cpuSeconds, peakBytes } = await runTimed(command, this.#scratch)
    const server = repository.served?.endStep()
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
        ...(restore === undefined && { storedBytes: storedBytes(repository.kept()) }),
      })
    } else if (restore !== undefined) {
      const found = differences(corpus.path, restore.tree, peer.keeps)
      if (found.length > 0) throw new Error(`${peer.name} restored something else: ${found.join('; ')}`)
    }
  }

  #change(): void {
    const { corpus, round } = this.#about
    if (corpus.name === 'image') showVersion(dirname(corpus.path), 2)
    else changeFiles(corpus.path, asideOf(corpus.path), 1000 + round)
  }
}

/** Reads everything once that is there. A server may remove a file while it is read. */
async function warm(paths: readonly string[]): Promise<void> {
  const there = paths.filter((path) => existsSync(path))
  await outputOf(['sh', '-c', 'find "$@" -type f -exec cat {} + > /dev/null 2>&1; true', 'sh', ...there])
}

/** As much as a step fills at most: the restored tree and what it is read from, or the image. */
const memoryBytes = 2 * 1024 ** 3

/**
 * Fills memory and gives it back. A host that takes from a virtual machine what is free for some seconds has to give it
 * again to whoever touches it first: 1.8 to 2.6 s instead of 0.2 s for a GiB that is written (measured), whichever tool it
 * is. With a file, since memory of a process comes back in pieces that the page cache does not always get.
 */
async function takeMemory(scratch: string): Promise<void> {
  const script = `head -c ${memoryBytes} /dev/zero > "$0"; rm "$0"`
  await outputOf(['sh', '-c', script, join(scratch, 'memory')])
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
