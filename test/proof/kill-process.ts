/** The receiver's processes of a kill proof, one after the other, and what they log. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { KillReceiverOptions } from './kill-receiver.ts'

const bin = new URL('../../client/bin.ts', import.meta.url).pathname
const script = new URL('kill-receiver.ts', import.meta.url).pathname
const warnLevel = 40
const errorLevel = 50
const startMs = 120_000

interface LogLine {
  readonly level: number
  readonly msg?: string
  readonly method?: string
  readonly path?: string
  readonly status?: number
  readonly bytesIn?: number
  readonly code?: string
  readonly removed?: number
  readonly items?: number
}

/** From a start to its end. */
export class ReceiverLife {
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>
  readonly logPath: string
  #out = ''
  #hasEnded = false

  /** `isServe`: the program as everybody starts it, with packs of 256 MiB. */
  constructor(options: KillReceiverOptions, { logPath, isServe }: { logPath: string; isServe: boolean }) {
    const { dataDir, port } = options
    const place = ['--data', dataDir, '--listen', `127.0.0.1:${port}`]
    const words = isServe
      ? [bin, 'serve', ...place, '--log-level', 'debug', '--keep-trash', '1s', '--gc-share', '100%']
      : [script, JSON.stringify(options)]
    const log = openSync(logPath, 'w')
    this.logPath = logPath
    this.#child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', log] })
    closeSync(log)
    // Whoever ends the proof ends this too.
    const kill = (): void => void this.#child.kill('SIGKILL')
    process.once('exit', kill)
    this.#ended = once(this.#child, 'exit').then(() => {
      this.#hasEnded = true
      process.off('exit', kill)
    })
    this.#child.stdout?.on('data', (piece: Buffer) => {
      this.#out += piece
    })
  }

  get isListening(): boolean {
    return this.#out.includes('chunkdav listens on ')
  }

  async listening(): Promise<void> {
    const until = performance.now() + startMs
    while (!this.isListening) {
      if (this.#hasEnded || performance.now() > until) {
        throw new Error(`the receiver did not start: ${readFileSync(this.logPath, 'utf8').slice(-3000)}`)
      }
      await sleep(5)
    }
  }

  /** Rejects when it had ended by itself. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    if (this.#hasEnded) {
      throw new Error(`the receiver ended by itself: ${readFileSync(this.logPath, 'utf8').slice(-3000)}`)
    }
    this.#child.kill(signal)
    await this.#ended
  }
}

/** What all of them have logged. */
export class LogBook {
  requests = 0
  bytesIn = 0
  /** Lines from `warn` on, by what they say. */
  readonly kinds = new Map<string, number>()
  readonly failures: string[] = []
  /** What upkeep did by itself: checkpoints that a policy did not keep, items of the trash, open checkpoints. */
  readonly removed = { pruned: 0, trash: 0, expired: 0 }

  /** Returns how many requests were answered. */
  take({ logPath }: ReceiverLife): number {
    const lines = readFileSync(logPath, 'utf8').split('\n')
    // A line that the kill has cut through.
    lines.pop()
    let answered = 0
    for (const text of lines) {
      const line = parsed(text)
      if (line === undefined) {
        this.failures.push(`no line of the log: ${text.slice(0, 1000)}`)
        continue
      }
      if (line.msg === 'request') answered++
      this.#upkeep(line)
      this.bytesIn += line.bytesIn ?? 0
      if (line.level < warnLevel) continue
      const { msg = '', status = '', code = '', method = '' } = line
      const kind = [line.level >= errorLevel ? 'error' : 'warn', msg, method, status, code].join(' ').trim()
      this.kinds.set(kind, (this.kinds.get(kind) ?? 0) + 1)
      const isServerFault = typeof status === 'number' && status >= 500 && status !== 503 && status !== 507
      if (line.level >= errorLevel || isServerFault) this.failures.push(text.slice(0, 2000))
    }
    this.requests += answered
    return answered
  }

  #upkeep({ msg = '', removed = 0, items = 0 }: LogLine): void {
    if (msg === 'pruned') this.removed.pruned += removed
    if (msg === 'removed from the trash for good') this.removed.trash += items
    if (msg === 'an open checkpoint that nobody went on with was deleted') this.removed.expired++
  }
}

function parsed(text: string): LogLine | undefined {
  try {
    return JSON.parse(text) as LogLine
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

/** What `chunkdav doctor --deep` says of a data directory that nobody is at work on: problems, and kinds of warnings. */
export async function askDoctor(dataDir: string): Promise<{ problems: string[]; warnings: string[] }> {
  const child = spawn(process.execPath, [bin, 'doctor', '--data', dataDir, '--deep', '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.on('data', (piece: Buffer) => {
    out += piece
  })
  child.stderr.on('data', (piece: Buffer) => {
    err += piece
  })
  const [code] = await once(child, 'close')
  const findings = out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { type: string; severity?: string; place?: string; what?: string })
  const told = (severity: string): string[] =>
    findings.filter((found) => found.severity === severity).map(({ place, what }) => `${place}: ${what}`)
  const problems = told('problem')
  if (code !== 0 && problems.length === 0) problems.push(`doctor ended with ${code}: ${err}`)
  return { problems, warnings: told('warning') }
}
