/** A request as bytes on a connection, before and after it was bent. Texts are latin1: one character is one byte. */
export interface WireRequest {
  operationId: string
  method: string
  target: string
  version: string
  headers: [name: string, value: string][]
  body: Buffer | undefined
  /** How the body is announced; `own` when the headers and the body say it themselves. */
  framing: 'length' | 'chunked' | 'own'
  /** Whether the receiver can know where it ends: then an answer is due, and the connection can go on. */
  isFramed: boolean
  /** Only this share of the bytes is sent. */
  cutAt: number | undefined
  /** What happens when all has been sent. */
  ending: 'wait' | 'half-close' | 'reset'
  /** How many writes it is sent in. */
  pieces: number
  /** It is sent so many times on the connection, without waiting for answers. */
  times: number
  /** What was done to it. */
  readonly mutations: string[]
}

/** All that is sent. */
export function render(request: WireRequest): Buffer {
  const { method, target, version, headers, body, framing, times, cutAt } = request
  const lines = [`${method} ${target} ${version}`, ...headers.map(([name, value]) => `${name}: ${value}`)]
  if (body !== undefined && framing === 'length') lines.push(`Content-Length: ${body.length}`)
  if (body !== undefined && framing === 'chunked') lines.push('Transfer-Encoding: chunked')
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  const content = body ?? Buffer.alloc(0)
  const one = Buffer.concat([head, framing === 'chunked' && body !== undefined ? inChunks(content) : content])
  const all = times === 1 ? one : Buffer.concat(Array.from({ length: times }, () => one))
  return cutAt === undefined ? all : all.subarray(0, Math.floor(all.length * cutAt))
}

/** A body in three chunks or fewer, none of them empty but the last. */
export function inChunks(body: Buffer, extension = '', trailers = ''): Buffer {
  const size = Math.max(1, Math.ceil(body.length / 3))
  const pieces: Buffer[] = []
  for (let at = 0; at < body.length; at += size) {
    const piece = body.subarray(at, at + size)
    pieces.push(
      Buffer.from(`${piece.length.toString(16)}${extension}\r\n`, 'latin1'),
      piece,
      Buffer.from('\r\n'),
    )
  }
  pieces.push(Buffer.from(`0${extension}\r\n${trailers}\r\n`, 'latin1'))
  return Buffer.concat(pieces)
}

export function header(request: WireRequest, name: string): string | undefined {
  return request.headers.find(([other]) => other.toLowerCase() === name.toLowerCase())?.[1]
}

export function setHeader(request: WireRequest, name: string, value: string): void {
  removeHeader(request, name)
  request.headers.push([name, value])
}

export function removeHeader(request: WireRequest, name: string): void {
  request.headers = request.headers.filter(([other]) => other.toLowerCase() !== name.toLowerCase())
}

/** Bytes as they can be read, and pasted into a string of JavaScript. */
export function printable(bytes: Buffer, maxBytes = 900): string {
  const text = bytes
    .subarray(0, maxBytes)
    .toString('latin1')
    .replace(/[^\x20-\x7e\n]|\\/g, (character) => {
      if (character === '\\') return '\\\\'
      if (character === '\r') return '\\r'
      return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
    })
  return bytes.length > maxBytes ? `${text}… (${bytes.length} bytes)` : text
}
