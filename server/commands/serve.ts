import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { destination, type Logger, pino } from 'pino'
import { defaultExpireOpenMs, defaultTrashMs, openReceiver, type Receiver } from '../receiver.ts'
import { defaultShare } from '../upkeep/collect.ts'
import {
  defaultCollect,
  parseByteRate,
  parseCollect,
  parseDuration,
  parseExpireOpen,
  parseReserve,
  parseScheduledFreeze,
  parseScrubPeriod,
  parseShare,
  type ScheduledFreeze,
} from '../upkeep/schedule-options.ts'
import { defaultScrubBytesPerSecond, defaultScrubMs } from '../upkeep/scrub.ts'
import { dataCommand, parsed, type Surroundings } from './data-command.ts'
import { greet } from './greeting.ts'
import { type LimitOptions, limitsOf, withLimitOptions } from './limit-options.ts'
import { type ListenOptions, listeningOf, withListenOptions } from './listen-options.ts'

interface ServeOptions extends ListenOptions, LimitOptions {
  readonly data: string
  readonly htpasswd?: string
  readonly keepTrash: number
  readonly freeze: readonly ScheduledFreeze[]
  readonly scrub: number | 'off'
  readonly scrubRate: number
  readonly gc: string
  readonly gcShare: number
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
certificate and the users again; connections stay. docs/operations.md has more of TLS, proxies and systemd.

Users come first: chunkdav user add NAME --grant VAULT=write. Without any it listens on this machine only.

Exit codes: 0 stopped, 1 it failed, or a second signal ended it at once, 2 wrong usage.`

/** `chunkdav serve`: done when it was told to stop. */
export function serveCommand(surroundings: Surroundings): Command {
  const command = withListenOptions(dataCommand('serve', 'Run a receiver', surroundings))
    .addHelpText('after', examples)
    .option(
      '--htpasswd <file>',
      'users and passwords, as htpasswd -B keeps them, beside those of chunkdav user',
    )
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
      new Option('--gc <cron>', 'when garbage is collected, besides after what was removed; or off')
        .argParser((text) => parsed(text, parseCollect))
        .default(defaultCollect, `"${defaultCollect}"`),
    )
    .addOption(
      new Option('--gc-share <percent>', 'of the time, how much it may work')
        .argParser((text) => parsed(text, parseShare))
        .default(defaultShare, '50%'),
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
  const { data, htpasswd, keepTrash, freeze, scrub, scrubRate, logLevel } = options
  const listening = listeningOf(options, surroundings)
  const stderr = destination({ dest: 2, sync: true })
  // A log that cannot be written, on a full disk, must not end the receiver. There is no other place to say it.
  stderr.on('error', () => {})
  const log = pino({ level: logLevel }, stderr)
  let receiver: Receiver | undefined
  // From now on: before it listens there is nothing to be read again, and the signal would end the process.
  if (!isAtTerminal()) process.on('SIGHUP', () => void receiver?.reload())
  receiver = await openReceiver({
    dataDir: resolve(data),
    ...listening,
    ...(htpasswd === undefined ? {} : { htpasswd: resolve(htpasswd) }),
    log,
    trashMs: keepTrash,
    freezes: freeze,
    scrubMs: scrub === 'off' ? undefined : scrub,
    scrubBytesPerSecond: scrubRate,
    collect: options.gc === 'off' ? undefined : options.gc,
    upkeepShare: options.gcShare,
    expireOpenMs: options.expireOpen,
    ...(options.reserve === undefined ? {} : { reserveBytes: options.reserve }),
    ballast: true,
    ...limitsOf(options),
    onListening: (receiver) => greet(receiver, surroundings),
  })
  await untilStopped(receiver, log)
}

/** The first signal stops the receiver, the second ends the process at once. */
async function untilStopped(receiver: Receiver, log: Logger): Promise<void> {
  const signals = ['SIGTERM', 'SIGINT', ...(isAtTerminal() ? (['SIGHUP'] as const) : [])] as const
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

/** There SIGHUP says that the terminal is gone. */
function isAtTerminal(): boolean {
  return process.stdin.isTTY === true
}
