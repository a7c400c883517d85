/** MKCOL and DELETE of the live tree. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, content, lock, members, responses, tells } from './dav-requests.ts'
import { RawConnection } from './requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
  await ask(server, 'MKCOL', 'there')
  await ask(server, 'PUT', 'file', {}, 'x')
})
afterAll(() => server.stop())

describe('MKCOL', () => {
  test.each([
    ['what is new', 'a', {}, '', '201'],
    ['what is new, with a slash', 'b/', {}, '', '201'],
    ['what is there', 'there', {}, '', '405 method-not-allowed'],
    ['what is there, with a slash', 'there/', {}, '', '405 method-not-allowed'],
    ['a file', 'file', {}, '', '405 method-not-allowed'],
    ['a file, with a slash', 'file/', {}, '', '405 method-not-allowed'],
    ['the tree', '', {}, '', '405 method-not-allowed'],
    ['something below nothing', 'none/a', {}, '', '409 conflict'],
    ['something below a file', 'file/a', {}, '', '409 conflict'],
    [
      'with a body nobody knows',
      'c',
      { 'Content-Type': 'xyzzy-foo/bar-512' },
      'afafafaf',
      '415 unsupported-media-type',
    ],
    ['with a body of XML', 'c', { 'Content-Type': 'application/xml' }, '<x/>', '415 unsupported-media-type'],
    ['with a type but no body', 'd', { 'Content-Type': 'application/xml' }, '', '201'],
    ['with Content-Length: 0', 'e', { 'Content-Length': '0' }, '', '201'],
    ['with If that does not hold', 'c', { If: '(<DAV:no-lock>)' }, '', '412 precondition-failed'],
  ])('%s', async (_, path, headers, body, expected) => {
    const before = await members(server)
    expect(await tells(server, 'MKCOL', path, headers as Record<string, string>, body)).toBe(expected)
    const made = expected === '201' ? [`${path.replace(/\/$/, '')}/`] : []
    expect(await members(server)).toEqual([...before, ...made].sort())
  })

  test.each([
    ['empty', '0\r\n\r\n', 201],
    ['not empty', '2\r\nab\r\n0\r\n\r\n', 415],
  ])('a body in chunks, %s', async (name, body, status) => {
    const raw = await RawConnection.open(server.url)
    raw.send(
      `MKCOL /home/tree/chunked-${name.replace(' ', '-')} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n${body}`,
    )
    expect(await raw.end()).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
  })
})

describe('DELETE', () => {
  test.each([
    ['nothing', 'none', {}, '404 not-found'],
    ['the tree', '', {}, '403 forbidden'],
    ['the tree, without its slash', '/home/tree', {}, '403 forbidden'],
    ['a file with a slash', 'file/', {}, '404 not-found'],
    ['a collection with Depth 0', 'there', { Depth: '0' }, '400 invalid-request'],
    ['a file with another ETag', 'file', { 'If-Match': '"x"' }, '412 precondition-failed'],
    ['a file with If that does not hold', 'file', { If: '(["x"])' }, '412 precondition-failed'],
  ])('%s is refused', async (_, path, headers, expected) => {
    const before = await members(server)
    expect(await tells(server, 'DELETE', path, headers as Record<string, string>)).toBe(expected)
    expect(await members(server)).toEqual(before)
  })

  test('a collection goes whole, with or without its slash', async () => {
    for (const path of ['gone', 'gone/']) {
      await ask(server, 'MKCOL', 'gone')
      await ask(server, 'MKCOL', 'gone/below')
      await ask(server, 'PUT', 'gone/below/file', {}, 'x')
      expect(await tells(server, 'DELETE', path, { Depth: 'infinity' })).toBe('204')
      expect(await content(server, 'gone/below/file')).toBe('404')
      expect(await tells(server, 'DELETE', path)).toBe('404 not-found')
    }
  })

  test('a collection with a locked member stays whole: 207 names the member', async () => {
    await ask(server, 'MKCOL', 'kept')
    await ask(server, 'MKCOL', 'kept/dir')
    for (const name of ['kept/a', 'kept/dir/b']) await ask(server, 'PUT', name, {}, name)
    const file = await lock(server, 'kept/dir/b')
    const dir = await lock(server, 'kept/dir', { Depth: '0' })
    const answer = await ask(server, 'DELETE', 'kept')
    expect(answer.status).toBe(207)
    expect(responses(answer.text)).toEqual([
      { href: '/home/tree/kept/dir/', status: ['423'] },
      { href: '/home/tree/kept/dir/b', status: ['423'] },
    ])
    expect(answer.text).toContain('<D:lock-token-submitted>')
    expect(await content(server, 'kept/dir/b')).toBe('kept/dir/b')
    const one = await ask(server, 'DELETE', 'kept', { If: `</home/tree/kept/dir> (<${dir}>)` })
    expect(responses(one.text).map(({ href }) => href)).toEqual(['/home/tree/kept/dir/b'])
    const both = { If: `</home/tree/kept/dir> (<${dir}>) </home/tree/kept/dir/b> (<${file}>)` }
    expect(await tells(server, 'DELETE', 'kept', both)).toBe('204')
    // The locks are gone with what they were on.
    await ask(server, 'MKCOL', 'kept')
    expect(await tells(server, 'MKCOL', 'kept/dir')).toBe('201')
    expect(await tells(server, 'PUT', 'kept/dir/b', {}, 'x')).toBe('201')
  })
})

test('OPTIONS tells the classes and what there is', async () => {
  for (const path of ['', 'none/below']) {
    const { status, headers } = await ask(server, 'OPTIONS', path)
    expect(status).toBe(204)
    expect(headers).toMatchObject({ dav: '1, 2, 3', 'ms-author-via': 'DAV' })
    expect(headers.allow?.split(', ')).toEqual(
      expect.arrayContaining(
        'GET HEAD PUT DELETE MKCOL COPY MOVE PROPFIND PROPPATCH LOCK UNLOCK REPORT OPTIONS'.split(' '),
      ),
    )
  }
})
