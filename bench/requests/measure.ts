/**
 * The rounds: each work is done by everybody in turns, with the same bytes, nobody always first. What was written is
 * brought to the disk behind each measurement, so that nobody pays for somebody else's.
 */
import type { Id } from '../../protocol/id.ts'
import { run } from '../../test/clients/run-program.ts'
import { batchChunks, makeBatches } from './bodies.ts'
import type { Contender, ContenderName } from './contenders.ts'
import type { GeneratorProcess } from './generator-process.ts'
import type { Driven } from './load-generator.ts'

export interface Reading {
  /** Requests a second; of batches, chunks a second. */
  readonly rate: number
  /** The same, until what was written is on the disk. */
  readonly durableRate?: number
  /** See `Driven`. */
  readonly ownLoad: number
}

/** Batches stand beside those who put the same chunks one by one. */
export type Who = ContenderName | 'batches'

export interface Work {
  readonly kind: 'PUT' | 'GET' | 'PROPFIND'
  /** Of the body or the content. */
  readonly bytes: number
  readonly inFlight: number
  /** In the order of the rounds. */
  readonly readings: ReadonlyMap<Who, readonly Reading[]>
}

export interface MeasureOptions {
  readonly generator: GeneratorProcess
  readonly contenders: readonly Contender[]
  readonly rounds: number
  /** How long one measurement takes at most. */
  readonly ms: number
  /** No more than this is sent in one measurement: it is in memory before. */
  readonly sentBytes: number
  readonly maxBodies: number
  readonly log: (line: string) => void
}

const KiB = 1024
const MiB = 1024 * KiB
/** Three waves of eight: a request that carries 1,536 chunks takes its time. */
const measuredBatches = 24
/** The first round does not count: a server that has run for days is warm. */
const warmUp = -1
export const listedMembers = 1000
/** What rclone and file managers ask for. */
const propfindBody = `<?xml version="1.0" encoding="utf-8"?>
<D:propfind xmlns:D="DAV:"><D:prop><D:displayname/><D:getlastmodified/><D:getcontentlength/><D:resourcetype/>
</D:prop></D:propfind>`
const propfindHeaders = ['Depth: 1', 'Content-Type: application/xml']

export async function measurePut(bytes: number, inFlight: number, options: MeasureOptions): Promise<Work> {
  const { generator, contenders, rounds, ms } = options
  const readings = emptyReadings()
  const count = Math.min(options.maxBodies, Math.ceil(options.sentBytes / bytes))
  for (let round = warmUp; round < rounds; round++) {
    const seed = `put ${bytes} ${inFlight} ${round}`
    const { ids } = await generator.prepare({ seed, count, bytes })
    for (const contender of inTurn(contenders, round)) {
      const collection = await contender.makeCollection()
      const paths = Array.from({ length: count }, (_, i) => contender.pathOf(collection, i, bytes, ids[i]))
      const task = { port: contender.port, connections: inFlight, method: 'PUT', paths, status: 201, ms }
      const driven = await generator.drive({ ...task, headers: [], body: 'prepared', repeats: false })
      note(readings, round, contender.name, await brought(contender, driven, 1))
      await contender.removeCollection(collection)
    }
    if (bytes === 4 * KiB) await measureBatches(round, inFlight, readings, options)
  }
  return told({ kind: 'PUT', bytes, inFlight, readings }, options)
}

/** The same chunks as PUT has, many in a request. */
async function measureBatches(
  round: number,
  inFlight: number,
  readings: Map<Who, Reading[]>,
  { generator, contenders, ms }: MeasureOptions,
): Promise<void> {
  const chunks = contenders.find(({ name }) => name === 'chunks') as Contender
  await generator.prepare({ seed: `batches ${inFlight} ${round}`, count: measuredBatches, bytes: 'batch' })
  const path = await chunks.makeCollection()
  const driven = await generator.drive({
    port: chunks.port,
    connections: inFlight,
    method: 'POST',
    paths: Array.from({ length: measuredBatches }, () => path),
    headers: ['Content-Type: application/vnd.chunkdav.batch'],
    body: 'prepared',
    status: 200,
    ms: 3 * ms,
    repeats: false,
  })
  note(readings, round, 'batches', await brought(chunks, driven, batchChunks))
  await chunks.removeCollection(path)
}

/** A batch is answered 200 also where chunks are refused: that ours are not is looked at once. */
export async function checkBatches(chunks: Contender): Promise<void> {
  const [body] = await makeBatches('checked', 1)
  const path = await chunks.makeCollection()
  const answer = await fetch(`http://127.0.0.1:${chunks.port}${path}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/vnd.chunkdav.batch' },
    body: new Uint8Array(body as Buffer),
  })
  const stored = (await answer.text()).split('"stored"').length - 1
  if (stored !== batchChunks) throw new Error(`a batch stored ${stored} of ${batchChunks} chunks`)
}

async function brought({ folder }: Contender, driven: Driven, factor: number): Promise<Reading> {
  const { requests, ms, ownLoad } = driven
  const done = requests * factor * 1000
  if (folder === undefined) return { rate: done / ms, ownLoad }
  const started = performance.now()
  await run('sync', ['-f', folder])
  return { rate: done / ms, durableRate: done / (ms + performance.now() - started), ownLoad }
}

/** All numbers of requests in flight at once, since the files are there then. */
export async function measureGet(
  bytes: number,
  inFlight: readonly number[],
  options: MeasureOptions,
): Promise<Work[]> {
  const { generator, contenders } = options
  const count = Math.min(256, Math.ceil((64 * MiB) / bytes))
  const { ids } = await generator.prepare({ seed: `get ${bytes}`, count, bytes })
  const filled: Filled[] = []
  for (const contender of contenders) filled.push(await fill(contender, count, bytes, ids, generator))
  const works: Work[] = []
  for (const connections of inFlight) {
    const readings = await inRounds(options, async (contender) => {
      const { paths } = filled.find((it) => it.contender === contender) as Filled
      const task = { port: contender.port, connections, method: 'GET', paths, status: 200, ms: options.ms }
      const driven = await generator.drive({ ...task, headers: [], body: 'none', repeats: true })
      if (driven.bytesReceived !== driven.requests * bytes)
        throw new Error(`${contender.name} sent other bytes`)
      return driven
    })
    works.push(told({ kind: 'GET', bytes, inFlight: connections, readings }, options))
  }
  for (const { contender, collection } of filled) await contender.removeCollection(collection)
  return works
}

export async function measurePropfind(inFlight: readonly number[], options: MeasureOptions): Promise<Work[]> {
  const { generator } = options
  const contenders = options.contenders.filter(({ name }) => name !== 'chunks' && name !== 'bare')
  const bytes = 100
  const { ids } = await generator.prepare({ seed: 'propfind', count: listedMembers, bytes })
  const filled: Filled[] = []
  for (const contender of contenders) {
    const it = await fill(contender, listedMembers, bytes, ids, generator)
    await checkListing(contender, it.collection)
    filled.push(it)
  }
  const works: Work[] = []
  for (const connections of inFlight) {
    const readings = await inRounds({ ...options, contenders }, (contender) => {
      const { collection } = filled.find((it) => it.contender === contender) as Filled
      const task = { port: contender.port, connections, method: 'PROPFIND', paths: [collection], status: 207 }
      const asked = { headers: propfindHeaders, body: { text: propfindBody }, ms: options.ms, repeats: true }
      return generator.drive({ ...task, ...asked })
    })
    works.push(told({ kind: 'PROPFIND', bytes, inFlight: connections, readings }, options))
  }
  for (const { contender, collection } of filled) await contender.removeCollection(collection)
  return works
}

async function checkListing({ name, port }: Contender, collection: string): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${port}${collection}`, {
    method: 'PROPFIND',
    headers: { Depth: '1', 'Content-Type': 'application/xml' },
    body: propfindBody,
  })
  const listed = (await answer.text()).split(/<\w+:response[ >]/).length - 1
  if (listed !== listedMembers + 1) throw new Error(`${name} lists ${listed} members`)
}

/** A collection whose files are there. */
interface Filled {
  readonly contender: Contender
  readonly collection: string
  readonly paths: readonly string[]
}

async function fill(
  contender: Contender,
  count: number,
  bytes: number,
  ids: readonly Id[],
  generator: GeneratorProcess,
): Promise<Filled> {
  const collection = await contender.makeCollection()
  const paths = Array.from({ length: count }, (_, i) => contender.pathOf(collection, i, bytes, ids[i]))
  const task = { port: contender.port, connections: 8, method: 'PUT', paths, status: 201, ms: 60_000 }
  const { requests } = await generator.drive({ ...task, headers: [], body: 'prepared', repeats: false })
  if (requests !== count) throw new Error(`${contender.name} took ${requests} of ${count} files in a minute`)
  if (contender.folder !== undefined) await run('sync', ['-f', contender.folder])
  return { contender, collection, paths }
}

async function inRounds(
  { contenders, rounds }: MeasureOptions,
  measure: (contender: Contender) => Promise<Driven>,
): Promise<Map<Who, Reading[]>> {
  const readings = emptyReadings()
  for (let round = warmUp; round < rounds; round++) {
    for (const contender of inTurn(contenders, round)) {
      const { requests, ms, ownLoad } = await measure(contender)
      note(readings, round, contender.name, { rate: (requests * 1000) / ms, ownLoad })
    }
  }
  return readings
}

function inTurn<T>(all: readonly T[], round: number): T[] {
  const first = (round - warmUp) % all.length
  return [...all.slice(first), ...all.slice(0, first)]
}

function emptyReadings(): Map<Who, Reading[]> {
  return new Map()
}

function note(readings: Map<Who, Reading[]>, round: number, who: Who, reading: Reading): void {
  if (round === warmUp) return
  readings.set(who, [...(readings.get(who) ?? []), reading])
}

function told(work: Work, { log }: MeasureOptions): Work {
  const rates = [...work.readings].map(([who, all]) => `${who} ${Math.round(all.at(-1)?.rate ?? 0)}`)
  log(`${work.kind} ${work.bytes} B, ${work.inFlight} in flight: ${rates.join(', ')} a second`)
  return work
}
