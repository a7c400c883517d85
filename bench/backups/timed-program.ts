/**
 * Runs a program and says what it took. Wall time is by the monotonic clock, from before the program is started until
 * its end is known. CPU and peak memory are those that the kernel accounts to a process that ended (`wait4`), by GNU
 * time: Node does not tell them of its children. They include children that the program itself waited for; the peak
 * is that of the largest one.
 */
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

export interface Command {
  readonly argv: readonly [string, ...string[]]
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
}

export interface Usage {
  readonly seconds: number
  readonly cpuSeconds: number
  readonly peakBytes: number
}

/** All tools see the same surroundings: an empty home, and no setting of whoever runs this. */
export function surroundings(scratch: string): Record<string, string> {
  return {
    PATH: process.env.PATH ?? '/usr/bin:/bin',
    HOME: join(scratch, 'home'),
    XDG_CACHE_HOME: join(scratch, 'home/.cache'),
    XDG_CONFIG_HOME: join(scratch, 'home/.config'),
    XDG_STATE_HOME: join(scratch, 'home/.local/state'),
    LC_ALL: 'C.UTF-8',
  }
}

export async function runTimed(command: Command, scratch: string): Promise<Usage> {
  const figures = join(scratch, 'time')
  const log = join(scratch, 'log')
  const out = openSync(log, 'w')
  const started = performance.now()
  const code = await new Promise<string>((resolve, reject) => {
    spawn('/usr/bin/time', ['-q', '-o', figures, '-f', '%U %S %M', ...command.argv], {
      stdio: ['ignore', out, out],
      env: { ...surroundings(scratch), ...command.env },
      cwd: command.cwd ?? scratch,
    })
      .once('error', reject)
      .once('exit', (status, signal) => resolve(String(status ?? signal)))
  })
  const seconds = (performance.now() - started) / 1000
  closeSync(out)
  if (code !== '0') {
    const said = (await readFile(log, 'utf8')).trim().slice(-600)
    throw new Error(`${command.argv.join(' ')} ended with ${code}: ${said}`)
  }
  const [user = 0, system = 0, peak = 0] = (await readFile(figures, 'utf8')).trim().split(' ').map(Number)
  return { seconds, cpuSeconds: user + system, peakBytes: peak * 1024 }
}

/** A program of which only the output is wanted. */
export async function outputOf(argv: readonly [string, ...string[]]): Promise<string> {
  const [program, ...args] = argv
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (piece: Buffer) => {
        said += piece
      })
    }
    child
      .once('error', reject)
      .once('close', (code) =>
        code === 0
          ? resolve(said)
          : reject(new Error(`${argv.join(' ').slice(0, 300)} ended with ${code}: ${said.slice(-600)}`)),
      )
  })
}
