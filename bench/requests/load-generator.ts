/**
 * Makes requests as fast as they are answered, in a process of its own: raw sockets with keep-alive, one request under
 * way on each. What is sent is ready before the clock runs. Told what to do by messages, one at a time.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { Id } from '../../protocol/id.ts'
import { AnswerReader } from './answer-reader.ts'
import { idsOf, makeBatches, makeBodies } from './bodies.ts'

/** Has bodies ready. */
export interface Prepare {
  readonly kind: 'prepare'
  readonly seed: string
  readonly count: number
  /** Of each body; 'batch' for batches of small chunks. */
  readonly bytes: number | 'batch'
}

export interface Prepared {
  /** Of the bodies; none of batches. */
  readonly ids: readonly Id[]
}

/** Sends them, or requests without a body. */
export interface Drive {
  readonly kind: 'drive'
  readonly port: number
  readonly connections: number
  readonly method: string
  /** One for each body that is ready, in that order. */
  readonly paths: readonly string[]
  /** Header lines. */
  readonly headers: readonly string[]
  readonly body: 'prepared' | 'none' | { readonly text: string }
  /** What every answer must be. */
  readonly status: number
  /** No request is begun after this many milliseconds. */
  readonly ms: number
  /** Begins again at the first path after the last. */
  readonly repeats: boolean
}

export interface Driven {
  readonly requests: number
  /** From the first request to the last answer. */
  readonly ms: number
  readonly bytesReceived: number
  /** Of one core, how much of the time this process was at work: near 1 it is what was measured. */
  readonly ownLoad: number
}

export type ToGenerator = Prepare | Drive
export type FromGenerator = Prepared | Driven | { readonly error: string }

const receiveBytes = 256 * 1024
let bodies: readonly Buffer[] = []

async function prepare({ seed, count, bytes }: Prepare): Promise<Prepared> {
  bodies = []
  if (bytes === 'batch') {
    bodies = await makeBatches(seed, count)
    return { ids: [] }
  }
  bodies = makeBodies(seed, count, bytes)
  return { ids: idsOf(bodies) }
}

async function drive(task: Drive): Promise<Driven> {
  const { method, paths, headers, body, ms, repeats, connections } = task
  const text = typeof body === 'object' ? Buffer.from(body.text) : undefined
  const bodyOf = (i: number): Buffer | undefined => (body === 'prepared' ? bodies[i] : text)
  const heads = paths.map((path, i) => {
    const length = bodyOf(i)?.length
    const lines = [`${method} ${path} HTTP/1.1`, 'Host: 127.0.0.1', ...headers]
    if (length !== undefined) lines.push(`Content-Length: ${length}`)
    return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`)
  })
  let [next, requests, bytesReceived, until] = [0, 0, 0, 0]
  const begin = (socket: Socket): boolean => {
    if (performance.now() >= until || (!repeats && next >= heads.length)) return false
    const index = next % heads.length
    next += 1
    const content = bodyOf(index)
    if (content !== undefined) socket.cork()
    socket.write(heads[index] as Buffer)
    if (content !== undefined) {
      socket.write(content)
      socket.uncork()
    }
    return true
  }
  const lines = await Promise.all(
    Array.from({ length: connections }, async () =>
      openConnection(task, begin, (bytes) => {
        requests += 1
        bytesReceived += bytes
      }),
    ),
  )
  const usageBefore = process.cpuUsage()
  const started = performance.now()
  until = started + ms
  await Promise.all(lines.map((line) => line.run()))
  const took = performance.now() - started
  const usage = process.cpuUsage(usageBefore)
  return { requests, ms: took, bytesReceived, ownLoad: (usage.user + usage.system) / 1000 / took }
}

/** A connection that is open and waits for `run`, which goes on until there is nothing more to begin. */
async function openConnection(
  { port, status: wanted, method }: Drive,
  begin: (socket: Socket) => boolean,
  answered: (bodyBytes: number) => void,
): Promise<{ run: () => Promise<void> }> {
  let ended: () => void = () => {}
  let failed: (error: Error) => void = () => {}
  const reader = new AnswerReader((status, bodyBytes) => {
    if (status !== wanted) return failed(new Error(`${method} was answered ${status}, not ${wanted}`))
    answered(bodyBytes)
    if (!begin(socket)) ended()
  })
  const onread = {
    buffer: Buffer.alloc(receiveBytes),
    callback: (length: number, buffer: Uint8Array): boolean => {
      try {
        reader.read(Buffer.from(buffer.buffer, buffer.byteOffset, length))
      } catch (error) {
        failed(error as Error)
      }
      return true
    },
  }
  const socket = connect({ port, host: '127.0.0.1', noDelay: true, onread })
  await once(socket, 'connect')
  const run = async (): Promise<void> => {
    const over = new Promise<void>((resolve, reject) => {
      ended = resolve
      failed = reject
      socket.once('error', reject)
      socket.once('close', () => reject(new Error('the server closed the connection')))
    })
    if (!begin(socket)) ended()
    await over.finally(() => socket.destroy())
  }
  return { run }
}

process.on('message', async (task: ToGenerator) => {
  let answer: FromGenerator
  try {
    answer = task.kind === 'prepare' ? await prepare(task) : await drive(task)
  } catch (error) {
    answer = { error: (error as Error).message }
  }
  process.send?.(answer)
})
