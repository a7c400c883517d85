/** `chunkdav serve` as a process, with everything that must not happen in it noted. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Family, parseExposition } from '../exposition.ts'

const bin = new URL('../../../client/bin.ts', import.meta.url).pathname
const preload = new URL('gc-on-signal.ts', import.meta.url).href
const errorLevel = 50

export interface ProcessFigures {
  readonly residentBytes: number
  readonly heapBytes: number
  /** Buffers, and what libraries told V8 of. */
  readonly externalBytes: number
  readonly files: number
  readonly connections: number
  readonly inFlight: number
  /** Of all budgets. */
  readonly heldBytes: number
  readonly waiting: number
  readonly storedBytes: number
}

export interface Asking {
  /** Nobody's, when it is empty. */
  readonly authorization?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer | string | undefined
}

export interface Answered {
  readonly status: number
  readonly body: Buffer
}

export class ReceiverProcess {
  readonly url: string
  readonly port: number
  /** Of answers that broke off because a part of a file has not been sent, or was collected: nothing was promised. */
  readonly brokenTargets: ReadonlySet<string>
  readonly #child: ChildProcess
  readonly #faults: string[]
  #isStopping = false

  private constructor(
    child: ChildProcess,
    url: string,
    faults: string[],
    brokenTargets: ReadonlySet<string>,
  ) {
    this.brokenTargets = brokenTargets
    this.#child = child
    this.url = url
    this.port = Number(new URL(url).port)
    this.#faults = faults
    child.once('exit', (code, signal) => {
      if (!this.#isStopping) faults.push(`the receiver ended: code ${code}, signal ${signal}`)
    })
  }

  static async start(dataDir: string, more: readonly string[] = []): Promise<ReceiverProcess> {
    const args = ['--expose-gc', '--import', preload, bin, 'serve', '--data', dataDir]
    const child = spawn(
      process.execPath,
      [...args, '--listen', '127.0.0.1:0', '--log-level', 'warn', ...more],
      {
        stdio: ['pipe', 'pipe', 'pipe'],
      },
    )
    let out = ''
    child.stdout.on('data', (piece: Buffer) => {
      out += piece
    })
    const faults: string[] = []
    const brokenTargets = new Set<string>()
    let rest = ''
    child.stderr.on('data', (piece: Buffer) => {
      const lines = `${rest}${piece}`.split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const broken = brokenOff(line)
        if (broken !== undefined) brokenTargets.add(broken)
        else if (isFault(line)) faults.push(line.slice(0, 3000))
      }
    })
    const until = performance.now() + 20_000
    while (!/http:\/\/[^\s]+:\d+/.test(out)) {
      if (child.exitCode !== null || performance.now() > until)
        throw new Error(`it did not start: ${rest} ${faults}`)
      await sleep(5)
    }
    const [url = ''] = /http:\/\/[^\s]+:\d+/.exec(out) ?? []
    return new ReceiverProcess(child, url, faults, brokenTargets)
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** What went wrong in it since the last call: lines of the log at level error, and whatever is no line of the log. */
  takeFaults(): string[] {
    return this.#faults.splice(0)
  }

  /** After a collection of garbage, unless it is not wanted. */
  async figures(authorization: string, { collect = true } = {}): Promise<ProcessFigures> {
    if (collect) {
      for (let twice = 0; twice < 2; twice++) {
        this.#child.kill('SIGUSR2')
        await sleep(150)
      }
    }
    const { status, body } = await this.ask('GET', '/-/metrics', { authorization })
    if (status !== 200) throw new Error(`the metrics are answered ${status}`)
    const families = parseExposition(body.toString('utf8'))
    const sum = (name: string): number => valuesOf(families, name).reduce((total, value) => total + value, 0)
    return {
      residentBytes: sum('process_resident_memory_bytes'),
      heapBytes: sum('nodejs_heap_size_used_bytes'),
      externalBytes: sum('nodejs_external_memory_bytes'),
      files: (await readdir(`/proc/${this.#child.pid}/fd`)).length,
      connections: sum('chunkdav_http_connections'),
      inFlight: sum('chunkdav_http_requests_in_flight'),
      heldBytes: sum('chunkdav_memory_budget_held_bytes'),
      waiting: sum('chunkdav_memory_budget_waiting'),
      storedBytes: sum('chunkdav_vault_stored_bytes'),
    }
  }

  /** One request on a connection of its own. Rejects when nothing comes for a minute. */
  ask(
    method: string,
    path: string,
    { authorization = '', headers = {}, body }: Asking = {},
  ): Promise<Answered> {
    return new Promise((resolve, reject) => {
      const login: Record<string, string> = authorization === '' ? {} : { authorization }
      const options = {
        method,
        path,
        headers: { ...login, ...headers },
        agent: false,
        port: this.port,
        host: '127.0.0.1',
      }
      const asked = request(options, (answer) => {
        const pieces: Buffer[] = []
        answer.on('data', (piece: Buffer) => pieces.push(piece))
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(pieces) }))
        answer.on('error', reject)
      })
      asked.setTimeout(60_000, () => asked.destroy(new Error(`${method} ${path} is not answered`)))
      asked.on('error', reject)
      asked.end(body)
    })
  }

  async stop(): Promise<void> {
    if (!this.isRunning) return
    this.#isStopping = true
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    await ended
  }
}

function valuesOf(families: ReadonlyMap<string, Family>, name: string): number[] {
  const family = families.get(name)
  if (family === undefined) throw new Error(`there is no metric ${name}`)
  return family.samples.map(({ value }) => value)
}

/** Warnings pass; whatever is no line of the log is a stack, or a warning of Node. */
function isFault(line: string): boolean {
  if (line.trim() === '') return false
  try {
    return (JSON.parse(line) as { level: number }).level >= errorLevel
  } catch (error) {
    if (error instanceof SyntaxError) return true
    throw error
  }
}

/** The target of an answer that broke off for want of a chunk; undefined for any other line. */
function brokenOff(line: string): string | undefined {
  if (!line.includes('an answer broke off')) return undefined
  const { err, target } = JSON.parse(line) as { err?: { code?: string }; target?: string }
  return err?.code === 'chunk-not-found' ? target : undefined
}
