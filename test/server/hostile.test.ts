/** Requests that no client of ours sends: none may end the receiver, or hold what others need. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Id } from '../../protocol/id.ts'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import type { CollectableStore } from '../../server/index.ts'
import { MemoryChunkStore } from '../../server/store/memory-chunk-store.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { begin, chunk, MiB, noise, post, put, RawConnection, smallTree } from './requests.ts'

let server: TestReceiver
beforeEach(async () => {
  server = await startReceiver({ unobserved: true })
})
afterEach(() => server.stop())

async function answerTo(text: string): Promise<string> {
  const raw = await RawConnection.open(server.url)
  raw.send(text)
  return await raw.end()
}

describe('a request target that is no path', () => {
  const warnings: Error[] = []
  const note = (warning: Error): void => void warnings.push(warning)
  beforeAll(() => void process.on('warning', note))
  afterAll(() => {
    process.off('warning', note)
    expect(warnings).toEqual([])
  })

  test.each([
    ['http://%%@host/'],
    ['http://%zz@host/home/'],
    ['http://[::1/'],
    ['http://a:99999/x'],
    ['http://:x/y'],
    ['*'],
  ])('%s', async (target) => {
    const answer = await answerTo(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 40[04] [\s\S]*urn:chunkdav:problem:/)
    expect((await fetch(`${server.url}/-/health`)).status).toBe(200)
  })
})

test('of two Hosts none is taken', async () => {
  for (const hosts of ['localhost\r\nHost: example.org', 'localhost\r\nhost: localhost']) {
    const answer = await answerTo(`GET /home/ HTTP/1.1\r\nHost: ${hosts}\r\nConnection: close\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 400 [\s\S]*urn:chunkdav:problem:invalid-request/)
  }
})

test.each([['bad host'], ['['], ['a:b:c'], ['%'], ['']])('Host "%s" is no fault of ours', async (host) => {
  const answer = await answerTo(
    `GET /home/checkpoints/s/1?root=x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
  )
  expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /)
})

test.each([
  ['headers that do not end', 'X-Flood: yyyyy\r\n', 'the headers are too long'],
  ['what is no header', 'no header\r\n', 'the request is not HTTP/1.1'],
])('who looks at the answer only behind all of it gets the answer: %s', async (_, line, reason) => {
  const raw = await RawConnection.open(server.url)
  raw.socket.pause()
  raw.send('GET /home/ HTTP/1.1\r\nHost: localhost\r\n')
  for (let piece = 0; piece < 10; piece++) {
    raw.send(line.repeat(2000))
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  raw.socket.resume()
  const answer = await raw.end()
  expect(answer).toMatch(/^HTTP\/1\.1 400 /)
  expect(answer).toContain(reason)
  expect(answer.split('HTTP/1.1 400 ')).toHaveLength(2)
})

describe('a client that leaves early', () => {
  const body = (id: string): string => {
    const json = JSON.stringify({ ids: [id] })
    return `POST /home/chunks/fetch HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${json.length}\r\n\r\n${json}`
  }
  const get = (id: string): string => `GET /home/chunks/${id} HTTP/1.1\r\nHost: localhost\r\n\r\n`
  const lengthOf = (id: string): string => `HEAD /home/dirs/${id} HTTP/1.1\r\nHost: localhost\r\n\r\n`
  const requests: [string, (id: string) => string][] = [
    ['a fetch', body],
    ['a chunk', get],
    ['chunks, one behind the other', (id) => get(id).repeat(3)],
  ]

  test.each([
    ...requests.map(([name, text]) => [name, text, 'chunks', chunk(noise(MiB, 11))] as const),
    ['a chunk that leaves in one piece', get, 'chunks', chunk(noise(1000, 11))] as const,
    ['the length of an object', lengthOf, 'dirs', encodeDirectoryObject([])] as const,
  ])('before the first of it was read gives its memory back: %s', async (_, text, kind, item) => {
    const gate = gated()
    await using slow = await startReceiver({
      unobserved: true,
      patience: { stallMs: 20 },
      openStore: async () => gate.around(await MemoryChunkStore.open()),
    })
    await put(slow, kind, item)
    const { downloads } = slow.receiver
    gate.close()
    const raw = await RawConnection.open(slow.url)
    raw.send(text(item.id))
    await until(() => downloads.usage.heldBytes > 0)
    raw.socket.resetAndDestroy()
    await new Promise((resolve) => setTimeout(resolve, 50))
    gate.open()
    await until(() => downloads.usage.heldBytes === 0 && downloads.usage.waiting === 0)
    // Nobody waits any more for a client that has left.
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect((await fetch(`${slow.vaultUrl}/${kind}/${item.id}`)).status).toBe(200)
  })

  test.each(requests)('while it waits for memory gives up its place: %s', async (_, text) => {
    const item = chunk(noise(MiB, 12))
    await put(server, 'chunks', item)
    const { downloads } = server.receiver
    const all = await downloads.reserve(downloads.totalBytes)
    const raw = await RawConnection.open(server.url)
    raw.send(text(item.id))
    await until(() => downloads.usage.waiting > 0)
    raw.socket.resetAndDestroy()
    await until(() => downloads.usage.waiting === 0)
    all.release()
    expect(downloads.usage.heldBytes).toBe(0)
  })
})

test('stopping does not wait for ever for a request that hangs, and closes the stores', async () => {
  let closed = false
  const gate = gated()
  const hanging = await startReceiver({
    unobserved: true,
    drainMs: 50,
    openStore: async () => {
      const store = gate.around(await MemoryChunkStore.open())
      return new Proxy(store, {
        get(target, name) {
          if (name === 'close') closed = true
          return Reflect.get(target, name, target)
        },
      })
    },
  })
  const item = chunk('hangs')
  await put(hanging, 'chunks', item)
  gate.close()
  const raw = await RawConnection.open(hanging.url)
  raw.send(`GET /home/chunks/${item.id} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  await until(() => hanging.receiver.downloads.usage.heldBytes > 0)
  await hanging.stop()
  expect(closed).toBe(true)
  gate.open()
})

describe('a client that does not take its answer is cut off, and its memory is there for others', () => {
  const tree = smallTree()
  const item = chunk(noise(16 * MiB, 13))
  test.each([
    ['a chunk', `GET /home/chunks/${item.id}`, ''],
    ['a fetch', 'POST /home/chunks/fetch', JSON.stringify({ ids: [item.id] })],
  ])('%s', async (_, line, body) => {
    await using hasty = await startReceiver({ unobserved: true, patience: { stallMs: 200 } })
    await put(hasty, 'chunks', item)
    const { downloads } = hasty.receiver
    const raw = await RawConnection.open(hasty.url)
    raw.socket.pause()
    raw.send(`${line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    await until(() => downloads.usage.heldBytes > 0)
    await until(() => downloads.usage.heldBytes === 0)
    raw.socket.destroy()
    await put(hasty, 'chunks', tree.a)
    expect((await fetch(`${hasty.vaultUrl}/chunks/${tree.a.id}`)).status).toBe(200)
  })

  test('one that takes it slowly, but takes it, gets all of it', async () => {
    await using hasty = await startReceiver({ unobserved: true, patience: { stallMs: 400 } })
    await put(hasty, 'chunks', item)
    const raw = await RawConnection.open(hasty.url)
    raw.socket.pause()
    raw.send(`GET /home/chunks/${item.id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    for (let took = 0; took < 8; took++) {
      await new Promise((resolve) => setTimeout(resolve, 100))
      raw.socket.resume()
      await new Promise((resolve) => setTimeout(resolve, 2))
      raw.socket.pause()
    }
    raw.socket.resume()
    expect((await raw.end()).length).toBeGreaterThan(item.bytes.length)
  })
})
describe('a client that sends its body too slowly', () => {
  const { id } = chunk('never whole')
  const line = `PUT /home/chunks/${id}`
  test.each([
    ['in silence', line, 1000, 0],
    ['byte by byte', line, 100_000, 1],
    ['byte by byte, of an object', `PUT /home/dirs/${id}`, 100_000, 1],
    ['byte by byte, of a question', 'POST /home/chunks/missing', 100_000, 1],
  ])('%s is cut off, and its memory is there for others', async (_, line, length, bytes) => {
    await using hasty = await startReceiver({ unobserved: true, patience: { idleMs: 200 } })
    const raw = await RawConnection.open(hasty.url)
    raw.send(`${line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${length}\r\n\r\n`)
    const trickle = setInterval(() => raw.send(Buffer.alloc(bytes, 'x')), 20)
    expect(await raw.end()).toMatch(/^HTTP\/1\.1 408 [\s\S]*Connection: close[\s\S]*too-slow/i)
    clearInterval(trickle)
    await until(() => hasty.receiver.uploads.usage.heldBytes === 0)
  })

  test('but fast enough is served, however long it takes', async () => {
    await using hasty = await startReceiver({ unobserved: true, patience: { idleMs: 200 } })
    const item = chunk(noise(60_000, 14))
    const raw = await RawConnection.open(hasty.url)
    raw.send(`PUT /home/chunks/${item.id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n`)
    for (let sent = 0; sent < item.bytes.length; sent += 6000) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      raw.send(item.bytes.subarray(sent, sent + 6000))
    }
    expect(await raw.until('"stored"')).toMatch(/^HTTP\/1\.1 201 /)
    raw.socket.destroy()
  })
})

test('a commit and a question do not wait behind uploads', async () => {
  const { uploads } = server.receiver
  const all = await uploads.reserve(uploads.totalBytes)
  const path = await begin(server, 's', 'chunks')
  expect((await post(server, `${path}/commit`, { items: 0 })).status).toBe(200)
  const ids = Array.from({ length: 500 }, (_, i) => chunk(`asked ${i}`).id)
  expect((await post(server, 'chunks/missing', { ids })).status).toBe(200)
  all.release()
})

describe('an object that is here takes memory of the budget while it is decoded, not while a body comes', () => {
  const tree = smallTree()
  beforeEach(async () => {
    for (const item of tree.objects) await put(server, 'chunks', item)
  })
  const head = (line: string, headers = ''): string =>
    `${line} HTTP/1.1\r\nHost: localhost\r\n${headers}Content-Length: 30000\r\n\r\n`

  test('PUT', async () => {
    const { decoding } = server.receiver
    const all = await decoding.reserve(decoding.totalBytes)
    const raw = await RawConnection.open(server.url)
    raw.send(head(`PUT /home/dirs/${tree.root.id}`))
    await until(() => decoding.usage.waiting === 1)
    all.release()
    await until(() => decoding.usage.heldBytes === 0 && decoding.usage.waiting === 0)
    raw.send(Buffer.alloc(30_000))
    expect(await raw.until('"known"')).toMatch(/^HTTP\/1\.1 200 /)
    raw.socket.destroy()
  })

  test('PATCH', async () => {
    const { uploads, decoding } = server.receiver
    const raw = await RawConnection.open(server.url)
    const headers = `Content-Type: application/json-patch+json\r\nChunkdav-Base: ${tree.root.id}\r\n`
    raw.send(head(`PATCH /home/dirs/${chunk('new').id}`, headers))
    await until(() => uploads.usage.heldBytes === 30_000)
    expect(decoding.usage.heldBytes).toBe(0)
    raw.socket.destroy()
    await until(() => uploads.usage.heldBytes === 0)
  })
})

test.each([
  ['a malformed header', 'GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n'],
  ['no HTTP at all', 'hello\r\n\r\n'],
  ['endless headers', `GET / HTTP/1.1\r\nHost: localhost\r\nA: ${'x'.repeat(70_000)}\r\n\r\n`],
  ['no Host', 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n'],
  [
    'a malformed body',
    `PUT /home/chunks/${chunk('x').id} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`,
  ],
])('%s is answered by a problem document', async (_, text) => {
  const answer = await answerTo(text)
  expect(answer).toMatch(/^HTTP\/1\.1 400 [\s\S]*X-Request-Id: [\s\S]*urn:chunkdav:problem:in/i)
})

describe('a receiver for this machine is not there for the web pages that its user looks at', () => {
  const ask = (headers: string): Promise<string> =>
    answerTo(`GET /-/health HTTP/1.1\r\n${headers}Connection: close\r\n\r\n`)

  test.each([
    ['another name, pointed here', 'Host: evil.example:8420\r\n'],
    ['an address that begins alike', 'Host: 127.0.0.1.evil.example\r\n'],
    ['a page of elsewhere', 'Host: localhost\r\nOrigin: http://evil.example\r\n'],
    ['a page without a place', 'Host: localhost\r\nOrigin: null\r\n'],
  ])('%s', async (_, headers) => {
    expect(await ask(headers)).toMatch(/^HTTP\/1\.1 400 [\s\S]*urn:chunkdav:problem:invalid-request/)
  })

  test.each([['localhost'], ['LOCALHOST:8420'], ['127.0.0.1:1'], ['127.9.9.9'], ['[::1]:8420']])(
    'it is there as %s',
    async (host) => {
      expect(await ask(`Host: ${host}\r\n`)).toMatch(/^HTTP\/1\.1 200 /)
      expect(await ask(`Host: ${host}\r\nOrigin: http://${host}\r\n`)).toMatch(/^HTTP\/1\.1 200 /)
    },
  )

  test('one that listens for others has any name', async () => {
    await using open = await startReceiver({ unobserved: true, host: '0.0.0.0' })
    const raw = await RawConnection.open(`http://127.0.0.1:${open.receiver.port}`)
    raw.send('GET /-/health HTTP/1.1\r\nHost: backup.example\r\nConnection: close\r\n\r\n')
    expect(await raw.end()).toMatch(/^HTTP\/1\.1 200 /)
  })
})

test.each([
  ['nothing', ''],
  ['half of a head', 'GET / HTTP/1.1\r\nHo'],
])('a connection that has sent %s does not hold up the stop', async (_, text) => {
  await using slow = await startReceiver({ unobserved: true, drainMs: 20_000 })
  const raw = await RawConnection.open(slow.url)
  raw.send(text)
  await new Promise((resolve) => setTimeout(resolve, 30))
  const started = performance.now()
  await slow.receiver.close()
  expect(performance.now() - started).toBeLessThan(5000)
})

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}

/** A store of which reads wait while the gate is closed. */
function gated() {
  let opened = Promise.resolve()
  let open = (): void => {}
  return {
    close: () => {
      opened = new Promise((resolve) => {
        open = resolve
      })
    },
    open: () => open(),
    around: (store: CollectableStore): CollectableStore =>
      new Proxy(store, {
        get(target, name) {
          const value: unknown = Reflect.get(target, name, target)
          if (name === 'get') return async (id: Id) => opened.then(() => target.get(id))
          if (name === 'blocks') {
            return async function* (ids: readonly Id[]) {
              await opened
              yield* target.blocks(ids)
            }
          }
          return typeof value === 'function' ? value.bind(target) : value
        },
      }),
  }
}

describe('a body that waits to be let, behind another request of its connection', () => {
  const item = chunk(noise(1000, 14))
  const put = `PUT /home/chunks/${item.id} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n`

  test.each([true, false])('is let when it is its turn; sent at once: %s', async (isSentAtOnce) => {
    const gate = gated()
    await using slow = await startReceiver({
      unobserved: true,
      openStore: async () => gate.around(await MemoryChunkStore.open()),
    })
    const first = chunk(noise(2000, 15))
    await fetch(`${slow.vaultUrl}/chunks/${first.id}`, { method: 'PUT', body: new Uint8Array(first.bytes) })
    gate.close()
    const raw = await RawConnection.open(slow.url)
    raw.send(`GET /home/chunks/${first.id} HTTP/1.1\r\nHost: localhost\r\n\r\n${put}`)
    if (isSentAtOnce) raw.send(item.bytes)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(raw.received).toBe('')
    gate.open()
    if (!isSentAtOnce) {
      await raw.until('100 Continue')
      raw.send(item.bytes)
    }
    const text = await raw.until('"outcome"')
    raw.socket.destroy()
    const behind = text.slice(text.indexOf('\r\n\r\n') + 4 + first.bytes.length)
    expect(behind).toMatch(
      /^(HTTP\/1\.1 100 Continue\r\n\r\n)?HTTP\/1\.1 201 (?:[^\r\n]+\r\n)+\r\n\{"id":"[^}]*"stored"\}$/,
    )
    if (!isSentAtOnce) expect(behind).toMatch(/^HTTP\/1\.1 100/)
  })
})

describe('an upgrade to something that nobody speaks here', () => {
  const head = 'Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n'

  test('is passed over, and the connection ends with the answer', async () => {
    expect(await answerTo(`GET /-/health HTTP/1.1\r\n${head}\r\n`)).toMatch(
      /^HTTP\/1\.1 200 [\s\S]*Connection: close\r\n/i,
    )
  })

  test('what follows it is never taken for another request than it is', async () => {
    const raw = await RawConnection.open(server.url)
    const hidden = 'MKCOL /hidden/ HTTP/1.1\r\nHost: localhost\r\n\r\n'
    const put = `PUT /home/tree/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${hidden.length}\r\n\r\n`
    raw.send(`GET /-/health HTTP/1.1\r\n${head}\r\n${put}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
    raw.send(hidden)
    await raw.end()
    expect(await server.receiver.vaults.list()).toEqual(['home'])
  })

  test('a body with it is read', async () => {
    const text = `PUT /home/tree/f HTTP/1.1\r\n${head}Content-Length: 5\r\n\r\nhello`
    expect(await answerTo(text)).toMatch(/^HTTP\/1\.1 201 /)
    expect(await (await fetch(`${server.vaultUrl}/tree/f`)).text()).toBe('hello')
  })
})
