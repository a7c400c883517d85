/** What is done to requests that were right. Each changes one thing, and several may be done to one request. */
import { METHODS } from 'node:http'
import * as nasty from './nasty.ts'
import type { Random } from './random.ts'
import { sentinel, type Universe } from './universe.ts'
import { inChunks, removeHeader, setHeader, type WireRequest } from './wire-request.ts'

type Mutate = (request: WireRequest, random: Random, universe: Universe) => void

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1')

function replaceSegment(request: WireRequest, random: Random, by: string): void {
  const [path = '', ...query] = request.target.split('?')
  const names = path.split('/')
  names[1 + random.below(Math.max(1, names.length - 1))] = by
  request.target = [names.join('/'), ...query].join('?')
}

/** The body as bytes that say themselves where they end, or do not. */
function own(request: WireRequest, headers: readonly [string, string][], body: Buffer): void {
  request.framing = 'own'
  request.isFramed = false
  request.body = body
  for (const [name] of headers) removeHeader(request, name)
  request.headers.push(...headers)
}

const ofTargets: Readonly<Record<string, Mutate>> = {
  segment: (request, random) => replaceSegment(request, random, random.pick(nasty.segments)),
  number: (request, random) => {
    const value = random.pick(nasty.numbers).replaceAll(' ', '%20')
    request.target = request.target.replace(/\/[0-9]+(?=\/|$|\?)|(?<==)[0-9]+/g, (found) =>
      found.startsWith('/') ? `/${value}` : value,
    )
  },
  'way out': (request, random) => {
    request.target = random.pick(nasty.waysOut)
  },
  'way out, absolute': (request, random) => {
    request.target = `http://localhost${random.pick(nasty.waysOut)}`
  },
  'long path': (request, random) => {
    const length = random.pick([1000, 5000, 20_000, 70_000])
    request.target += random.chance(0.5) ? `/${'x'.repeat(length)}` : '/d'.repeat(length / 2)
  },
  query: (request, random) => {
    const values = [
      '?',
      '?&&&=',
      '?first=-1&limit=0',
      '?limit=1e9',
      '?root=',
      '?archive=zip',
      '?a=%zz',
      '?first=1&first=2',
    ]
    request.target += random.pick([...values, `?${'a=b&'.repeat(5000)}`, '?__proto__=1', '?\xff'])
  },
  form: (request, random) => {
    request.target = random.pick([
      `http://localhost${request.target}`,
      `http://user:pass@localhost:1${request.target}`,
      `https://example.invalid${request.target}`,
      'localhost:80',
      '*',
      '//',
      '///',
      '?',
      '',
      `${request.target}#x`,
      `${request.target} `,
      ` ${request.target}`,
      request.target.slice(1),
      request.target.replaceAll('/', '//'),
      request.target.replaceAll('/', '\\'),
      'http://[::1/',
      'http://:::/',
      'data:text/plain,x',
    ])
  },
  slash: (request) => {
    request.target = request.target.endsWith('/') ? request.target.slice(0, -1) || '/' : `${request.target}/`
  },
  upper: (request) => {
    request.target = request.target.toUpperCase()
  },
}

const ofHeads: Readonly<Record<string, Mutate>> = {
  method: (request, random) => {
    request.method = random.pick([
      ...METHODS,
      'get',
      'Put',
      'BREW',
      'GET\t',
      '',
      'X'.repeat(500),
      '\xff',
      'PRI',
    ])
  },
  version: (request, random) => {
    request.version = random.pick([
      'HTTP/1.0',
      'HTTP/1.0',
      'HTTP/0.9',
      'HTTP/1.2',
      'HTTP/2.0',
      'HTTP/1.1 ',
      'http/1.1',
      '',
      'X',
    ])
  },
  'header value': (request, random) => {
    setHeader(request, random.pick(nasty.headerNames), random.pick(nasty.headerValues))
  },
  'header twice': (request, random) => {
    const [name, value] = random.pick(request.headers)
    request.headers.push([name, random.chance(0.5) ? value : random.pick(nasty.headerValues)])
  },
  'own header bent': (request, random) => {
    const place = request.headers.length - 1 - random.below(request.headers.length)
    const [name] = request.headers[place] as [string, string]
    request.headers[place] = [name, random.pick(nasty.headerValues)]
  },
  'no header': (request, random) => removeHeader(request, random.pick(request.headers)[0]),
  host: (request, random) => {
    const hosts = [
      '',
      'example.invalid',
      'a b',
      '[',
      'localhost:99999',
      'localhost, localhost',
      '\xff',
      '127.0.0.1:0',
      '[::1]',
    ]
    setHeader(request, 'Host', random.pick(hosts))
  },
  flood: (request, random) => {
    const [count, length] = random.pick([
      [100, 20],
      [900, 50],
      [3000, 5],
      [5, 12_000],
      [2, 40_000],
    ] as const)
    for (let i = 0; i < count; i++) request.headers.push([`X-Flood-${i}`, 'y'.repeat(length)])
  },
  'not a header': (request, random) => {
    request.isFramed = false
    const name = random.pick([
      'Bad Name',
      'Name ',
      '',
      ':',
      'X\x00Y',
      '\xff',
      'Content-Length ',
      ' Folded',
      'X\rY',
    ])
    request.headers.push([name, random.pick(['x', 'a\x00b', 'a\nb', 'a\r\n folded', 'a\x7f'])])
  },
  range: (request, random) => setHeader(request, 'Range', random.pick(nasty.ranges)),
  depth: (request, random) => setHeader(request, 'Depth', random.pick(nasty.depths)),
  if: (request, random) => setHeader(request, 'If', random.pick(nasty.ifs)),
  destination: (request, random) => {
    if (random.chance(0.5)) request.method = random.pick(['COPY', 'MOVE'])
    setHeader(request, 'Destination', random.pick(nasty.destinations))
  },
  'copy to sentinel': (request, random) => {
    request.method = random.pick(['COPY', 'MOVE'])
    setHeader(request, 'Overwrite', 'T')
    setHeader(request, 'Destination', `/${sentinel}/tree/${random.pick(['kept.txt', 'new.txt', ''])}`)
  },
  authorization: (request, random) => setHeader(request, 'Authorization', random.pick(nasty.authorizations)),
  expect: (request, random) => {
    setHeader(
      request,
      'Expect',
      random.pick(['100-continue', '100-Continue', '100-continue, x', 'x', '', '200-ok']),
    )
  },
  upgrade: (request, random) => {
    const to = random.pick(['websocket', 'h2c', 'TLS/1.0', 'x'])
    request.headers.push(
      ['Connection', 'Upgrade, HTTP2-Settings'],
      ['Upgrade', to],
      ['HTTP2-Settings', 'AAMAAABk'],
    )
    if (to === 'websocket') request.headers.push(['Sec-WebSocket-Key', 'dGhlIHNhbXBsZSBub25jZQ=='])
  },
  connection: (request, random) => {
    const values = [
      'close',
      'keep-alive',
      'close, keep-alive',
      'Content-Length',
      'Host, Authorization',
      '\xff',
      'x'.repeat(5000),
    ]
    setHeader(request, 'Connection', random.pick(values))
  },
  id: (request, random) => {
    const ids = [
      `md5:${'0'.repeat(32)}`,
      `blake3:${'G'.repeat(64)}`,
      `sha256:${'A'.repeat(64)}`,
      `blake3:${'0'.repeat(65)}`,
    ]
    const id = random.pick([...ids, 'blake3', `blake3%3a${'0'.repeat(64)}`, `blake3:${'0'.repeat(64)}`])
    request.target = request.target.replace(/(blake3|sha256):[0-9a-f]{64}/, id)
  },
  'another id': (request, random, universe) => {
    const { id } = random.pick([
      ...universe.chunks,
      ...universe.fresh,
      ...universe.directories,
      ...universe.files,
    ])
    request.target = request.target.replace(/(blake3|sha256):[0-9a-f]{64}/, id)
  },
  base: (request, random, universe) => {
    const ids = [
      ...universe.chunks.map(({ id }) => id),
      universe.absent,
      'x',
      '',
      universe.files[0]?.id ?? '',
    ]
    setHeader(request, 'Chunkdav-Base', random.pick(ids))
  },
  'content type': (request, random) => {
    const types = [
      '',
      'x',
      'application/json; charset=utf-16',
      'multipart/form-data',
      'application/vnd.chunkdav.batch',
      'text/xml',
    ]
    setHeader(request, 'Content-Type', random.pick([...types, 'a/b;'.repeat(2000)]))
  },
  'content encoding': (request, random) => {
    setHeader(
      request,
      'Content-Encoding',
      random.pick(['zstd', 'gzip', 'zstd, zstd', 'identity', 'br', 'x'.repeat(3000)]),
    )
  },
}

const ofBodies: Readonly<Record<string, Mutate>> = {
  'body cut short': (request, random) => {
    request.body = request.body?.subarray(0, Math.floor(request.body.length * random.next()))
  },
  'body flipped': (request, random) => {
    if (request.body === undefined || request.body.length === 0) return
    request.body = Buffer.from(request.body)
    for (let i = 0; i <= random.below(4); i++) {
      const at = random.below(request.body.length)
      request.body[at] = (request.body[at] as number) ^ (1 << random.below(8))
    }
  },
  'body longer': (request, random) => {
    if (request.body !== undefined)
      request.body = Buffer.concat([request.body, random.bytes(1 + random.below(50))])
  },
  'body empty': (request) => {
    request.body = Buffer.alloc(0)
  },
  noise: (request, random) => {
    request.body = random.bytes(random.pick([1, 10, 1000, 40_000]))
  },
  json: (request, random) => {
    request.body = bytes(random.pick(nasty.jsons))
  },
  xml: (request, random) => {
    request.body = bytes(random.pick(nasty.xmls))
    if (random.chance(0.7)) setHeader(request, 'Content-Type', 'application/xml')
  },
  'zstd bomb': (request, random, universe) => {
    request.body = random.pick(universe.bombs)
    if (random.chance(0.9)) setHeader(request, 'Content-Encoding', 'zstd')
  },
  'zstd bent': (request, random, universe) => {
    const frame = Buffer.from(random.pick([...universe.zstdOf.values()]))
    for (let i = 0; i < 3 && frame.length > 0; i++) frame[random.below(frame.length)] = random.below(256)
    request.body = random.chance(0.5)
      ? frame
      : Buffer.concat([frame, random.pick([...universe.zstdOf.values()])])
    setHeader(request, 'Content-Encoding', 'zstd')
  },
  'zstd window': (request) => {
    // A frame that asks for a window of 3.75 TiB.
    request.body = Buffer.from('28b52ffd00ff0100007800', 'hex')
    setHeader(request, 'Content-Encoding', 'zstd')
  },
  'false batch': (request, random, universe) => {
    const batch = nasty.falseBatch(random.pick(universe.batches), random)
    request.body = random.chance(0.3) ? Buffer.concat([random.pick(universe.batches), batch]) : batch
    if (random.chance(0.8)) request.target = request.target.replace(/^\/([^/]+)\/.*/, '/$1/chunks/')
    if (request.target.endsWith('/chunks/')) request.method = 'POST'
    setHeader(request, 'Content-Type', 'application/vnd.chunkdav.batch')
  },
  'body to whoever has none': (request, random) => {
    request.body ??= random.bytes(random.pick([1, 100, 70_000]))
  },
}

const ofFramings: Readonly<Record<string, Mutate>> = {
  'wrong length': (request, random) => {
    const body = request.body ?? bytes('some bytes')
    const { length } = body
    const values = [
      length + 1,
      length + 100_000,
      Math.max(0, length - 1),
      0,
      -1,
      '9'.repeat(30),
      '18446744073709551616',
      2 ** 53,
    ]
    own(request, [['Content-Length', String(random.pick(values))]], body)
  },
  'bad length': (request, random) => {
    const body = request.body ?? bytes('some bytes')
    const values = [
      `+${body.length}`,
      `0x${body.length.toString(16)}`,
      `${body.length}, ${body.length}`,
      `${body.length} 1`,
      '',
      'x',
      '1e3',
      '1_0',
    ]
    own(request, [['Content-Length', random.pick(values)]], body)
  },
  'two lengths': (request, random) => {
    const body = request.body ?? bytes('some bytes')
    own(request, [], body)
    const other = random.pick([body.length, 0, body.length + 10])
    request.headers.push(['Content-Length', String(body.length)], ['Content-Length', String(other)])
  },
  'length and chunks': (request, random) => {
    const body = request.body ?? bytes('some bytes')
    own(
      request,
      [
        ['Content-Length', String(random.pick([0, 4, body.length]))],
        ['Transfer-Encoding', 'chunked'],
      ],
      inChunks(body),
    )
  },
  'transfer coding': (request, random) => {
    const codings = [
      'gzip, chunked',
      'chunked, gzip',
      'identity',
      'chunked, chunked',
      'xchunked',
      ' chunked',
      'chunked;x=1',
      'CHUNKED',
      '\x0bchunked',
      '',
    ]
    own(request, [['Transfer-Encoding', random.pick(codings)]], inChunks(request.body ?? bytes('some bytes')))
  },
  'chunk sizes': (request, random) => {
    const sizes = [
      '-1',
      'x',
      '',
      'ffffffffffffffff',
      'fffffffffffffffff',
      '0x5',
      '5 ',
      '+5',
      '7fffffff',
      '5\n',
      '00000000000005',
    ]
    own(request, [['Transfer-Encoding', 'chunked']], bytes(`${random.pick(sizes)}\r\nhello\r\n0\r\n\r\n`))
  },
  'chunks bent': (request, random) => {
    const bent = Buffer.from(inChunks(request.body ?? bytes('some bytes')))
    bent[random.below(bent.length)] = random.below(256)
    own(
      request,
      [['Transfer-Encoding', 'chunked']],
      random.chance(0.5) ? bent : bent.subarray(0, random.below(bent.length)),
    )
  },
  'chunk extensions': (request, random) => {
    const extension = random.pick([';a=b', ';a="b c"', ';', ';a', `;${'x'.repeat(20_000)}`, ';\xff', ';a=\n'])
    own(request, [['Transfer-Encoding', 'chunked']], inChunks(request.body ?? bytes('some bytes'), extension))
  },
  trailers: (request, random) => {
    const trailers = [
      'X-Trailer: 1\r\n',
      'Content-Length: 5\r\n',
      'Host: other\r\nAuthorization: x\r\n',
      'bad trailer\r\n',
      `${'X: y\r\n'.repeat(3000)}`,
    ]
    own(
      request,
      [['Transfer-Encoding', 'chunked']],
      inChunks(request.body ?? bytes('some bytes'), '', random.pick(trailers)),
    )
  },
}

const ofSending: Readonly<Record<string, Mutate>> = {
  'cut off': (request, random) => {
    request.isFramed = false
    request.cutAt = random.next()
    request.ending = random.pick(['half-close', 'reset', 'half-close'])
  },
  'half closed': (request) => {
    request.ending = 'half-close'
  },
  'nobody waits': (request) => {
    request.ending = 'reset'
  },
  'in pieces': (request, random) => {
    request.pieces = 2 + random.below(12)
  },
  again: (request, random) => {
    request.times = 2 + random.below(random.chance(0.2) ? 40 : 3)
  },
}

const kinds = [
  [ofTargets, 25],
  [ofHeads, 30],
  [ofBodies, 25],
  [ofFramings, 12],
  [ofSending, 8],
] as const

/** Names of all mutations. */
export const mutationNames: readonly string[] = kinds.flatMap(([mutations]) => Object.keys(mutations))

const wheel = kinds.flatMap(([mutations, weight]) => Array.from({ length: weight }, () => mutations))

/** Bends the request, in one to three ways; one in five stays as it was. */
export function mutate(request: WireRequest, random: Random, universe: Universe): void {
  if (random.chance(1 / 5)) return
  const count = random.pick([1, 1, 1, 2, 2, 3])
  // Framing comes last: what is said of the body must be said of the body that is sent.
  const chosen = Array.from({ length: count }, () => random.pick(wheel)).sort((a, b) => order(a) - order(b))
  for (const mutations of chosen) {
    const name = random.pick(Object.keys(mutations))
    mutations[name]?.(request, random, universe)
    request.mutations.push(name)
  }
  keepInBounds(request)
}

function order(mutations: Readonly<Record<string, Mutate>>): number {
  return kinds.findIndex(([known]) => known === mutations)
}

/** Every new vault stays open, with two databases: a few of them are enough. */
function keepInBounds(request: WireRequest): void {
  if (request.method.toUpperCase() !== 'MKCOL') return
  const path = request.target.replace(/^[a-z]+:\/\/[^/]*/, '').split(/[?#]/)[0] ?? ''
  if (!/^\/*[^/]*\/?$/.test(path)) return
  request.target = `/fuzz${'-other'.slice(0, path.length % 6)}/`
}
