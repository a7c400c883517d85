/**
 * What the receiver tells Prometheus. Labels are bounded: routes are the patterns of the router, methods those that are
 * known here, vaults those that there are, sources at most a thousand of each vault. A scrape opens no vault: of those
 * that are closed it tells what their folders tell (vault-folder.ts).
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import type { Middleware } from 'koa'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Audit } from '../audit.ts'
import type { Connections } from '../http/connections.ts'
import type { RequestState } from '../http/context.ts'
import type { MemoryBudget } from '../http/memory-budget.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import type { Vault, Vaults } from '../vaults.ts'
import { countedStore, noCounts, type StoreCounts } from './counted-store.ts'
import { EventLoopDelay } from './event-loop.ts'
import { type JobFigures, type VaultFigures, VaultFolder } from './vault-folder.ts'

export const metricsMediaType = 'text/plain; version=0.0.4; charset=utf-8'

const knownMethods: ReadonlySet<string> = new Set(
  'GET HEAD OPTIONS PUT POST PATCH DELETE PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK REPORT'.split(' '),
)
/** In seconds: from what memory answers to what a slow line uploads. */
const durationBuckets = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300]
/** A client may name a source as it likes, as often as it likes. */
const maxSources = 1000
const msPerSecond = 1000
const maxListeners = 20

export interface MetricsOptions {
  readonly version: string
}

/** What a scrape looks at. */
export interface Watched {
  readonly vaults: Vaults
  readonly budgets: Readonly<Record<string, MemoryBudget>>
  readonly audit: Audit | undefined
}

export class Metrics {
  readonly delay = new EventLoopDelay()
  #diskFaults = 0
  #lastFaultAt = Number.NEGATIVE_INFINITY
  readonly #counts = new Map<string, StoreCounts>()
  readonly #folders = new Map<string, VaultFolder>()
  readonly #registry = new Registry()
  readonly #requests: Counter<'method' | 'route' | 'status'>
  readonly #durations: Histogram<'method' | 'route'>
  readonly #received: Counter<'route'>
  readonly #sent: Counter<'route'>
  readonly #notHttp: Counter
  readonly #figures: Figures
  #inFlight = 0
  #usageOfConnections: Pick<Connections, 'usage'> | undefined
  #connections = 0
  /** What of a connection's bytes is counted. */
  readonly #counted = new WeakMap<Socket, { read: number; written: number }>()
  #scraping: Promise<string> | undefined

  /** Measures the event loop until `close`. */
  constructor({ version }: MetricsOptions) {
    const registers = [this.#registry]
    this.#requests = new Counter({
      name: 'chunkdav_http_requests_total',
      help: 'Requests that are over. status is "cut" where the connection ended before the answer had left',
      labelNames: ['method', 'route', 'status'],
      registers,
    })
    this.#durations = new Histogram({
      name: 'chunkdav_http_request_duration_seconds',
      help: 'From the head of a request to the end of its answer',
      labelNames: ['method', 'route'],
      buckets: durationBuckets,
      registers,
    })
    this.#received = new Counter({
      name: 'chunkdav_http_received_bytes_total',
      help: 'Bytes that came in, heads included',
      labelNames: ['route'],
      registers,
    })
    this.#sent = new Counter({
      name: 'chunkdav_http_sent_bytes_total',
      help: 'Bytes that went out, heads included',
      labelNames: ['route'],
      registers,
    })
    this.#notHttp = new Counter({
      name: 'chunkdav_http_malformed_total',
      help: 'What came in and was no HTTP/1.1, or ended in the middle of a head',
      registers,
    })
    this.#figures = new Figures(this.#registry)
    this.#figures.set('chunkdav_info', { version }, 1)
  }

  // -- requests ---------------------------------------------------------------------------------------

  /** To be called with every server that serves the receiver, before it listens. */
  watchServer(server: Server): void {
    server.on('connection', (socket: Socket) => {
      this.#connections++
      socket.once('close', () => this.#connections--)
    })
    server.on('clientError', () => this.#notHttp.inc())
  }

  /** To be told once who counts what became of connections. */
  watchConnections(connections: Pick<Connections, 'usage'>): void {
    this.#usageOfConnections = connections
  }

  /** Counts requests; to be the outermost. */
  middleware(): Middleware<RequestState> {
    return async (ctx, next) => {
      const started = performance.now()
      this.#inFlight++
      // Koa, a pipeline and we ourselves each listen for the end of an answer: more than the ten that Node takes for a leak.
      ctx.res.setMaxListeners(maxListeners)
      ctx.res.once('close', () => {
        this.#inFlight--
        const seconds = (performance.now() - started) / msPerSecond
        this.#over(ctx.req, ctx.res, ctx.state.route ?? 'none', seconds)
      })
      await next()
    }
  }

  #over(request: IncomingMessage, response: ServerResponse, route: string, seconds: number): void {
    const given = request.method ?? ''
    const method = knownMethods.has(given) ? given : 'other'
    const status = response.writableFinished ? String(response.statusCode) : 'cut'
    this.#requests.inc({ method, route, status })
    this.#durations.observe({ method, route }, seconds)
    const { socket } = request
    const before = this.#counted.get(socket) ?? { read: 0, written: 0 }
    const now = { read: socket.bytesRead ?? 0, written: socket.bytesWritten ?? 0 }
    this.#counted.set(socket, now)
    this.#received.inc({ route }, Math.max(0, now.read - before.read))
    this.#sent.inc({ route }, Math.max(0, now.written - before.written))
  }

  // -- faults -----------------------------------------------------------------------------------------

  /** To be told of failures of the disk, and of work in the background. */
  noteFault(): void {
    this.#diskFaults++
    this.#lastFaultAt = performance.now()
  }

  /** Since the start; `sinceLastMs` is infinite where there were none. */
  get faults(): { count: number; sinceLastMs: number } {
    return { count: this.#diskFaults, sinceLastMs: performance.now() - this.#lastFaultAt }
  }

  // -- vaults -----------------------------------------------------------------------------------------

  /** The store of a vault, which counts from now on. */
  counted<S extends ChunkStore>(vault: string, store: S): S {
    return countedStore(store, this.#countsOf(vault))
  }

  /** Notes what a client need not send, because it is here; plain bytes. */
  spared(vault: Vault, sizes: readonly (number | undefined)[]): void {
    const counts = this.#countsOf(vault.name)
    for (const size of sizes) {
      if (size === undefined) continue
      counts.sparedChunks++
      counts.sparedBytes += size
    }
  }

  /** When a store was last made durable, in ms. */
  get lastSyncAt(): number | undefined {
    let last: number | undefined
    for (const { syncedAt } of this.#counts.values()) {
      if (syncedAt !== undefined && syncedAt > (last ?? 0)) last = syncedAt
    }
    return last
  }

  #countsOf(vault: string): StoreCounts {
    let counts = this.#counts.get(vault)
    if (counts === undefined) {
      counts = noCounts()
      this.#counts.set(vault, counts)
    }
    return counts
  }

  // -- telling ----------------------------------------------------------------------------------------

  /** The text of all metrics. Whoever asks while another is answered gets the same answer. */
  scrape(watched: Watched): Promise<string> {
    this.#scraping ??= this.#scrape(watched).finally(() => {
      this.#scraping = undefined
    })
    return this.#scraping
  }

  async #scrape({ vaults, budgets, audit }: Watched): Promise<string> {
    const figures = this.#figures
    figures.begin()
    figures.set('chunkdav_http_requests_in_flight', {}, this.#inFlight)
    figures.set('chunkdav_http_connections', {}, this.#connections)
    const { refused = 0, displaced = 0, stalled = 0, clients = 0 } = this.#usageOfConnections?.usage ?? {}
    figures.set('chunkdav_http_clients', {}, clients)
    for (const [why, count] of Object.entries({ refused, displaced, stalled })) {
      figures.set('chunkdav_http_connections_ended_total', { why }, count)
    }
    figures.set('chunkdav_disk_faults_total', {}, this.#diskFaults)
    for (const [event, count] of audit?.counts ?? [])
      figures.set('chunkdav_audit_events_total', { event }, count)
    figures.set('chunkdav_login_failures_total', {}, audit?.counts.get('login-failed') ?? 0)
    for (const [budget, { totalBytes, usage }] of Object.entries(budgets)) {
      figures.set('chunkdav_memory_budget_bytes', { budget }, totalBytes)
      figures.set('chunkdav_memory_budget_held_bytes', { budget }, usage.heldBytes)
      figures.set('chunkdav_memory_budget_waiting', { budget }, usage.waiting)
      figures.set('chunkdav_memory_budget_refused_total', { budget }, usage.refused)
    }
    figures.set('chunkdav_event_loop_delay_p99_seconds', {}, this.delay.p99 / msPerSecond)
    await this.#lookAtVaults(vaults)
    // The library writes "Nan", which is none of the three spellings that the format has for what is no number.
    const ofProcess = (await processMetrics().metrics()).replace(/ Nan$/gm, ' NaN')
    return ofProcess + (await this.#registry.metrics())
  }

  close(): void {
    this.delay.close()
  }

  async #lookAtVaults(vaults: Vaults): Promise<void> {
    const names = await vaults.list()
    const open = new Map(vaults.openNow().map((vault) => [vault.name, vault]))
    this.#figures.set('chunkdav_vaults', {}, names.length)
    this.#figures.set('chunkdav_vaults_open', {}, open.size)
    this.#figures.set('chunkdav_vaults_unopened', {}, vaults.unopened.size)
    for (const known of this.#folders.keys()) if (!names.includes(known)) this.#folders.delete(known)
    for (const name of names) {
      const folder = this.#folders.get(name) ?? new VaultFolder(join(vaults.path, name))
      this.#folders.set(name, folder)
      await this.#lookAtVault(name, folder, open.get(name))
    }
  }

  async #lookAtVault(vault: string, folder: VaultFolder, open: Vault | undefined): Promise<void> {
    const figures = this.#figures
    const counts = this.#counts.get(vault) ?? noCounts()
    if (open === undefined) {
      figures.set('chunkdav_vault_stored_bytes', { vault }, await folder.packBytes())
    } else {
      folder.forgetPacks()
      figures.set('chunkdav_vault_stored_bytes', { vault }, open.store.usage.storedBytes)
      figures.set('chunkdav_vault_chunks', { vault }, open.store.usage.chunks)
      figures.set('chunkdav_vault_losses_total', { vault }, open.store.losses)
    }
    for (const [fate, chunks, bytes] of [
      ['received', counts.receivedChunks, counts.receivedBytes],
      ['stored', counts.storedChunks, counts.storedBytes],
      ['spared', counts.sparedChunks, counts.sparedBytes],
    ] as const) {
      figures.set(`chunkdav_vault_${fate}_chunks_total`, { vault }, chunks)
      figures.set(`chunkdav_vault_${fate}_bytes_total`, { vault }, bytes)
    }
    const look = await folder.look()
    tellUpkeep(figures, vault, look)
    tellSources(figures, vault, look)
  }
}

function tellUpkeep(figures: Figures, vault: string, { collection, scrub, quotaBytes }: VaultFigures): void {
  if (quotaBytes !== undefined) figures.set('chunkdav_vault_quota_bytes', { vault }, quotaBytes)
  for (const [job, last] of [
    ['collection', collection],
    ['scrub', scrub],
  ] as const) {
    if (last === undefined) continue
    figures.set(`chunkdav_vault_last_${job}_timestamp_seconds`, { vault }, last.finishedAt / msPerSecond)
    figures.set(`chunkdav_vault_last_${job}_done`, { vault }, last.isDone ? 1 : 0)
  }
  figures.set('chunkdav_vault_garbage_bytes', { vault }, countIn(collection, 'garbageBytes'))
  if (scrub === undefined) return
  figures.set('chunkdav_vault_scrub_bad_records', { vault }, countIn(scrub, 'badRecords'))
  figures.set('chunkdav_vault_scrub_lost_chunks', { vault }, countIn(scrub, 'lostChunks'))
  const { harm } = scrub.report as { harm?: { missingChunks?: unknown } }
  const missing = harm?.missingChunks
  figures.set('chunkdav_vault_missing_chunks', { vault }, typeof missing === 'number' ? missing : 0)
}

/** What a report counts; 0 where there is none. */
function countIn(last: JobFigures | undefined, name: string): number {
  const count = last?.report[name]
  return typeof count === 'number' ? count : 0
}

function tellSources(figures: Figures, vault: string, { sources }: VaultFigures): void {
  figures.set('chunkdav_vault_sources', { vault }, sources.size)
  let open = 0
  for (const [place, [source, figuresOf]] of [...sources].sort(([a], [b]) => (a < b ? -1 : 1)).entries()) {
    open += figuresOf.open
    if (place >= maxSources) continue
    figures.set('chunkdav_source_checkpoints', { vault, source }, figuresOf.committed)
    if (figuresOf.lastCommittedAt === undefined) continue
    const seconds = figuresOf.lastCommittedAt / msPerSecond
    figures.set('chunkdav_source_last_checkpoint_timestamp_seconds', { vault, source }, seconds)
  }
  figures.set('chunkdav_vault_open_checkpoints', { vault }, open)
}

/** What is looked up at each scrape. Names that end in `_total` only rise while the receiver runs. */
const looked = {
  chunkdav_info: ['version', 'The version that runs'],
  chunkdav_http_requests_in_flight: ['', 'Requests that are under way'],
  chunkdav_http_clients: ['', 'Networks that the connections come from'],
  chunkdav_http_connections_ended_total: [
    'why',
    'Refused because there were too many, displaced while they were idle, or stalled: their client took nothing',
  ],
  chunkdav_http_connections: ['', 'Connections that are open'],
  chunkdav_event_loop_delay_p99_seconds: ['', 'How late the event loop is, over the last minute or two'],
  chunkdav_disk_faults_total: ['', 'Failures of the disk, and of work in the background'],
  chunkdav_audit_events_total: ['event', 'Lines of the audit file that this process wrote'],
  chunkdav_login_failures_total: ['', 'Logins that failed'],
  chunkdav_memory_budget_bytes: ['budget', 'What bodies and answers may hold in memory'],
  chunkdav_memory_budget_held_bytes: ['budget', 'What they hold'],
  chunkdav_memory_budget_refused_total: [
    'budget',
    'Requests that were told to come again because too many waited',
  ],
  chunkdav_memory_budget_waiting: ['budget', 'Requests that wait for memory'],
  chunkdav_vaults: ['', 'Vaults that there are'],
  chunkdav_vaults_open: ['', 'Vaults that are open: they are opened when they are first asked for'],
  chunkdav_vaults_unopened: ['', 'Vaults that could not be opened when they were last asked for'],
  chunkdav_vault_stored_bytes: ['vault', 'Bytes of all packs, garbage included'],
  chunkdav_vault_chunks: ['vault', 'Chunks that can be read; only of vaults that are open'],
  chunkdav_vault_losses_total: ['vault', 'Times that chunks which were here were found to be so no more'],
  chunkdav_vault_received_chunks_total: ['vault', 'Chunks that came in to be stored, and were true'],
  chunkdav_vault_received_bytes_total: ['vault', 'Their plain bytes'],
  chunkdav_vault_stored_chunks_total: ['vault', 'Of the received chunks, those that were new'],
  chunkdav_vault_stored_bytes_total: ['vault', 'Their plain bytes'],
  chunkdav_vault_spared_chunks_total: [
    'vault',
    'Chunks that clients asked about, and that were here already',
  ],
  chunkdav_vault_spared_bytes_total: ['vault', 'Their plain bytes'],
  chunkdav_vault_garbage_bytes: ['vault', 'What nothing needed when the last collection ended'],
  chunkdav_vault_last_collection_timestamp_seconds: ['vault', 'When the last garbage collection ended'],
  chunkdav_vault_last_collection_done: ['vault', '1 if it came to its end, 0 if it was stopped or failed'],
  chunkdav_vault_last_scrub_timestamp_seconds: ['vault', 'When the last scrub ended'],
  chunkdav_vault_last_scrub_done: ['vault', '1 if it came to its end, 0 if it was stopped or failed'],
  chunkdav_vault_scrub_bad_records: ['vault', 'Records that the last round of scrubs found damaged so far'],
  chunkdav_vault_scrub_lost_chunks: ['vault', 'Chunks that it found to be lost'],
  chunkdav_vault_missing_chunks: [
    'vault',
    'Chunks that backups or the live tree need and that are not there',
  ],
  chunkdav_vault_quota_bytes: ['vault', 'What the vault may store; absent without a quota'],
  chunkdav_vault_sources: ['vault', 'Sources that have checkpoints'],
  chunkdav_vault_open_checkpoints: ['vault', 'Checkpoints that are not committed'],
  chunkdav_source_checkpoints: ['vault,source', 'Committed checkpoints; of the first 1,000 sources'],
  chunkdav_source_last_checkpoint_timestamp_seconds: ['vault,source', 'When the last of them was committed'],
} as const satisfies Readonly<Record<string, readonly [labels: string, help: string]>>

type Looked = keyof typeof looked

/** Forgets at each scrape what it told at the last, so that nothing stays of a vault that is gone. */
class Figures {
  readonly #instruments = new Map<Looked, Gauge | Counter>()

  constructor(registry: Registry) {
    for (const [name, [labels, help]] of Object.entries(looked)) {
      const labelNames = labels === '' ? [] : labels.split(',')
      const options = { name, help, labelNames, registers: [registry] }
      this.#instruments.set(
        name as Looked,
        name.endsWith('_total') ? new Counter(options) : new Gauge(options),
      )
    }
  }

  begin(): void {
    for (const [name, instrument] of this.#instruments) if (name !== 'chunkdav_info') instrument.reset()
  }

  /** Once per scrape and labels. */
  set(name: Looked, labels: Readonly<Record<string, string>>, value: number): void {
    this.#instruments.get(name)?.inc(labels, value)
  }
}

let ofProcess: Registry | undefined

/** Memory, processor time, open files, the event loop, garbage collection: of the process, however many receivers it runs. */
function processMetrics(): Registry {
  if (ofProcess === undefined) {
    ofProcess = new Registry()
    collectDefaultMetrics({ register: ofProcess })
  }
  return ofProcess
}
