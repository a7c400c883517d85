/**
 * HTTP to one receiver: keep-alive connections, retries, problems. Everything that the protocol has is
 * idempotent, so every request that fails on the way, or is answered 503, is made again: with growing,
 * jittered pauses, `Retry-After` honoured, bounded in number and time. Until the receiver has answered
 * once the bound is short, so that a wrong URL is told at once.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import pRetry from 'p-retry'
import { decodeProblem, isProblem, Problem } from '../protocol/problem.ts'
import { type Answer, Connections } from './connections.ts'
import type { ClientCertificate } from './login.ts'
import {
  cancelledBy,
  endedBeforeAnswer,
  foreignServerText,
  type ServerKind,
  transportProblem,
} from './transport-problem.ts'

export interface TransportOptions {
  /** Connections at most, and so requests in flight. */
  readonly connections?: number
  /** How often one request is made again. */
  readonly retries?: number
  /** How long one request is tried in all, from its first failure on. */
  readonly maxRetryMs?: number
  /** The same while the receiver has never answered. */
  readonly firstContactMs?: number
  /** The pause before the first retry; it doubles, and jitter may double it again. */
  readonly firstPauseMs?: number
  /** How long an answer's headers, and each next piece of a body, may take. */
  readonly idleMs?: number
  /** Headers for every request. */
  readonly headers?: Readonly<Record<string, string>>
  /** What an answer of 400 or more means. Default: what a chunkdav receiver means by it. */
  readonly refusal?: (answer: RefusedAnswer) => Problem
  /** Connect to this Unix socket instead of the origin's host. */
  readonly socketPath?: string | undefined
  /** Shown to a server that asks for one. */
  readonly certificate?: ClientCertificate | undefined
  /** What answers there, for what is told when nothing does. Default: a receiver. */
  readonly kind?: ServerKind
}

/** An answer of 400 or more. */
export interface RefusedAnswer {
  readonly method: string
  readonly origin: string
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

type DefaultedOptions = Required<Omit<TransportOptions, 'socketPath' | 'certificate'>>

const defaults = {
  connections: 8,
  retries: 8,
  maxRetryMs: 60_000,
  firstContactMs: 2000,
  firstPauseMs: 200,
  idleMs: 300_000,
  headers: {},
  refusal: receiverProblem,
  kind: 'receiver',
} satisfies DefaultedOptions
const maxPauseMs = 10_000
/** Answers that are read whole are bounded: the largest is a chunk, or a page of items. */
const maxAnswerBytes = 32 * 1024 * 1024

export interface TransportCounters {
  /** Bytes of request bodies that went out, retries included. */
  bytesSent: number
  /** Bytes of answers' bodies that came in. */
  bytesReceived: number
  /** Requests made, retries included. */
  requests: number
}

export interface OutgoingRequest {
  readonly method: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  /** Pieces that travel one behind the other. They must not change until the answer is there. */
  readonly body?: readonly Uint8Array[]
  /** Instead of `body`: a body that is made as it is sent, `bytes` long when that is known. For `send` only. */
  readonly streamed?: { readonly pieces: AsyncIterable<Uint8Array>; readonly bytes: number | undefined }
  readonly signal?: AbortSignal | undefined
  /** Replaces `idleMs` for an answer that may take long, in ms. */
  readonly answerMs?: number
}

export interface IncomingAnswer<Body> {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Body
}

/** One receiver's connections. */
export class Transport {
  readonly origin: string
  readonly counters: TransportCounters = { bytesSent: 0, bytesReceived: 0, requests: 0 }
  readonly #options: DefaultedOptions
  readonly #connections: Connections
  readonly #hasCertificate: boolean
  #answered = false
  #closed = false

  constructor(origin: string, options: TransportOptions = {}) {
    this.origin = origin
    this.#options = { ...defaults, ...definedOf(options) }
    const { socketPath, certificate } = options
    this.#hasCertificate = certificate !== undefined
    const { connections } = this.#options
    this.#connections = new Connections(origin, { connections, socketPath, certificate })
  }

  /** The answer with its body, read whole. A status of 400 or more rejects with its Problem. */
  request(outgoing: OutgoingRequest): Promise<IncomingAnswer<Buffer>> {
    return this.retried(outgoing.signal, async () => {
      const { status, headers, body } = await this.#attempt(outgoing)
      return { status, headers, body: await readWhole(body) }
    })
  }

  /** As `request`, but never made again: what a streamed body was made from is gone. */
  async send(outgoing: OutgoingRequest): Promise<IncomingAnswer<Buffer>> {
    const { status, headers, body } = await this.#attempt(outgoing)
    return { status, headers, body: await readWhole(body) }
  }

  /**
   * The answer with its body as a stream, which must be iterated (to the end, or left early). Retries end
   * with the headers: a body that breaks off throws `transport-failed`.
   */
  stream(outgoing: OutgoingRequest): Promise<IncomingAnswer<AsyncIterable<Buffer>>> {
    return this.retried(outgoing.signal, () => this.#attempt(outgoing))
  }

  /** Runs `attempt` until it succeeds, or fails with something that trying again cannot help. */
  async retried<T>(signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
    let firstFailure: number | undefined
    try {
      return await pRetry(attempt, {
        retries: this.#options.retries,
        factor: 2,
        minTimeout: this.#options.firstPauseMs,
        maxTimeout: maxPauseMs,
        randomize: true,
        signal,
        shouldRetry: ({ error }) => {
          firstFailure ??= performance.now()
          return this.#mayHelp(error, performance.now() - firstFailure)
        },
        onFailedAttempt: async ({ error, retriesLeft }) => {
          firstFailure ??= performance.now()
          const pauseMs = pauseBehind(error)
          if (pauseMs === undefined || retriesLeft === 0) return
          if (!this.#mayHelp(error, performance.now() - firstFailure)) return
          await sleep(pauseMs, undefined, signal === undefined ? {} : { signal })
        },
      })
    } catch (error) {
      throw signal?.aborted ? cancelledBy(signal) : error
    }
  }

  #mayHelp(error: Error, elapsedMs: number): boolean {
    if (this.#closed) return false
    if (isProblem(error, 'unavailable') || isProblem(error, 'too-slow')) {
      return elapsedMs < this.#options.maxRetryMs
    }
    if (isProblem(error, 'too-many-requests')) {
      // Sooner it is refused again. Whoever would have to wait for long is told so.
      return elapsedMs + (pauseBehind(error) ?? 0) < this.#options.maxRetryMs
    }
    if (!isProblem(error, 'transport-failed')) return false
    return elapsedMs < (this.#answered ? this.#options.maxRetryMs : this.#options.firstContactMs)
  }

  async #attempt(outgoing: OutgoingRequest): Promise<IncomingAnswer<AsyncIterable<Buffer>>> {
    if (this.#closed) throw new TypeError('the client is closed')
    const { method, path, body: given = [], streamed, signal, answerMs } = outgoing
    const bodyBytes = given.reduce((sum, piece) => sum + piece.length, 0)
    const headers: Record<string, string> = { ...this.#options.headers, ...outgoing.headers }
    if (outgoing.body !== undefined) headers['content-length'] = String(bodyBytes)
    if (streamed?.bytes !== undefined) headers['content-length'] = String(streamed.bytes)
    const pieces = streamed?.pieces ?? (bodyBytes === 0 ? undefined : given)
    this.counters.requests++
    let answer: Answer
    try {
      signal?.throwIfAborted()
      const { idleMs } = this.#options
      const onSent = (bytes: number): void => {
        this.counters.bytesSent += bytes
      }
      const request = { method, path, headers, pieces, signal, answerMs: answerMs ?? idleMs, idleMs, onSent }
      answer = await this.#connections.exchange(request)
    } catch (error) {
      if (signal?.aborted) throw cancelledBy(signal)
      const problem = transportProblem(error, this.origin, this.#options.kind)
      const isExplained = this.#answered || this.#hasCertificate || this.#options.kind !== 'receiver'
      throw isExplained ? problem : endedBeforeAnswer(problem, this.origin)
    }
    this.#answered = true
    const body = this.#received(answer.body, signal)
    if (answer.status >= 400) {
      const { status, headers } = answer
      const refused = { method, origin: this.origin, status, headers, body: await readWhole(body) }
      throw withRetryAfter(this.#options.refusal(refused), headers)
    }
    return { status: answer.status, headers: answer.headers, body }
  }

  async *#received(body: AsyncIterable<Buffer>, signal: AbortSignal | undefined): AsyncIterable<Buffer> {
    try {
      for await (const piece of body) {
        this.counters.bytesReceived += piece.length
        yield piece
      }
    } catch (error) {
      throw signal?.aborted ? cancelledBy(signal) : transportProblem(error, this.origin, this.#options.kind)
    }
  }

  /** Ends all connections, and with them the requests under way. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#connections.close()
  }
}

function definedOf(options: TransportOptions): Partial<DefaultedOptions> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}

async function readWhole(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = []
  let bytes = 0
  for await (const piece of body) {
    bytes += piece.length
    if (bytes > maxAnswerBytes) {
      throw new Problem('protocol-violation', `the server's answer is longer than ${maxAnswerBytes} bytes`)
    }
    pieces.push(piece)
  }
  return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces)
}

/** What the server asks to be left alone for. One that is busy may be asked a little sooner. */
function pauseBehind(error: Error): number | undefined {
  if (!isProblem(error)) return undefined
  const { retryAfter } = error.extensions
  if (typeof retryAfter !== 'number') return undefined
  if (error.code === 'too-many-requests') return retryAfter * 1000
  return error.code === 'unavailable' ? Math.min(retryAfter * 1000, maxPauseMs) : undefined
}

/** What other servers say to requests that they have never heard of. */
const foreignStatuses = [400, 404, 405, 501]

/**
 * The problem that a receiver's answer tells of. Where it tells none, the origin is named; not for HEAD,
 * whose answers have no body to tell anything.
 */
export function receiverProblem({ method, origin, status, body }: RefusedAnswer): Problem {
  let document: unknown
  try {
    document = JSON.parse(body.toString('utf8'))
  } catch (error) {
    // DAV errors are XML, and what stands between may answer HTML: then the status tells the code.
    if (!(error instanceof SyntaxError)) throw error
  }
  const problem = decodeProblem(document, status)
  const tellsType = typeof (document as { type?: unknown } | null | undefined)?.type === 'string'
  if (method === 'HEAD' || tellsType || !foreignStatuses.includes(status)) return problem
  return new Problem(problem.code, foreignServerText(origin, status), { extensions: problem.extensions })
}

/** `retryAfter`, in seconds, is added when the answer says so. */
function withRetryAfter(problem: Problem, headers: RefusedAnswer['headers']): Problem {
  const seconds = Number(headers['retry-after'])
  if (!Number.isFinite(seconds) || seconds <= 0) return problem
  const extensions = { ...problem.extensions, retryAfter: seconds }
  return new Problem(problem.code, problem.message, { extensions })
}
