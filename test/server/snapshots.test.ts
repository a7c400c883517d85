/** Committed checkpoints as a WebDAV tree: what is listed, what is read, and that nothing can be written. */
import { isUtf8 } from 'node:buffer'
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createClient, type FileStat } from 'webdav'
import { encodeDirectoryObject, encodeDirectoryParts, encodeFileObject } from '../../protocol/objects.ts'
import type { CheckpointState, Entry } from '../../protocol/schema.ts'
import { backUp } from '../support/backup.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { makeOddTree, seededBytes, type TemporaryFolder, temporaryFolder } from '../support/tree.ts'
import {
  attributes,
  begin,
  chunk,
  directoryEntry,
  fileEntry,
  noise,
  post,
  problemOf,
  put,
  RawConnection,
  smallTree,
} from './requests.ts'

let server: TestReceiver
const tree = smallTree()
const url = (path: string): string => `${server.vaultUrl}/snapshots/${path}`

/** Commits a `dir` checkpoint of these entries; their content is `tree.a`. */
async function snapshot(source: string, entries: readonly Entry[]): Promise<CheckpointState> {
  const root = encodeDirectoryObject([...entries])
  expect(await (await put(server, 'dirs', root)).json()).toMatchObject({ whole: true })
  return await commit(source, root.id)
}

async function commit(source: string, root: string): Promise<CheckpointState> {
  const path = await begin(server, source, 'dir')
  const answer = await post(server, `${path}/commit`, { root, attributes: { ...attributes, mode: 0o755 } })
  expect(answer.status).toBe(200)
  return (await answer.json()) as CheckpointState
}

/** The hrefs below `path`, without that of the snapshot's own. */
async function hrefs(path: string, headers = {}): Promise<string[]> {
  const answer = await fetch(url(path), { method: 'PROPFIND', headers: { Depth: '1', ...headers } })
  expect(answer.status).toBe(207)
  const found = [...(await answer.text()).matchAll(/<D:href>([^<]*)<\/D:href>/g)].map(([, href]) => href)
  return found.map((href = '') => href.replace('/home/snapshots/', ''))
}

beforeAll(async () => {
  server = await startReceiver()
  for (const item of tree.chunks) await put(server, 'chunks', item)
  await put(server, 'files', tree.big)
  for (const item of [tree.sub, tree.root]) await put(server, 'dirs', item)
  await commit('first', tree.root.id)
  await begin(server, 'first', 'dir')
  await snapshot('first', [fileEntry('only', tree.a)])
  await begin(server, 'never-committed', 'dir')
})
afterAll(() => server.stop())

describe('listing', () => {
  test.each([
    ['', ['', 'first/']],
    ['first/', ['first/', 'first/1/', 'first/3/', 'first/latest/']],
    ['first/1/', ['first/1/', 'first/1/a.txt', 'first/1/big', 'first/1/link', 'first/1/sub/']],
    ['first/1/sub/', ['first/1/sub/', 'first/1/sub/b%20c.txt']],
    ['first/1/a.txt', ['first/1/a.txt']],
    ['first/latest/', ['first/latest/', 'first/latest/only']],
  ])('%s', async (path, expected) => {
    expect(await hrefs(path)).toEqual(expected)
    expect(await hrefs(path, { Depth: '0' })).toEqual(expected.slice(0, 1))
    const withoutSlash = await fetch(url(path).replace(/\/$/, ''), {
      method: 'PROPFIND',
      headers: { Depth: '0' },
    })
    expect(withoutSlash.headers.get('content-location')).toBe(
      path === 'first/1/a.txt' ? null : `/home/snapshots/${path}`,
    )
  })

  test.each([
    'none/',
    'never-committed/',
    'first/2/',
    'first/01/',
    'first/9/',
    'first/1/none',
    'first/1/a.txt/below',
    'first/latest/a.txt',
    '%ff/',
    'first/%ff/',
  ])('there is no %s', async (path) => {
    for (const method of ['GET', 'PROPFIND']) {
      const answer = await fetch(url(path), { method, headers: { Depth: '0' } })
      expect(await problemOf(answer)).toBe('404 not-found')
    }
  })

  test.each(['first/1/%2e%2e/2', 'first/1//a', 'first/1/%2f', 'first/%zz', 'first/1/a%00'])(
    'malformed: %s',
    async (path) => {
      const raw = await RawConnection.open(server.url)
      raw.send(`GET /home/snapshots/${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
      expect(await raw.end()).toContain('urn:chunkdav:problem:invalid-request')
    },
  )

  test('tells what WebDAV asks of a file', async () => {
    const answer = await fetch(url('first/1/big'), { method: 'PROPFIND', headers: { Depth: '0' } })
    const text = await answer.text()
    expect(text).toContain(`<D:getcontentlength>${tree.content.length}</D:getcontentlength>`)
    expect(text).toContain('<D:getlastmodified>Tue, 14 Nov 2023 22:13:20 GMT</D:getlastmodified>')
    expect(text).toContain(`<D:getetag>&#34;${tree.big.id}&#34;</D:getetag>`)
    expect(text).toContain('<D:getcontenttype>application/octet-stream</D:getcontenttype>')
    expect(text).toContain('<D:resourcetype/>')
  })

  test('a snapshot has the time of its backup, what is in it its own', async () => {
    const state = (await (await fetch(`${server.vaultUrl}/checkpoints/first/3`)).json()) as {
      committedAt: string
    }
    const committed = new Date(state.committedAt).toUTCString()
    const timesOf = async (path: string, Depth: string): Promise<string[]> => {
      const answer = await fetch(url(path), { method: 'PROPFIND', headers: { Depth } })
      return [...(await answer.text()).matchAll(/<D:getlastmodified>([^<]*)/g)].map(([, time = '']) => time)
    }
    const own = 'Tue, 14 Nov 2023 22:13:20 GMT'
    expect(await timesOf('first/3/', '1')).toEqual([committed, own])
    expect(await timesOf('first/latest/', '0')).toEqual([committed])
    expect((await timesOf('first/', '1')).slice(-2)).toEqual([committed, committed])
  })

  test('a page for people, escaped, which can do nothing', async () => {
    const odd = '<script>alert("1")<br>&#'
    await snapshot('page', [fileEntry(odd, tree.a)])
    const answer = await fetch(url('page/1'))
    const text = await answer.text()
    expect(answer.headers.get('content-security-policy')).toMatch(/^sandbox; default-src 'none'/)
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    expect(text).not.toContain('<script>')
    const [, href] = /href="([^"]*script[^"]*)"/.exec(text) ?? []
    expect(await (await fetch(`${server.url}${href}`)).text()).toBe(tree.a.bytes.toString())
  })
})

describe('reading', () => {
  const get = (path: string, headers = {}): Promise<Response> => fetch(url(path), { headers })
  const bytesOf = async (answer: Response): Promise<Buffer> => Buffer.from(await answer.arrayBuffer())

  test.each([
    ['first/1/a.txt', tree.a.bytes, tree.a.id, 'text/plain'],
    ['first/1/big', tree.content, tree.big.id, 'application/octet-stream'],
    ['first/1/sub/b%20c.txt', tree.b.bytes, tree.b.id, 'text/plain'],
    ['first/1/link', tree.a.bytes, tree.a.id, 'application/octet-stream'],
    ['first/latest/only', tree.a.bytes, tree.a.id, 'application/octet-stream'],
  ])('%s', async (path, bytes, id, type) => {
    const answer = await get(path)
    expect([answer.status, answer.headers.get('etag'), answer.headers.get('content-type')]).toEqual([
      200,
      `"${id}"`,
      type,
    ])
    expect((await bytesOf(answer)).equals(bytes)).toBe(true)
    expect(answer.headers.get('cache-control')).toBe(
      path.includes('latest') ? 'no-cache' : 'public, max-age=31536000, immutable',
    )
    const head = await fetch(url(path), { method: 'HEAD' })
    for (const header of ['etag', 'content-type', 'content-length', 'last-modified', 'accept-ranges']) {
      expect(head.headers.get(header)).toBe(answer.headers.get(header))
    }
  })

  const tag = `"${tree.big.id}"`
  const size = tree.content.length
  const modified = 'Tue, 14 Nov 2023 22:13:20 GMT'
  test.each<[Record<string, string>, number, [number, number] | undefined]>([
    [{ Range: 'bytes=10-19' }, 206, [10, 20]],
    [{ Range: 'bytes=2990-3009' }, 206, [2990, 3010]],
    [{ Range: 'bytes=-5' }, 206, [size - 5, size]],
    [{ Range: 'bytes=4000-' }, 206, [4000, size]],
    [{ Range: 'bytes=0-1,5-6' }, 200, [0, size]],
    [{ Range: `bytes=${size}-` }, 416, undefined],
    [{ Range: 'bytes=0-4', 'If-Range': tag }, 206, [0, 5]],
    [{ Range: 'bytes=0-4', 'If-Range': '"another"' }, 200, [0, size]],
    [{ Range: 'bytes=0-4', 'If-Range': modified }, 200, [0, size]],
    [{ 'If-None-Match': tag }, 304, undefined],
    [{ 'If-None-Match': '"another"' }, 200, [0, size]],
    [{ 'If-Modified-Since': modified }, 304, undefined],
    [{ 'If-Modified-Since': 'Mon, 13 Nov 2023 22:13:20 GMT' }, 200, [0, size]],
    [{ 'If-None-Match': '"another"', 'If-Modified-Since': modified }, 200, [0, size]],
    [{ 'If-Match': '"another"' }, 412, undefined],
    [{ 'If-Unmodified-Since': 'Mon, 13 Nov 2023 22:13:20 GMT' }, 412, undefined],
  ])('%o', async (headers, status, range) => {
    const answer = await get('first/1/big', headers)
    expect(answer.status).toBe(status)
    if (range !== undefined) {
      expect((await bytesOf(answer)).equals(tree.content.subarray(...range))).toBe(true)
    }
    if (status === 206) {
      const [start, end] = range as [number, number]
      expect(answer.headers.get('content-range')).toBe(`bytes ${start}-${end - 1}/${size}`)
    }
    if (status === 416) expect(answer.headers.get('content-range')).toBe(`bytes */${size}`)
  })
})

test.each(['GET', 'HEAD', 'OPTIONS', 'PROPFIND'])('If is judged by %s', async (method) => {
  const status = async (If: string): Promise<number> =>
    (await fetch(url('first/1/a.txt'), { method, headers: { If, Depth: '0' } })).status
  const etag = (await fetch(url('first/1/a.txt'), { method: 'HEAD' })).headers.get('etag')
  expect(await status('(["x"])')).toBe(412)
  expect(await status('(')).toBe(400)
  expect([200, 204, 207]).toContain(await status(`([${etag}])`))
})

describe('writing', () => {
  test.each(['PUT', 'DELETE', 'MKCOL', 'MOVE', 'PROPPATCH', 'LOCK', 'UNLOCK', 'POST'])(
    '%s is forbidden',
    async (method) => {
      for (const path of ['', 'first/', 'first/1/', 'first/1/a.txt', 'first/1/new']) {
        expect(await problemOf(await fetch(url(path), { method }))).toBe('403 forbidden')
      }
    },
  )

  test.each(['', 'first/1/a.txt'])('OPTIONS tells what there is: "%s"', async (path) => {
    const answer = await fetch(url(path), { method: 'OPTIONS' })
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      allow: expect.stringContaining('GET, HEAD, PROPFIND'),
      dav: '1, 3',
      'ms-author-via': 'DAV',
    })
  })
})

describe('symlinks', () => {
  const link = (name: string, target: string): Entry => ({ kind: 'symlink', name, ...attributes, target })

  test('are shown as what they lead to inside of the snapshot', async () => {
    const inner = encodeDirectoryObject([
      fileEntry('file', tree.a),
      link('to-root-file', '../x-file'),
      link('up', '..'),
      link('way-out', '../../x-file'),
    ])
    const other = encodeDirectoryObject([link('back', '../inner'), link('loop', 'loop')])
    for (const item of [inner, other]) await put(server, 'dirs', item)
    await snapshot('links', [
      link('absolute', '/etc/passwd'),
      link('circle-1', 'circle-2'),
      link('circle-2', 'circle-1'),
      link('dangling', 'nothing/at/all'),
      { kind: 'fifo', name: 'fifo', ...attributes },
      directoryEntry('inner', inner),
      directoryEntry('other', other),
      link('self', '.'),
      link('through-file', 'x-file/..'),
      link('to-directory', 'inner/'),
      link('to-fifo', 'fifo'),
      link('to-link', 'to-directory/to-root-file'),
      link('turns', './other/../inner/../inner//file'),
      fileEntry('x-file', tree.b),
    ])
    const base = 'links/1/'
    const shown = ['inner/', 'other/', 'to-directory/', 'to-link', 'turns', 'x-file']
    expect(await hrefs(base)).toEqual([base, ...shown.map((name) => base + name)])
    expect(await (await fetch(url(`${base}turns`))).text()).toBe(tree.a.bytes.toString())
    expect(await (await fetch(url(`${base}to-link`))).text()).toBe(tree.b.bytes.toString())
    for (const name of ['absolute', 'circle-1', 'dangling', 'fifo', 'self', 'to-fifo', 'inner/up/']) {
      expect((await fetch(url(base + name))).status).toBe(404)
    }
    // What a link leads to is in its own place: `..` is that of `inner`, and back into `inner` is no way.
    expect(await hrefs(`${base}other/`)).toEqual([`${base}other/`, `${base}other/back/`])
    expect(await hrefs(`${base}other/back/`)).toEqual(
      [
        `${base}other/back/`,
        `${base}other/back/file`,
        `${base}other/back/to-root-file`,
        `${base}other/back/up/`,
      ].filter((path) => !path.endsWith('up/')),
    )
  })

  test('whoever lists everything comes to an end', async () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f']
    const directories = names.map((own) =>
      encodeDirectoryObject([fileEntry('0', chunk(own)), ...names.map((name) => link(name, `../${name}`))]),
    )
    for (const name of names) await put(server, 'chunks', chunk(name))
    for (const item of directories) await put(server, 'dirs', item)
    await snapshot(
      'knot',
      names.map((name, i) => directoryEntry(name, directories[i] as never)),
    )
    let deepest = 0
    const visit = async (path: string): Promise<void> => {
      deepest = Math.max(deepest, path.split('/').length - 3)
      const [, ...members] = await hrefs(path)
      const [first] = members.filter((member) => member.endsWith('/'))
      if (first !== undefined) await visit(first)
    }
    await visit('knot/1/')
    expect(deepest).toBe(5)
  })
})

describe('chunks checkpoints', () => {
  test('of no tree are one file, also of many items', async () => {
    const pieces = [chunk(noise(3000, 1)), chunk(''), chunk(noise(2000, 2))]
    const listed = [chunk(noise(100, 3)), chunk(noise(200, 4))]
    for (const item of [...pieces, ...listed]) await put(server, 'chunks', item)
    const list = encodeFileObject(
      listed.map(({ id, bytes }) => ({ id, size: bytes.length })),
      undefined,
    )
    await put(server, 'files', list)
    const path = await begin(server, 'stream', 'chunks')
    const items = [
      ...pieces.map(({ id, bytes }) => ({ id, size: bytes.length })),
      { id: list.id, size: 300, chunked: true },
    ]
    await post(server, `${path}/items`, { first: 0, items })
    expect((await post(server, `${path}/commit`, { items: 4 })).status).toBe(200)
    const content = Buffer.concat([...pieces, ...listed].map(({ bytes }) => bytes))
    expect(await hrefs('stream/1/')).toEqual(['stream/1/', 'stream/1/stream'])
    const whole = await fetch(url('stream/1/stream'))
    expect(Buffer.from(await whole.arrayBuffer()).equals(content)).toBe(true)
    const part = await fetch(url('stream/1/stream'), { headers: { Range: 'bytes=2999-5150' } })
    expect(part.status).toBe(206)
    expect(Buffer.from(await part.arrayBuffer()).equals(content.subarray(2999, 5151))).toBe(true)
    expect((await fetch(url('stream/1/other'))).status).toBe(404)
  })
})

describe('clients', () => {
  let folder: TemporaryFolder
  let source: string
  beforeAll(async () => {
    folder = await temporaryFolder()
    source = join(folder.path, 'source')
    mkdirSync(source)
    makeOddTree(source)
    // The package decodes every href as UTF-8, and lists nothing where one name is not.
    for (const name of readdirSync(source, 'buffer')) {
      if (!isUtf8(name)) rmSync(Buffer.concat([Buffer.from(`${source}/`), name]), { recursive: true })
    }
    for (const name of ['a#b', 'per%41cent', 'x&y<z>', 'q\'"u?+;']) writeFileSync(join(source, name), name)
    symlinkSync('sub', join(source, 'link-to-sub'))
    await backUp(source, { vaultUrl: server.vaultUrl, state: join(folder.path, 'state'), source: 'odd' })
  })
  afterAll(() => folder[Symbol.asyncDispose]())

  test('the npm package webdav browses and reads a backup', async () => {
    const client = createClient(url('odd/latest'))
    const members = (await client.getDirectoryContents('/')) as FileStat[]
    expect(members.map(({ basename }) => basename)).toEqual(
      expect.arrayContaining(['a#b', 'per%41cent', 'x&y<z>', 'ünïcödé-名前', 'link', 'link-to-sub', 'sub']),
    )
    for (const name of ['small', 'a#b', 'per%41cent', 'x&y<z>', 'q\'"u?+;', 'ünïcödé-名前', 'link']) {
      const expected = readFileSync(join(source, name))
      expect(expected.equals((await client.getFileContents(`/${name}`)) as Buffer)).toBe(true)
    }
    const below = (await client.getDirectoryContents('/link-to-sub')) as FileStat[]
    expect(below.find(({ basename }) => basename === 'big')).toMatchObject({
      size: 5_000_000,
      lastmod: 'Fri, 13 Feb 2009 23:31:30 GMT',
    })
    const range = { start: 1_000_000, end: 1_999_999 }
    const piece = await buffer(client.createReadStream('/sub/big', { range }) as never)
    expect(piece.equals(seededBytes('big', 5_000_000).subarray(1_000_000, 2_000_000))).toBe(true)
    expect(await client.exists('/none')).toBe(false)
    await expect(client.putFileContents('/new', 'x')).rejects.toMatchObject({ status: 403 })
    await expect(client.deleteFile('/small')).rejects.toMatchObject({ status: 403 })
  })

  test('a directory of 20,000 entries is listed in pieces, and a file in it found', async () => {
    const entries = Array.from({ length: 20_000 }, (_, i) =>
      fileEntry(`f${String(i).padStart(6, '0')}`, tree.a),
    )
    const parts = Array.from({ length: 20 }, (_, i) =>
      encodeDirectoryObject(entries.slice(i * 1000, (i + 1) * 1000)),
    )
    for (const part of parts) await put(server, 'dirs', part)
    const large = encodeDirectoryParts(parts.map(({ id }) => ({ id, entries: 1000 })))
    await put(server, 'dirs', large)
    await commit('large', large.id)
    expect(await hrefs('large/1/')).toHaveLength(20_001)
    for (const name of ['f000000', 'f000999', 'f001000', 'f013579', 'f019999']) {
      expect((await fetch(url(`large/1/${name}`), { method: 'HEAD' })).status).toBe(200)
    }
    for (const name of ['e', 'f0000005', 'f020000']) {
      expect((await fetch(url(`large/1/${name}`), { method: 'HEAD' })).status).toBe(404)
    }
  })
})
