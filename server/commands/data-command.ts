/** What the commands that work on a data directory have in common. */
import { Command, InvalidArgumentError, Option } from 'commander'
import { isProblem } from '../../protocol/problem.ts'

/** What the environment says; only main.ts reads it. */
export interface Surroundings {
  /** How this program is to be called from here, for hints: in a checkout there is no command of its name. */
  readonly calledAs: string
  /** Where there is none it must be named. */
  readonly defaultDataDir: string | undefined
  /** Sockets that systemd has opened for this process: sd_listen_fds(3). */
  readonly systemdSockets: number
}

/** A command of this name with `--data DIR`, which tells what it refuses in one line and where to read more. */
export function dataCommand(
  name: string,
  description: string,
  { calledAs, defaultDataDir }: Surroundings,
): Command {
  const data = new Option('--data <dir>', 'the data directory')
  if (defaultDataDir === undefined) data.makeOptionMandatory()
  else data.default(defaultDataDir, '~/.local/share/chunkdav, or below $XDG_DATA_HOME')
  return new Command(name)
    .configureOutput({ outputError: refusal(name, calledAs) })
    .description(description)
    .exitOverride()
    .addOption(data)
}

export function refusal(
  command: string,
  calledAs: string,
): (text: string, write: (text: string) => void) => void {
  return (text, write) => {
    const what = text
      .replace(/^error: /, '')
      .trim()
      .replace(/\s*\n\s*/g, ' ')
    write(`chunkdav: ${what.replace(/\.$/, '')}; see ${calledAs} ${command} --help\n`)
  }
}

/** What `parse` makes of an option's text; its Problem `usage` is the option's. */
export function parsed<T>(text: string, parse: (text: string) => T): T {
  try {
    return parse(text)
  } catch (error) {
    if (isProblem(error, 'usage')) throw new InvalidArgumentError(error.message)
    throw error
  }
}
