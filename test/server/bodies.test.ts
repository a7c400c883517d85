/** Early answers: what is said before, or instead of, reading a body. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { limits } from '../../protocol/limits.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { chunk, MiB, noise, put, RawConnection } from './requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
})
afterAll(() => server.stop())

const head = (method: string, path: string, headers: Record<string, string | number>): string =>
  [
    `${method} /home/${path} HTTP/1.1`,
    'Host: localhost',
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    '',
    '',
  ].join('\r\n')

describe('Expect: 100-continue', () => {
  const expecting = { Expect: '100-continue' }

  test('a chunk that is here is answered without 100 and before the body', async () => {
    const item = chunk(noise(100_000, 61))
    await put(server, 'chunks', item)
    const raw = await RawConnection.open(server.url)
    raw.send(head('PUT', `chunks/${item.id}`, { ...expecting, 'Content-Length': item.bytes.length }))
    const text = await raw.end()
    expect(text).toMatch(/^HTTP\/1\.1 200 /)
    expect(text).toContain('"outcome":"known"')
    expect(text.toLowerCase()).toContain('connection: close')
  })

  test('a chunk that is not here is asked for, and the connection goes on', async () => {
    const item = chunk(noise(100_000, 62))
    const raw = await RawConnection.open(server.url)
    raw.send(head('PUT', `chunks/${item.id}`, { ...expecting, 'Content-Length': item.bytes.length }))
    expect(await raw.until('100 Continue')).toBe('HTTP/1.1 100 Continue\r\n\r\n')
    raw.send(item.bytes)
    expect(await raw.until('"stored"')).toContain('HTTP/1.1 201')
    raw.send(head('GET', `chunks/${item.id}`, { Range: 'bytes=0-0', Connection: 'close' }))
    expect(await raw.end()).toContain('HTTP/1.1 206')
  })

  test('an object that is here is answered before the body', async () => {
    const item = chunk('{"type":"directory","entries":[]}')
    await put(server, 'dirs', item)
    const raw = await RawConnection.open(server.url)
    raw.send(head('PUT', `dirs/${item.id}`, { ...expecting, 'Content-Length': item.bytes.length }))
    expect(await raw.end()).toMatch(/^HTTP\/1\.1 200 [\s\S]*"whole":true/)
  })

  test.each([
    ['an unknown expectation', { Expect: '200-ok', 'Content-Length': 5 }, 417],
    ['a body over the limit', { ...expecting, 'Content-Length': limits.maxChunkBytes + 1 }, 413],
    ['an unknown encoding', { ...expecting, 'Content-Length': 5, 'Content-Encoding': 'br' }, 415],
    ['an unknown checkpoint', { ...expecting, 'Content-Length': 5, 'Chunkdav-Checkpoint': 'a/1' }, 404],
  ])('%s is refused without 100', async (_, headers, status) => {
    const raw = await RawConnection.open(server.url)
    raw.send(head('PUT', `chunks/${chunk('never').id}`, headers))
    expect(await raw.end()).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
  })
})

describe('a body over the limit', () => {
  const { id } = chunk('never stored')

  test.each([
    ['a chunk', 'PUT', `chunks/${id}`, limits.maxChunkBytes, {}],
    [
      'a batch',
      'POST',
      'chunks/',
      limits.maxBatchBytes,
      { 'Content-Type': 'application/vnd.chunkdav.batch' },
    ],
    ['an object', 'PUT', `dirs/${id}`, limits.maxObjectBytes, {}],
    ['a question', 'POST', 'chunks/missing', limits.maxJsonBytes, {}],
    ['a checkpoint', 'POST', 'checkpoints/big/', limits.maxJsonBytes, {}],
  ])('is refused by its length, before any of it was sent: %s', async (_, method, path, limit, headers) => {
    const raw = await RawConnection.open(server.url)
    raw.send(head(method, path, { ...headers, 'Content-Length': limit + 1 }))
    const text = await raw.end()
    expect(text).toMatch(/^HTTP\/1\.1 413 /)
    expect(text.toLowerCase()).toContain('connection: close')
  })

  const known = chunk('stored already')
  test.each([
    ['a chunk that is not here', id],
    ['one that is here', known.id],
  ])('is refused as soon as it is too long, the rest is not read: %s', async (_, id) => {
    await put(server, 'chunks', known)
    const raw = await RawConnection.open(server.url)
    raw.send(head('PUT', `chunks/${id}`, { 'Transfer-Encoding': 'chunked' }))
    const piece = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(MiB), Buffer.from('\r\n')])
    for (let sent = 0; sent < 512 && !raw.received.includes('413'); sent++) {
      if (!raw.socket.write(piece)) {
        const drained = new Promise((resolve) => raw.socket.once('drain', resolve))
        await Promise.race([drained, raw.until('413')])
      }
    }
    expect(await raw.until('body-too-large')).toMatch(/^HTTP\/1\.1 413 /)
    raw.socket.destroy()
    // What the kernels and the lingering close take, on top of the limit.
    expect(raw.socket.bytesWritten).toBeLessThan(limits.maxChunkBytes + 24 * MiB)
  })

  test('a client that sends on regardless, and reads late, still gets the answer', async () => {
    const raw = await RawConnection.open(server.url)
    raw.socket.pause()
    raw.send(head('PUT', `chunks/${id}`, { 'Content-Length': limits.maxChunkBytes + 1 }))
    // Were the connection closed at once, the first of these would be answered by a reset, which throws
    // away what the client has not read yet.
    for (let sent = 0; sent < 4; sent++) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      raw.send(Buffer.alloc(64 * 1024))
    }
    raw.socket.resume()
    expect(await raw.end()).toMatch(/^HTTP\/1\.1 413 [\s\S]*body-too-large/)
  })
})

describe('a body that ends early', () => {
  test.each([
    ['by its length', { 'Content-Length': 1000 }, 'x'.repeat(999)],
    ['in the middle of its chunks', { 'Transfer-Encoding': 'chunked' }, '3e8\r\nxxx'],
  ])('%s stores nothing', async (_, headers, body) => {
    const { id } = chunk('x'.repeat(999))
    const raw = await RawConnection.open(server.url)
    raw.send(head('PUT', `chunks/${id}`, headers) + body)
    raw.socket.end()
    await raw.end()
    expect((await fetch(`${server.vaultUrl}/chunks/${id}`)).status).toBe(404)
    expect(server.receiver.uploads.usage.heldBytes).toBe(0)
  })
})

test('small refused bodies do not cost the connection', async () => {
  const raw = await RawConnection.open(server.url)
  const body = '{"ids":["x"]}'
  raw.send(head('POST', 'chunks/missing', { 'Content-Length': body.length }) + body)
  expect(await raw.until('invalid-request')).toContain('HTTP/1.1 400')
  raw.send(head('POST', 'checkpoints/a/9/commit', { 'Content-Length': 2, Connection: 'close' }))
  raw.send('{}')
  expect(await raw.end()).toContain('checkpoint-not-found')
})

test('requests that come one behind the other on a connection are answered in order', async () => {
  const items = Array.from({ length: 10 }, (_, i) => chunk(`pipelined ${i}`))
  const raw = await RawConnection.open(server.url)
  for (const { id, bytes } of items) {
    raw.send(head('PUT', `chunks/${id}`, { 'Content-Length': bytes.length }) + bytes.toString())
  }
  raw.send(head('GET', 'chunks/none', { Connection: 'close' }))
  const text = await raw.end()
  const told = [...text.matchAll(/"id":"(blake3:[0-9a-f]+)"/g)].map(([, id]) => id)
  expect(told).toEqual(items.map(({ id }) => id))
})
