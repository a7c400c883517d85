/** The commands that run on the receiver's machine, such as `chunkdav serve`. */
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import { isProblem } from '../protocol/problem.ts'
import type { Surroundings } from './commands/data-command.ts'
import { doctorCommand } from './commands/doctor.ts'
import { reindexCommand } from './commands/reindex.ts'
import { serveCommand } from './commands/serve.ts'
import { tokenCommand } from './commands/token.ts'
import { userCommand } from './commands/user.ts'

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

function program(): Command {
  const surroundings: Surroundings = {
    calledAs: calledAs(),
    defaultDataDir: defaultDataDir(),
    systemdSockets: systemdSockets(),
  }
  return new Command('chunkdav')
    .exitOverride()
    .addCommand(serveCommand(surroundings))
    .addCommand(reindexCommand(surroundings))
    .addCommand(doctorCommand(surroundings))
    .addCommand(userCommand(surroundings))
    .addCommand(tokenCommand(surroundings))
}

function calledAs(): string {
  const { npm_package_name: name, npm_lifecycle_event: script } = process.env
  const isOwnScript = name === 'chunkdav' && (script === 'start' || script === 'chunkdav')
  return isOwnScript ? 'npm run -s chunkdav --' : 'chunkdav'
}

/** None of a user whom the system does not list, where the environment names no folder either. */
function defaultDataDir(): string | undefined {
  const { XDG_DATA_HOME } = process.env
  try {
    return join(XDG_DATA_HOME || join(homedir(), '.local/share'), 'chunkdav')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_SYSTEM_ERROR') return undefined
    throw error
  }
}

/** They may be meant for the process that has started this one. */
function systemdSockets(): number {
  const { LISTEN_FDS, LISTEN_PID } = process.env
  return Number(LISTEN_PID) === process.pid ? Number(LISTEN_FDS) || 0 : 0
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
  if (address?.startsWith('/') && syscall === 'listen') return `${address} cannot be listened on: ${code}`
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
