import { SaxesParser } from 'saxes'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { encodeDirectoryObject, encodeDirectoryParts } from '../../protocol/objects.ts'
import type { Entry } from '../../protocol/schema.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { attributes, chunk, directoryEntry, fileEntry, problemOf, put, smallTree } from './requests.ts'

let server: TestReceiver
const tree = smallTree()
beforeAll(async () => {
  server = await startReceiver()
  for (const item of tree.chunks) await put(server, 'chunks', item)
  await put(server, 'files', tree.big)
  await put(server, 'dirs', tree.sub)
  const answer = await put(server, 'dirs', tree.root)
  expect(await answer.json()).toMatchObject({ whole: true })
})
afterAll(() => server.stop())

const url = (path: string): string => `${server.vaultUrl}/dirs/${path}`

describe('PUT', () => {
  test('tells the entries that are absent or not whole', async () => {
    const leaf = chunk('leaf')
    const below = encodeDirectoryObject([fileEntry('leaf', leaf)])
    const above = encodeDirectoryObject([fileEntry('a', chunk('absent')), directoryEntry('below', below)])
    await put(server, 'dirs', below)
    expect(await (await put(server, 'dirs', above)).json()).toMatchObject({
      whole: false,
      missing: [chunk('absent').id, below.id],
    })
    await put(server, 'chunks', leaf)
    expect(await (await put(server, 'dirs', above)).json()).toMatchObject({ missing: [chunk('absent').id] })
  })

  const out = fileEntry('z', tree.a)
  const first = fileEntry('a', tree.a)
  test.each([
    ['entries out of order', [out, first]],
    ['a name twice', [first, first]],
    ['a name with a slash', [fileEntry('a/b', tree.a)]],
    ['the name ..', [fileEntry('..', tree.a)]],
    ['a name that is no text', [{ ...first, name: undefined, name64: 'YQ==' }]],
  ])('refuses %s', async (_, entries) => {
    const object = encodeDirectoryObject(entries as Entry[])
    expect(await problemOf(await put(server, 'dirs', object))).toBe('400 invalid-object')
  })

  test('refuses a directory that refers to what is no directory', async () => {
    const object = encodeDirectoryObject([directoryEntry('d', tree.a)])
    expect(await problemOf(await put(server, 'dirs', object))).toBe('400 invalid-object')
  })
})

describe('PATCH', () => {
  const type = 'application/json-patch+json'
  const added = chunk('added')
  const next = encodeDirectoryObject([fileEntry('added', added), fileEntry('b c.txt', tree.b)])
  const add = { op: 'add', path: '/entries/0', value: fileEntry('added', added) }
  const patch = (to: string, body: unknown, headers = {}): Promise<Response> =>
    fetch(url(to), {
      method: 'PATCH',
      body: typeof body === 'string' ? body : JSON.stringify(body),
      headers: { 'Content-Type': type, 'Chunkdav-Base': tree.sub.id, ...headers },
    })
  const doubling = Array.from({ length: 60 }, () => ({ op: 'copy', from: '/entries', path: '/entries/-' }))

  const deep = `[{"op":"add","path":"/x","value":${'['.repeat(100_000)}${']'.repeat(100_000)}}]`

  test.each([
    ['an unknown base', next.id, [add], { 'Chunkdav-Base': chunk('none').id }, '409 base-not-found'],
    ['a base of another kind', next.id, [add], { 'Chunkdav-Base': tree.big.id }, '409 base-not-found'],
    ['another type', next.id, [add], { 'Content-Type': 'application/json' }, '415 unsupported-media-type'],
    ['no JSON', next.id, '[', {}, '400 invalid-request'],
    ['no patch', next.id, { op: 'add' }, {}, '400 invalid-request'],
    ['an unknown operation', next.id, [{ op: 'make', path: '/x' }], {}, '400 invalid-request'],
    ['a path that is not there', next.id, [{ op: 'remove', path: '/entries/9' }], {}, '409 patch-conflict'],
    ['a failing test', next.id, [{ op: 'test', path: '/type', value: 'x' }], {}, '409 patch-conflict'],
    ['values that nest too deep', next.id, deep, {}, '409 patch-conflict'],
    ['copies that double', next.id, doubling, {}, '409 patch-conflict'],
    ['a prototype', next.id, [{ op: 'add', path: '/__proto__/x', value: 1 }], {}, undefined],
    ['a result of another hash', chunk('x').id, [add], {}, '422 digest-mismatch'],
    [
      'a result that is no directory',
      chunk('x').id,
      [{ op: 'remove', path: '/type' }],
      {},
      '400 invalid-object',
    ],
  ])('refuses %s', async (_, to, body, headers, expected) => {
    const problem = await problemOf(await patch(to, body, headers))
    if (expected === undefined) expect(problem).toMatch(/^4/)
    else expect(problem).toBe(expected)
    expect(({} as { x?: number }).x).toBe(undefined)
  })

  test('makes the new directory', async () => {
    await put(server, 'chunks', added)
    const answer = await patch(next.id, [add])
    expect([answer.status, await answer.json()]).toEqual([
      201,
      { id: next.id, outcome: 'stored', whole: true, missing: [] },
    ])
    expect(Buffer.from(await (await fetch(url(next.id))).arrayBuffer()).equals(next.bytes)).toBe(true)
  })
})

describe('a path below a directory', () => {
  test.each([
    ['a.txt', tree.a.bytes, tree.a.id],
    ['big', tree.content, tree.big.id],
    ['sub/b%20c.txt', tree.b.bytes, tree.b.id],
    ['%73ub/b%20c%2Etxt', tree.b.bytes, tree.b.id],
  ])('%s is a file’s content', async (path, bytes, id) => {
    const answer = await fetch(url(`${tree.root.id}/${path}`))
    expect([answer.status, answer.headers.get('etag')]).toEqual([200, `"${id}"`])
    expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true)
    const part = await fetch(url(`${tree.root.id}/${path}`), { headers: { Range: 'bytes=2-4' } })
    expect(part.status).toBe(206)
    expect(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(2, 5))).toBe(true)
    const head = await fetch(url(`${tree.root.id}/${path}`), { method: 'HEAD' })
    expect(head.headers.get('content-length')).toBe(String(bytes.length))
  })

  test.each(['sub', 'sub/', ''])('"%s" is a directory’s object', async (path) => {
    const answer = await fetch(url(`${tree.root.id}/${path}`))
    expect(answer.headers.get('content-type')).toBe('application/vnd.chunkdav.directory+json')
    expect(await answer.json()).toMatchObject({ type: 'directory' })
  })

  test.each([
    ['none', '404 not-found'],
    ['a.txt/below', '404 not-found'],
    ['link', '404 not-found'],
    ['sub/%2e%2e/a.txt', '400 invalid-request'],
    ['sub//b%20c.txt', '400 invalid-request'],
    ['%2f', '400 invalid-request'],
    ['a%00', '400 invalid-request'],
    ['%zz', '400 invalid-request'],
    ['%ff', '404 not-found'],
  ])('%s → %s', async (path, expected) => {
    // fetch would resolve dot segments by itself; encoded ones as well.
    const { RawConnection } = await import('./requests.ts')
    const raw = await RawConnection.open(server.url)
    raw.send(
      `GET /home/dirs/${tree.root.id}/${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`,
    )
    const text = await raw.end()
    expect(text).toContain(`HTTP/1.1 ${expected.slice(0, 3)}`)
    expect(text).toContain(`urn:chunkdav:problem:${expected.slice(4)}`)
  })

  test('a name that is not UTF-8 is found by its bytes', async () => {
    const name64 = Buffer.from([0xff, 0x41]).toString('base64')
    const odd = encodeDirectoryObject([
      { kind: 'file', name64, ...attributes, id: tree.a.id, size: tree.a.bytes.length },
    ])
    await put(server, 'dirs', odd)
    expect(await (await fetch(url(`${odd.id}/%FFA`))).text()).toBe(tree.a.bytes.toString())
    expect((await propfind(odd.id)).get('getetag')).toEqual([`"${odd.id}"`, `"${tree.a.id}"`])
    expect((await propfind(odd.id)).get('href')).toEqual([
      `/home/dirs/${odd.id}/`,
      `/home/dirs/${odd.id}/%FFA`,
    ])
  })
})

/** The texts of each element of a multistatus, by local name. */
async function propfind(path: string, headers = {}, body?: string): Promise<Map<string, string[]>> {
  const answer = await fetch(url(path), {
    method: 'PROPFIND',
    headers: { Depth: '1', ...headers },
    ...(body === undefined ? {} : { body }),
  })
  expect(answer.status).toBe(207)
  const texts = new Map<string, string[]>()
  const parser = new SaxesParser({ xmlns: true })
  let text = ''
  parser.on('opentag', () => {
    text = ''
  })
  parser.on('text', (more) => {
    text += more
  })
  parser.on('closetag', ({ local }) => {
    texts.set(local, [...(texts.get(local) ?? []), text])
  })
  parser.write(await answer.text()).close()
  return texts
}

describe('PROPFIND', () => {
  test('lists a directory: what WebDAV can show of it', async () => {
    const base = `/home/dirs/${tree.root.id}`
    const found = await propfind(tree.root.id)
    expect(found.get('href')).toEqual([`${base}/`, `${base}/a.txt`, `${base}/big`, `${base}/sub/`])
    expect(found.get('getcontentlength')).toEqual([String(tree.a.bytes.length), String(tree.content.length)])
    expect(found.get('collection')).toHaveLength(2)
    expect(found.get('getlastmodified')?.[0]).toBe('Tue, 14 Nov 2023 22:13:20 GMT')
  })

  test('Depth 0 tells of the thing alone, a path of what it names', async () => {
    expect((await propfind(tree.root.id, { Depth: '0' })).get('href')).toHaveLength(1)
    const below = await propfind(`${tree.root.id}/sub/`)
    expect(below.get('href')?.[1]).toBe(`/home/dirs/${tree.root.id}/sub/b%20c.txt`)
    expect((await propfind(`${tree.root.id}/big`)).get('href')).toHaveLength(1)
  })

  test('answers what is asked for: found, and not found', async () => {
    const body =
      '<?xml version="1.0"?><a:propfind xmlns:a="DAV:"><a:prop><a:getetag/><x:odd xmlns:x="urn:x"/></a:prop></a:propfind>'
    const found = await propfind(`${tree.root.id}/a.txt`, { 'Content-Type': 'application/xml' }, body)
    expect(found.get('getetag')).toEqual([`"${tree.a.id}"`])
    expect(found.has('displayname')).toBe(false)
    expect(found.get('odd')).toEqual([''])
    expect(found.get('status')).toEqual(['HTTP/1.1 200 OK', 'HTTP/1.1 404 Not Found'])
  })

  test('propname tells names without values', async () => {
    const body = '<propfind xmlns="DAV:"><propname/></propfind>'
    expect(
      (await propfind(`${tree.root.id}/a.txt`, { 'Content-Type': 'application/xml' }, body)).get('getetag'),
    ).toEqual([''])
  })

  test.each([[{}], [{ Depth: 'infinity' }]])('a whole tree is refused: %o', async (headers) => {
    const answer = await fetch(url(tree.root.id), { method: 'PROPFIND', headers: headers as never })
    expect(answer.status).toBe(403)
    expect(await answer.text()).toContain('<D:propfind-finite-depth/>')
  })

  test.each([
    ['a document type', '<!DOCTYPE a [<!ENTITY x "y">]><propfind xmlns="DAV:"><allprop/></propfind>', '400'],
    ['another element', '<propfind/>', '400'],
    ['an unclosed element', '<propfind xmlns="DAV:">', '400'],
    ['an undeclared prefix', '<D:propfind/>', '400'],
    ['too much', `<propfind xmlns="DAV:"><!--${'x'.repeat(70_000)}--></propfind>`, '413'],
  ])('%s is refused', async (_, body, status) => {
    const answer = await fetch(url(tree.root.id), {
      method: 'PROPFIND',
      headers: { Depth: '0', 'Content-Type': 'text/xml' },
      body,
    })
    expect((await problemOf(answer)).slice(0, 3)).toBe(status)
  })

  test('control characters and markup in names stay names', async () => {
    const odd = encodeDirectoryObject([fileEntry('\u0001 & <b> "q"', tree.a)])
    await put(server, 'dirs', odd)
    expect((await propfind(odd.id)).get('displayname')?.[1]).toBe('\ufffd & <b> "q"')
  })

  test('a directory in parts is listed whole, and found by name', async () => {
    const entries = Array.from({ length: 2000 }, (_, i) =>
      fileEntry(`f${String(i).padStart(5, '0')}`, tree.a),
    )
    const parts = [entries.slice(0, 900), entries.slice(900)].map((half) => encodeDirectoryObject(half))
    const large = encodeDirectoryParts(parts.map(({ id }, i) => ({ id, entries: i === 0 ? 900 : 1100 })))
    for (const part of parts) await put(server, 'dirs', part)
    expect(await (await put(server, 'dirs', large)).json()).toMatchObject({ whole: true })
    expect((await propfind(large.id)).get('href')).toHaveLength(2001)
    expect(await (await fetch(url(`${large.id}/f01999`))).text()).toBe(tree.a.bytes.toString())
    expect((await fetch(url(`${large.id}/f02000`))).status).toBe(404)
  })

  test('lists the vaults', async () => {
    const answer = await fetch(`${server.url}/`, { method: 'PROPFIND', headers: { Depth: '1' } })
    expect(answer.status).toBe(207)
    expect(await answer.text()).toContain('<D:href>/home/</D:href>')
  })
})
