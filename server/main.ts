/** The commands that run on the receiver's machine: `chunkdav serve` and `chunkdav reindex`. */
import { access } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { destination, type Logger, pino } from 'pino'
import { isProblem, Problem } from '../protocol/problem.ts'
import { lockDataDir } from './data-lock.ts'
import { isLoopback } from './http/own-origin.ts'
import { defaultTrashMs, openReceiver, type Receiver } from './receiver.ts'
import { reindexAll } from './upkeep/reindex.ts'
import { parseDuration, parseScheduledFreeze, type ScheduledFreeze } from './upkeep/schedule-options.ts'

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

const exitCodes = { failed: 1, usage: 2 } as const

/**
 * Runs one command. `argv` are the words behind the program's name. Resolves when the command is done,
 * with `process.exitCode` set; `serve` is done when it was told to stop.
 */
export async function main(argv: string[]): Promise<void> {
  try {
    await program().parseAsync(argv, { from: 'user' })
  } catch (error) {
    process.exitCode = report(error)
  }
}

const serveExamples = `
Examples:
  chunkdav serve
  chunkdav serve --data /srv/backups --listen 127.0.0.1:9000
  chunkdav serve --freeze 'home 0 3 * * *' --freeze 'home/projects @hourly' --keep-trash 90d

--freeze makes a checkpoint of a live tree, or of a folder in it, whenever the cron pattern says so (minute, hour,
day of month, month, day of week; local time) and something has changed. In the path write %20 for a space.
--keep-trash takes a number with s, m, h, d or w behind it; what has been in the trash for longer is removed within
the hour. 0 keeps nothing for longer than that.

It ends well on SIGTERM and SIGINT: open requests finish, and everything is on the disk.`

const reindexExamples = `
Example:
  chunkdav reindex --data /srv/backups

Stop the receiver first. Every chunk is read and hashed, so it takes as long as reading all packs once. What is
damaged is named and left out; the next backup sends it again.

Exit codes: 0 every vault has its index, 1 it failed, 2 wrong usage.`

function program(): Command {
  const program = new Command('chunkdav').exitOverride()
  const data = (): Option =>
    new Option('--data <dir>', 'the data directory').default(
      defaultDataDir(),
      '~/.local/share/chunkdav, or below $XDG_DATA_HOME',
    )
  program
    .command('serve')
    .configureOutput({ outputError: refusal('serve') })
    .description('Run a receiver')
    .exitOverride()
    .addHelpText('after', serveExamples)
    .addOption(data())
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
    .action(serve)
  program
    .command('reindex')
    .configureOutput({ outputError: refusal('reindex') })
    .description('Rebuild the content index of every vault from its packs, while no receiver runs')
    .exitOverride()
    .addHelpText('after', reindexExamples)
    .addOption(data())
    .action(reindex)
  return program
}

/** Tells what commander refuses in one line, and where to read more. */
function refusal(command: string): (text: string, write: (text: string) => void) => void {
  return (text, write) => {
    const what = text
      .replace(/^error: /, '')
      .trim()
      .replace(/\s*\n\s*/g, ' ')
    write(`chunkdav: ${what.replace(/\.$/, '')}; see ${calledAs()} ${command} --help\n`)
  }
}

/** How the client is to be called from here: in a checkout there is no command of that name. */
function calledAs(): string {
  const { npm_package_name: name, npm_lifecycle_event: script } = process.env
  const isOwnScript = name === 'chunkdav' && (script === 'start' || script === 'chunkdav')
  return isOwnScript ? 'npm run -s chunkdav --' : 'chunkdav'
}

function defaultDataDir(): string {
  const { XDG_DATA_HOME } = process.env
  const base =
    XDG_DATA_HOME === undefined || XDG_DATA_HOME === '' ? join(homedir(), '.local/share') : XDG_DATA_HOME
  return join(base, 'chunkdav')
}

/** `host:port`, `[v6]:port`, `:port` or `port`. */
function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]:|([^:[\]]*):)?([0-9]{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65535)
    throw new InvalidArgumentError('expected HOST:PORT, such as 127.0.0.1:8420')
  return { host: match[1] ?? (match[2] === undefined || match[2] === '' ? '127.0.0.1' : match[2]), port }
}

/** What `parse` makes of an option's text. */
function parsed<T>(text: string, parse: (text: string) => T): T {
  try {
    return parse(text)
  } catch (error) {
    if (isProblem(error, 'usage')) throw new InvalidArgumentError(error.message)
    throw error
  }
}

async function serve({ data, listen, auth, keepTrash, freeze, logLevel }: ServeOptions): Promise<void> {
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
  const receiver = await openReceiver({ ...options, onListening: greet })
  await untilStopped(receiver, log)
}

/** Where it is and what to do next: before the first line of the log. */
function greet(receiver: Receiver): void {
  process.stdout.write(
    [
      `chunkdav listens on ${receiver.url}`,
      `data is in ${receiver.dataDir}`,
      'back up a directory with',
      `  ${calledAs()} backup DIR ${reachableUrl(receiver)}/home`,
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
        if (stopping) process.exit(exitCodes.failed)
        stopping = true
        log.info({ signal }, 'stopping: open requests finish')
        resolve()
      })
    }
  })
  await receiver.close()
  log.info('stopped')
}

async function reindex({ data }: { data: string }): Promise<void> {
  const dataDir = resolve(data)
  await access(join(dataDir, 'vaults'))
  const lock = await lockDataDir(dataDir)
  try {
    for await (const { vault, report } of reindexAll(dataDir)) {
      const { packs, blocks, chunks, damaged } = report
      const counts = `${count(chunks, 'chunk')} in ${count(blocks, 'block')} of ${count(packs, 'pack')}`
      process.stdout.write(`${vault}: ${counts}\n`)
      for (const stretch of damaged) {
        process.stdout.write(`${vault}: damaged, left out: ${JSON.stringify(stretch)}\n`)
      }
    }
  } finally {
    await lock.release()
  }
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`
}

/** One clear line, and the exit code. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.usage
  process.stderr.write(`chunkdav: ${explain(error)}\n`)
  return isProblem(error, 'usage') ? exitCodes.usage : exitCodes.failed
}

function explain(error: unknown): string {
  if (isProblem(error)) return error.message
  const { code, syscall, path, address, port } = error as NodeJS.ErrnoException & {
    address?: string
    port?: number
  }
  if (code === 'EADDRINUSE') return `${address}:${port} is in use already; choose another with --listen`
  if (code === 'EADDRNOTAVAIL') return `this machine has no address ${address}`
  if (code === 'EACCES' && port !== undefined) return `this user may not listen on port ${port}`
  if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM')
    return `${path} cannot be written by this user`
  if (code === 'ENOENT' && syscall === 'mkdir') return `${path} cannot be created`
  if (code === 'ENOENT') return `there is nothing at ${path}`
  if (code === 'ENOTDIR' || code === 'EEXIST') return `${path} is no directory`
  return error instanceof Error ? error.message : String(error)
}
