import request from 'supertest'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compress } from '../../protocol/zstd.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { chunk, MiB, noise, problemOf, put } from './requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
})
afterAll(() => server.stop())

const url = (id: string): string => `${server.vaultUrl}/chunks/${id}`

describe('a chunk that was put can be read', () => {
  test.each([
    ['empty', Buffer.alloc(0), 'blake3'],
    ['one byte', Buffer.from('x'), 'blake3'],
    ['by SHA-256', Buffer.from('sha'), 'sha256'],
    ['incompressible', noise(200_000), 'blake3'],
    ['compressible', Buffer.alloc(500_000, 'abc'), 'blake3'],
    ['the largest', Buffer.alloc(16 * MiB, 'x'), 'blake3'],
  ] as const)('%s', async (_, bytes, algorithm) => {
    const item = chunk(bytes, algorithm)
    const first = await put(server, 'chunks', item)
    expect([first.status, await first.json()]).toEqual([201, { id: item.id, outcome: 'stored' }])
    expect(first.headers.get('etag')).toBe(`"${item.id}"`)
    const again = await put(server, 'chunks', item)
    expect([again.status, await again.json()]).toEqual([200, { id: item.id, outcome: 'known' }])
    const read = Buffer.from(await (await fetch(url(item.id))).arrayBuffer())
    expect(read.equals(item.bytes)).toBe(true)
  })
})

describe('a zstd body', () => {
  test('is decoded, verified, and given back as it came', async () => {
    const item = chunk(Buffer.alloc(100_000, 'zstd '))
    const frame = await compress(item.bytes)
    const answer = await put(server, 'chunks', { id: item.id, bytes: frame }, { 'Content-Encoding': 'zstd' })
    expect(answer.status).toBe(201)
    const plain = await request(server.url).get(`/home/chunks/${item.id}`).set('Accept-Encoding', 'identity')
    expect(plain.body.equals(item.bytes)).toBe(true)
    expect(plain.headers).toMatchObject({
      etag: `"${item.id}"`,
      vary: 'Accept-Encoding',
      'accept-ranges': 'bytes',
    })
    const encoded = await fetch(url(item.id), { headers: { 'Accept-Encoding': 'zstd' } })
    expect(encoded.headers.get('content-encoding')).toBe('zstd')
    expect(encoded.headers.get('etag')).toBe(`"${item.id}-zstd"`)
    expect(Number(encoded.headers.get('content-length'))).toBe(frame.length)
  })

  test('is told of by HEAD as by GET, and a 304 has the tag of the copy that is good', async () => {
    const item = chunk(Buffer.alloc(100_000, 'both '))
    await put(server, 'chunks', item)
    const headers = { 'Accept-Encoding': 'zstd' }
    const [get, head] = [
      await fetch(url(item.id), { headers }),
      await fetch(url(item.id), { method: 'HEAD', headers }),
    ]
    for (const name of ['etag', 'content-encoding', 'content-length', 'vary']) {
      expect([name, head.headers.get(name)]).toEqual([name, get.headers.get(name)])
    }
    for (const tag of [`"${item.id}-zstd"`, `"${item.id}"`]) {
      const answer = await fetch(url(item.id), { headers: { ...headers, 'If-None-Match': tag } })
      expect([answer.status, answer.headers.get('etag')]).toEqual([304, tag])
    }
  })

  test('must not decode to more than a chunk', async () => {
    const bomb = await compress(Buffer.alloc(16 * MiB + 1))
    const { id } = chunk('bomb')
    const answer = await put(server, 'chunks', { id, bytes: bomb }, { 'Content-Encoding': 'zstd' })
    expect(await problemOf(answer)).toBe('413 body-too-large')
  })

  test.each([
    ['no frame', Buffer.from('no frame'), '400 invalid-encoding'],
    ['a cut frame', undefined, '400 invalid-encoding'],
  ])('that is %s is refused', async (_, given, expected) => {
    const item = chunk(noise(5000, 3))
    const bytes = given ?? (await compress(item.bytes)).subarray(0, 2000)
    const answer = await put(server, 'chunks', { id: item.id, bytes }, { 'Content-Encoding': 'zstd' })
    expect(await problemOf(answer)).toBe(expected)
    expect((await fetch(url(item.id))).status).toBe(404)
  })
})

test.each([
  ['a false hash', chunk('something else').id, {}, '422 digest-mismatch'],
  ['a malformed id', 'blake3:XYZ', {}, '400 invalid-id'],
  ['an unknown encoding', chunk('x1').id, { 'Content-Encoding': 'gzip' }, '415 unsupported-encoding'],
  ['an absent checkpoint', chunk('x2').id, { 'Chunkdav-Checkpoint': 'a/9' }, '404 checkpoint-not-found'],
  ['a malformed checkpoint', chunk('x3').id, { 'Chunkdav-Checkpoint': 'a' }, '400 invalid-request'],
])('PUT with %s is refused, and nothing is stored', async (_, id, headers, expected) => {
  const answer = await put(server, 'chunks', { id: id as never, bytes: Buffer.from('bytes') }, headers)
  expect(await problemOf(answer)).toBe(expected)
  expect((await fetch(url(id))).status).toBeGreaterThanOrEqual(400)
})

test.each([['GET'], ['HEAD']])('%s of an absent chunk is 404', async (method) => {
  const answer = await fetch(url(chunk('never sent').id), { method })
  expect(answer.status).toBe(404)
  expect(answer.headers.get('x-request-id')).toBeTruthy()
})

describe('ranges and conditions', () => {
  const item = chunk(Buffer.from('0123456789'))
  const tag = `"${item.id}"`
  beforeAll(async () => {
    await put(server, 'chunks', item)
  })

  test.each([
    ['bytes=0-3', {}, 206, '0123', 'bytes 0-3/10'],
    ['bytes=7-', {}, 206, '789', 'bytes 7-9/10'],
    ['bytes=-2', {}, 206, '89', 'bytes 8-9/10'],
    ['bytes=5-100', {}, 206, '56789', 'bytes 5-9/10'],
    ['bytes=0-1,3-4', {}, 200, '0123456789', null],
    ['lines=0-1', {}, 200, '0123456789', null],
    ['bytes=x', {}, 200, '0123456789', null],
    ['items=100-200', {}, 200, '0123456789', null],
    ['bytes=5-2', {}, 200, '0123456789', null],
    ['bytes=20-30,40-50', {}, 200, '0123456789', null],
    ['bytes=0-3', { 'If-Range': tag }, 206, '0123', 'bytes 0-3/10'],
    ['bytes=0-3', { 'If-Range': '"other"' }, 200, '0123456789', null],
    ['bytes=0-3', { 'Accept-Encoding': 'zstd' }, 206, '0123', 'bytes 0-3/10'],
  ])('Range %s with %o → %i', async (range, headers, status, body, contentRange) => {
    const answer = await fetch(url(item.id), { headers: { Range: range, ...headers } })
    expect([answer.status, await answer.text(), answer.headers.get('content-range')]).toEqual([
      status,
      body,
      contentRange,
    ])
  })

  test('a range behind the end is 416 and tells the size', async () => {
    const answer = await fetch(url(item.id), { headers: { Range: 'bytes=10-' } })
    expect(answer.headers.get('content-range')).toBe('bytes */10')
    expect(await problemOf(answer)).toBe('416 range-not-satisfiable')
  })

  test.each([
    [{ 'If-None-Match': tag }, 304],
    [{ 'If-None-Match': '"other", *' }, 200],
    [{ 'If-None-Match': '*' }, 304],
    [{ 'If-None-Match': `"${item.id}-zstd"` }, 304],
    [{ 'If-None-Match': `W/${tag}` }, 304],
    [{ 'If-None-Match': '"other"' }, 200],
    [{ 'If-Match': tag }, 200],
    [{ 'If-Match': '*' }, 200],
    [{ 'If-Match': '"other"' }, 412],
  ] as [Record<string, string>, number][])('%o → %i', async (headers, status) => {
    expect((await request(server.url).get(`/home/chunks/${item.id}`).set(headers)).status).toBe(status)
    expect((await request(server.url).head(`/home/chunks/${item.id}`).set(headers)).status).toBe(status)
  })

  test('HEAD tells the plain size', async () => {
    const { headers, status } = await request(server.url).head(`/home/chunks/${item.id}`)
    expect([status, headers['content-length'], headers.etag]).toEqual([200, '10', tag])
  })
})

describe('PATCH makes a chunk from another', () => {
  const base = chunk(noise(300_000, 11))
  const next = chunk(
    Buffer.concat([base.bytes.subarray(0, 1000), Buffer.from('inserted'), base.bytes.subarray(1000)]),
  )
  const type = 'application/vnd.chunkdav.delta+zstd'
  const patch = async (to: { id: string }, headers: Record<string, string>): Promise<Response> => {
    const body = await compress(next.bytes, { dictionary: base.bytes })
    return await fetch(url(to.id), { method: 'PATCH', body: new Uint8Array(body), headers })
  }
  beforeAll(async () => {
    await put(server, 'chunks', base)
  })

  test.each([
    [
      'an unknown base',
      next,
      { 'Content-Type': type, 'Chunkdav-Base': chunk('none').id },
      '409 base-not-found',
    ],
    ['no base', next, { 'Content-Type': type }, '400 invalid-id'],
    [
      'another type',
      next,
      { 'Content-Type': 'text/plain', 'Chunkdav-Base': base.id },
      '415 unsupported-media-type',
    ],
    [
      'a false result',
      chunk('no'),
      { 'Content-Type': type, 'Chunkdav-Base': base.id },
      '422 digest-mismatch',
    ],
  ])('but not with %s', async (_, to, headers, expected) => {
    const answer = await patch(to, headers as Record<string, string>)
    if (expected.startsWith('415')) expect(answer.headers.get('accept-patch')).toBe(type)
    expect(await problemOf(answer)).toBe(expected)
  })

  test('and few bytes travel', async () => {
    const answer = await patch(next, { 'Content-Type': type, 'Chunkdav-Base': base.id })
    expect([answer.status, await answer.json()]).toEqual([201, { id: next.id, outcome: 'stored' }])
    const read = Buffer.from(await (await fetch(url(next.id))).arrayBuffer())
    expect(read.equals(next.bytes)).toBe(true)
    const again = await patch(next, { 'Content-Type': type, 'Chunkdav-Base': base.id })
    expect(again.status).toBe(200)
  })
})
