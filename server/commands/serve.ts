import { isIPv6 } from 'node:net'
import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { destination, type Logger, pino } from 'pino'
import { Problem } from '../../protocol/problem.ts'
import { ProxyTrust } from '../http/proxy-trust.ts'
import type { CertificateFiles } from '../listen/certificate.ts'
import { defaultPort, type Place, type PlaceText, parsePlace, parseSocketMode } from '../listen/place.ts'
import { defaultExpireOpenMs, defaultTrashMs, openReceiver, type Receiver } from '../receiver.ts'
import {
  parseByteRate,
  parseDuration,
  parseExpireOpen,
  parseReserve,
  parseScheduledFreeze,
  parseScrubPeriod,
  type ScheduledFreeze,
} from '../upkeep/schedule-options.ts'
import { defaultScrubBytesPerSecond, defaultScrubMs } from '../upkeep/scrub.ts'
import { dataCommand, parsed, type Surroundings } from './data-command.ts'
import { type LimitOptions, limitsOf, withLimitOptions } from './limit-options.ts'

interface ServeOptions extends LimitOptions {
  readonly data: string
  readonly listen: readonly PlaceText[]
  readonly socketMode: number
  readonly tlsCert?: string
  readonly tlsKey?: string
  readonly tlsClientCa?: string
  readonly tlsClientRequired?: true
  readonly trustProxy: readonly string[]
  readonly proxyUserHeader?: string
  readonly htpasswd?: string
  readonly plainHttp?: true
  readonly auth: boolean
  readonly keepTrash: number
  readonly freeze: readonly ScheduledFreeze[]
  readonly scrub: number | undefined
  readonly scrubRate: number
  readonly expireOpen: number
  readonly reserve?: number
  readonly logLevel: string
}

const examples = `
Examples:
  chunkdav serve
  chunkdav serve --data /srv/backups --listen 127.0.0.1:9000
  chunkdav serve --listen 0.0.0.0:8420 --tls-cert fullchain.pem --tls-key privkey.pem
  chunkdav serve --listen unix:/run/chunkdav/http.sock --trust-proxy unix
  chunkdav serve --freeze 'home 0 3 * * *' --freeze 'home/projects @hourly' --keep-trash 90d

--freeze makes a checkpoint of a live tree, or of a folder in it, whenever the cron pattern says so (minute, hour,
day of month, month, day of week; local time) and something has changed. In the path write %20 for a space.
--keep-trash takes a number with s, m, h, d or w behind it; what has been in the trash for longer is removed within
the hour. 0 keeps nothing for longer than that.
--expire-open counts the time that the receiver runs without a sign of life of an unfinished backup.
--reserve is for commits, deletions and garbage collection: when no more is free, new content is refused.

It ends well on SIGTERM and SIGINT: open requests finish, and everything is on the disk. On SIGHUP it reads the
certificate and the users again; connections stay. docs/operations.md has more of TLS, proxies and systemd.`

/** `chunkdav serve`: done when it was told to stop. */
export function serveCommand(surroundings: Surroundings): Command {
  const command = dataCommand('serve', 'Run a receiver', surroundings)
    .addHelpText('after', examples)
    .addOption(
      new Option('--listen <place>', 'HOST:PORT, unix:/PATH or systemd (repeatable)')
        .argParser((text, before: PlaceText[]) => [...before, parsed(text, parsePlace)])
        .default([], '127.0.0.1:8420'),
    )
    .addOption(
      new Option('--socket-mode <mode>', 'who may open a Unix socket, in octal')
        .argParser((text) => parsed(text, parseSocketMode))
        .default(0o600, '0600'),
    )
    .option('--tls-cert <file>', 'certificate and the chain above it, PEM; makes it https')
    .option('--tls-key <file>', 'its key, PEM')
    .option('--tls-client-ca <file>', 'authorities whose client certificates name a user (CN), PEM')
    .option('--tls-client-required', 'turn away whoever has no such certificate')
    .addOption(
      new Option(
        '--trust-proxy <who>',
        'believe X-Forwarded-* from ADDRESS[/BITS], or from unix (repeatable)',
      )
        .argParser((text, before: string[]) => [...before, text])
        .default([], 'nobody'),
    )
    .option('--proxy-user-header <name>', 'header in which such a proxy names the user it has authenticated')
    .option(
      '--htpasswd <file>',
      'users and passwords, as htpasswd -B keeps them, beside those of chunkdav user',
    )
    .option('--plain-http', 'let passwords travel in the clear')
    .option('--no-auth', 'where there are no users: let everybody in who can reach the address')
    .addOption(
      new Option('--keep-trash <duration>', 'how long to keep what was deleted or overwritten in live trees')
        .argParser((text) => parsed(text, parseDuration))
        .default(defaultTrashMs, '30d'),
    )
    .addOption(
      new Option('--freeze <when>', 'freeze a live tree: "VAULT[/PATH] CRON" (repeatable)')
        .argParser((text, before: ScheduledFreeze[]) => [...before, parsed(text, parseScheduledFreeze)])
        .default([], 'never'),
    )
    .addOption(
      new Option('--scrub <duration>', 'within what time everything stored is read and checked once, or off')
        .argParser((text) => parsed(text, parseScrubPeriod))
        .default(defaultScrubMs, '30d'),
    )
    .addOption(
      new Option('--scrub-rate <bytes>', 'how much of it may be read in a second')
        .argParser((text) => parsed(text, parseByteRate))
        .default(defaultScrubBytesPerSecond, '32MiB'),
    )
    .addOption(
      new Option(
        '--expire-open <duration>',
        'delete backups that nobody goes on with after this time, or off',
      )
        .argParser((text) => parsed(text, parseExpireOpen))
        .default(defaultExpireOpenMs, '7d'),
    )
    .addOption(
      new Option(
        '--reserve <size>',
        'what to keep free on the disk (default: 256MiB, or 5 % of a smaller disk)',
      ).argParser((text) => parsed(text, parseReserve)),
    )
    .addOption(
      new Option('--log-level <level>', 'what to log; debug has a line for each request')
        .choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
        .default('info'),
    )
  return withLimitOptions(command).action((options: ServeOptions) => serve(options, surroundings))
}

async function serve(options: ServeOptions, surroundings: Surroundings): Promise<void> {
  const { data, htpasswd, auth, plainHttp = false, keepTrash, freeze, scrub, scrubRate, logLevel } = options
  const tls = certificateFiles(options)
  const trust = proxyTrust(options)
  const stderr = destination({ dest: 2, sync: true })
  // A log that cannot be written, on a full disk, must not end the receiver. There is no other place to say it.
  stderr.on('error', () => {})
  const log = pino({ level: logLevel }, stderr)
  const receiver = await openReceiver({
    dataDir: resolve(data),
    places: placesOf(options, surroundings),
    ...(tls === undefined ? {} : { tls }),
    trust,
    ...(htpasswd === undefined ? {} : { htpasswd: resolve(htpasswd) }),
    exposure: { isOpen: !auth, allowsPlainHttp: plainHttp },
    log,
    trashMs: keepTrash,
    freezes: freeze,
    scrubMs: scrub,
    scrubBytesPerSecond: scrubRate,
    expireOpenMs: options.expireOpen,
    ...(options.reserve === undefined ? {} : { reserveBytes: options.reserve }),
    ballast: true,
    ...limitsOf(options),
    onListening: (receiver) => greet(receiver, surroundings),
  })
  await untilStopped(receiver, log)
}

/** Where to listen. When systemd has opened sockets and nothing else is said, on those. */
function placesOf(
  { listen, socketMode: mode }: ServeOptions,
  { systemdSockets: count }: Surroundings,
): Place[] {
  if (listen.length === 0) {
    return count > 0 ? [{ kind: 'systemd', count }] : [{ kind: 'tcp', host: '127.0.0.1', port: defaultPort }]
  }
  return listen.map((place) => {
    if (place.kind === 'unix') return { ...place, mode }
    return place.kind === 'systemd' ? { ...place, count } : place
  })
}

function certificateFiles(options: ServeOptions): CertificateFiles | undefined {
  const { tlsCert: cert, tlsKey: key, tlsClientCa: clientCa, tlsClientRequired = false } = options
  if (cert === undefined && key === undefined && clientCa === undefined && !tlsClientRequired)
    return undefined
  if (cert === undefined || key === undefined) {
    throw new Problem('usage', 'TLS needs both --tls-cert and --tls-key')
  }
  if (clientCa === undefined && tlsClientRequired) {
    throw new Problem('usage', '--tls-client-required needs --tls-client-ca')
  }
  return { cert, key, isClientRequired: tlsClientRequired, ...(clientCa === undefined ? {} : { clientCa }) }
}

function proxyTrust({ trustProxy, proxyUserHeader }: ServeOptions): ProxyTrust {
  if (proxyUserHeader !== undefined) {
    if (trustProxy.length === 0) throw new Problem('usage', '--proxy-user-header needs --trust-proxy')
    if (!/^[A-Za-z0-9-]+$/.test(proxyUserHeader)) {
      throw new Problem('usage', '--proxy-user-header must be the name of a header, such as X-Remote-User')
    }
  }
  return new ProxyTrust(trustProxy, proxyUserHeader)
}

/** Where it is and what to do next: before the first line of the log. */
function greet(receiver: Receiver, { calledAs }: Surroundings): void {
  const urls = receiver.listeners.map(({ url }) => (url === 'unix:' ? 'a Unix socket of systemd' : url))
  const lines = [`chunkdav listens on ${urls.join(', ')}`, `data is in ${receiver.dataDir}`]
  const url = reachableUrl(receiver)
  if (!receiver.accounts.isEmpty) lines.push('it asks for a user and a password, or a token')
  if (url === undefined) {
    lines.push(
      'clients come through what forwards to the socket; try',
      `  curl --unix-socket ${receiver.host} http://localhost/-/health`,
    )
  } else {
    const place = receiver.accounts.isEmpty ? url : url.replace('://', '://USER@')
    lines.push('back up a directory with', `  ${calledAs} backup DIR ${place}/home`)
  }
  process.stdout.write(`${lines.join('\n')}\n`)
}

/** Where a client on this machine reaches it; undefined when only by a Unix socket. */
function reachableUrl({ listeners, certifiedName }: Receiver): string | undefined {
  const listener = listeners.find(({ port }) => port > 0)
  if (listener === undefined) return undefined
  const { host, port, url } = listener
  // A client compares the name in the URL with those in the certificate.
  if (certifiedName !== undefined)
    return `https://${isIPv6(certifiedName) ? `[${certifiedName}]` : certifiedName}:${port}`
  return host === '0.0.0.0' || host === '::' ? url.replace(/:\/\/.*:/, '://127.0.0.1:') : url
}

/**
 * The first signal stops the receiver, the second ends the process at once. SIGHUP makes it read its files again; at a
 * terminal it says that the terminal is gone, and stops the receiver too.
 */
async function untilStopped(receiver: Receiver, log: Logger): Promise<void> {
  const isAtTerminal = process.stdin.isTTY === true
  const signals = ['SIGTERM', 'SIGINT', ...(isAtTerminal ? (['SIGHUP'] as const) : [])] as const
  if (!isAtTerminal) {
    process.on('SIGHUP', () => {
      receiver.reload().catch((err: unknown) => log.error({ err }, 'not everything could be read again'))
    })
  }
  await new Promise<void>((resolve) => {
    let stopping = false
    for (const signal of signals) {
      process.on(signal, () => {
        if (stopping) process.exit(1)
        stopping = true
        log.info({ signal }, 'stopping: open requests finish')
        resolve()
      })
    }
  })
  await receiver.close()
  log.info('stopped')
}
