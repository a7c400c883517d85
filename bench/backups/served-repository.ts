/**
 * A server in a process of its own, which runs on from round to round, as servers do; each round has a repository of its
 * own in it. Its CPU time is read before and after a step, its mark of peak memory is reset before: proc(5).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Usage, usageOf } from '../process-usage.ts'
import { type CountingRelay, openCountingRelay } from './counting-relay.ts'
import type { Place } from './peer.ts'
import { surroundings } from './timed-program.ts'

export interface ServedRepository extends AsyncDisposable {
  /** Where the client is to connect: the server, or the relay before it. */
  readonly port: number
  /** What the server keeps everything in. */
  readonly folder: string
  readonly relay?: CountingRelay
  beginStep(): Promise<void>
  endStep(): Usage
}

interface Server {
  readonly child: ChildProcess
  readonly port: number
  readonly folder: string
}

/** The servers of one plan, one for each tool. They end together. */
export class Servers implements AsyncDisposable {
  readonly #scratch: string
  readonly #running = new Map<string, Promise<Server>>()

  /** In an empty folder, whose owner removes it. */
  constructor(scratch: string) {
    this.#scratch = scratch
  }

  /** That of a tool, started when it is asked for first: with the program that `argvFor` names. */
  get(
    tool: string,
    argvFor: (port: number, folder: string) => readonly [string, ...string[]],
  ): Promise<Server> {
    const server = this.#running.get(tool) ?? start(join(this.#scratch, tool), argvFor)
    this.#running.set(tool, server)
    return server
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const servers = await Promise.allSettled(this.#running.values())
    await Promise.all(
      servers.map((each) => (each.status === 'fulfilled' ? stop(each.value.child) : undefined)),
    )
  }
}

/** Starts a server and waits until it takes connections. */
async function start(
  scratch: string,
  argvFor: (port: number, folder: string) => readonly [string, ...string[]],
): Promise<Server> {
  const folder = join(scratch, 'repositories')
  await mkdir(folder, { recursive: true })
  const port = await freePort()
  const [program, ...args] = argvFor(port, folder)
  const log = join(scratch, 'server.log')
  const out = openSync(log, 'w')
  const child = spawn(program, args, { stdio: ['ignore', out, out], env: surroundings(scratch) })
  closeSync(out)
  const deadline = performance.now() + 20_000
  while (!(await takesConnections(port))) {
    const hasEnded = child.exitCode !== null || child.signalCode !== null
    if (hasEnded || performance.now() > deadline) {
      child.kill('SIGKILL')
      throw new Error(`${program} does not serve: ${(await readFile(log, 'utf8')).slice(-600)}`)
    }
    await sleep(20)
  }
  return { child, port, folder }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  const isLate = await Promise.race([exited.then(() => false), sleep(15_000, true, { ref: false })])
  if (isLate) child.kill('SIGKILL')
  await exited
}

/** A tool's server for one round. */
export async function openServed(
  place: Place,
  tool: string,
  argvFor: (port: number, folder: string) => readonly [string, ...string[]],
): Promise<ServedRepository> {
  const { child, port, folder } = await place.servers.get(tool, argvFor)
  const relay = place.isCounted ? await openCountingRelay(port) : undefined
  const used = (): Usage => {
    const usage = usageOf(child.pid as number)
    if (usage === undefined) throw new Error(`the server of ${tool} has ended`)
    return usage
  }
  let cpuBefore = 0
  return {
    port: relay?.port ?? port,
    folder,
    ...(relay && { relay }),
    beginStep: async () => {
      await writeFile(`/proc/${child.pid}/clear_refs`, '5')
      cpuBefore = used().cpuSeconds
      relay?.reset()
    },
    endStep: () => ({ ...used(), cpuSeconds: used().cpuSeconds - cpuBefore }),
    [Symbol.asyncDispose]: async () => await relay?.[Symbol.asyncDispose](),
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port is free')
  return address.port
}

function takesConnections(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
