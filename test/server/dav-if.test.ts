/** `If` counts on every method, and its untagged lists speak of the Request-URI only. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, content, lock, lockBody, setProperties, tells } from './dav-requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
})
afterAll(() => server.stop())
beforeEach(async () => {
  for (const path of ['f', 'g', 'n']) await ask(server, 'DELETE', path)
  for (const path of ['f', 'g']) await ask(server, 'PUT', path, {}, path)
})

const to = { Destination: '/home/tree/n' }
const sync =
  '<D:sync-collection xmlns:D="DAV:"><D:sync-token/><D:sync-level>1</D:sync-level><D:prop/></D:sync-collection>'
const requests: [string, string, Record<string, string>, string][] = [
  ['GET', 'f', {}, ''],
  ['HEAD', 'f', {}, ''],
  ['OPTIONS', 'f', {}, ''],
  ['PROPFIND', 'f', { Depth: '0' }, ''],
  ['PROPPATCH', 'f', {}, setProperties('<D:x/>')],
  ['PUT', 'f', {}, 'new'],
  ['DELETE', 'f', {}, ''],
  ['COPY', 'f', to, ''],
  ['MOVE', 'f', to, ''],
  ['MKCOL', 'n', {}, ''],
  ['LOCK', 'f', {}, lockBody()],
  ['UNLOCK', 'f', { 'Lock-Token': '<urn:uuid:none>' }, ''],
  ['REPORT', '', {}, sync],
]

test.each(requests)(
  '%s: 412 when it does not hold, 400 when it is malformed',
  async (method, path, headers, body) => {
    const status = async (header: string): Promise<number> =>
      (await ask(server, method, path, { ...headers, If: header }, body)).status
    expect(await status('(<DAV:no-lock>)')).toBe(412)
    expect(await status('(["x"])')).toBe(412)
    expect(await status('</home/tree/g> (["x"])')).toBe(412)
    expect(await status('(<DAV:no-lock>')).toBe(400)
    expect(await status('<f> (Not <DAV:no-lock>)')).toBe(400)
    expect(await content(server, 'f')).toBe('f')
    expect([200, 201, 204, 207, 409]).toContain(await status('(Not <DAV:no-lock>)'))
  },
)

test.each([
  ['PATCH', 'tree/f', 405],
  ['NOTIFY', 'trash/', 405],
  ['PUT', 'trash/1', 403],
])('%s of %s is not among the methods, whether it holds or not', async (method, path, status) => {
  const headers = { If: '(<DAV:no-lock>)' }
  expect((await fetch(`${server.vaultUrl}/${path}`, { method, headers })).status).toBe(status)
})

test('an untagged list speaks of the Request-URI, a tagged one of its resource', async () => {
  const tagOf = async (path: string): Promise<string> => (await ask(server, 'HEAD', path)).headers.etag ?? ''
  const [f, g] = [await tagOf('f'), await tagOf('g')]
  const host = new URL(server.url).host
  for (const [header, expected] of [
    [`([${f}])`, '200'],
    [`([${g}])`, '412 precondition-failed'],
    [`</home/tree/g> ([${g}])`, '200'],
    [`</home/tree/%67> ([${g}])`, '200'],
    [`<http://${host}/home/tree/g> ([${g}])`, '200'],
    [`<https://${host}/home/tree/g> ([${g}])`, '200'],
    [`<http://elsewhere.example/home/tree/g> ([${g}])`, '412 precondition-failed'],
    [`</home/tree/g> ([${f}])`, '412 precondition-failed'],
    [`</home/tree/g> ([${f}]) </home/tree/f> ([${f}])`, '200'],
    [`</home/tree/none> (Not ["x"])`, '200'],
    [`</other/tree/g> ([${g}])`, '412 precondition-failed'],
    [`([${f}] <DAV:no-lock>)`, '412 precondition-failed'],
    [`([W/${f}])`, '412 precondition-failed'],
  ] as const) {
    expect([header, await tells(server, 'GET', 'f', { If: header })]).toEqual([header, expected])
  }
  // The destination of a COPY is not the Request-URI.
  expect(await tells(server, 'COPY', 'f', { Destination: '/home/tree/g', If: `([${g}])` })).toBe(
    '412 precondition-failed',
  )
})

test('a lock token holds on what is locked, also by a collection above', async () => {
  await ask(server, 'MKCOL', 'locked')
  await ask(server, 'PUT', 'locked/a', {}, 'a')
  const token = await lock(server, 'locked')
  for (const [path, header, expected] of [
    ['locked/a', `(<${token}>)`, '200'],
    ['locked/', `(<${token}>)`, '200'],
    ['f', `(<${token}>)`, '412 precondition-failed'],
    ['f', `(Not <${token}>)`, '200'],
    ['f', `</home/tree/locked/a> (<${token}>)`, '200'],
    ['locked/none', `(<${token}>)`, '404 not-found'],
  ] as const) {
    expect([path, await tells(server, 'GET', path, { If: header })]).toEqual([path, expected])
  }
})

test('a token and an ETag in one list must both hold', async () => {
  await ask(server, 'PUT', 'both', {}, 'x')
  const token = await lock(server, 'both')
  const { etag = '' } = (await ask(server, 'HEAD', 'both')).headers
  expect(await tells(server, 'PUT', 'both', { If: `(<${token}> ["x"])` }, 'new')).toBe(
    '412 precondition-failed',
  )
  expect(await tells(server, 'PUT', 'both', { If: `(<${token}> ["x"]) (Not <DAV:no-lock>)` }, 'new')).toBe(
    '204',
  )
  expect(await tells(server, 'PUT', 'both', { If: `(<${token}> [${etag}])` }, 'new')).toBe(
    '412 precondition-failed',
  )
})
