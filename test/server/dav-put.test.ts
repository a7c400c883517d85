/** PUT into the live tree: whole or not at all, judged before its body is taken. */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, content, lockBody, members, property, tells } from './dav-requests.ts'
import { noise, RawConnection } from './requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
  await ask(server, 'MKCOL', 'collection')
  await ask(server, 'PUT', 'file', {}, 'the file')
})
afterAll(() => server.stop())

test('creates, replaces, and tells the new ETag at once: strong, another each time, that of GET and PROPFIND', async () => {
  const tags: (string | undefined)[] = []
  for (const [body, status] of [
    ['one', 201],
    ['two', 204],
    ['two', 204],
  ] as const) {
    const answer = await ask(server, 'PUT', 'new', {}, body)
    expect([answer.status, answer.text]).toEqual([status, ''])
    const tag = answer.headers.etag
    expect(tag).toMatch(/^"[^"]+"$/)
    expect(answer.headers['oc-etag']).toBe(tag)
    expect((await ask(server, 'HEAD', 'new')).headers.etag).toBe(tag)
    expect((await property(server, 'new', 'DAV:', 'getetag'))?.content).toEqual([tag])
    expect(await content(server, 'new')).toBe(body)
    tags.push(tag)
  }
  expect(new Set(tags).size).toBe(3)
})

test('a body of any length, of known length or in chunks, comes back as it was', async () => {
  for (const size of [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000]) {
    const body = noise(size, size + 1)
    for (const how of [{ body: new Uint8Array(body) }, { body: streamOf(body), duplex: 'half' as const }]) {
      const answer = await fetch(`${server.vaultUrl}/tree/sized`, { method: 'PUT', ...how })
      expect(answer.ok).toBe(true)
      const back = await fetch(`${server.vaultUrl}/tree/sized`)
      expect(Buffer.from(await back.arrayBuffer()).equals(body)).toBe(true)
    }
  }
})

function streamOf(body: Buffer): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < body.length; at += 100_000) controller.enqueue(body.subarray(at, at + 100_000))
      controller.close()
    },
  })
}

test.each([
  ['no parent collection', 'none/file', {}, '409 conflict'],
  ['a parent that is a file', 'file/below', {}, '409 conflict'],
  ['a collection', 'collection', {}, '405 method-not-allowed'],
  ['a collection, with its slash', 'collection/', {}, '405 method-not-allowed'],
  ['the tree itself', '', {}, '405 method-not-allowed'],
  ['the tree itself, without its slash', '/home/tree', {}, '405 method-not-allowed'],
  ['a new name that ends in a slash', 'other/', {}, '409 conflict'],
  ['a file with a slash behind it', 'file/', {}, '409 conflict'],
  ['a part of a file', 'file', { 'Content-Range': 'bytes 0-3/8' }, '400 invalid-request'],
  ['an encoded body', 'file', { 'Content-Encoding': 'gzip' }, '415 unsupported-encoding'],
  ['a name of 256 bytes', 'n'.repeat(256), {}, '400 invalid-request'],
  ['a path of more than 4,096 bytes', `${'d/'.repeat(2050)}f`, {}, '400 invalid-request'],
  ['an empty name', 'a//b', {}, '400 invalid-request'],
  ['a dot name', '%2e%2e/x', {}, '400 invalid-request'],
  ['a NUL', 'a%00', {}, '400 invalid-request'],
  ['a slash in a name', 'a%2fb', {}, '400 invalid-request'],
  ['a vault that is not there', '/none/tree/x', {}, '404 vault-not-found'],
  ['a malformed time', 'file', { 'X-OC-Mtime': 'yesterday' }, '400 invalid-request'],
  ['a malformed checksum', 'file', { 'OC-Checksum': 'SHA1:abc' }, '400 invalid-request'],
])('is refused for %s', async (_, path, headers, expected) => {
  const before = await members(server)
  expect(await tells(server, 'PUT', path, headers, 'other')).toBe(expected)
  expect(await members(server)).toEqual(before)
  expect(await content(server, 'file')).toBe('the file')
})

test('a name of 255 bytes is taken', async () => {
  const name = 'm'.repeat(255)
  expect(await tells(server, 'PUT', name, {}, 'x')).toBe('201')
  expect(await tells(server, 'DELETE', name)).toBe('204')
})

describe('conditions', () => {
  const past = 'Mon, 01 Jan 2001 00:00:00 GMT'
  const future = 'Fri, 01 Jan 2100 00:00:00 GMT'
  const rows: [string, string, (tag: string) => Record<string, string>, string][] = [
    ['If-Match with the ETag', 'c', (tag) => ({ 'If-Match': tag }), '204'],
    ['If-Match with it among others', 'c', (tag) => ({ 'If-Match': `"x", ${tag}` }), '204'],
    ['If-Match with another', 'c', () => ({ 'If-Match': '"x"' }), '412 precondition-failed'],
    ['If-Match with a weak one', 'c', (tag) => ({ 'If-Match': `W/${tag}` }), '412 precondition-failed'],
    ['If-Match: *', 'c', () => ({ 'If-Match': '*' }), '204'],
    ['If-Match: * on nothing', 'c-absent', () => ({ 'If-Match': '*' }), '412 precondition-failed'],
    ['If-Match on nothing', 'c-absent', (tag) => ({ 'If-Match': tag }), '412 precondition-failed'],
    ['If-None-Match: *', 'c', () => ({ 'If-None-Match': '*' }), '412 precondition-failed'],
    ['If-None-Match: * on nothing', 'c-new', () => ({ 'If-None-Match': '*' }), '201'],
    ['If-None-Match with the ETag', 'c', (tag) => ({ 'If-None-Match': tag }), '412 precondition-failed'],
    ['If-None-Match with another', 'c', () => ({ 'If-None-Match': '"x"' }), '204'],
    ['If-Unmodified-Since before', 'c', () => ({ 'If-Unmodified-Since': past }), '412 precondition-failed'],
    ['If-Unmodified-Since after', 'c', () => ({ 'If-Unmodified-Since': future }), '204'],
    ['no date', 'c', () => ({ 'If-Unmodified-Since': '0' }), '204'],
    [
      'If-Match counts more than a date',
      'c',
      (tag) => ({ 'If-Match': tag, 'If-Unmodified-Since': past }),
      '204',
    ],
    ['If with the ETag', 'c', (tag) => ({ If: `([${tag}])` }), '204'],
    ['If with another', 'c', () => ({ If: '(["x"])' }), '412 precondition-failed'],
  ]
  test.each(rows)('%s', async (_, path, headers, expected) => {
    const {
      headers: { etag = '' },
    } = await ask(server, 'PUT', 'c', {}, 'old')
    expect(await tells(server, 'PUT', path, headers(etag), 'new')).toBe(expected)
    expect(await content(server, 'c')).toBe(expected === '204' ? 'new' : 'old')
  })

  test.each([
    ['If-None-Match: *', 412],
    ['If: (["x"])', 412],
    ['If: (', 400],
    ['Content-Range: bytes 0-1/2', 400],
  ])('%s is judged before the body, for who waits', async (header, status) => {
    await ask(server, 'PUT', 'waited', {}, 'old')
    const raw = await RawConnection.open(server.url)
    raw.send(
      `PUT /home/tree/waited HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n${header}\r\n\r\n`,
    )
    const answer = await raw.end()
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    expect(await content(server, 'waited')).toBe('old')
  })

  test('who waits and may write is told to continue', async () => {
    const raw = await RawConnection.open(server.url)
    raw.send(
      'PUT /home/tree/waited HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n',
    )
    await raw.until('100 Continue')
    raw.send('new')
    expect(await raw.end()).toContain('HTTP/1.1 204 ')
  })
})

describe('a body that ends early', () => {
  test.each([
    ['of known length', 'Content-Length: 400000\r\n\r\n', 'x'.repeat(300_000)],
    ['short', 'Content-Length: 10\r\n\r\n', 'new'],
    ['in chunks', 'Transfer-Encoding: chunked\r\n\r\n', `61a80\r\n${'x'.repeat(400_000)}\r\n`],
  ])('leaves the old content: %s', async (_, headers, body) => {
    await using own = await startReceiver({ unobserved: true })
    await ask(own, 'PUT', 'aborted', {}, 'old')
    const {
      headers: { etag },
    } = await ask(own, 'HEAD', 'aborted')
    const raw = await RawConnection.open(own.url)
    raw.send(`PUT /home/tree/aborted HTTP/1.1\r\nHost: localhost\r\n${headers}${body}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
    raw.socket.resetAndDestroy()
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(await content(own, 'aborted')).toBe('old')
    expect((await ask(own, 'HEAD', 'aborted')).headers.etag).toBe(etag)
    expect(await members(own)).toEqual(['aborted'])
  })
})

describe('what ownCloud’s clients send along', () => {
  const body = 'with checksums'
  const digest = (algorithm: string): string => createHash(algorithm).update(body).digest('hex')

  test.each([
    ['1700000000', 'Tue, 14 Nov 2023 22:13:20 GMT'],
    ['1700000000.987654321', 'Tue, 14 Nov 2023 22:13:20 GMT'],
    ['-1', 'Wed, 31 Dec 1969 23:59:59 GMT'],
    // No date of HTTP tells these.
    ['-99999999999', 'Mon, 01 Jan 0001 00:00:00 GMT'],
  ])('X-OC-Mtime: %s', async (time, expected) => {
    const answer = await ask(server, 'PUT', 'timed', { 'X-OC-Mtime': time }, body)
    expect(answer.headers['x-oc-mtime']).toBe('accepted')
    expect((await ask(server, 'HEAD', 'timed')).headers['last-modified']).toBe(expected)
  })

  test.each([
    ['SHA1', () => `SHA1:${digest('sha1')}`, '204'],
    ['MD5, in capitals', () => `MD5:${digest('md5').toUpperCase()}`, '204'],
    ['both', () => `SHA1:${digest('sha1')} MD5:${digest('md5')}`, '204'],
    ['a kind that is not known', () => 'ADLER32:12345678', '204'],
    ['another SHA1', () => `SHA1:${'0'.repeat(40)}`, '422 digest-mismatch'],
    ['another MD5', () => `MD5:${'0'.repeat(32)}`, '422 digest-mismatch'],
    ['one of two wrong', () => `SHA1:${digest('sha1')} MD5:${'0'.repeat(32)}`, '422 digest-mismatch'],
  ])('OC-Checksum: %s', async (_, checksum, expected) => {
    await ask(server, 'PUT', 'checked', {}, 'old')
    expect(await tells(server, 'PUT', 'checked', { 'OC-Checksum': checksum() }, body)).toBe(expected)
    expect(await content(server, 'checked')).toBe(expected === '204' ? body : 'old')
  })
})

describe('what changes while the body comes is judged again', () => {
  test.each([
    ['a lock', 'LOCK', 'slow/file', '', 423],
    ['another write', 'PUT', 'slow/file', 'If-Match: ETAG\r\n', 412],
    ['the collection goes', 'DELETE', 'slow', '', 409],
    ['a collection takes the place', 'MKCOL', 'slow/new', '', 405],
  ])('%s', async (_, method, path, header, status) => {
    await ask(server, 'DELETE', 'slow')
    await ask(server, 'MKCOL', 'slow')
    const { etag = '' } = (await ask(server, 'PUT', 'slow/file', {}, 'old')).headers
    const raw = await RawConnection.open(server.url)
    const target = method === 'MKCOL' ? path : 'slow/file'
    raw.send(
      `PUT /home/tree/${target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\nExpect: 100-continue\r\n${header.replace('ETAG', etag)}\r\n`,
    )
    await raw.until('100 Continue')
    const locking = method === 'LOCK'
    const { headers } = await ask(
      server,
      method,
      path,
      {},
      locking ? lockBody() : method === 'PUT' ? 'between' : '',
    )
    raw.send('new')
    expect(await raw.end()).toMatch(new RegExp(`HTTP/1\\.1 ${status} `))
    expect(await content(server, 'slow/file')).not.toBe('new')
    if (locking) await ask(server, 'UNLOCK', path, { 'Lock-Token': headers['lock-token'] ?? '' })
  })
})
