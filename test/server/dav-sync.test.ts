/** REPORT sync-collection: RFC 6578. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, responses, setProperties, tells, texts } from './dav-requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
  for (const path of ['c', 'c/sub', 'empty']) await ask(server, 'MKCOL', path)
  for (const path of ['c/a', 'c/b', 'c/sub/deep']) await ask(server, 'PUT', path, {}, path)
})
afterAll(() => server.stop())

const body = (token: string, more = '', level = '1'): string =>
  `<D:sync-collection xmlns:D="DAV:"><D:sync-token>${token}</D:sync-token><D:sync-level>${level}</D:sync-level>${more}<D:prop><D:getetag/><D:resourcetype/></D:prop></D:sync-collection>`

async function changes(
  token: string,
  path = 'c',
  more = '',
): Promise<{ token: string; found: string[]; text: string }> {
  const { status, text } = await ask(server, 'REPORT', path, { Depth: '0' }, body(token, more))
  expect(status).toBe(207)
  const [next = ''] = texts(text, 'sync-token')
  return {
    text,
    token: next,
    found: responses(text).map(
      ({ href, status: stats }) => `${href.replace(`/home/tree/${path}/`, '')} ${stats[0]?.slice(0, 3)}`,
    ),
  }
}

test('at first all that is there, then what changed', async () => {
  const first = await changes('')
  expect(first.found.sort()).toEqual(['a 200', 'b 200', 'sub/ 200'])
  expect((await changes(first.token)).found).toEqual([])

  await ask(server, 'PUT', 'c/a', {}, 'other')
  await ask(server, 'PUT', 'c/new', {}, 'new')
  await ask(server, 'DELETE', 'c/b')
  await ask(server, 'PUT', 'c/sub/deep', {}, 'not a direct member')
  const second = await changes(first.token)
  expect(second.found.sort()).toEqual(['a 200', 'b 404', 'new 200'])

  await ask(server, 'MOVE', 'c/new', { Destination: '/home/tree/c/moved' })
  await ask(server, 'PROPPATCH', 'c/a', {}, setProperties('<x xmlns="urn:x"/>'))
  expect((await changes(second.token)).found.sort()).toEqual(['a 200', 'moved 200', 'new 404'])
  expect((await changes('')).found.sort()).toEqual(['a 200', 'moved 200', 'sub/ 200'])
})

test('the token that PROPFIND tells is one', async () => {
  const propfind = '<D:propfind xmlns:D="DAV:"><D:prop><D:sync-token/></D:prop></D:propfind>'
  const { text } = await ask(server, 'PROPFIND', 'c', { Depth: '0' }, propfind)
  expect((await changes(texts(text, 'sync-token')[0] ?? '')).found).toEqual([])
})

test('an empty collection has a token too', async () => {
  const { token, found } = await changes('', 'empty')
  expect(found).toEqual([])
  await ask(server, 'PUT', 'empty/x', {}, 'x')
  expect((await changes(token, 'empty')).found).toEqual(['x 200'])
})

test('what is more than the client wants comes in pieces, each but the last with 507 for the collection', async () => {
  for (const path of ['long', 'long/d']) await ask(server, 'MKCOL', path)
  for (const path of ['long/a', 'long/b']) await ask(server, 'PUT', path, {}, path)
  const limit = '<D:limit><D:nresults>2</D:nresults></D:limit>'
  const first = await changes('', 'long', limit)
  expect(first.found).toEqual(['d/ 200', 'a 200', ' 507'])
  expect(first.text).toContain('<D:error><D:number-of-matches-within-limits/></D:error>')
  const second = await changes(first.token, 'long', limit)
  expect(second.found).toEqual(['b 200'])
  expect((await changes(second.token, 'long', limit)).found).toEqual([])
})

describe('is refused', () => {
  test.each([
    ['with a token of nobody', 'c', body('urn:nobody:1'), '403 valid-sync-token'],
    ['with a token of the future', 'c', body('urn:chunkdav:sync:999999999'), '403 valid-sync-token'],
    ['for all levels', 'c', body('', '', 'infinite'), '403 sync-traversal-supported'],
    ['of a file', 'c/a', body(''), '403 supported-report'],
    ['of nothing', 'none', body(''), '404 not-found'],
    ['for another report', 'c', '<D:expand-property xmlns:D="DAV:"/>', '403 supported-report'],
    ['without a token', 'c', '<D:sync-collection xmlns:D="DAV:"/>', '400 invalid-request'],
    ['without a body', 'c', '', '400 invalid-request'],
    ['with no XML', 'c', 'x', '400 invalid-request'],
  ])('%s', async (_, path, asked, expected) => {
    expect(await tells(server, 'REPORT', path, {}, asked)).toBe(expected)
  })

  test('with Depth: 1', async () => {
    expect(await tells(server, 'REPORT', 'c', { Depth: '1' }, body(''))).toBe('400 invalid-request')
  })
})
