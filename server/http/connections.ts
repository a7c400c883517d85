/**
 * The connections of the servers: how many there may be, which of them have a request under way, who does not take
 * their answer, and what is said to those that break HTTP.
 *
 * When there are as many as may be, the connection that has been idle for longest is closed for a new one: of the client
 * that has most, and one on which nothing was ever asked before one that waits for its next request. So half-open
 * connections cost those who make them, and nobody else. Where none is idle the new one is refused.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Logger } from 'pino'
import { encodeProblem, Problem, problemMediaType } from '../../protocol/problem.ts'
import { type ClientLimits, defaultClientLimits } from './client-limits.ts'
import { networkOf } from './client-name.ts'
import { defaultPatience } from './context.ts'
import { linger } from './linger.ts'
import { plainAddress } from './peers.ts'

/**
 * Requests of one connection that are under way. Node takes as many as a client sends: some megabytes of them
 * would be gigabytes of memory, and seconds without an answer for everybody else. Few clients send a second
 * before the first is answered, and those must be prepared to send again: RFC 9112, section 9.3.2.
 */
const maxPipelined = 256
/** How often it is looked who does not take their answer, at most. */
const maxLookMs = 5000
/** A connection that is refused may take so long to read why. */
const refusalMs = 1000
/** So many at once are told why they are refused. */
const maxRefusals = 64

export interface ConnectionsOptions {
  readonly limits?: Pick<ClientLimits, 'maxConnections' | 'maxClientConnections'>
  /** Of an answer, nothing being taken for so long is too slow. */
  readonly stallMs?: number
  /** Whether many clients come from there. Undefined is a Unix socket. */
  readonly isShared?: (address: string | undefined) => boolean
}

interface Connection {
  /** Where requests come in: with TLS another one than at first. */
  socket: Socket
  readonly client: string
  readonly isShared: boolean
  /** Of the requests under way: the first one's is being made, the others wait. */
  readonly answers: Map<ServerResponse, () => void>
  hasAsked: boolean
  /** What comes after the requests so far is not to be understood. */
  isOver: boolean
  /** It was told so, and lingers (linger.ts): Node's parser says it again of each piece that still comes. */
  isRefused: boolean
  idleSince: number
  /** Bytes that were taken, and when that was last seen to grow, or nothing to be there to take. */
  taken: number
  takenAt: number
}

export class Connections {
  readonly #log: Logger
  readonly #limits: NonNullable<ConnectionsOptions['limits']>
  readonly #stallMs: number
  readonly #isShared: (address: string | undefined) => boolean
  readonly #connections = new Map<Duplex, Connection>()
  readonly #ofClients = new Map<string, Set<Connection>>()
  /** Those that have not agreed on their keys yet, by their ends. */
  readonly #greeting = new Map<string, Connection>()
  #look: NodeJS.Timeout | undefined
  #refusals = 0
  #stopping = false
  #counts = { taken: 0, refused: 0, displaced: 0, stalled: 0 }

  constructor(log: Logger, options: ConnectionsOptions = {}) {
    this.#log = log
    this.#limits = options.limits ?? defaultClientLimits
    this.#stallMs = options.stallMs ?? defaultPatience.stallMs
    this.#isShared = options.isShared ?? ((address) => address === undefined)
  }

  /**
   * How many there are, of how many clients; and since the beginning: taken, refused because there were too many, closed
   * for another because they were idle, cut off because their client did not take the answer.
   */
  get usage() {
    return { open: this.#open.size, clients: this.#ofClients.size, ...this.#counts }
  }

  get #open(): Set<Connection> {
    return new Set(this.#connections.values())
  }

  /** To be called with each server before it listens. */
  watch(server: Server): void {
    const isTls = 'setSecureContext' in server
    server.on('connection', (socket: Socket) => this.#came(socket, isTls))
    server.on('secureConnection', (socket: Socket) => this.#agreed(socket))
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => this.#refuseNonsense(error, socket))
  }

  #came(socket: Socket, isTls: boolean): void {
    if (socket.destroyed) return
    const address = socket.remoteAddress
    const connection: Connection = {
      socket,
      client: networkOf(address),
      isShared: this.#isShared(address === undefined ? undefined : plainAddress(address)),
      answers: new Map(),
      hasAsked: false,
      isOver: false,
      isRefused: false,
      idleSince: performance.now(),
      taken: 0,
      takenAt: performance.now(),
    }
    if (this.#stopping || !this.#makeRoom(connection)) {
      this.#refuse(socket, isTls)
      return
    }
    this.#counts.taken++
    const own = this.#ofClients.get(connection.client) ?? new Set()
    this.#ofClients.set(connection.client, own.add(connection))
    this.#connections.set(socket, connection)
    const ends = endsOf(socket)
    if (isTls) this.#greeting.set(ends, connection)
    socket.once('close', () => {
      this.#connections.delete(socket)
      if (this.#greeting.get(ends) === connection) this.#greeting.delete(ends)
      own.delete(connection)
      if (own.size === 0 && this.#ofClients.get(connection.client) === own)
        this.#ofClients.delete(connection.client)
    })
    this.#look ??= setInterval(() => this.#cutStalled(), Math.min(maxLookMs, this.#stallMs / 4)).unref()
  }

  /** The keys are agreed on: from here on the connection is the socket inside. */
  #agreed(socket: Socket): void {
    const ends = endsOf(socket)
    const connection = this.#greeting.get(ends)
    this.#greeting.delete(ends)
    if (connection === undefined) {
      socket.destroy()
      return
    }
    connection.socket = socket
    this.#connections.set(socket, connection)
    socket.once('close', () => this.#connections.delete(socket))
    if (this.#stopping) this.#closeIfIdle(connection)
  }

  /** Whether there is room for one more, after an idle one has been closed if need be. */
  #makeRoom(connection: Connection): boolean {
    const own = this.#ofClients.get(connection.client) ?? new Set()
    if (!connection.isShared && own.size >= this.#limits.maxClientConnections) return this.#displace([own])
    let open = 0
    for (const { size } of this.#ofClients.values()) open += size
    if (open < this.#limits.maxConnections) return true
    const greedier = [...this.#ofClients.values()].filter((other) => other === own || other.size > own.size)
    return this.#displace(greedier.sort((a, b) => b.size - a.size))
  }

  /** Closes an idle connection of the first client that has one. */
  #displace(clients: readonly Set<Connection>[]): boolean {
    for (const connections of clients) {
      let idlest: Connection | undefined
      for (const connection of connections) {
        const { socket } = connection
        if (connection.answers.size > 0 || socket.destroyed) continue
        if (idlest === undefined || isIdler(connection, idlest)) idlest = connection
      }
      if (idlest === undefined) continue
      this.#counts.displaced++
      this.#log.debug({ from: idlest.client }, 'an idle connection was closed for another')
      idlest.socket.destroy()
      connections.delete(idlest)
      return true
    }
    return false
  }

  /** There are too many. */
  #refuse(socket: Socket, isTls: boolean): void {
    this.#counts.refused++
    this.#log.info({ from: socket.remoteAddress }, 'a connection was refused: there are too many')
    // Before the keys are agreed on nothing can be said.
    if (isTls || this.#stopping || this.#refusals >= maxRefusals) {
      socket.destroy()
      return
    }
    this.#refusals++
    const timer = setTimeout(() => socket.destroy(), refusalMs)
    socket.once('close', () => {
      clearTimeout(timer)
      this.#refusals--
    })
    socket.on('error', () => socket.destroy())
    const problem = new Problem('unavailable', 'there are too many connections; try again in a second')
    socket.end(plainAnswer(problem, randomUUID(), ['Retry-After: 1']))
  }

  /**
   * To be called with every request. Calls `handle` when those before it on its connection have been answered: what
   * comes after a change must find it, and only requests of safe methods may be handled at once (RFC 9112, section
   * 9.3.2). Never calls it where nobody waits for an answer any more, or for so many.
   */
  take({ socket, headers }: IncomingMessage, response: ServerResponse, handle: () => void): void {
    const connection = this.#connections.get(socket)
    if (connection === undefined || socket.destroyed || connection.isOver) return
    if (headers.upgrade !== undefined) {
      // Nobody here speaks anything else, but Node's parser stops behind such a request all the same: it drops what came
      // together with its end, and reads on where the next piece begins, be that in the middle of a body.
      connection.isOver = true
      response.shouldKeepAlive = false
    }
    const { answers } = connection
    if (answers.size >= maxPipelined) {
      this.#log.info('a client has sent too many requests without waiting for answers')
      socket.destroy()
      return
    }
    connection.hasAsked = true
    answers.set(response, handle)
    response.once('close', () => {
      answers.delete(response)
      connection.idleSince = performance.now()
      if (this.#stopping) this.#closeIfIdle(connection)
      const [next] = answers.values()
      if (!socket.destroyed) next?.()
    })
    if (answers.size === 1) handle()
  }

  /** Ends every connection as soon as no request is under way on it: also those that never sent one. */
  closeWhenIdle(): void {
    this.#stopping = true
    for (const connection of this.#open) this.#closeIfIdle(connection)
  }

  #closeIfIdle({ socket, answers }: Connection): void {
    // One that has been ended lingers, so that its client gets the answer: linger.ts.
    if (answers.size === 0 && !socket.writableEnded) socket.destroy()
  }

  /** Cuts off clients that do not take a slice (answer-slices.ts) of what is in memory for them in time. */
  #cutStalled(): void {
    const now = performance.now()
    const open = this.#open
    for (const connection of open) {
      const { socket } = connection
      const left = socket.writableLength
      const taken = socket.bytesWritten - left
      if (left === 0 || taken !== connection.taken) {
        connection.taken = taken
        connection.takenAt = now
      } else if (now - connection.takenAt > this.#stallMs) {
        this.#counts.stalled++
        this.#log.info({ from: connection.client }, 'a client did not take its answer')
        socket.destroy()
      }
    }
    if (open.size > 0) return
    clearInterval(this.#look)
    this.#look = undefined
  }

  /** What is no HTTP reaches no handler. A problem document, unless part of another answer has left. */
  #refuseNonsense(error: NodeJS.ErrnoException, socket: Duplex): void {
    const connection = this.#connections.get(socket)
    if (connection === undefined) {
      this.#log.info({ code: error.code, reason: error.message }, 'a client could not agree with us on TLS')
      socket.destroy()
      return
    }
    if (connection.isRefused) return
    const answers = [...connection.answers.keys()]
    const isSilent = connection.socket.bytesRead === 0
    const isLate = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
    const isGone = error.code === 'ECONNRESET' || (isLate && (isSilent || answers.length > 0))
    if (isGone || !socket.writable || answers.length > 1 || answers.some((answer) => answer.headersSent)) {
      socket.destroy()
      return
    }
    const requestId = randomUUID()
    const answer = plainAnswer(nonsense(error.code), requestId)
    if (isLate) {
      socket.end(answer, () => socket.destroy())
      return
    }
    this.#log.info({ err: error, requestId }, 'what a client sent is not HTTP')
    connection.isRefused = true
    socket.write(answer)
    linger(connection.socket)
  }
}

/** Whether `a` is to be closed before `b`; both are idle. */
function isIdler(a: Connection, b: Connection): boolean {
  return a.hasAsked === b.hasAsked ? a.idleSince < b.idleSince : !a.hasAsked
}

function nonsense(code: string | undefined): Problem {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return new Problem('too-slow', 'the headers came too slowly')
  const detail = code === 'HPE_HEADER_OVERFLOW' ? 'the headers are too long' : 'the request is not HTTP/1.1'
  return new Problem('invalid-request', detail)
}

const reasons: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  503: 'Service Unavailable',
}

/** An answer to what is no request, after which the connection ends. */
function plainAnswer(problem: Problem, requestId: string, headers: readonly string[] = []): string {
  const body = JSON.stringify(encodeProblem(problem))
  const status = problem.status as number
  return [
    `HTTP/1.1 ${status} ${reasons[status]}`,
    `Content-Type: ${problemMediaType}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    `X-Request-Id: ${requestId}`,
    ...headers,
    'Connection: close',
    '',
    body,
  ].join('\r\n')
}

/** The ends of a connection by TCP. A TLS socket does not tell which socket it was made of, but has the same. */
function endsOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort} ${socket.localPort}`
}
