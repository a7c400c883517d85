import { afterAll, beforeAll, expect, test } from 'vitest'
import { Problem } from '../../protocol/problem.ts'
import type { CollectableStore } from '../../server/index.ts'
import { MemoryChunkStore } from '../../server/store/memory-chunk-store.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { chunk, problemOf, put } from './requests.ts'

let server: TestReceiver
let failure: Error | undefined
const lines: Record<string, unknown>[] = []

/** A memory store that fails when the test says so. */
async function failingStore(): Promise<CollectableStore> {
  const store = await MemoryChunkStore.open()
  return new Proxy(store, {
    get(target, name) {
      if (name === 'stat' && failure !== undefined) return () => Promise.reject(failure)
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

beforeAll(async () => {
  const { pino } = await import('pino')
  const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(JSON.parse(line)) })
  server = await startReceiver({ openStore: failingStore, log })
})
afterAll(() => server.stop())

test.each([
  ['GET', '/home/nothing', '404 not-found'],
  ['GET', '/-/nothing', '404 not-found'],
  ['DELETE', '/home/', '405 method-not-allowed'],
  ['POST', '/', '405 method-not-allowed'],
  ['DELETE', `/home/chunks/${chunk('x').id}`, '405 method-not-allowed'],
  ['GET', '/home/chunks/', '405 method-not-allowed'],
  ['GET', '/home/chunks/blake3%3Ax', '400 invalid-id'],
  ['GET', '/home/chunks/missing', '405 method-not-allowed'],
  ['GET', '/UPPER/', '400 invalid-name'],
])('%s %s → %s', async (method, path, expected) => {
  const answer = await fetch(server.url + path, { method })
  expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/)
  if (expected.startsWith('405')) expect(answer.headers.get('allow')).toMatch(/GET|POST/)
  expect(await problemOf(answer)).toBe(expected)
})

test.each([
  ['/', 'GET, HEAD, PROPFIND, OPTIONS', null],
  ['/home/', 'GET, HEAD, PROPFIND, MKCOL, OPTIONS', null],
  [`/home/chunks/${chunk('x').id}`, 'GET, HEAD, PUT, PATCH, OPTIONS', 'application/vnd.chunkdav.delta+zstd'],
  [`/home/dirs/${chunk('x').id}`, 'GET, HEAD, PROPFIND, PUT, PATCH, OPTIONS', 'application/json-patch+json'],
  ['/home/checkpoints/a/1', 'GET, HEAD, DELETE, OPTIONS', null],
])('OPTIONS %s tells what there is', async (path, allow, acceptPatch) => {
  const { status, headers } = await fetch(server.url + path, { method: 'OPTIONS' })
  expect([
    status,
    headers.get('allow'),
    headers.get('accept-patch'),
    headers.get('chunkdav-version'),
  ]).toEqual([204, allow, acceptPatch, '1'])
})

test.each([
  ['a sane request id is taken', 'abc-123', true],
  ['one with spaces is not', 'a b', false],
  ['one that is too long is not', 'x'.repeat(200), false],
])('%s', async (_, given, taken) => {
  const answer = await fetch(`${server.url}/-/health`, { headers: { 'X-Request-Id': given } })
  expect(answer.headers.get('x-request-id') === given).toBe(taken)
  expect(answer.headers.get('x-request-id')).toMatch(/^[\w-]{1,128}$/)
})

test('health and the contract', async () => {
  expect(await (await fetch(`${server.url}/-/health`)).json()).toMatchObject({ status: 'ok' })
  expect(await (await fetch(`${server.url}/-/openapi.yaml`)).text()).toMatch(/^openapi: 3\.2/m)
})

test('a fault is 500, logged with its stack, and not told', async () => {
  failure = new Error('the secret place /etc/shadow')
  const answer = await put(server, 'chunks', chunk('fault'), { 'X-Request-Id': 'fault-1' })
  failure = undefined
  const text = await answer.text()
  expect([answer.status, text.includes('secret'), text.includes('stack')]).toEqual([500, false, false])
  const logged = lines.find((line) => line.requestId === 'fault-1' && line.err !== undefined)
  expect(JSON.stringify(logged?.err)).toContain('the secret place')
})

test.each([
  ['insufficient-storage', 507],
  ['unavailable', 503],
  ['in-use', 500],
] as const)('a store that says %s is told as %i', async (code, status) => {
  failure = new Problem(code, 'x')
  const answer = await put(server, 'chunks', chunk(`told ${code}`))
  failure = undefined
  expect(answer.status).toBe(status)
  expect(answer.headers.get('retry-after')).toBe(status === 503 ? '1' : null)
})

test.each([
  ['ENOSPC', 507],
  ['EDQUOT', 507],
  ['EIO', 503],
  ['EMFILE', 503],
  ['EROFS', 503],
  ['EPERM', 500],
])('%s of the disk is %i, and logged', async (code, status) => {
  failure = Object.assign(new Error(`${code}: /secret/path`), { code })
  const answer = await put(server, 'chunks', chunk(`disk ${code}`), { 'X-Request-Id': `disk-${code}` })
  failure = undefined
  expect([answer.status, (await answer.text()).includes('secret')]).toEqual([status, false])
  const logged = lines.find(({ requestId, msg }) => requestId === `disk-${code}` && msg !== 'request')
  expect(JSON.stringify(logged)).toContain('/secret/path')
})

test.each<[Error | undefined, number, [number, string][]]>([
  [undefined, 201, [[20, 'request']]],
  [new Problem('unavailable', 'x'), 503, [[40, 'request']]],
  [
    new Problem('unavailable', 'x', { cause: new Error('y') }),
    503,
    [
      [50, 'request failed: x'],
      [40, 'request'],
    ],
  ],
  [
    new Problem('insufficient-storage', 'x', { cause: new Error('y') }),
    507,
    [
      [40, 'request failed: x'],
      [40, 'request'],
    ],
  ],
  [
    new Problem('store-corrupt', 'reindex it'),
    500,
    [
      [50, 'request failed: reindex it'],
      [50, 'request'],
    ],
  ],
  [
    new Error('x'),
    500,
    [
      [50, 'request failed'],
      [50, 'request'],
    ],
  ],
])('%s is logged as loudly as it has to be', async (error, status, expected) => {
  failure = error
  const id = `level-${lines.length}`
  const answer = await put(server, 'chunks', chunk(id), { 'X-Request-Id': id })
  failure = undefined
  expect(answer.status).toBe(status)
  await new Promise((resolve) => setTimeout(resolve, 20))
  const of = lines.filter(({ requestId }) => requestId === id)
  expect(of.map(({ level, msg }) => [level, msg])).toEqual(expected)
})

test('a copy to another server is no fault of ours', async () => {
  const headers = { Destination: 'http://example.invalid/x', 'X-Request-Id': 'elsewhere' }
  expect((await fetch(`${server.url}/home/tree/f`, { method: 'COPY', headers })).status).toBe(502)
  await expect
    .poll(() => lines.filter(({ requestId }) => requestId === 'elsewhere'))
    .toMatchObject([{ level: 20 }])
})

test('one log line per request, without secrets', async () => {
  await fetch(`${server.url}/-/health?token=hunter2`, {
    headers: { 'X-Request-Id': 'line-1', Authorization: 'Basic aHVudGVyMg==' },
  })
  const item = chunk('logged')
  await put(server, 'chunks', item, { 'X-Request-Id': 'line-2' })
  await new Promise((resolve) => setTimeout(resolve, 20))
  const of = (id: string) => lines.filter(({ requestId }) => requestId === id)
  expect(of('line-1')).toEqual([
    expect.objectContaining({ method: 'GET', path: '/-/health', status: 200, ms: expect.any(Number) }),
  ])
  expect(of('line-2')).toEqual([
    expect.objectContaining({ status: 201, bytesIn: item.bytes.length, bytesOut: expect.any(Number) }),
  ])
  expect(JSON.stringify(lines)).not.toMatch(/hunter2|aHVudGVyMg/)
})
