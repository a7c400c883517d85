/** `chunkdav serve` as a process of its own, looked at from outside. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const bin = new URL('../client/bin.ts', import.meta.url).pathname
const preload = new URL('event-loop-delay.ts', import.meta.url).href

/** Milliseconds. */
export interface Delay {
  readonly p50: number
  readonly p99: number
  readonly max: number
}

export interface ReceiverProcess extends AsyncDisposable {
  readonly url: string
  readonly dataDir: string
  /** Forgets the peak of memory and the delays of the event loop so far. */
  beginPhase(): Promise<void>
  /** Since the last `beginPhase`: peak of resident memory in bytes, resident now, delays of the event loop. */
  endPhase(): Promise<{ peakBytes: number; residentBytes: number; eventLoop: Delay }>
  /** Ends it and starts it on the same data; the milliseconds until it answered again. */
  restart(): Promise<number>
}

export async function startReceiverProcess(parent = tmpdir(), logLevel = 'warn'): Promise<ReceiverProcess> {
  const dataDir = await mkdtemp(join(parent, 'chunkdav-bench-'))
  let running = await launch(dataDir, logLevel)
  return {
    get url() {
      return running.url
    },
    dataDir,
    beginPhase: async () => {
      await running.delays()
      // 5 resets VmHWM: proc(5).
      await writeFile(`/proc/${running.pid}/clear_refs`, '5')
    },
    endPhase: async () => {
      const status = await readFile(`/proc/${running.pid}/status`, 'utf8')
      const bytes = (name: string): number =>
        1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1])
      const eventLoop = await running.delays()
      return { peakBytes: bytes('VmHWM'), residentBytes: bytes('VmRSS'), eventLoop }
    },
    restart: async () => {
      await running.stop()
      const started = performance.now()
      running = await launch(dataDir, logLevel)
      return performance.now() - started
    },
    [Symbol.asyncDispose]: async () => {
      await running.stop()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}

async function launch(dataDir: string, logLevel: string) {
  const args = ['--import', preload, bin, 'serve', '--data', dataDir, '--listen', '127.0.0.1:0']
  const child = spawn(process.execPath, [...args, '--log-level', logLevel], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  const delays: Delay[] = []
  child.stdout.on('data', (piece: Buffer) => {
    out += piece
  })
  let rest = ''
  child.stderr.on('data', (piece: Buffer) => {
    const lines = `${rest}${piece}`.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      if (line.startsWith('event-loop-delay ')) delays.push(JSON.parse(line.slice(17)) as Delay)
      else console.error(`receiver: ${line.slice(0, 1000)}`)
    }
  })
  while (!out.includes('backup DIR')) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('the receiver did not start')
    await sleep(5)
  }
  const [url = ''] = /http:\/\/[^\s]+:\d+/.exec(out) ?? []
  return {
    url,
    pid: child.pid as number,
    delays: async (): Promise<Delay> => {
      const before = delays.length
      child.kill('SIGUSR2')
      while (delays.length === before) await sleep(5)
      return delays.at(-1) as Delay
    },
    stop: async (): Promise<void> => {
      if (child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      child.kill('SIGTERM')
      await exited
    },
  }
}
