/** What a command gets from the process that it runs in. Commands read neither argv nor the environment. */
import type { Login } from '../login.ts'
import type { CommandEvent } from './report.ts'

/** 0 done, 1 failed, 2 wrong usage, 3 done but some files could not be read. */
export type ExitCode = 0 | 1 | 2 | 3

export interface CommandContext {
  readonly stdout: NodeJS.WritableStream
  readonly stderr: NodeJS.WritableStream
  /** Whether a person watches standard error: then there is a progress bar. */
  readonly stderrIsTerminal: boolean
  /** The folder of the client's own databases, absolute. Need not exist yet. None without a home folder to have it in. */
  readonly stateFolder: string | undefined
  /** What relative paths start at. */
  readonly workingFolder: string
  /** How this program is called here, for hints: `chunkdav`, or the npm script of a checkout. */
  readonly program: string
  readonly hostName: string
  /** What a URL does not say about who asks. */
  readonly login: Login
  /** Aborts at the first SIGINT or SIGTERM, with Problem `cancelled`. */
  readonly signal: AbortSignal
  /** Writes one JSON object as a line to standard output; the last of a command is a `summary`. */
  emit(event: CommandEvent): void
  /** Writes one line for people to standard output; control characters are made visible. */
  say(line: string): void
  /** Writes one line for people to standard error, with `chunkdav: ` before it; as `say` does. */
  warn(line: string): void
  /** Asks a person a question of yes or no; undefined where there is nobody to ask. */
  readonly confirm?: ((question: string) => Promise<boolean>) | undefined
  /** Sets what the process ends with, when the command returns instead of throwing. */
  exitWith(code: ExitCode): void
}
