/** What a server may say about a folder, and what of it is believed. */
import { expect, test } from 'vitest'
import { type DavMember, parseListing } from '../../../client/targets/webdav-listing.ts'

const collectionXml = '<D:resourcetype><D:collection/></D:resourcetype>'

function response(href: string, properties = '', status = 'HTTP/1.1 200 OK'): string {
  return `<D:response><D:href>${href}</D:href><D:propstat><D:prop>${properties}</D:prop><D:status>${status}</D:status></D:propstat></D:response>`
}

function multistatus(...responses: string[]): string {
  return `<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">${responses.join('\n')}</D:multistatus>`
}

/** In pieces of `step` bytes. */
async function parse(text: string | Buffer, step = 7): Promise<DavMember[]> {
  const bytes = Buffer.from(text)
  async function* pieces(): AsyncIterable<Buffer> {
    for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step)
  }
  return Array.fromAsync(parseListing(pieces(), '/dav/my%20files/'))
}

const shown = ({ name, isCollection, size }: DavMember): string =>
  `${name}${isCollection ? '/' : ''}${size === undefined ? '' : ` ${size}`}`

test('members, by paths and by whole URLs', async () => {
  const text = multistatus(
    response('/dav/my%20files/', collectionXml),
    response('/dav/my%20files/a%26b', '<D:getcontentlength>12</D:getcontentlength>'),
    response('http://elsewhere:99/dav/my%20files/sub/', collectionXml),
    response('/dav/my files/ünï', '<D:getcontentlength> 3 </D:getcontentlength>'),
    response('/dav//my%20files/%e9'),
  )
  const members = await parse(text)
  expect(members.slice(0, 4).map(shown)).toEqual(['/', 'a&b 12', 'sub/', 'ünï 3'])
  expect(members[4]?.name).toEqual(Buffer.from([0xe9]))
})

test('the time of the last change', async () => {
  const time = '<D:getlastmodified>Mon, 23 Nov 2026 05:22:15 GMT</D:getlastmodified>'
  const [member] = await parse(multistatus(response('/dav/my%20files/a', time)))
  expect(member?.modifiedMs).toBe(Date.UTC(2026, 10, 23, 5, 22, 15))
})

test('any prefix will do, and other namespaces mean nothing', async () => {
  const text =
    '<multistatus xmlns="DAV:" xmlns:x="urn:x"><response><href>/dav/my%20files/a</href><propstat><prop>' +
    '<x:getcontentlength>99</x:getcontentlength><x:resourcetype><collection/></x:resourcetype>' +
    '<getcontentlength><![CDATA[5]]></getcontentlength></prop><status>HTTP/1.1 200 OK</status></propstat></response></multistatus>'
  expect((await parse(text)).map(shown)).toEqual(['a 5'])
})

test('properties count only where they were found', async () => {
  const text = multistatus(
    '<D:response><D:href>/dav/my%20files/a</D:href>' +
      '<D:propstat><D:prop><D:getcontentlength>7</D:getcontentlength></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>' +
      '<D:propstat><D:prop><D:resourcetype/></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>',
    '<D:response><D:href>/dav/my%20files/gone</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>',
  )
  expect((await parse(text)).map(shown)).toEqual(['a'])
})

test('what is no direct member is passed over', async () => {
  const hrefs = [
    '/dav/my%20files/sub/deeper',
    '/dav/other/a',
    '/etc/passwd',
    '/dav/my%20files/..',
    '/dav/my%20files/%2e%2e',
    '/dav/my%20files/../../etc',
    '/dav/my%20files/a%2Fb',
    '/dav/my%20files/a%00b',
    '/dav/my%20files/%zz',
    '',
    'relative',
  ]
  expect(await parse(multistatus(...hrefs.map((href) => response(href))))).toEqual([])
})

test('names that look like something else are just names', async () => {
  const members = await parse(
    multistatus(response('/dav/my%20files/%5c..%5c'), response('/dav/my%20files/...')),
  )
  expect(members.map(shown)).toEqual(['\\..\\', '...'])
})

const nonsense: [string, string | Buffer][] = [
  ['nothing', ''],
  ['HTML', '<html><body>Welcome</body></html>'],
  ['no XML', 'Hello'],
  ['cut off', multistatus(response('/dav/my%20files/a')).slice(0, -10)],
  ['an unbound prefix', '<X:multistatus/>'],
  ['another namespace', '<multistatus xmlns="urn:x"/>'],
  ['a document type', `<!DOCTYPE a [<!ENTITY b "c">]>${multistatus()}`],
  ['an entity', multistatus(response('/dav/my%20files/&b;'))],
  ['too deep', multistatus('<a>'.repeat(100) + '</a>'.repeat(100))],
  ['a long text', multistatus(response(`/dav/my%20files/${'a'.repeat(100_000)}`))],
  ['no UTF-8', Buffer.from(multistatus(response('/dav/my%20files/\xe9')), 'latin1')],
]
for (const [what, text] of nonsense) {
  test(`nonsense: ${what}`, async () => {
    await expect(parse(text, 4096)).rejects.toMatchObject({ code: 'protocol-violation' })
  })
}

test('100,000 members are told one by one', async () => {
  async function* pieces(): AsyncIterable<Buffer> {
    yield Buffer.from('<D:multistatus xmlns:D="DAV:">')
    for (let i = 0; i < 100_000; i++) yield Buffer.from(response(`/dav/my%20files/f${i}`))
    yield Buffer.from('</D:multistatus>')
  }
  let count = 0
  for await (const _ of parseListing(pieces(), '/dav/my%20files/')) count++
  expect(count).toBe(100_000)
})
