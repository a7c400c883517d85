/**
 * A running receiver: the data directory, the vaults, the HTTP server.
 *
 * Stopping goes in this order: no new connections; idle ones are closed; open requests finish, each
 * closing its connection; after `drainMs` what is left is cut; then the vaults are flushed and closed,
 * and the data directory is released. So nobody writes into a store that is closing.
 */
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from 'node:http'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Logger, pino } from 'pino'
import { limits as defaultLimits, type Limits } from '../protocol/limits.ts'
import { Accounts } from './access/accounts.ts'
import { createApp } from './app.ts'
import { Audit } from './audit.ts'
import { Ballast, releaseBallast, withBallast } from './ballast.ts'
import { type DataLock, lockDataDir } from './data-lock.ts'
import { DiskRoom } from './disk-room.ts'
import { failureFields, failureText } from './failure-fields.ts'
import { type Budgets, budgetsOf } from './http/budgets.ts'
import { type ClientLimits, defaultClientLimits } from './http/client-limits.ts'
import { Connections } from './http/connections.ts'
import { defaultPatience, type Patience } from './http/context.ts'
import type { FairBudget } from './http/fair-budget.ts'
import { requestTurns } from './http/in-turn.ts'
import { ProxyTrust } from './http/proxy-trust.ts'
import { targetForLog } from './http/request-target.ts'
import { Certificate, type CertificateFiles } from './listen/certificate.ts'
import { type Exposure, expectUsersFor } from './listen/exposure.ts'
import { type Listener, Listeners } from './listen/listeners.ts'
import { defaultPort, type Place } from './listen/place.ts'
import { packageVersion } from './package-file.ts'
import { CuttingThreads } from './store/cutting-thread.ts'
import { PackChunkStore } from './store/pack-chunk-store.ts'
import { VerifyingThreads } from './store/verifying-thread.ts'
import { Schedule, type ScheduledFreeze } from './upkeep/schedule.ts'
import { type OpenStore, Vaults } from './vaults.ts'
import { HealthCheck } from './watch/health.ts'
import { Metrics } from './watch/metrics.ts'

const MiB = 1024 * 1024
export const defaultTrashMs = 30 * 24 * 3600 * 1000
export const defaultExpireOpenMs = 7 * 24 * 3600 * 1000
/** How long handlers may go on without a connection before the stores are closed under them; and then again. */
const settleMs = 2000

export interface ReceiverOptions {
  readonly dataDir: string
  /** Where it listens; `host` and `port` are a short way to say one address. */
  readonly places?: readonly Place[]
  readonly host?: string
  /** 0 lets the system choose. */
  readonly port?: number
  readonly tls?: CertificateFiles
  /** Proxies whose word is taken on who asks. Default: none. */
  readonly trust?: ProxyTrust
  /** What is said against mistakes (listen/exposure.ts). Without it, it listens wherever it is told to. */
  readonly exposure?: Pick<Exposure, 'isOpen' | 'allowsPlainHttp'>
  readonly log?: Logger
  readonly limits?: Limits
  /** Request bodies in memory at once; budgets.ts has what else is measured by it. */
  readonly memoryBytes?: number
  /** How long open requests may take to finish when the receiver stops. */
  readonly drainMs?: number
  /** How long clients are waited for that neither send nor take anything. */
  readonly patience?: Partial<Patience>
  readonly clientLimits?: Partial<ClientLimits>
  /** How long live trees keep what was deleted or overwritten, in ms. Default 30 days. */
  readonly trashMs?: number
  /** What is kept free on the disk: new content is refused before. Default: 256 MiB or 5 % of the disk, whichever is less; 0 for none. */
  readonly reserveBytes?: number
  /** Holds a few MiB back, so that a receiver can be started on a full disk. Default: false. */
  readonly ballast?: boolean
  /** How long an open checkpoint stays that nobody goes on with, in ms of the receiver's running. Default 7 days. */
  readonly expireOpenMs?: number
  /** Everything stored is read and checked once within this time, in ms. Default: only when somebody asks for it. */
  readonly scrubMs?: number | undefined
  /** When garbage is collected: a cron pattern. Never, when it is left out. */
  readonly collect?: string | undefined
  /** Of the time, how much a garbage collection may work: above 0, up to 1. */
  readonly upkeepShare?: number | undefined
  /** Bytes that is read of it in a second, at most. */
  readonly scrubBytesPerSecond?: number | undefined
  /** What is frozen by itself, and when. */
  readonly freezes?: readonly ScheduledFreeze[]
  /** Called as soon as it listens, before it does anything by itself. */
  readonly onListening?: (receiver: Receiver) => void
  /** An Apache htpasswd file with users of this receiver. */
  readonly htpasswd?: string
  /** Another kind of store. */
  readonly openStore?: OpenStore
}

export interface Receiver extends Budgets {
  /** Of the first listener: see listen/listeners.ts. */
  readonly host: string
  readonly port: number
  readonly url: string
  readonly dataDir: string
  readonly listeners: readonly Listener[]
  /** Of the first listener. */
  readonly server: Server
  /** The first name that the certificate is for. */
  readonly certifiedName: string | undefined
  /** Who is connected, and which requests are at work or wait: numbers to look at. */
  readonly connections: Pick<Connections, 'usage'>
  readonly turns: Pick<FairBudget, 'usage'>
  readonly vaults: Vaults
  readonly schedule: Schedule
  readonly accounts: Accounts
  readonly audit: Audit
  readonly metrics: Metrics
  /** Reads the certificate, the authorities of clients and the accounts again. What cannot be read is logged. */
  reload(): Promise<void>
  /** Stops as described above. Idempotent. */
  close(): Promise<void>
}

/**
 * Opens the data directory and listens. Problem `in-use` when another process is at work on the
 * directory, `usage` for a schedule or an htpasswd file that is none, `store-corrupt` for users that cannot be read;
 * system errors (EADDRINUSE, EACCES, …) as they are.
 */
export async function openReceiver(options: ReceiverOptions): Promise<Receiver> {
  const { tls, log = pino({ level: 'silent' }) } = options
  const certificate = tls === undefined ? undefined : await Certificate.load(tls, log)
  const makeRoom = (): Promise<boolean> => releaseBallast(options.dataDir)
  const lock = await withBallast(makeRoom, () => lockDataDir(options.dataDir))
  let audit: Audit | undefined
  let accounts: Accounts | undefined
  try {
    const { dataDir, log, htpasswd } = options
    audit = await withBallast(makeRoom, () => Audit.open(dataDir, log))
    const told = { audit, ...(log === undefined ? {} : { log }) }
    accounts = await Accounts.open({ dataDir, ...(htpasswd === undefined ? {} : { htpasswd }), ...told })
    return await listenOn(lock, accounts, audit, certificate, options)
  } catch (error) {
    certificate?.close()
    await accounts?.close()
    await audit?.close()
    await lock.release()
    throw error
  }
}

async function listenOn(
  lock: DataLock,
  accounts: Accounts,
  audit: Audit,
  certificate: Certificate | undefined,
  options: ReceiverOptions,
): Promise<Receiver> {
  const log = options.log ?? pino({ level: 'silent' })
  const trust = options.trust ?? new ProxyTrust()
  const exposure = exposureOf(options, accounts, trust)
  const memoryBytes = options.memoryBytes ?? 128 * MiB
  const budgets = budgetsOf(memoryBytes)
  const clientLimits = { ...defaultClientLimits, ...options.clientLimits }
  const patience = { ...defaultPatience, ...options.patience }
  const turns = requestTurns(clientLimits)
  const trashMs = options.trashMs ?? defaultTrashMs
  const version = await packageVersion()
  const metrics = new Metrics({ version })
  const openStore: OpenStore =
    options.openStore ??
    ((path) =>
      PackChunkStore.open(path, {
        onFault: (problem) => {
          metrics.noteFault()
          log.error(
            { ...failureFields(problem), vault: basename(path) },
            failureText('the disk failed', problem),
          )
        },
      }))
  const room = await DiskRoom.open(options.dataDir, options.reserveBytes)
  const ballast = new Ballast(options.dataDir, {
    pieceBytes: options.ballast === true ? undefined : 0,
    reserveBytes: room.reserveBytes,
    onFault: (error) => log.error(failureFields(error), failureText('the ballast could not be made', error)),
  })
  const vaults = await Vaults.open(options.dataDir, {
    room,
    makeRoom: (use) => ballast.release(use),
    openStore: async (path) => metrics.counted(basename(path), await openStore(path)),
    onDamage: (problem) =>
      log.error(failureFields(problem), failureText('something damaged is left out', problem)),
    onFault: (error) => {
      metrics.noteFault()
      log.error(failureFields(error), failureText('work in the background failed', error))
    },
    trashMs,
    scrubBytesPerSecond: options.scrubBytesPerSecond,
    upkeepShare: options.upkeepShare,
    onRemoved: (vault) => schedule.collectSoon(vault),
  })
  const { freezes = [], scrubMs } = options
  const schedule = new Schedule(vaults, {
    freezes,
    trashMs,
    scrubMs,
    collect: options.collect,
    expireOpenMs: options.expireOpenMs ?? defaultExpireOpenMs,
    audit,
    onRemoved: (vault) => vaults.noteRemoved(vault),
    log,
  })
  const cutting = new CuttingThreads()
  const verifying = new VerifyingThreads()
  const health = new HealthCheck({
    dataDir: options.dataDir,
    version,
    vaults,
    metrics,
    reserveBytes: room.reserveBytes,
  })
  let isStopping = false
  const app = createApp({
    parts: {
      vaults,
      limits: options.limits ?? defaultLimits,
      version,
      ...budgets,
      cutting,
      verifying,
      accounts,
      audit,
      metrics,
      health,
      nextCollection: () => schedule.nextCollection,
    },
    log,
    trust,
    patience,
    turns,
    isStopping: () => isStopping,
  })
  const requests = new OpenRequests(app.callback(), log)
  const connections = new Connections(log, {
    limits: clientLimits,
    stallMs: patience.stallMs,
    // Behind a proxy, or a Unix socket, there are many.
    isShared: (address) => address === undefined || trust.trusts(address),
  })
  metrics.watchConnections(connections)
  const listeners = await Listeners.open(placesOf(options), {
    http: httpOptions(clientLimits),
    certificate,
    exposure,
    onServer: (server) => {
      serve(server, (request, response) => {
        connections.take(request, response, () => requests.handle(request, response))
      })
      connections.watch(server)
      metrics.watchServer(server)
    },
    log,
  })
  const [{ server, host, port, url }] = listeners.all as [Listener]

  let closing: Promise<void> | undefined
  const close = async (): Promise<void> => {
    isStopping = true
    schedule.stop()
    metrics.close()
    await closeListeners(listeners, connections, options.drainMs ?? 30_000)
    // The process must not end here for want of anything to do: the timer keeps it. A long walk does not end with its connection, but with the store that it reads.
    await requests.settled(settleMs)
    try {
      await Promise.all([cutting.close(), verifying.close()])
      await vaults.close()
      await schedule.close()
      await requests.settled(settleMs)
    } finally {
      await ballast.close()
      await accounts.close()
      await audit.close().finally(() => lock.release())
    }
  }
  const receiver: Receiver = {
    host,
    port,
    url,
    listeners: listeners.all,
    certifiedName: certificate?.name,
    dataDir: options.dataDir,
    server,
    ...budgets,
    connections,
    turns,
    vaults,
    schedule,
    accounts,
    audit,
    metrics,
    reload: async () => {
      await Promise.all([listeners.reload(), accounts.reload()])
    },
    close: () => {
      closing ??= close()
      return closing
    },
  }
  options.onListening?.(receiver)
  schedule.start()
  void ballast.refill()
  return receiver
}

type Handle = (request: IncomingMessage, response: ServerResponse) => unknown

/** Counts requests whose handler is still at work, whether or not their connection is still there. */
class OpenRequests {
  readonly handle: Handle
  private readonly log: Logger
  private readonly open = new Set<Promise<unknown>>()

  constructor(handle: Handle, log: Logger) {
    this.log = log
    this.handle = (request, response) => {
      const done = this.run(handle, request, response).finally(() => this.open.delete(done))
      this.open.add(done)
    }
  }

  /** The last catch: whatever goes wrong with one request ends its connection, never the process. */
  private async run(handle: Handle, request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await handle(request, response)
    } catch (error) {
      this.log.error({ err: error, target: targetForLog(request) }, 'a request failed beyond its handler')
      request.socket.destroy()
    }
  }

  /** Waits until all are done, but not for ever: one that hangs must not keep the stores from closing. */
  async settled(withinMs: number): Promise<void> {
    const stop = new AbortController()
    const enough = sleep(withinMs, undefined, { signal: stop.signal }).catch(() => undefined)
    const all = async (): Promise<void> => {
      while (this.open.size > 0 && !stop.signal.aborted) await Promise.allSettled(this.open)
    }
    await Promise.race([all(), enough])
    stop.abort()
  }
}

function httpOptions({ headersTimeoutMs, keepAliveMs }: ClientLimits): ServerOptions {
  return {
    // A body may take as long as it takes, as long as it moves: client-pace.ts says how fast.
    requestTimeout: 0,
    headersTimeout: headersTimeoutMs,
    connectionsCheckingInterval: Math.min(5000, headersTimeoutMs / 4),
    // Refused by own-origin.ts, with a problem document.
    requireHostHeader: false,
    keepAliveTimeout: keepAliveMs,
    // A path of 4,096 bytes, percent-encoded, and the other headers.
    maxHeaderSize: 64 * 1024,
  }
}

function serve(server: Server, handle: Handle): void {
  server.on('request', handle)
  // Both would be answered by Node itself otherwise.
  server.on('checkContinue', handle)
  server.on('checkExpectation', handle)
}

function exposureOf(options: ReceiverOptions, accounts: Accounts, trust: ProxyTrust): Exposure | undefined {
  if (options.exposure === undefined) return undefined
  const { tls } = options
  const hasUsers = !accounts.isEmpty
  const exposure = {
    ...options.exposure,
    hasUsers,
    trust,
    hasTls: tls !== undefined,
    hasClientCa: tls?.clientCa !== undefined,
  }
  expectUsersFor(exposure)
  return exposure
}

function placesOf({ places, host = '127.0.0.1', port = defaultPort }: ReceiverOptions): readonly Place[] {
  return places ?? [{ kind: 'tcp', host, port }]
}

async function closeListeners(
  listeners: Listeners,
  connections: Connections,
  drainMs: number,
): Promise<void> {
  const cut = setTimeout(() => listeners.closeAllConnections(), drainMs)
  await listeners.close(() => connections.closeWhenIdle())
  clearTimeout(cut)
}
