/** PROPFIND and GET of the live tree and its trash: what is told of what, and in which order. */
import { createHash } from 'node:crypto'
import { statfs } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { childrenOf, nameOf, parseXml, textOf, type XmlElement } from '../../server/http/xml.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { problemOf } from './requests.ts'

let server: TestReceiver
const content = 'what is in the file\n'
const url = (path: string): string => `${server.vaultUrl}/${path}`
const send = (method: string, path: string, headers = {}, body?: string | Buffer): Promise<Response> =>
  fetch(url(path), {
    method,
    headers,
    ...(body !== undefined && { body: typeof body === 'string' ? body : new Uint8Array(body) }),
  })

beforeAll(async () => {
  server = await startReceiver()
  await send('MKCOL', 'tree/a')
  await send('PUT', 'tree/a/file.txt', { 'X-OC-Mtime': '1700000000' }, content)
  await send('PUT', 'tree/a/%23%26%3C%25%FF', {}, 'odd')
  await send('MKCOL', 'tree/a/sub')
  const update = '<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>'
  const dead =
    '<x:p xmlns:x="urn:one">1</x:p><x:p xmlns:x="urn:two" xml:lang="de">2 <b>&amp;</b></x:p><plain>3</plain>'
  const headers = { 'Content-Type': 'application/xml' }
  const answer = await send(
    'PROPPATCH',
    'tree/a/file.txt',
    headers,
    `${update}${dead}</D:prop></D:set></D:propertyupdate>`,
  )
  expect(answer.status).toBe(207)
})
afterAll(() => server.stop())

interface Response207 {
  readonly href: string
  /** Status and properties of each propstat, in order. */
  readonly stats: { readonly status: string; readonly properties: Map<string, XmlElement> }[]
}

const davChild = (element: XmlElement, local: string): XmlElement =>
  childrenOf(element).find((child) => nameOf(child) === `DAV: ${local}`) as XmlElement

async function propfind(path: string, body?: string, depth = '0'): Promise<Response207[]> {
  const answer = await send('PROPFIND', path, { Depth: depth, 'Content-Type': 'application/xml' }, body)
  expect([answer.status, answer.headers.get('content-type')]).toEqual([207, 'application/xml; charset=utf-8'])
  const text = await answer.text()
  expect(text).toMatch(/^<\?xml version="1.0" encoding="utf-8"\?>\n<D:multistatus xmlns:D="DAV:">/)
  return childrenOf(parseXml(text)).map((response) => ({
    href: textOf(davChild(response, 'href')),
    stats: childrenOf(response)
      .filter((child) => nameOf(child) === 'DAV: propstat')
      .map((stat) => ({
        status: textOf(davChild(stat, 'status')).split(' ')[1] as string,
        properties: new Map(childrenOf(davChild(stat, 'prop')).map((child) => [nameOf(child), child])),
      })),
  }))
}

const ask = (inner: string, more = ''): string =>
  `<?xml version="1.0"?><D:propfind xmlns:D="DAV:"><D:prop>${inner}</D:prop>${more}</D:propfind>`
const names = (response: Response207 | undefined, at = 0): string[] => [
  ...(response?.stats[at]?.properties.keys() ?? []),
]
const value = (response: Response207 | undefined, name: string): string =>
  textOf(response?.stats[0]?.properties.get(name) as XmlElement)

describe('PROPFIND of the tree', () => {
  const live = ['resourcetype', 'displayname', 'getlastmodified', 'creationdate']
  const ofFiles = ['getcontentlength', 'getcontenttype', 'getetag']
  const locks = ['supportedlock', 'lockdiscovery']
  const dead = ['urn:one p', 'urn:two p', ' plain']
  const inDav = (locals: string[]): string[] => locals.map((local) => `DAV: ${local}`)

  test.each([
    ['nothing', undefined],
    ['allprop', '<D:propfind xmlns:D="DAV:"><D:allprop/></D:propfind>'],
    [
      'allprop with what is unknown',
      '<p xmlns="DAV:"><x xmlns="urn:x"/><allprop/></p>'
        .replaceAll('p xmlns="DAV:"', 'propfind xmlns="DAV:"')
        .replace('</p>', '</propfind>'),
    ],
  ])('%s asks for what RFC 4918 defines, and dead properties', async (_, body) => {
    const [file] = await propfind('tree/a/file.txt', body)
    expect(names(file).sort()).toEqual([...inDav([...live, ...ofFiles, ...locks]), ...dead].sort())
    const [collection] = await propfind('tree/a', body)
    expect(names(collection).sort()).toEqual(inDav([...live, ...locks]).sort())
    expect(collection?.href).toBe('/home/tree/a/')
  })

  test('include adds to allprop', async () => {
    const body =
      '<propfind xmlns="DAV:"><allprop/><include><quota-used-bytes/><getetag/><x xmlns="urn:x"/></include></propfind>'
    const [collection] = await propfind('tree/a/', body)
    expect(collection?.stats.map(({ status }) => status)).toEqual(['200', '404'])
    expect(names(collection)).toContain('DAV: quota-used-bytes')
    expect(names(collection, 1)).toEqual(['DAV: getetag', 'urn:x x'])
  })

  test('propname tells names, and no values', async () => {
    const [file] = await propfind('tree/a/file.txt', '<propfind xmlns="DAV:"><propname/></propfind>')
    expect(names(file)).toEqual(expect.arrayContaining([...dead, 'DAV: getetag']))
    for (const element of file?.stats[0]?.properties.values() ?? []) expect(element.content).toEqual([])
  })

  test('what there is stands before what there is not; names of two namespaces are two', async () => {
    const body = ask(
      '<x:none xmlns:x="urn:one"/><x:p xmlns:x="urn:two"/><x:p xmlns:x="urn:one"/><D:getcontentlength/><plain/>',
    )
    const [file] = await propfind('tree/a/file.txt', body)
    expect(file?.stats.map(({ status }) => status)).toEqual(['200', '404'])
    expect(names(file)).toEqual(['urn:two p', 'urn:one p', 'DAV: getcontentlength', ' plain'])
    expect(names(file, 1)).toEqual(['urn:one none'])
    expect(value(file, 'DAV: getcontentlength')).toBe(String(content.length))
    const two = file?.stats[0]?.properties.get('urn:two p') as XmlElement
    expect([two.language, textOf(two), childrenOf(two).map(nameOf)]).toEqual(['de', '2 ', [' b']])
  })

  test('the prefix of DAV: is D, whatever the client calls it', async () => {
    const body = '<z:propfind xmlns:z="DAV:"><z:prop><z:resourcetype/></z:prop></z:propfind>'
    const answer = await send('PROPFIND', 'tree/', { Depth: '0' }, body)
    expect(await answer.text()).toContain(
      '<D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>',
    )
  })

  test('Depth 1 lists members, encoded, and of collections with a slash', async () => {
    const found = await propfind('tree/a/', ask('<D:getetag/>'), '1')
    expect(found.map(({ href }) => href)).toEqual([
      '/home/tree/a/',
      '/home/tree/a/%23%26%3C%25%FF',
      '/home/tree/a/file.txt',
      '/home/tree/a/sub/',
    ])
    for (const { href, stats } of found) {
      if (stats[0]?.status !== '200') continue
      const head = await fetch(server.url + href, { method: 'HEAD' })
      expect(head.headers.get('etag')).toBe(textOf(stats[0].properties.get('DAV: getetag') as XmlElement))
    }
  })

  test('checksums as ownCloud’s clients want them, only when asked for', async () => {
    const [file] = await propfind('tree/a/file.txt', ask('<o:checksums xmlns:o="http://owncloud.org/ns"/>'))
    const element = file?.stats[0]?.properties.get('http://owncloud.org/ns checksums') as XmlElement
    const [sha1, md5] = ['sha1', 'md5'].map((kind) => createHash(kind).update(content).digest('hex'))
    expect(childrenOf(element).map((child) => [nameOf(child), textOf(child)])).toEqual([
      ['http://owncloud.org/ns checksum', `SHA1:${sha1} MD5:${md5}`],
    ])
  })

  test('quota and reports, only when asked for, and of collections', async () => {
    const body = ask(
      '<D:quota-available-bytes/><D:quota-used-bytes/><D:supported-report-set/><D:sync-token/>',
    )
    const [collection] = await propfind('tree/', body)
    const { bavail, bsize } = await statfs(server.dataDir)
    const available = Number(value(collection, 'DAV: quota-available-bytes'))
    expect(Math.abs(available - bavail * bsize)).toBeLessThan(2 ** 30)
    expect(Number(value(collection, 'DAV: quota-used-bytes'))).toBeGreaterThan(0)
    expect(value(collection, 'DAV: sync-token')).toMatch(/^urn:chunkdav:sync:\d+$/)
    expect((await propfind('tree/a/file.txt', body))[0]?.stats.map(({ status }) => status)).toEqual(['404'])
  })

  test('locks are told to whoever asks', async () => {
    const body =
      '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner><D:href>me</D:href></D:owner></D:lockinfo>'
    const locked = await send('LOCK', 'tree/a', { Depth: 'infinity', Timeout: 'Second-100' }, body)
    expect(locked.status).toBe(200)
    const token = locked.headers.get('lock-token') ?? ''
    const [file] = await propfind('tree/a/file.txt', ask('<D:lockdiscovery/>'))
    const [lock] = childrenOf(file?.stats[0]?.properties.get('DAV: lockdiscovery') as XmlElement)
    const told = Object.fromEntries(
      childrenOf(lock as XmlElement).map((child) => [
        child.local,
        [textOf(child), ...childrenOf(child).map((inner) => textOf(inner) || inner.local)].join(''),
      ]),
    )
    expect(told).toMatchObject({
      locktype: 'write',
      lockscope: 'shared',
      depth: 'infinity',
      owner: 'me',
      locktoken: token.slice(1, -1),
      lockroot: '/home/tree/a/',
    })
    expect(told.timeout).toMatch(/^Second-(100|[1-9][0-9])$/)
    expect((await send('UNLOCK', 'tree/a', { 'Lock-Token': token })).status).toBe(204)
    const [after] = await propfind('tree/a/file.txt', ask('<D:lockdiscovery/>'))
    expect(childrenOf(after?.stats[0]?.properties.get('DAV: lockdiscovery') as XmlElement)).toEqual([])
  })

  test('each member of a collection is told its own locks, and those from above', async () => {
    const lock = async (path: string, depth: string, scope: string): Promise<string> => {
      const body = `<lockinfo xmlns="DAV:"><lockscope><${scope}/></lockscope><locktype><write/></locktype></lockinfo>`
      const answer = await send('LOCK', path, { Depth: depth }, body)
      return answer.headers.get('lock-token') ?? ''
    }
    for (const name of ['one', 'two', 'three', 'four']) await send('MKCOL', `tree/${name}`)
    const tokens: [string, string][] = [
      ['tree/', await lock('tree/', '0', 'shared')],
      ['tree/one', await lock('tree/one', 'infinity', 'shared')],
      ['tree/two', await lock('tree/two', '0', 'exclusive')],
    ]
    await send('MKCOL', 'tree/one/below', { If: `(${tokens[1]?.[1]})` })
    const deep = await lock('tree/one/below', '0', 'shared')
    const found = await propfind('tree/', ask('<D:lockdiscovery/>'), '1')
    const roots = (response: Response207): string[] =>
      childrenOf(response.stats[0]?.properties.get('DAV: lockdiscovery') as XmlElement).map((active) =>
        textOf(childrenOf(davChild(active, 'lockroot'))[0] as XmlElement),
      )
    expect(Object.fromEntries(found.map((response) => [response.href, roots(response)]))).toEqual({
      '/home/tree/': ['/home/tree/'],
      '/home/tree/a/': [],
      '/home/tree/four/': [],
      '/home/tree/one/': ['/home/tree/one/'],
      '/home/tree/three/': [],
      '/home/tree/two/': ['/home/tree/two/'],
    })
    const below = await propfind('tree/one/below', ask('<D:lockdiscovery/>'))
    expect(below.map(roots)).toEqual([['/home/tree/one/', '/home/tree/one/below/']])
    for (const [path, token] of [['tree/one/below', deep] as const, ...tokens]) {
      expect((await send('UNLOCK', path, { 'Lock-Token': token })).status).toBe(204)
    }
  })

  test.each([
    ['two questions', '<propfind xmlns="DAV:"><prop/><allprop/></propfind>'],
    ['no question', '<propfind xmlns="DAV:"><unknown/></propfind>'],
    [
      'a prefix bound to nothing',
      '<D:propfind xmlns:D="DAV:"><D:prop><b:c xmlns:b=""/></D:prop></D:propfind>',
    ],
    [
      'bytes that are not UTF-8',
      Buffer.from('<propfind xmlns="DAV:"><prop><é/></prop></propfind>', 'latin1'),
    ],
    ['too deep', `<propfind xmlns="DAV:">${'<a>'.repeat(200)}${'</a>'.repeat(200)}<allprop/></propfind>`],
  ])('%s: 400', async (_, body: string | Buffer) => {
    const answer = await send('PROPFIND', 'tree/', { Depth: '0', 'Content-Type': 'text/xml' }, body)
    expect(await problemOf(answer)).toBe('400 invalid-request')
  })

  test('UTF-16 is XML too', async () => {
    const body = Buffer.from('\ufeff<propfind xmlns="DAV:"><prop><getetag/></prop></propfind>', 'utf16le')
    const answer = await send('PROPFIND', 'tree/a/file.txt', { Depth: '0', 'Content-Type': 'text/xml' }, body)
    expect([answer.status, await answer.text()]).toEqual([207, expect.stringContaining('<D:getetag>')])
  })

  test.each([[{}], [{ Depth: 'infinity' }]])('a whole tree is not told at once: %o', async (headers) => {
    const answer = await send('PROPFIND', 'tree/', headers)
    expect(answer.status).toBe(403)
    expect(await answer.text()).toContain('<D:propfind-finite-depth/>')
  })

  test('the vault shows its areas', async () => {
    const found = await propfind('', undefined, '1')
    expect(found.map(({ href }) => href)).toEqual([
      '/home/',
      '/home/tree/',
      '/home/snapshots/',
      '/home/trash/',
    ])
    for (const response of found.slice(1)) {
      expect(names(response)).toEqual(
        expect.arrayContaining(inDav(['resourcetype', 'displayname', 'getlastmodified'])),
      )
    }
    const [vault] = await propfind(
      '',
      ask('<D:quota-available-bytes/><D:quota-used-bytes/><D:resourcetype/>'),
    )
    expect(vault?.stats.map(({ status }) => status)).toEqual(['200'])
    for (const path of ['', 'tree/']) {
      const options = await send('OPTIONS', path)
      expect([options.headers.get('dav'), options.headers.get('ms-author-via')]).toEqual(['1, 2, 3', 'DAV'])
    }
  })
})

describe('GET of the tree', () => {
  test('a file, as it was put', async () => {
    const answer = await send('GET', 'tree/a/file.txt')
    expect(await answer.text()).toBe(content)
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'cache-control': 'no-cache',
      'content-type': 'text/plain',
      'last-modified': 'Tue, 14 Nov 2023 22:13:20 GMT',
      'x-content-type-options': 'nosniff',
    })
    const [etag, length] = [answer.headers.get('etag'), answer.headers.get('content-length')]
    const head = await send('HEAD', 'tree/a/file.txt')
    expect([head.headers.get('etag'), head.headers.get('content-length')]).toEqual([etag, length])
    expect((await send('GET', 'tree/a/file.txt', { 'If-None-Match': etag })).status).toBe(304)
    const part = await send('GET', 'tree/a/file.txt', { Range: 'bytes=5-6', 'If-Range': etag })
    expect([part.status, await part.text()]).toEqual([206, 'is'])
  })

  test.each(['', 'tree', 'tree/', 'tree/a/file.txt', 'tree/none', 'tree/%zz', 'trash/', 'snapshots/'])(
    'HEAD says what GET says, and has no body: "%s"',
    async (path) => {
      const own = ['connection', 'date', 'keep-alive', 'transfer-encoding', 'x-request-id']
      const said = async (method: string): Promise<[number, Record<string, string>, string]> => {
        const answer = await send(method, path)
        const headers = [...answer.headers].filter(([name]) => !own.includes(name))
        return [answer.status, Object.fromEntries(headers), await answer.text()]
      }
      const [status, headers] = await said('GET')
      expect(await said('HEAD')).toEqual([status, headers, ''])
    },
  )

  test('a collection is a page, and no tar', async () => {
    const answer = await send('GET', 'tree/a', { Accept: 'application/x-tar' })
    expect(answer.headers.get('content-location')).toBe('/home/tree/a/')
    expect(await answer.text()).toContain('href="/home/tree/a/%23%26%3C%25%FF"')
    expect((await send('GET', 'tree/a/?archive=tar')).status).toBe(406)
    expect((await send('GET', 'tree/none')).status).toBe(404)
  })
})
