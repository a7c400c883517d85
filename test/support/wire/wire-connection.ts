/** A connection of which every byte is sent and read here, and the strict reading of what comes back. */
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export interface WireAnswer {
  readonly status: number
  /** Names in lower case; several of one name are joined by a comma, but for Set-Cookie and the like there is none here. */
  readonly headers: ReadonlyMap<string, string>
  readonly body: Buffer
  /** The connection ends behind it. */
  readonly isLast: boolean
}

export class MalformedAnswer extends Error {}

const maxHeadBytes = 64 * 1024
const statusLine = /^HTTP\/1\.1 ([1-5][0-9]{2}) ([\t\x20-\x7e]*)$/
const headerLine = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t\x20-\x7e\x80-\xff]*)$/
/** Of these a second one is an error. */
const single = new Set([
  'content-length',
  'content-type',
  'transfer-encoding',
  'date',
  'etag',
  'location',
  'x-request-id',
])

interface Parsed {
  readonly answer: WireAnswer
  readonly end: number
}

/** The answer at `start`, undefined as long as it is not whole. Interim answers are answers of their own. */
function parseAnswer(bytes: Buffer, start: number, method: string, hasEnded: boolean): Parsed | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n', start, 'latin1')
  if (headEnd < 0) {
    if (bytes.length - start > maxHeadBytes) throw new MalformedAnswer('the head does not end')
    return undefined
  }
  const [first = '', ...lines] = bytes.toString('latin1', start, headEnd).split('\r\n')
  const status = Number(statusLine.exec(first)?.[1])
  if (Number.isNaN(status))
    throw new MalformedAnswer(`no status line: ${JSON.stringify(first.slice(0, 200))}`)
  const headers = parseHeaders(lines)
  const bodyStart = headEnd + 4
  const isLast = /(?:^|,)\s*close\s*(?:,|$)/i.test(headers.get('connection') ?? '')
  const whole = (body: Buffer, end: number, isLastAlso = false): Parsed => ({
    answer: { status, headers, body, isLast: isLast || isLastAlso },
    end,
  })
  const length = headers.get('content-length')
  const isChunked = headers.has('transfer-encoding')
  if (isChunked && length !== undefined) throw new MalformedAnswer('Content-Length and Transfer-Encoding')
  if (status < 200 || status === 204) {
    if (length !== undefined || isChunked) throw new MalformedAnswer(`${status} with a length`)
    return whole(Buffer.alloc(0), bodyStart)
  }
  if (method === 'HEAD' || status === 304) return whole(Buffer.alloc(0), bodyStart)
  if (isChunked) {
    const body = parseChunks(bytes, bodyStart)
    return body && whole(body.body, body.end)
  }
  if (length !== undefined) {
    if (!/^(0|[1-9][0-9]*)$/.test(length)) throw new MalformedAnswer(`Content-Length: ${length}`)
    const end = bodyStart + Number(length)
    return bytes.length >= end ? whole(bytes.subarray(bodyStart, end), end) : undefined
  }
  return hasEnded ? whole(bytes.subarray(bodyStart), bytes.length, true) : undefined
}

function parseHeaders(lines: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>()
  for (const line of lines) {
    const [, name, value = ''] = headerLine.exec(line) ?? []
    if (name === undefined) throw new MalformedAnswer(`no header: ${JSON.stringify(line.slice(0, 200))}`)
    const key = name.toLowerCase()
    const before = headers.get(key)
    if (before !== undefined && single.has(key)) throw new MalformedAnswer(`${name} stands twice`)
    headers.set(key, before === undefined ? value : `${before}, ${value}`)
  }
  if (!['chunked', undefined].includes(headers.get('transfer-encoding')))
    throw new MalformedAnswer('a transfer coding')
  return headers
}

function parseChunks(bytes: Buffer, start: number): { body: Buffer; end: number } | undefined {
  const pieces: Buffer[] = []
  let at = start
  for (;;) {
    const lineEnd = bytes.indexOf('\r\n', at, 'latin1')
    if (lineEnd < 0) return undefined
    const line = bytes.toString('latin1', at, lineEnd)
    if (!/^[0-9a-f]{1,8}$/i.test(line))
      throw new MalformedAnswer(`no size of a chunk: ${JSON.stringify(line.slice(0, 80))}`)
    const size = Number.parseInt(line, 16)
    const end = lineEnd + 2 + size
    if (bytes.length < end + 2) return undefined
    if (bytes.toString('latin1', end, end + 2) !== '\r\n') throw new MalformedAnswer('a chunk does not end')
    if (size === 0) return { body: Buffer.concat(pieces), end: end + 2 }
    pieces.push(bytes.subarray(lineEnd + 2, end))
    at = end + 2
  }
}

export interface ConnectOptions {
  readonly port: number
  /** Of 127.0.0.0/8: clients are told apart by it. */
  readonly localAddress?: string
}

export class WireConnection {
  readonly #socket: Socket
  #received: Buffer = Buffer.alloc(0)
  #pieces: Buffer[] = []
  #hasEnded = false
  #changed: (() => void) | undefined
  #at = 0

  private constructor(socket: Socket) {
    this.#socket = socket
    const changed = (): void => this.#changed?.()
    socket.on('data', (bytes: Buffer) => {
      this.#pieces.push(bytes)
      changed()
    })
    for (const event of ['end', 'close'] as const) {
      socket.on(event, () => {
        this.#hasEnded = true
        changed()
      })
    }
    // What counts is what came; a reset shows as the end.
    socket.on('error', () => undefined)
  }

  static async open({ port, localAddress }: ConnectOptions): Promise<WireConnection> {
    const socket = connect({
      host: '127.0.0.1',
      port,
      allowHalfOpen: true,
      noDelay: true,
      ...(localAddress === undefined ? {} : { localAddress }),
    })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve())
      socket.once('error', reject)
      socket.once('close', () => reject(new Error('the connection was closed before it was there')))
    })
    return new WireConnection(socket)
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** Bytes that came and belong to no answer that was taken. */
  get rest(): Buffer {
    return this.#all().subarray(this.#at)
  }

  /** Sends in so many writes; the kernel may still join them. */
  async send(bytes: Buffer, pieces = 1): Promise<void> {
    const size = Math.max(1, Math.ceil(bytes.length / pieces))
    for (let at = 0; at < bytes.length && !this.#socket.destroyed; at += size) {
      this.#socket.write(bytes.subarray(at, at + size))
      if (pieces > 1) await sleep(1)
    }
  }

  /** The next final answer; undefined when the connection ended before it was whole. Error 'late' after `withinMs`. */
  async answer(method: string, withinMs: number): Promise<WireAnswer | undefined> {
    const until = performance.now() + withinMs
    for (;;) {
      const hasEnded = this.#hasEnded
      const parsed = parseAnswer(this.#all(), this.#at, method, hasEnded)
      if (parsed !== undefined) {
        this.#at = parsed.end
        if (parsed.answer.status >= 200) return parsed.answer
        continue
      }
      if (hasEnded) return undefined
      const left = until - performance.now()
      if (left <= 0) throw new Error('late')
      await this.#change(left)
    }
  }

  #all(): Buffer {
    if (this.#pieces.length > 0) {
      this.#received = Buffer.concat([this.#received, ...this.#pieces])
      this.#pieces = []
    }
    return this.#received
  }

  async #change(withinMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, withinMs)
      this.#changed = () => {
        clearTimeout(timer)
        resolve()
      }
      if (this.#pieces.length > 0) this.#changed()
    })
    this.#changed = undefined
  }

  halfClose(): void {
    this.#socket.end()
  }

  reset(): void {
    this.#socket.resetAndDestroy()
  }

  close(): void {
    this.#socket.destroy()
  }
}
