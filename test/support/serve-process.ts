/** The program as a process: `chunkdav serve`, and whatever else server/main.ts runs. */
import { type ChildProcess, spawn } from 'node:child_process'

const entry = new URL('../../server/main.ts', import.meta.url).href
const script = `await (await import(${JSON.stringify(entry)})).main(process.argv.slice(1))`
/** For whoever starts it by another program. */
export const nodeArguments: readonly string[] = ['--input-type=module', '-e', script, '--']

export interface Process extends AsyncDisposable {
  readonly child: ChildProcess
  /** The exit code, or the signal. */
  readonly ended: Promise<number | string | null>
  out: string
  err: string
  /** Waits until it has written `text` to the log, `times` times; throws when it ends before. */
  logged(text: string, times?: number): Promise<void>
}

export interface ServeProcess extends Process {
  /** Where it says that it listens, in order. */
  readonly urls: readonly string[]
}

/** Runs one command. */
export function runServerCommand(args: readonly string[], env: Record<string, string> = {}): Process {
  return watch(
    spawn(process.execPath, [...nodeArguments, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  )
}

/** Follows a child whose output is piped. */
export function watch(child: ChildProcess): Process {
  const ended = new Promise<number | string | null>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal))
  })
  const watched: Process = {
    child,
    ended,
    out: '',
    err: '',
    logged: (text, times = 1) => until(watched, () => watched.err.split(text).length > times),
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL')
      await ended
    },
  }
  child.stdout?.on('data', (text: Buffer) => {
    watched.out += text
  })
  child.stderr?.on('data', (text: Buffer) => {
    watched.err += text
  })
  return watched
}

async function until({ child, ended, ...watched }: Process, holds: () => boolean): Promise<void> {
  let code: number | string | null | undefined
  void ended.then((value) => {
    code = value
  })
  while (!holds()) {
    if (code !== undefined) throw new Error(`it ended with ${code}: ${watched.err}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** Starts a receiver on a data directory, and waits until it listens. */
export async function serveProcess(
  dataDir: string,
  args: readonly string[],
  started = runServerCommand(['serve', '--data', dataDir, ...args]),
): Promise<ServeProcess> {
  try {
    await until(started, () => /^data is in /m.test(started.out))
  } catch (error) {
    throw new Error(`it did not start: ${started.err}`, { cause: error })
  }
  const urls = (/^chunkdav listens on (.*)$/m.exec(started.out)?.[1] ?? '').split(', ')
  return Object.assign(started, { urls })
}
