/** PROPPATCH: what is kept, what is refused, and that it is all or nothing. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { childrenOf, elementXml, type XmlElement } from '../../server/http/xml.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, lock, property, responses, setProperties, tells } from './dav-requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
  await ask(server, 'MKCOL', 'c')
})
afterAll(() => server.stop())
beforeEach(async () => {
  await ask(server, 'DELETE', 'f')
  await ask(server, 'PUT', 'f', {}, 'f')
})

const update = (inner: string): string =>
  `<D:propertyupdate xmlns:D="DAV:" xmlns:x="urn:x">${inner}</D:propertyupdate>`
const set = (inner: string): string => `<D:set><D:prop>${inner}</D:prop></D:set>`
const remove = (inner: string): string => `<D:remove><D:prop>${inner}</D:prop></D:remove>`

async function patch(path: string, body: string): Promise<{ href: string; status: string[] }[]> {
  const answer = await ask(server, 'PROPPATCH', path, { 'Content-Type': 'application/xml' }, body)
  expect(answer.status).toBe(207)
  return responses(answer.text)
}

const value = async (local: string, namespace = 'urn:x'): Promise<XmlElement['content'] | undefined> =>
  (await property(server, 'f', namespace, local))?.content

test('sets and removes, in the order of the document', async () => {
  const steps =
    set('<x:a>1</x:a><x:b>1</x:b>') + remove('<x:a/>') + set('<x:b>2</x:b><x:c/>') + remove('<x:none/>')
  expect(await patch('f', update(steps))).toEqual([{ href: '/home/tree/f', status: ['200 a b c none'] }])
  expect([await value('a'), await value('b'), await value('c')]).toEqual([undefined, ['2'], []])
  await patch('f', update(remove('<x:b/>') + set('<x:b>3</x:b>')))
  expect(await value('b')).toEqual(['3'])
})

test('of collections too, whose href ends in a slash; also of the tree', async () => {
  expect((await patch('c', setProperties('<x xmlns="urn:x"/>')))[0]?.href).toBe('/home/tree/c/')
  expect((await patch('', setProperties('<x xmlns="urn:x">t</x>')))[0]?.href).toBe('/home/tree/')
  expect((await property(server, '', 'urn:x', 'x'))?.content).toEqual(['t'])
})

test('one that is refused refuses all: 403 with its condition, 424 for the others', async () => {
  await patch('f', update(set('<x:old>old</x:old>')))
  const body = update(set('<x:a>1</x:a><D:getetag>"x"</D:getetag>') + remove('<x:old/><D:resourcetype/>'))
  const answer = await ask(server, 'PROPPATCH', 'f', {}, body)
  expect(responses(answer.text)[0]?.status).toEqual(['424 a old', '403 getetag resourcetype'])
  expect(answer.text).toContain('<D:cannot-modify-protected-property>')
  expect([await value('a'), await value('old')]).toEqual([undefined, ['old']])
})

test.each(
  'creationdate getcontentlength getcontenttype getetag getlastmodified lockdiscovery quota-available-bytes quota-used-bytes resourcetype supportedlock supported-report-set sync-token'
    .split(' ')
    .map((local) => [local]),
)('%s is protected', async (local) => {
  for (const step of [set, remove]) {
    expect((await patch('f', update(step(`<D:${local}/>`))))[0]?.status).toEqual([`403 ${local}`])
  }
})

test('a name that is given can be shown in place of the file’s', async () => {
  await patch('f', update(set('<D:displayname>A name</D:displayname>')))
  expect((await property(server, 'f', 'DAV:', 'displayname'))?.content).toEqual(['A name'])
})

test('the same name in different namespaces, and in none, is not the same property', async () => {
  await patch('f', update(set('<x:p>x</x:p><y:p xmlns:y="urn:y">y</y:p><p>none</p>')))
  const found = await Promise.all(['urn:x', 'urn:y'].map((namespace) => value('p', namespace)))
  expect(found).toEqual([['x'], ['y']])
  await patch('f', update(remove('<y:p xmlns:y="urn:y"/>')))
  expect([await value('p'), await value('p', 'urn:y')]).toEqual([['x'], undefined])
})

test('values are kept as they were: language, attributes, elements, namespaces, markup', async () => {
  const inner =
    '<x:p a="1" x:b="&lt;&quot;&#10;" xmlns:q="urn:q"> <q:e>&amp;<![CDATA[<raw>]]></q:e><e xmlns="urn:e"><f/></e> é<?pi x?><!-- c --></x:p>'
  const body = `<D:propertyupdate xmlns:D="DAV:" xmlns:x="urn:x" xml:lang="de"><D:set><D:prop>${inner}</D:prop></D:set></D:propertyupdate>`
  await patch('f', body)
  const kept = (await property(server, 'f', 'urn:x', 'p')) as XmlElement
  expect(kept.language).toBe('de')
  expect(
    Object.fromEntries(kept.attributes.map(({ written, value: text }) => [written, text])),
  ).toMatchObject({
    a: '1',
    'x:b': '<"\n',
  })
  const [q, e] = childrenOf(kept)
  expect([q?.namespace, q?.local, q?.content.join('')]).toEqual(['urn:q', 'e', '&<raw>'])
  expect([e?.namespace, childrenOf(e as XmlElement)[0]?.namespace]).toEqual(['urn:e', 'urn:e'])
  expect(kept.content.filter((piece) => typeof piece === 'string').join('')).toBe('  é')
  // It stands by itself: put again as it came, it is the same.
  await patch('c', setProperties(elementXml(kept)))
  const again = (await property(server, 'c', 'urn:x', 'p')) as XmlElement
  expect(elementXml(again)).toBe(elementXml(kept))
})

test('they stay when the content is replaced', async () => {
  await patch('f', update(set('<x:p>kept</x:p>')))
  await ask(server, 'PUT', 'f', {}, 'other')
  expect(await value('p')).toEqual(['kept'])
})

describe('lastmodified', () => {
  const modified = async (): Promise<string | undefined> =>
    (await ask(server, 'HEAD', 'f')).headers['last-modified']

  test.each([
    ['seconds', '1000000000', 'Sun, 09 Sep 2001 01:46:40 GMT'],
    ['seconds with a fraction', '1000000000.75', 'Sun, 09 Sep 2001 01:46:40 GMT'],
    ['a date of HTTP', 'Tue, 14 Nov 2023 22:13:20 GMT', 'Tue, 14 Nov 2023 22:13:20 GMT'],
  ])('in %s sets the time', async (_, text, expected) => {
    expect((await patch('f', update(set(`<D:lastmodified>${text}</D:lastmodified>`))))[0]?.status).toEqual([
      '200 lastmodified',
    ])
    expect(await modified()).toBe(expected)
    expect(await property(server, 'f', 'DAV:', 'lastmodified')).toBe(undefined)
  })

  test.each([['soon'], [''], ['2023-11-14']])('"%s" is no time: 409, and nothing is set', async (text) => {
    const before = await modified()
    const [answer] = await patch('f', update(set(`<x:a/><D:lastmodified>${text}</D:lastmodified>`)))
    expect(answer?.status).toEqual(['424 a', '409 lastmodified'])
    expect([await modified(), await value('a')]).toEqual([before, undefined])
  })

  test('is taken with the others, or not at all', async () => {
    const before = await modified()
    await patch('f', update(set('<D:lastmodified>1000000000</D:lastmodified><D:getetag/>')))
    expect(await modified()).toBe(before)
  })
})

test.each([
  ['no XML', 'x', '400 invalid-request'],
  ['nothing', '', '400 invalid-request'],
  ['an unclosed element', '<D:propertyupdate xmlns:D="DAV:">', '400 invalid-request'],
  ['an unbound prefix', update(set('<y:p/>')), '400 invalid-request'],
  ['an unbound prefix of an attribute', update(set('<x:p y:a="1"/>')), '400 invalid-request'],
  ['a namespace that is no URI', update(set('<y:p xmlns:y="urn:x y"/>')), '400 invalid-request'],
  ['a prefix bound to nothing', update(set('<y:p xmlns:y=""/>')), '400 invalid-request'],
  [
    'a document type',
    `<!DOCTYPE a [<!ENTITY e "x">]>${update(set('<x:p>&e;</x:p>'))}`,
    '400 invalid-request',
  ],
  ['an unknown entity', update(set('<x:p>&e;</x:p>')), '400 invalid-request'],
  ['bytes that are not UTF-8', Buffer.from(update(set('<x:p>é</x:p>')), 'latin1'), '400 invalid-request'],
  ['another element', '<propertyupdate/>', '400 invalid-request'],
  ['no property', update(''), '400 invalid-request'],
  [
    'elements that nest too deep',
    update(set('<x:p>'.repeat(200) + '</x:p>'.repeat(200))),
    '400 invalid-request',
  ],
  [
    'prefixes without end',
    `<D:propertyupdate xmlns:D="DAV:" ${Array.from({ length: 100 }, (_, i) => `xmlns:p${i}="urn:p"`).join(' ')}>${set('<p0:p/>')}</D:propertyupdate>`,
    '400 invalid-request',
  ],
  ['too much', update(set(`<x:p>${'x'.repeat(300_000)}</x:p>`)), '413 body-too-large'],
  [
    'little that becomes much',
    `<D:propertyupdate xmlns:D="DAV:" xmlns:x="urn:${'x'.repeat(100_000)}">${set('<x:a/><x:b/><x:c/>')}</D:propertyupdate>`,
    '413 body-too-large',
  ],
])('a body of %s is refused', async (_, body, expected) => {
  expect(await tells(server, 'PROPPATCH', 'f', { 'Content-Type': 'text/xml' }, body)).toBe(expected)
})

test.each([
  ['what is not there', 'none', {}, '404 not-found'],
  ['another type', 'f', { 'Content-Type': 'image/png' }, '415 unsupported-media-type'],
  ['If that does not hold', 'f', { If: '(["x"])' }, '412 precondition-failed'],
  ['If-Match of another', 'f', { 'If-Match': '"x"' }, '412 precondition-failed'],
])('is refused for %s', async (_, path, headers, expected) => {
  const sent = headers as Record<string, string>
  expect(await tells(server, 'PROPPATCH', path, sent, update(set('<x:p/>')))).toBe(expected)
})

test('UTF-16 is XML too', async () => {
  const text = `\ufeff<?xml version="1.0" encoding="utf-16"?>${update(set('<x:p>é</x:p>'))}`
  expect((await ask(server, 'PROPPATCH', 'f', {}, Buffer.from(text, 'utf16le'))).status).toBe(207)
  expect(await value('p')).toEqual(['é'])
})

test('what is locked needs its token', async () => {
  const token = await lock(server, 'f')
  expect(await tells(server, 'PROPPATCH', 'f', {}, update(set('<x:p/>')))).toBe('423 lock-token-submitted')
  expect(await tells(server, 'PROPPATCH', 'f', { If: `(<${token}>)` }, update(set('<x:p/>')))).toBe('207')
  await ask(server, 'UNLOCK', 'f', { 'Lock-Token': `<${token}>` })
})
