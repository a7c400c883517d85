/** The command line of the client: what the process gives the commands, and what it ends with. */
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { homedir, hostname, platform } from 'node:os'
import { join } from 'node:path'
import { type Argument, Command, CommanderError, Help, type Option } from 'commander'
import { Problem } from '../protocol/problem.ts'
import type { CommandContext, ExitCode } from './commands/context.ts'
import { errorEvent, exitCodeOf, lineOf, oneLine } from './commands/report.ts'
import { errnoReason, isSystemError } from './errno.ts'
import { type Login, readCertificate } from './login.ts'

/** What the command line needs of the process. */
export interface CliProcess {
  readonly stdout: NodeJS.WritableStream
  readonly stderr: NodeJS.WritableStream
  readonly stderrIsTerminal: boolean
  /** Asks a person; undefined where there is nobody. */
  readonly confirm?: CommandContext['confirm']
  readonly env: Readonly<Record<string, string | undefined>>
  readonly workingFolder: string
  readonly signal: AbortSignal
}

/**
 * Runs one command. `argv` are the words behind the program's name. Resolves when it is done, with
 * `process.exitCode` set. The first SIGINT or SIGTERM cancels, the second ends the process at once.
 */
export async function main(argv: string[]): Promise<void> {
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(1)
      const text = 'stopped; run the same command again, it goes on from what is done'
      controller.abort(new Problem('cancelled', text))
    })
  }
  // Whoever reads our output may have seen enough.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') {
      if (!isSystemError(error)) throw error
      process.stderr.write(`chunkdav: cannot write to standard output: ${errnoReason(error.code)}\n`)
    }
    process.exit(1)
  })
  const workingFolder = currentFolder()
  if (workingFolder === undefined) {
    process.stderr.write('chunkdav: the working directory is not there any more; change to another one\n')
    process.exitCode = 1
    return
  }
  process.exitCode = await runCli(argv, {
    stdout: process.stdout,
    stderr: process.stderr,
    stderrIsTerminal: process.stderr.isTTY === true,
    confirm: process.stdin.isTTY === true && process.stderr.isTTY === true ? confirmOnTerminal : undefined,
    env: process.env,
    workingFolder,
    signal: controller.signal,
  })
}

/** Anything but y or yes is a no, and so is the end of the input. */
async function confirmOnTerminal(question: string): Promise<boolean> {
  const { createInterface } = await import('node:readline/promises')
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const ended = once(terminal, 'close').then(() => '')
    const answer = await Promise.race([terminal.question(`${oneLine(question)} [y/N] `), ended])
    return /^y(es)?$/i.test(answer.trim())
  } finally {
    terminal.close()
  }
}

/** Undefined when it has been removed. */
function currentFolder(): string | undefined {
  try {
    return process.cwd()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    return undefined
  }
}

/** Runs one command against `streams` and returns what the process is to end with. Never rejects. */
export async function runCli(argv: readonly string[], from: CliProcess): Promise<ExitCode> {
  let exitCode: ExitCode = 0
  const { CHUNKDAV_PASSWORD, CHUNKDAV_TOKEN, CHUNKDAV_CERT, CHUNKDAV_KEY } = from.env
  const login: { -readonly [Name in keyof Login]: Login[Name] } = {
    password: CHUNKDAV_PASSWORD || undefined,
    token: CHUNKDAV_TOKEN || undefined,
  }
  const context = contextOf(from, login, (code) => {
    exitCode = code
  })
  const json = jsonWanted(argv)
  const program = await buildProgram(context, argv[0])
  try {
    if (CHUNKDAV_CERT) login.certificate = await readCertificate(CHUNKDAV_CERT, CHUNKDAV_KEY || undefined)
    await program.parseAsync([...argv], { from: 'user' })
    return exitCode
  } catch (error) {
    if (error instanceof CommanderError) {
      return refuse(error, calledName(program, argv), json ? context.emit : undefined, context)
    }
    context.warn(asCalled(lineOf(error), context))
    if (json) context.emit(errorEvent(error))
    return exitCodeOf(error)
  }
}

/** What commander ends with: help and version are no errors, everything else is wrong usage. */
function refuse(
  error: CommanderError,
  called: string,
  emit: CommandContext['emit'] | undefined,
  context: CommandContext,
): ExitCode {
  if (error.exitCode === 0) return 0
  // Without a command the help has been printed.
  if (error.code === 'commander.help') return 2
  const what = error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ')
  const text = `${what.replace(/\.$/, '')}; see ${called} --help`
  context.warn(asCalled(text, context))
  emit?.(errorEvent(new Problem('usage', text, { cause: error })))
  return 2
}

/** The program's name with those of the commands that the first words of `argv` name. */
function calledName(program: Command, argv: readonly string[]): string {
  const names = [program.name()]
  let command = program
  for (const word of argv) {
    if (word === helpName) continue
    const next = command.commands.find((each) => each.name() === word)
    if (next === undefined) break
    names.push(word)
    command = next
  }
  return names.join(' ')
}

function jsonWanted(argv: readonly string[]): boolean {
  const end = argv.indexOf('--')
  return argv.slice(0, end < 0 ? argv.length : end).includes('--json')
}

function contextOf(from: CliProcess, login: Login, exitWith: (code: ExitCode) => void): CommandContext {
  const { stdout, stderr, stderrIsTerminal, env, signal } = from
  const isScript = isOwnScript(env)
  return {
    stdout,
    stderr,
    stderrIsTerminal,
    stateFolder: stateFolderOf(env),
    // npm runs a script in the package's folder, wherever the user is.
    workingFolder: (isScript ? env.INIT_CWD : undefined) || from.workingFolder,
    program: isScript ? 'npm run -s chunkdav --' : 'chunkdav',
    confirm: from.confirm,
    hostName: hostname(),
    login,
    signal,
    emit: (event) => void stdout.write(`${JSON.stringify(event)}\n`),
    say: (line) => void stdout.write(`${oneLine(line)}\n`),
    // A progress bar may stand on the line: it is drawn anew below.
    warn: (line) => void stderr.write(`${stderrIsTerminal ? '\r\u001b[K' : ''}chunkdav: ${oneLine(line)}\n`),
    exitWith,
  }
}

/** Whether `npm run chunkdav` in a checkout started this. A script of another package, that calls us, did not. */
function isOwnScript(env: CliProcess['env']): boolean {
  return env.npm_package_name === 'chunkdav' && env.npm_lifecycle_event === 'chunkdav'
}

/** Text of ours with its commands as they are to be typed here. */
function asCalled(text: string, { program }: CommandContext): string {
  return program === 'chunkdav' ? text : text.replace(commandsInText, `${program} `)
}

/** XDG Base Directory Specification: state that should survive restarts; on macOS Apple's folder for it. */
function stateFolderOf(env: CliProcess['env']): string | undefined {
  if (env.CHUNKDAV_STATE_DIR) return env.CHUNKDAV_STATE_DIR
  if (env.XDG_STATE_HOME) return join(env.XDG_STATE_HOME, 'chunkdav')
  const homeFolder = env.HOME || systemHome()
  if (homeFolder === undefined) return undefined
  if (platform() === 'darwin') return join(homeFolder, 'Library', 'Application Support', 'chunkdav')
  return join(homeFolder, '.local', 'state', 'chunkdav')
}

/** None of a user whom the system does not list. */
function systemHome(): string | undefined {
  try {
    return homedir()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_SYSTEM_ERROR') return undefined
    throw error
  }
}

type Register = (program: Command, context: CommandContext) => void

/** In the order of the help. A module is loaded when one of its commands is called: all of them take 60 ms more (measured). */
const commandModules: readonly { readonly names: readonly string[]; load(): Promise<Register> }[] = [
  { names: ['backup'], load: async () => (await import('./commands/backup.ts')).registerBackup },
  { names: ['restore'], load: async () => (await import('./commands/restore.ts')).registerRestore },
  {
    names: ['checkpoints'],
    load: async () => (await import('./commands/checkpoints.ts')).registerCheckpoints,
  },
  { names: ['ls'], load: async () => (await import('./commands/ls.ts')).registerLs },
  { names: ['diff'], load: async () => (await import('./commands/diff.ts')).registerDiff },
  { names: ['freeze'], load: async () => (await import('./commands/freeze.ts')).registerFreeze },
  { names: ['trash'], load: async () => (await import('./commands/trash.ts')).registerTrash },
  { names: ['policy'], load: async () => (await import('./commands/policy.ts')).registerPolicy },
  { names: ['prune'], load: async () => (await import('./commands/prune.ts')).registerPrune },
  { names: ['check'], load: async () => (await import('./commands/check.ts')).registerCheck },
  { names: ['gc'], load: async () => (await import('./commands/gc.ts')).registerGc },
  { names: ['pin', 'unpin', 'forget'], load: async () => (await import('./commands/pins.ts')).registerPins },
  { names: ['quota'], load: async () => (await import('./commands/quota.ts')).registerQuota },
]
const commandNames = commandModules.flatMap(({ names }) => names)
const helpName = 'help'
const versionFlag = '--version'
const commandsInText = new RegExp(
  `\\bchunkdav (?=(?:serve|reindex|doctor|user|token|${commandNames.join('|')}|--help)\\b)`,
  'g',
)

const help = `
Examples:
  chunkdav serve
  chunkdav backup ~/documents http://127.0.0.1:8420/home
  chunkdav checkpoints http://127.0.0.1:8420/home
  chunkdav restore http://127.0.0.1:8420/home --to ~/restored

Each command has its own --help. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, but some files could not
be read. CHUNKDAV_STATE_DIR says where the client keeps its databases (default: the system's state folder),
CHUNKDAV_PASSWORD is the password when the URL names a user and none: http://alice@HOST:PORT/VAULT. CHUNKDAV_TOKEN is
a receiver's token, for URLs that name no user; and the password for those that do, when CHUNKDAV_PASSWORD is not set.
CHUNKDAV_CERT names a file with a certificate for receivers that ask for
one (CHUNKDAV_KEY that with its key); NODE_EXTRA_CA_CERTS one with certificates to trust besides.`

/** With the command that `called` names; with all of them when it names none, for the help and for what to say then. */
async function buildProgram(context: CommandContext, called = ''): Promise<Command> {
  const program = new Command('chunkdav')
    .description('A self-hosted backup receiver, and the client that backs up to it')
    .version(version(), versionFlag, 'print the version')
    .helpOption('-h, --help', 'print help')
    .exitOverride()
    .configureHelp({ optionDescription, argumentDescription })
    .configureOutput({
      writeOut: (text) => void context.stdout.write(asCalled(text, context)),
      writeErr: (text) => void context.stderr.write(asCalled(text, context)),
      // Told in one line by `refuse`.
      outputError: () => {},
    })
    .addHelpText('after', help)
  const modules = commandModules.filter(({ names }) => names.includes(called))
  // It is told before anything else is looked at.
  if (called === versionFlag) return program
  if (modules.length === 0) listServerCommands(program)
  const all = modules.length === 0 ? commandModules : modules
  for (const register of await Promise.all(all.map(({ load }) => load()))) register(program, context)
  for (const command of [program, ...program.commands]) addHelp(command)
  return program
}

/** Instead of commander's own, which prints the whole help on a name that it does not know. */
function addHelp(command: Command): void {
  command.helpCommand(false)
  if (command.commands.length === 0) return
  command
    .command(helpName)
    .description('Print help for a command')
    .argument('[command...]')
    .action((names: string[]) => {
      let about = command
      for (const name of names) {
        const next = about.commands.find((each) => each.name() === name)
        if (next === undefined)
          return about.error(`unknown command '${name}'`, { code: 'commander.unknownCommand' })
        about = next
      }
      about.help()
    })
}

const plainHelp = new Help()

/** Defaults that say nothing, such as `false`, are not told. */
function optionDescription(option: Option): string {
  return saysNothing(option.defaultValue) ? option.description : plainHelp.optionDescription(option)
}

function argumentDescription(argument: Argument): string {
  return saysNothing(argument.defaultValue) ? argument.description : plainHelp.argumentDescription(argument)
}

function saysNothing(value: unknown): boolean {
  return value === false || value === '' || (Array.isArray(value) && value.length === 0)
}

/** bin.ts hands these to the server before this file is loaded; here they stand for --help alone. */
function listServerCommands(program: Command): void {
  program.command('serve').usage('[options]').description('Run a receiver')
  program
    .command('reindex')
    .usage('[options]')
    .description("Rebuild a receiver's content index from its packs")
  program
    .command('doctor')
    .usage('[options]')
    .description('Say what is wrong with a data directory, and what to do')
  program.command('user').usage('[command]').description('Say who may log in, and what they may do')
  program
    .command('token')
    .usage('[command]')
    .description('Make and revoke tokens, for machines to log in with')
}

/** The package's version; its file is one folder up in a checkout, two in the built package. */
function version(): string {
  const require = createRequire(import.meta.url)
  const path = import.meta.url.endsWith('.ts') ? '../package.json' : '../../package.json'
  return (require(path) as { version: string }).version
}
