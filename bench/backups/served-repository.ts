/**
 * A server in a process of its own, which runs on from round to round, as servers do; each round has a repository of its own in it. Its CPU time is read from /proc/PID/stat before and after a step (in ticks of
 * 10 ms), its peak memory is the kernel's own mark VmHWM, which is reset before the step: proc(5).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
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
  endStep(): Promise<{ cpuSeconds: number; peakBytes: number }>
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
    if (child.exitCode !== null || performance.now() > deadline) {
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
  let cpuBefore = 0
  return {
    port: relay?.port ?? port,
    folder,
    ...(relay && { relay }),
    beginStep: async () => {
      await writeFile(`/proc/${child.pid}/clear_refs`, '5')
      cpuBefore = await cpuSeconds(child.pid)
      relay?.reset()
    },
    endStep: async () => ({
      cpuSeconds: (await cpuSeconds(child.pid)) - cpuBefore,
      peakBytes: await peakBytes(child.pid),
    }),
    [Symbol.asyncDispose]: async () => await relay?.[Symbol.asyncDispose](),
  }
}

/** Fields 14 and 15, in ticks of a hundredth of a second; the name before them may hold anything but `)`. */
async function cpuSeconds(pid: number | undefined): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

async function peakBytes(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1])
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
