/** Names of any bytes: what is put under one is found, listed, copied and deleted under it. */
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { encodeSegment } from '../../server/http/path-names.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, content, members, tells, texts } from './dav-requests.ts'
import { RawConnection } from './requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
  for (const path of ['a', 'b']) await ask(server, 'MKCOL', path)
})
afterAll(() => server.stop())

async function roundTrip(name: Buffer): Promise<void> {
  const segment = encodeSegment(name)
  expect(await tells(server, 'PUT', `a/${segment}`, {}, segment)).toBe('201')
  expect(await members(server, 'a/')).toEqual([segment])
  expect(await content(server, `a/${segment}`)).toBe(segment)
  expect(await tells(server, 'COPY', `a/${segment}`, { Destination: `/home/tree/b/${segment}` })).toBe('201')
  expect(await tells(server, 'MOVE', `b/${segment}`, { Destination: `/home/tree/b/${segment}x` })).toBe('201')
  expect(await members(server, 'b/')).toEqual([`${segment}x`])
  expect(await tells(server, 'DELETE', `b/${segment}x`)).toBe('204')
  expect(await tells(server, 'DELETE', `a/${segment}`)).toBe('204')
}

test.each([
  ['#'],
  ['&'],
  ['<'],
  ['%'],
  ['%41'],
  ['a b'],
  ['a+b'],
  ['a;b=c'],
  ['?'],
  ['"\'\\'],
  ['...'],
  ['~'],
  ['é'],
  ['日本語'],
  ['\u{1F600}'],
  ['e\u0301'],
  ['\n\t\u0001'],
  [':'],
  ['http://x'.replaceAll('/', '')],
])('%o', async (name) => {
  await roundTrip(Buffer.from(name))
})

test.each([[Buffer.from([0xff])], [Buffer.from([0xc3, 0x28])], [Buffer.from([0x80, 0x41])]])(
  'bytes that are no text: %o',
  async (name) => {
    await roundTrip(name)
  },
)

test('any', async () => {
  const byte = fc.integer({ min: 1, max: 255 }).filter((value) => value !== 0x2f)
  const name = fc
    .array(byte, { minLength: 1, maxLength: 80 })
    .map((bytes) => Buffer.from(bytes))
    .filter((bytes) => bytes.toString('latin1') !== '.' && bytes.toString('latin1') !== '..')
  await fc.assert(fc.asyncProperty(name, roundTrip), { numRuns: 20 })
})

test('one name, however it is encoded: lower-case digits, what needs no encoding', async () => {
  await ask(server, 'PUT', 'caf%C3%A9', {}, 'x')
  expect(await content(server, 'caf%c3%a9')).toBe('x')
  expect(await content(server, '%63%61f%C3%A9')).toBe('x')
})

test('displayname is the name', async () => {
  await ask(server, 'PUT', '%3Ca%26b%3E', {}, 'x')
  const { text } = await ask(server, 'PROPFIND', '%3Ca%26b%3E', { Depth: '0' })
  expect(texts(text, 'displayname')).toEqual(['<a&b>'])
})

test.each([['DELETE'], ['GET'], ['PUT'], ['MKCOL']])(
  '%s of a target with a fragment is refused: it would be about something else',
  async (method) => {
    await ask(server, 'PUT', 'frag', {}, 'x')
    const raw = await RawConnection.open(server.url)
    raw.send(
      `${method} /home/tree/frag#ment HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
    )
    expect(await raw.end()).toMatch(/^HTTP\/1\.1 400 [\s\S]*urn:chunkdav:problem:invalid-request/)
    expect(await content(server, 'frag')).toBe('x')
  },
)
