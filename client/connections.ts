/**
 * Keep-alive connections to one server, on Node's own HTTP. A request goes out at the pace of its socket, the answer
 * comes in at the reader's. Nothing is made again here: http.ts does that.
 *
 * A request has the connection for itself until its answer was read to the end, was left early, or failed. An answer
 * of 400 or more that comes before the body is out ends the sending; the connection goes with it.
 */
import type { Agent, ClientRequest, IncomingMessage, RequestOptions } from 'node:http'
import * as https from 'node:https'
import type { Socket } from 'node:net'
import { bodyPieces } from './body-pieces.ts'
import type { ClientCertificate } from './login.ts'

export interface ConnectionOptions {
  readonly connections: number
  readonly socketPath?: string | undefined
  readonly certificate?: ClientCertificate | undefined
}

export interface Exchange {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array> | undefined
  readonly signal: AbortSignal | undefined
  /** How long the answer's headers may take once the body is out, and each next piece of the body. */
  readonly answerMs: number
  readonly idleMs: number
  /** Told of each piece that a connected socket is given. */
  readonly onSent: (bytes: number) => void
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** Must be iterated, to the end or left early. */
  readonly body: AsyncIterable<Buffer>
}

/**
 * What `Agent` of node:https is made of: `Agent` of node:http. That module itself brings WebSocket and all of fetch along,
 * for 20 ms and 10 MB (measured).
 */
const PlainAgent = Object.getPrototypeOf(https.Agent) as typeof Agent

const connectMs = 10_000
/** Servers that do not say how long they keep an idle connection seldom close it sooner. */
const keepIdleMs = 4000

export class Connections {
  readonly #agent: Agent
  readonly #to: RequestOptions
  readonly #underWay = new Set<ClientRequest>()

  /** Opens none yet. */
  constructor(origin: string, { connections, socketPath, certificate }: ConnectionOptions) {
    const { protocol, hostname, port } = new URL(socketPath === undefined ? origin : 'http://localhost')
    const settings = { keepAlive: true, maxSockets: connections, timeout: keepIdleMs }
    this.#agent =
      protocol === 'https:' ? new https.Agent({ ...settings, ...certificate }) : new PlainAgent(settings)
    // A URL has an IPv6 address in brackets.
    const host = hostname.replace(/^\[(.*)\]$/, '$1')
    this.#to = {
      protocol,
      host,
      port: port || (protocol === 'https:' ? 443 : 80),
      ...(socketPath !== undefined && { socketPath }),
    }
  }

  /** The answer's head. Rejects with what went wrong on the way; with the signal's reason when it aborts. */
  async exchange(exchange: Exchange): Promise<Answer> {
    const { method, path, headers, answerMs, idleMs } = exchange
    const timeout = Math.max(answerMs, idleMs)
    const agent = this.#agent
    const outgoing = https.request({ ...this.#to, agent, method, path, headers, timeout })
    this.#underWay.add(outgoing)
    outgoing.once('close', () => this.#underWay.delete(outgoing))
    return new ExchangeUnderWay(outgoing, exchange).answer()
  }

  /** Ends all of them, and with them the requests under way. */
  close(): void {
    this.#agent.destroy()
    for (const outgoing of this.#underWay) outgoing.destroy(new Error('the client was closed'))
  }
}

class ExchangeUnderWay {
  readonly #outgoing: ClientRequest
  readonly #exchange: Exchange
  readonly #timer: NodeJS.Timeout
  readonly #onAbort: () => void
  /** Nobody waits for the other side now: the reader is at work. */
  #isPaused = false
  #failure: unknown
  #status = 0

  constructor(outgoing: ClientRequest, exchange: Exchange) {
    const { signal, answerMs } = exchange
    this.#outgoing = outgoing
    this.#exchange = exchange
    this.#timer = this.#timeoutAfter(answerMs)
    this.#onAbort = () => this.#fail(signal?.reason)
    if (signal?.aborted) this.#onAbort()
    signal?.addEventListener('abort', this.#onAbort, { once: true })
    // Node's own listener stands before this one.
    outgoing.once('socket', (socket) => socket.on('data', letGo))
    outgoing.once('close', () => {
      clearTimeout(this.#timer)
      signal?.removeEventListener('abort', this.#onAbort)
      outgoing.socket?.off('data', letGo)
    })
  }

  #timeoutAfter(ms: number): NodeJS.Timeout {
    return setTimeout(() => {
      if (!this.#isPaused) this.#fail(timedOut(ms))
    }, ms).unref()
  }

  #fail(reason: unknown): void {
    this.#failure ??= reason ?? new Error('aborted')
    this.#outgoing.destroy(this.#failure instanceof Error ? this.#failure : undefined)
  }

  async answer(): Promise<Answer> {
    const outgoing = this.#outgoing
    try {
      const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
        outgoing.once('response', (message) => {
          this.#status = message.statusCode ?? 0
          resolve(message)
        })
        outgoing.on('error', reject)
        this.#send().catch((error: unknown) => this.#fail(error))
      })
      // Whoever reads is told; until somebody does, this must not count as unhandled.
      incoming.on('error', (error) => error)
      return { status: this.#status, headers: incoming.headers, body: this.#body(incoming) }
    } catch (error) {
      throw this.#failure ?? error
    }
  }

  async #send(): Promise<void> {
    const { pieces, onSent } = this.#exchange
    const outgoing = this.#outgoing
    if (pieces === undefined) {
      outgoing.once('socket', limitConnecting)
      outgoing.end()
      return
    }
    await connected(outgoing)
    for await (const piece of pieces) {
      if (outgoing.destroyed || this.#status >= 400) return
      this.#timer.refresh()
      onSent(piece.length)
      if (piece.length > 0 && !outgoing.write(piece)) await drained(outgoing)
    }
    this.#timer.refresh()
    outgoing.end()
  }

  async *#body(incoming: IncomingMessage): AsyncGenerator<Buffer, void, undefined> {
    const outgoing = this.#outgoing
    clearTimeout(this.#timer)
    const timer = this.#timeoutAfter(this.#exchange.idleMs)
    try {
      for await (const piece of bodyPieces(incoming)) {
        this.#isPaused = true
        yield piece
        this.#isPaused = false
        timer.refresh()
      }
    } catch (error) {
      throw this.#failure ?? error
    } finally {
      clearTimeout(timer)
      if (!outgoing.writableFinished) outgoing.destroy()
    }
  }
}

/**
 * Frees what was read from a socket: the parser has copied all that it hands on. Left to the collector it was 25 MB of a
 * restore's memory (measured).
 */
function letGo({ buffer }: Buffer): void {
  if (buffer instanceof ArrayBuffer) buffer.transfer(0)
}

/** Resolves when the request has a connected socket, or never will. */
function connected(outgoing: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    outgoing.once('close', resolve)
    outgoing.once('socket', (socket) => {
      limitConnecting(socket)
      if (socket.connecting) socket.once(readyEvent(socket), () => resolve())
      else resolve()
    })
  })
}

function readyEvent(socket: Socket): string {
  return 'encrypted' in socket ? 'secureConnect' : 'connect'
}

function limitConnecting(socket: Socket): void {
  if (!socket.connecting) return
  const timer = setTimeout(() => socket.destroy(timedOut(connectMs)), connectMs).unref()
  for (const event of [readyEvent(socket), 'close']) socket.once(event, () => clearTimeout(timer))
}

function drained(outgoing: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      outgoing.off('drain', done)
      outgoing.off('close', done)
      outgoing.off('response', done)
      resolve()
    }
    outgoing.on('drain', done)
    outgoing.on('close', done)
    outgoing.on('response', done)
  })
}

function timedOut(ms: number): Error {
  return Object.assign(new Error(`nothing came for ${ms} ms`), { code: 'ETIMEDOUT' })
}
