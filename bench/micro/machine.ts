/** What this machine can do at best: copying, writing to the disk, sending to itself. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { Agent, type IncomingMessage, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { seededBytes } from '../../test/support/tree.ts'
import type { Rate } from './figures.ts'
import { MiB } from './material.ts'
import { type Effort, time } from './timing.ts'

export interface MachineLimits {
  readonly copy: Rate
  readonly cachedWrite: Rate
  readonly syncedWrite: Rate
  readonly loopback: Rate
  readonly httpPut: Rate
}

const inFlight = 8

export async function measureMachine(folder: string, effort: Effort): Promise<MachineLimits> {
  const [cachedWrite, syncedWrite] = await measureDisk(folder, effort)
  return {
    copy: await measureCopy(effort),
    cachedWrite,
    syncedWrite,
    loopback: await measureLoopback(effort),
    httpPut: await measureHttpPut(effort),
  }
}

async function measureCopy(effort: Effort): Promise<Rate> {
  // More than any cache holds.
  const from = seededBytes('copy', 64 * MiB)
  const to = Buffer.alloc(from.length)
  const timing = await time(() => to.set(from), effort)
  return { name: 'memcpy', bytes: from.length, timing }
}

async function measureDisk(folder: string, effort: Effort): Promise<[Rate, Rate]> {
  const bytes = seededBytes('disk', 64 * MiB)
  await using file = await open(join(folder, 'disk'), 'w')
  const write = async (): Promise<void> => {
    for (let at = 0; at < bytes.length; at += MiB) await file.write(bytes, at, MiB, at)
  }
  const cached = await time(write, effort, async () => {
    await file.sync()
    await file.truncate(0)
  })
  const synced = await time(
    async () => {
      await write()
      await file.datasync()
    },
    effort,
    () => file.truncate(0),
  )
  const name = 'write of 64 MiB in pieces of 1 MiB'
  return [
    { name, bytes: bytes.length, timing: cached },
    { name: `${name}, and fdatasync`, bytes: bytes.length, timing: synced },
  ]
}

async function measureLoopback(effort: Effort): Promise<Rate> {
  const worker = new Worker(new URL('./loopback-worker.ts', import.meta.url))
  const [port] = (await once(worker, 'message')) as [number]
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  const piece = seededBytes('loopback', MiB)
  const pieces = 64
  const timing = await time(() => exchange(socket, piece, pieces), effort)
  socket.destroy()
  await worker.terminate()
  return { name: 'loopback TCP', bytes: pieces * MiB, timing }
}

/** Sends the piece so often, and waits for the byte that says that all has come. */
async function exchange(socket: Socket, piece: Buffer, pieces: number): Promise<void> {
  const answered = once(socket, 'data')
  for (let i = 0; i < pieces; i++) if (!socket.write(piece)) await once(socket, 'drain')
  await answered
}

async function measureHttpPut(effort: Effort): Promise<Rate> {
  const server = fork(new URL('../requests/bare-server.ts', import.meta.url))
  const [port] = (await once(server, 'message')) as [number]
  const agent = new Agent({ keepAlive: true, maxSockets: inFlight })
  const body = seededBytes('put', MiB)
  const requests = 64
  const putAll = async (): Promise<void> => {
    let left = requests
    const lane = async (): Promise<void> => {
      while (left-- > 0) {
        const put = request({ port, host: '127.0.0.1', agent, method: 'PUT', path: '/x' }).end(body)
        const [answer] = (await once(put, 'response')) as [IncomingMessage]
        await once(answer.resume(), 'end')
      }
    }
    await Promise.all(Array.from({ length: inFlight }, lane))
  }
  const timing = await time(putAll, effort)
  agent.destroy()
  server.disconnect()
  return { name: `PUT of 1 MiB to a bare node:http, ${inFlight} in flight`, bytes: requests * MiB, timing }
}
