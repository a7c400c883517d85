/**
 * Single requests, beside nginx's and Apache's DAV modules: PUT and GET of four sizes, PROPFIND of 1,000 members. Ours
 * as the live tree, as chunk resources, and as batches of chunks.
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { startBuiltReceiver } from '../built-receiver.ts'
import type { BenchOptions, Section, Table } from '../section.ts'
import { chunkContender, peerContender, startBare, treeContender } from './contenders.ts'
import { GeneratorProcess } from './generator-process.ts'
import {
  checkBatches,
  type MeasureOptions,
  measureGet,
  measurePropfind,
  measurePut,
  type Work,
} from './measure.ts'
import { startApache, startNginx } from './peers.ts'
import {
  barTable,
  durableTable,
  highestOwnLoad,
  promiseTable,
  rateChart,
  rateTable,
  ratioTable,
} from './tables.ts'

const KiB = 1024
const MiB = 1024 * KiB

const scopes = {
  full: {
    sizes: [4 * KiB, 64 * KiB, MiB, 4 * MiB],
    inFlight: [1, 8],
    pace: { rounds: 5, ms: 700, sentBytes: 160 * MiB, maxBodies: 10_000 },
  },
  quick: {
    sizes: [4 * KiB, MiB],
    inFlight: [8],
    pace: { rounds: 3, ms: 150, sentBytes: 48 * MiB, maxBodies: 3000 },
  },
} as const

export async function run({ quick, work, log }: BenchOptions): Promise<Section> {
  const { sizes, inFlight, pace } = scopes[quick ? 'quick' : 'full']
  const base = await mkdtemp(join(work, 'requests-'))
  try {
    // Both peers serve as nobody when they are run as root.
    await chmod(base, 0o755)
    await using nginx = await startNginx(join(base, 'nginx'))
    await using apache = await startApache(join(base, 'apache'))
    await using receiver = await startBuiltReceiver(join(base, 'chunkdav'))
    await using bare = await startBare()
    await using generator = GeneratorProcess.start()
    const chunks = await chunkContender(receiver)
    await checkBatches(chunks)
    const peers = [peerContender(nginx), peerContender(apache)]
    const contenders = [...peers, await treeContender(receiver), chunks, bare]
    const options: MeasureOptions = { generator, contenders, log, ...pace }
    const works: Work[] = []
    for (const bytes of sizes) for (const n of inFlight) works.push(await measurePut(bytes, n, options))
    for (const bytes of sizes) works.push(...(await measureGet(bytes, inFlight, options)))
    works.push(...(await measurePropfind(inFlight, options)))
    const versions = [nginx.version, apache.version, `Node ${process.version}`]
    return {
      title: 'Single requests',
      notes: notesOf(works, versions, pace),
      tables: tablesOf(works),
      charts: [rateChart(works)],
    }
  } finally {
    await rm(base, { recursive: true, force: true })
  }
}

function tablesOf(works: readonly Work[]): Table[] {
  return [barTable(works), ratioTable(works), rateTable(works), durableTable(works), promiseTable]
}

function notesOf(
  works: readonly Work[],
  versions: readonly string[],
  { rounds, ms }: { rounds: number; ms: number },
): string[] {
  const { who, load, work } = highestOwnLoad(works)
  return [
    `${versions.join(', ')}. Medians of ${rounds} rounds of at most ${ms / 1000} s each, behind one that does not count; ratios are of rates in the same round, ours to theirs, with the least and the greatest: here more than 1 is better. Everybody in turns, with the same random bytes, each its own new files; all with their default configuration. A batch is 1,536 chunks of 4 KiB in blocks of 1 MiB, and counts as that many.`,
    `The load comes from one process: raw sockets, one request under way on each. Beside the others it meets a bare node:http server that forgets what it gets and says 201: about what any server in Node can reach, with this load. Where it was busiest it used ${Math.round(100 * load)} % of one core (${work}, ${who}); at 100 % it is the limit, and the server may be faster than it looks.`,
  ]
}
