/**
 * The seeded fuzzer of the wire. Two receivers, one with users and one without, are processes of their own; requests are
 * made from openapi.yaml, bent (wire/mutations.ts) and sent over raw sockets. What must hold:
 *
 * - the process goes on, and writes no line at level error;
 * - every answer is HTTP to the letter, no 5xx that is not meant, every error a problem of a known type, as openapi.yaml
 *   says it; nobody is told of a vault that they have no right on;
 * - a request that says where it ends is answered, and the next one on its connection too, or the connection is closed;
 * - afterwards nothing is held: memory, file handles, connections, budgets; what was refused is not stored; and the vault
 *   `sentinel` is as it was, also after a restart.
 *
 * Request number n of a seed is always the same, whatever came before it.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { faultsOf } from './wire/judge.ts'
import { mutate } from './wire/mutations.ts'
import { Random } from './wire/random.ts'
import type { ProcessFigures } from './wire/receiver-process.ts'
import { refusedUploads } from './wire/refused-uploads.ts'
import { makeUniverse, sentinel, type Universe } from './wire/universe.ts'
import { makeValid } from './wire/valid-request.ts'
import { MalformedAnswer, type WireAnswer, WireConnection } from './wire/wire-connection.ts'
import { printable, render, type WireRequest } from './wire/wire-request.ts'
import { World } from './wire/world.ts'

export interface FuzzOptions {
  readonly requests: number
  readonly seed: number
  /** Only the request with this number. */
  readonly only?: number | undefined
  readonly connections?: number
  readonly log?: (line: string) => void
}

export interface Violation {
  readonly index: number
  readonly fault: string
  readonly text: string
}

export interface FuzzReport {
  readonly seed: number
  readonly requests: number
  readonly answers: number
  /** How often each status came. */
  readonly statuses: ReadonlyMap<number, number>
  /** Operations that were answered 2xx at least once. */
  readonly succeeded: ReadonlySet<string>
  readonly violations: readonly Violation[]
  readonly figures: readonly { readonly before: ProcessFigures; readonly after: ProcessFigures }[]
  readonly slowest: { readonly ms: number; readonly text: string }
  /** Connections that were closed behind an answer that did not say so. */
  readonly closedUnsaid: number
  readonly ms: number
}

/** As long as anybody waits for an answer that is due. */
const dueMs = 20_000
/** For a request that does not say where it ends: the receiver may wait for the rest of it. */
const undueMs = 100
const MiB = 1024 * 1024
/** What caches, pools and the fragments of an allocator may keep. */
const heapSlack = 48 * MiB
const bufferSlack = 40 * MiB
const residentSlack = 128 * MiB
const fileSlack = 24

export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const universe = await makeUniverse()
  const worlds = await Promise.all([
    World.open(universe, { hasUsers: false }),
    World.open(universe, { hasUsers: true }),
  ])
  try {
    return await new Fuzzer(options, universe, worlds).run()
  } finally {
    await Promise.all(worlds.map((world) => world.close()))
  }
}

class Fuzzer {
  readonly #options: FuzzOptions
  readonly #universe: Universe
  readonly #worlds: readonly World[]
  readonly #violations: Violation[] = []
  readonly #statuses = new Map<number, number>()
  readonly #succeeded = new Set<string>()
  /** How often each fault was seen, so that one does not hide the others. */
  readonly #seen = new Map<string, number>()
  #answers = 0
  #slowest = { ms: 0, text: '' }
  #closedUnsaid = 0

  constructor(options: FuzzOptions, universe: Universe, worlds: readonly World[]) {
    this.#options = options
    this.#universe = universe
    this.#worlds = worlds
  }

  async run(): Promise<FuzzReport> {
    const { requests, seed, only } = this.#options
    const started = performance.now()
    const digests = await Promise.all(this.#worlds.map((world) => world.sentinelDigest(this.#universe)))
    const warmUp = Math.min(5000, Math.ceil(requests / 4))
    const [first, last] = only === undefined ? [0, requests] : [only, only + 1]
    await this.#requests(first, Math.min(last, first + warmUp))
    const before = await this.#settledFigures()
    await this.#requests(first + warmUp, last)
    const after = await this.#settledFigures()
    this.#compareFigures(before, after)
    if (only === undefined) for (const world of this.#worlds) await this.#refusedUploads(world)
    for (const world of this.#worlds) this.#takeFaults(world, last)
    await this.#compareSentinels(digests, 'is not as it was')
    for (const world of this.#worlds) {
      await world.restart()
      this.#takeFaults(world, last)
    }
    await this.#compareSentinels(digests, 'is not as it was, after a restart')
    return {
      seed,
      requests: last - first,
      answers: this.#answers,
      statuses: this.#statuses,
      succeeded: this.#succeeded,
      violations: this.#violations,
      figures: before.map((figures, i) => ({ before: figures, after: after[i] as ProcessFigures })),
      slowest: this.#slowest,
      closedUnsaid: this.#closedUnsaid,
      ms: performance.now() - started,
    }
  }

  // -- requests ---------------------------------------------------------------------------------------

  async #requests(first: number, last: number): Promise<void> {
    let next = first
    const work = async (): Promise<void> => {
      while (next < last) {
        const index = next++
        const world = this.#worlds[index % this.#worlds.length] as World
        if (!world.receiver.isRunning) return
        await this.#request(index, world)
        if (index % 500 === 499) for (const each of this.#worlds) this.#takeFaults(each, index)
        if (index % 400 < this.#worlds.length) await world.refurnish(this.#universe)
        if (index % 10_000 === 9999) await this.#logProgress(index + 1)
      }
    }
    await Promise.all(Array.from({ length: this.#options.connections ?? 24 }, work))
  }

  async #request(index: number, world: World): Promise<void> {
    const random = Random.of(this.#options.seed, index)
    const request = makeValid({
      random,
      universe: this.#universe,
      host: `127.0.0.1:${world.receiver.port}`,
      authorizations: world.strangers,
    })
    request.headers.push(['X-Request-Id', `w${index}`])
    mutate(request, random, this.#universe)
    const isCheckedAfterwards = random.chance(0.25)
    const started = performance.now()
    try {
      await inTime(this.#exchange(index, world, request))
      if (isCheckedAfterwards) await inTime(this.#expectGood(world))
    } catch (error) {
      const text = error instanceof MalformedAnswer ? `no HTTP: ${error.message}` : (error as Error).message
      this.#violation(index, text, request)
    }
    const ms = performance.now() - started
    if (ms <= this.#slowest.ms) return
    this.#slowest = { ms, text: `request ${index}: ${request.operationId}, ${request.mutations.join(' + ')}` }
  }

  async #exchange(index: number, world: World, request: WireRequest): Promise<void> {
    // As many clients as there are users: one who is held back does not hold back the others.
    const localAddress = `127.0.${1 + (index % 50)}.1`
    const connection = await WireConnection.open({ port: world.receiver.port, localAddress })
    try {
      await connection.send(render(request), request.pieces)
      if (request.ending === 'reset') {
        await sleep(index % 8)
        connection.reset()
        return
      }
      if (request.ending === 'half-close') connection.halfClose()
      await this.#answersTo(index, world, request, connection)
    } finally {
      connection.close()
    }
  }

  async #answersTo(
    index: number,
    world: World,
    request: WireRequest,
    connection: WireConnection,
  ): Promise<void> {
    const isDue = request.isFramed && request.ending === 'wait'
    let last: WireAnswer | undefined
    for (let i = 0; i < request.times; i++) {
      const answer = await this.#answer(request, connection, isDue)
      if (answer === undefined) {
        // A tunnel is nothing that is here, and Node ends such a connection by itself.
        const mayBeSilent = !isDue || i > 0 || request.method === 'CONNECT'
        if (!mayBeSilent && !(await hasBrokenOff(world, request)))
          throw new Error('the connection ended without an answer')
        const isHalf = connection.rest.length > 0 && isDue && !(await hasBrokenOff(world, request))
        if (isHalf) throw new MalformedAnswer(`half an answer: ${printable(connection.rest, 300)}`)
        return
      }
      this.#judge(index, world, request, answer)
      last = answer
      if (answer.isLast) return
    }
    if (!isDue || last === undefined) return
    await this.#next(index, world, connection)
  }

  async #answer(
    request: WireRequest,
    connection: WireConnection,
    isDue: boolean,
  ): Promise<WireAnswer | undefined> {
    const { method } = request
    if (isDue || request.ending === 'half-close') return await connection.answer(method, dueMs)
    try {
      return await connection.answer(method, undueMs)
    } catch (error) {
      if (!(error instanceof Error) || error.message !== 'late') throw error
      // It waits for more, and there is no more.
      connection.halfClose()
      return await connection.answer(method, dueMs)
    }
  }

  /** What follows on the connection is answered as if nothing had been before it. */
  async #next(index: number, world: World, connection: WireConnection): Promise<void> {
    const id = `next-${index}`
    await connection.send(this.#goodRequest(world, id))
    const answer = await connection.answer('GET', dueMs)
    if (answer === undefined) {
      if (connection.rest.length > 0)
        throw new MalformedAnswer(`behind the answer: ${printable(connection.rest, 300)}`)
      this.#closedUnsaid++
      return
    }
    const { content } = this.#universe.sentinel
    const isRight =
      answer.status === 200 && answer.headers.get('x-request-id') === id && answer.body.equals(content.bytes)
    if (!isRight)
      throw new Error(
        `the next answer on the connection is another: ${answer.status} ${printable(answer.body, 300)}`,
      )
  }

  async #expectGood(world: World): Promise<void> {
    const connection = await WireConnection.open({ port: world.receiver.port, localAddress: '127.0.100.1' })
    try {
      await connection.send(this.#goodRequest(world, 'good'))
      const answer = await connection.answer('GET', dueMs)
      if (answer?.status !== 200 || !answer.body.equals(this.#universe.sentinel.content.bytes)) {
        throw new Error(`afterwards a good request is answered ${answer?.status}`)
      }
    } finally {
      connection.close()
    }
  }

  #goodRequest(world: World, requestId: string): Buffer {
    const { content } = this.#universe.sentinel
    const login = world.owner === '' ? '' : `Authorization: ${world.owner}\r\n`
    const head = `GET /${sentinel}/chunks/${content.id} HTTP/1.1\r\nHost: localhost\r\n${login}`
    return Buffer.from(`${head}X-Request-Id: ${requestId}\r\nConnection: close\r\n\r\n`)
  }

  #judge(index: number, world: World, request: WireRequest, answer: WireAnswer): void {
    this.#answers++
    this.#statuses.set(answer.status, (this.#statuses.get(answer.status) ?? 0) + 1)
    if (answer.status < 300 && request.mutations.length === 0) this.#succeeded.add(request.operationId)
    const circumstances = { isStranger: world.hasUsers, dataDir: world.dataDir }
    for (const fault of faultsOf(answer, request, circumstances)) {
      this.#violation(index, `${answer.status}: ${fault}`, request, answer.body)
    }
  }

  // -- the whole --------------------------------------------------------------------------------------

  /** Once nothing is under way any more. */
  async #settledFigures(): Promise<ProcessFigures[]> {
    return await Promise.all(
      this.#worlds.map(async (world) => {
        for (let tries = 0; ; tries++) {
          const figures = await world.figures()
          // The one that asks is a request and a connection itself.
          if ((figures.inFlight <= 1 && figures.connections <= 1) || tries === 40) return figures
          await sleep(250)
        }
      }),
    )
  }

  #compareFigures(before: readonly ProcessFigures[], after: readonly ProcessFigures[]): void {
    for (const [i, now] of after.entries()) {
      const then = before[i] as ProcessFigures
      const which = this.#worlds[i]?.hasUsers ? 'with users' : 'without users'
      const expected: [string, number, number][] = [
        ['requests in flight', now.inFlight, 1],
        ['connections', now.connections, 1],
        ['bytes held of budgets', now.heldBytes, 0],
        ['requests that wait for memory', now.waiting, 0],
        ['bytes of heap', now.heapBytes, then.heapBytes + heapSlack],
        ['bytes of buffers', now.externalBytes, then.externalBytes + bufferSlack],
        ['bytes of resident memory', now.residentBytes, then.residentBytes + residentSlack],
        ['open files', now.files, then.files + fileSlack],
      ]
      for (const [what, value, limit] of expected) {
        if (value > limit) this.#violation(-1, `${which}: ${value} ${what} are left, ${limit} may be`)
      }
    }
  }

  /** What is refused leaves nothing behind, to the byte. */
  async #refusedUploads(world: World): Promise<void> {
    const [authorization = ''] = world.strangers
    await world.stopUpkeep()
    const { storedBytes } = await world.figures()
    const count = Math.min(400, Math.ceil(this.#options.requests / 10))
    const random = new Random(this.#options.seed)
    const host = `127.0.0.1:${world.receiver.port}`
    for await (const request of refusedUploads(this.#universe, random, { host, authorization, count })) {
      const connection = await WireConnection.open({ port: world.receiver.port })
      await connection.send(render(request))
      if (request.ending === 'half-close') connection.halfClose()
      const answer = await connection.answer(request.method, dueMs)
      connection.close()
      const isAccepted = answer !== undefined && answer.status < 300 && !answer.body.includes('"refused"')
      if (isAccepted) this.#violation(-1, 'what is false was accepted', request, answer.body)
    }
    const after = await world.figures()
    if (after.storedBytes > storedBytes) {
      this.#violation(-1, `${after.storedBytes - storedBytes} bytes of refused uploads are stored`)
    }
  }

  async #compareSentinels(digests: readonly string[], what: string): Promise<void> {
    for (const [i, world] of this.#worlds.entries()) {
      const now = await world.sentinelDigest(this.#universe).catch((error: Error) => error.message)
      if (now !== digests[i])
        this.#violation(-1, `the sentinel ${world.hasUsers ? 'with users' : 'without users'} ${what}: ${now}`)
    }
  }

  #takeFaults(world: World, index: number): void {
    for (const line of world.receiver.takeFaults()) this.#violation(index, `the receiver's log: ${line}`)
  }

  #violation(index: number, fault: string, request?: WireRequest, body?: Buffer): void {
    const kind = fault.replace(/[0-9a-f]{8,}|[0-9]+/g, 'N').slice(0, 120)
    const count = (this.#seen.get(kind) ?? 0) + 1
    this.#seen.set(kind, count)
    if (count > 3) return
    const sent =
      request &&
      `${request.operationId}, ${request.mutations.join(' + ') || 'as it should be'}, ${request.pieces} pieces, ${request.times} times, ${request.ending}${request.cutAt === undefined ? '' : `, cut at ${request.cutAt}`}`
    const text = [
      `${fault}`,
      `seed ${this.#options.seed}, request ${index}${index < 0 ? '' : `; again: CHUNKDAV_SEED=${this.#options.seed} CHUNKDAV_WIRE_ONLY=${index} npm run proof:wire`}`,
      ...(sent === undefined ? [] : [sent]),
      ...(request === undefined ? [] : [printable(render(request))]),
      ...(body === undefined ? [] : [`answer: ${printable(body, 600)}`]),
    ].join('\n')
    this.#violations.push({ index, fault, text })
    this.#log(`\n${text}\n`)
  }

  async #logProgress(done: number): Promise<void> {
    const figures = await Promise.all(this.#worlds.map((world) => world.figures()))
    const memory = figures.map(({ residentBytes, heapBytes, externalBytes }) =>
      [residentBytes, heapBytes, externalBytes].map((bytes) => Math.round(bytes / MiB)).join('/'),
    )
    const what = 'MiB resident/heap/buffers'
    this.#log(`${done} requests, ${this.#violations.length} violations, ${memory.join(' and ')} ${what}`)
  }

  #log(line: string): void {
    this.#options.log?.(line)
  }
}

async function inTime(work: Promise<void>): Promise<void> {
  const stop = new AbortController()
  const late = sleep(3 * dueMs, undefined, { signal: stop.signal }).then(
    () => {
      throw new Error('it hangs')
    },
    () => undefined,
  )
  try {
    await Promise.race([work, late])
  } finally {
    stop.abort()
  }
}

/** Whether the answer was given up because a part of the file is not here; the log may come a little later. */
async function hasBrokenOff(world: World, { target }: WireRequest): Promise<boolean> {
  const [path = ''] = target.split('?')
  for (let tries = 0; tries < 10; tries++) {
    if (world.receiver.brokenTargets.has(path)) return true
    await sleep(20)
  }
  return false
}
