import { resolve } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { destination, type Logger, pino } from 'pino'
import { Problem } from '../../protocol/problem.ts'
import { isLoopback } from '../http/own-origin.ts'
import { defaultTrashMs, openReceiver, type Receiver } from '../receiver.ts'
import { parseDuration, parseScheduledFreeze, type ScheduledFreeze } from '../upkeep/schedule-options.ts'
import { dataCommand, parsed, type Surroundings } from './data-command.ts'

interface Address {
  readonly host: string
  readonly port: number
}

interface ServeOptions {
  readonly data: string
  readonly listen: Address
  readonly auth: boolean
  readonly keepTrash: number
  readonly freeze: readonly ScheduledFreeze[]
  readonly logLevel: string
}

const examples = `
Examples:
  chunkdav serve
  chunkdav serve --data /srv/backups --listen 127.0.0.1:9000
  chunkdav serve --freeze 'home 0 3 * * *' --freeze 'home/projects @hourly' --keep-trash 90d

--freeze makes a checkpoint of a live tree, or of a folder in it, whenever the cron pattern says so (minute, hour,
day of month, month, day of week; local time) and something has changed. In the path write %20 for a space.
--keep-trash takes a number with s, m, h, d or w behind it; what has been in the trash for longer is removed within
the hour. 0 keeps nothing for longer than that.

It ends well on SIGTERM and SIGINT: open requests finish, and everything is on the disk.`

/** `chunkdav serve`: done when it was told to stop. */
export function serveCommand(surroundings: Surroundings): Command {
  return dataCommand('serve', 'Run a receiver', surroundings)
    .addHelpText('after', examples)
    .addOption(
      new Option('--listen <host:port>', 'where to listen')
        .argParser(parseAddress)
        .default({ host: '127.0.0.1', port: 8420 }, '127.0.0.1:8420'),
    )
    .option('--no-auth', 'let everybody in who can reach the address')
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
      new Option('--log-level <level>', 'what to log; debug has a line for each request')
        .choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
        .default('info'),
    )
    .action((options: ServeOptions) => serve(options, surroundings))
}

/** `host:port`, `[v6]:port`, `:port` or `port`. */
function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]:|([^:[\]]*):)?([0-9]{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65535)
    throw new InvalidArgumentError('expected HOST:PORT, such as 127.0.0.1:8420')
  return { host: match[1] ?? (match[2] === undefined || match[2] === '' ? '127.0.0.1' : match[2]), port }
}

async function serve(
  { data, listen, auth, keepTrash, freeze, logLevel }: ServeOptions,
  surroundings: Surroundings,
): Promise<void> {
  if (auth && !isLoopback(listen.host)) {
    throw new Problem(
      'usage',
      `${listen.host} can be reached by others, and this receiver asks nobody who they are; listen on 127.0.0.1, or add --no-auth if that is what you want`,
    )
  }
  const stderr = destination({ dest: 2, sync: true })
  // A log that cannot be written, on a full disk, must not end the receiver. There is no other place to say it.
  stderr.on('error', () => {})
  const log = pino({ level: logLevel }, stderr)
  const dataDir = resolve(data)
  const options = { dataDir, ...listen, log, trashMs: keepTrash, freezes: freeze }
  const receiver = await openReceiver({
    ...options,
    onListening: (receiver) => greet(receiver, surroundings),
  })
  await untilStopped(receiver, log)
}

/** Where it is and what to do next: before the first line of the log. */
function greet(receiver: Receiver, { calledAs }: Surroundings): void {
  process.stdout.write(
    [
      `chunkdav listens on ${receiver.url}`,
      `data is in ${receiver.dataDir}`,
      'back up a directory with',
      `  ${calledAs} backup DIR ${reachableUrl(receiver)}/home`,
      '',
    ].join('\n'),
  )
}

/** Where a client on this machine reaches it. */
function reachableUrl({ host, port, url }: Receiver): string {
  return host === '0.0.0.0' || host === '::' ? `http://127.0.0.1:${port}` : url
}

/** The first signal stops the receiver, the second ends the process at once. */
async function untilStopped(receiver: Receiver, log: Logger): Promise<void> {
  const signals = ['SIGTERM', 'SIGINT'] as const
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
