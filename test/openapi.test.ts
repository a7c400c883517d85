import { createServer, type RequestListener, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { problemCodes, statusOf } from '../protocol/problem.ts'
import {
  checkResponse,
  contract,
  type Json,
  listOperations,
  observe,
  responseFaults,
} from './support/openapi.ts'

const id = `sha256:${'0'.repeat(64)}`
const json = { 'content-type': 'application/json; charset=utf-8' }
const html = { 'content-type': 'text/html; charset=utf-8' }
const inert = {
  'X-Content-Type-Options': 'nosniff',
  'Content-Security-Policy': "sandbox; default-src 'none'; style-src 'unsafe-inline'",
}
const fresh = { 'Cache-Control': 'no-cache' }
const sniff = { 'X-Content-Type-Options': 'sniff' }
const problem = (code: string, status: number, more: object = {}) => ({
  status,
  headers: { 'Content-Type': 'application/problem+json', 'X-Request-Id': 'r1', ...more },
  body: JSON.stringify({ type: `urn:chunkdav:problem:${code}`, title: 'x', status }),
})

describe('an answer that fits', () => {
  test.each([
    { method: 'GET', path: '/', status: 200, headers: json, body: '{"vaults":[]}' },
    { method: 'HEAD', path: '/', status: 200, headers: json, body: '' },
    { method: 'MKCOL', path: '/home/', status: 201, headers: {}, body: '' },
    { method: 'MKCOL', path: '/home/', ...problem('vault-exists', 405, { Allow: 'GET' }) },
    {
      method: 'PROPFIND',
      path: `/v/dirs/${id}`,
      status: 207,
      headers: { 'content-type': 'application/xml' },
      body: '<x/>',
    },
    {
      method: 'PROPFIND',
      path: `/v/dirs/${id}/`,
      status: 207,
      headers: { 'content-type': 'application/xml' },
      body: '<x/>',
    },
    { method: 'GET', path: `/v/dirs/${id}/a%2Fb/c?x=1`, ...problem('not-found', 404) },
    {
      method: 'PUT',
      path: `/v/chunks/${id}`,
      status: 201,
      headers: { ...json, etag: `"${id}"` },
      body: JSON.stringify({ id, outcome: 'stored' }),
    },
    { method: 'POST', path: '/v/chunks/missing', status: 200, headers: json, body: '{"missing":[]}' },
    { method: 'GET', path: '/a/b/c/d/e/f', ...problem('not-found', 404) },
    { method: 'DELETE', path: '/v/', ...problem('method-not-allowed', 405, { Allow: 'GET' }) },
    { method: 'PUT', path: `/v/chunks/${id}`, ...problem('unavailable', 503, { 'Retry-After': '1' }) },
    ...['/v', '/v/', '/v/tree', '/v/tree/', '/v/tree/a', '/v/tree/a/b%2Fc/'].map((path) => ({
      method: 'PROPFIND',
      path,
      status: 207,
      headers: { 'content-type': 'application/xml; charset=utf-8' },
      body: '<x/>',
    })),
    {
      method: 'GET',
      path: '/v/tree/a.json',
      status: 200,
      headers: { ...json, ...inert, ...fresh },
      body: 'no JSON',
    },
    { method: 'PUT', path: '/v/tree/a', status: 201, headers: { etag: '"1-0123456789abcdef"' }, body: '' },
    {
      method: 'DELETE',
      path: '/v/tree/a',
      status: 423,
      headers: { 'Content-Type': 'application/xml', 'X-Request-Id': 'r1' },
      body: '<x/>',
    },
    { method: 'GET', path: '/v/trash', status: 200, headers: { ...json, ...inert }, body: '{"items":[]}' },
    { method: 'GET', path: '/v/snapshots/s', status: 200, headers: { ...html, ...inert }, body: '<p>' },
    {
      method: 'GET',
      path: '/v/snapshots/s/latest',
      status: 200,
      headers: { ...html, ...inert },
      body: '<p>',
    },
    { method: 'PUT', path: '/v/snapshots/s/3/a', ...problem('forbidden', 403) },
    { method: 'DELETE', path: '/v/trash/', ...problem('forbidden', 403) },
  ])('$method $path $status', (exchange) => {
    expect(responseFaults(exchange)).toEqual([])
  })
})

describe('an answer that does not', () => {
  test.each([
    ['status', { method: 'GET', path: '/', status: 302, headers: json, body: '' }],
    [
      'content type',
      { method: 'GET', path: '/', status: 200, headers: { 'content-type': 'text/html' }, body: '' },
    ],
    ['content type', { method: 'GET', path: '/', status: 200, headers: {}, body: '{"vaults":[]}' }],
    ['body', { method: 'GET', path: '/', status: 200, headers: json, body: '{"vaults":[1]}' }],
    ['body', { method: 'GET', path: '/', status: 200, headers: json, body: '{"vaults":[],"more":1}' }],
    ['body', { method: 'GET', path: '/', status: 200, headers: json, body: '{' }],
    [
      'header ETag',
      {
        method: 'PUT',
        path: `/v/chunks/${id}`,
        status: 200,
        headers: json,
        body: JSON.stringify({ id, outcome: 'known' }),
      },
    ],
    [
      'header ETag',
      {
        method: 'PUT',
        path: `/v/chunks/${id}`,
        status: 200,
        headers: { ...json, etag: id },
        body: JSON.stringify({ id, outcome: 'known' }),
      },
    ],
    [
      'X-Request-Id',
      { method: 'GET', path: '/v/', ...problem('vault-not-found', 404, { 'X-Request-Id': undefined }) },
    ],
    ['Allow', { method: 'DELETE', path: '/v/', ...problem('method-not-allowed', 405) }],
    ['body', { method: 'GET', path: '/v/', ...problem('no-such-code', 404) }],
    ['body', { method: 'GET', path: '/v/', ...problem('chunk-corrupt', 404) }],
    ['body', { method: 'POST', path: '/v/checkpoints/s/1/commit', ...problem('missing-chunks', 409) }],
    ['not documented', { method: 'GET', path: '/a/b/c/d/e/f', status: 200, headers: json, body: '{}' }],
    ['has no TRACE', { method: 'TRACE', path: '/v/', status: 200, headers: {}, body: '' }],
    ['must be 405', { method: 'PATCH', path: '/v/tree/a', ...problem('forbidden', 403) }],
    ['must be 403', { method: 'PUT', path: '/v/snapshots/s/3/a', ...problem('method-not-allowed', 405) }],
    [
      'nosniff',
      { method: 'GET', path: '/v/tree/', status: 200, headers: { ...html, ...inert, ...sniff }, body: '' },
    ],
    ['header ETag', { method: 'PUT', path: '/v/tree/a', status: 201, headers: { etag: 'W/"1"' }, body: '' }],
    ['body', { method: 'PUT', path: '/v/tree/a', ...problem('items-conflict', 409) }],
    ['body', { method: 'GET', path: '/v/trash/', status: 200, headers: { ...json, ...inert }, body: '[]' }],
    ['has a body', { method: 'DELETE', path: '/v/checkpoints/s/1', status: 204, headers: {}, body: 'x' }],
  ])('%s', (what, exchange) => {
    expect(() => checkResponse(exchange)).toThrow(what)
  })
})

/** In the order of the table of problems. */
function byTable(a: string, b: string): number {
  const place = (type: string): number =>
    problemCodes.findIndex((code) => type === `urn:chunkdav:problem:${code}`)
  return place(a) - place(b)
}

test('every status documents exactly the problems that have it', () => {
  const responses = (contract.components as Json).responses as Record<string, Json>
  const documented = new Map<number, string[]>()
  for (const response of Object.values(responses)) {
    const media = (response.content as Json | undefined)?.['application/problem+json'] as Json | undefined
    if (media === undefined) continue
    const [, own] = (
      media.schema as { allOf: { properties: Record<string, { const?: unknown; enum?: string[] }> }[] }
    ).allOf
    const type = own?.properties.type
    const status = own?.properties.status?.const as number
    // Several responses may share a status: the live tree has conflicts of its own.
    const types = [...(documented.get(status) ?? []), ...(type?.enum ?? [type?.const as string])]
    documented.set(status, [...new Set(types)].sort(byTable))
  }
  const expected = Map.groupBy(
    // 424 stands only inside of a multistatus, where there is no problem document.
    problemCodes.filter((code) => statusOf(code) !== undefined && code !== 'failed-dependency'),
    (code) => statusOf(code) as number,
  )
  expect(documented).toEqual(
    new Map(
      [...expected].map(([status, codes]) => [status, codes.map((code) => `urn:chunkdav:problem:${code}`)]),
    ),
  )
})

test('every operation has a name of its own', () => {
  const names = listOperations().map(({ operationId }) => operationId)
  expect(new Set(names).size).toBe(names.length)
})

describe('observe', () => {
  const servers: ReturnType<typeof createServer>[] = []
  afterEach(() => {
    for (const server of servers.splice(0)) server.close()
  })

  async function ask(listener: RequestListener, options: { expect?: boolean; late?: boolean } = {}) {
    const server = createServer(options.late ? undefined : listener)
    servers.push(server)
    if (options.expect && !options.late) server.on('checkContinue', listener)
    const observer = observe(server)
    if (options.late) server.on(options.expect ? 'checkContinue' : 'request', listener)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    await new Promise<void>((resolve, reject) => {
      const headers = options.expect ? { expect: '100-continue' } : {}
      const asked = request({ port, host: '127.0.0.1', path: '/', headers, agent: false }, (answer) => {
        answer.resume().on('end', resolve)
      })
      asked.on('error', reject)
      asked.end()
    })
    return observer
  }

  const wrong: RequestListener = (_, response) => response.writeHead(200, json).end('{"vaults":1}')
  const right: RequestListener = (_, response) => {
    response.setHeader('Content-Type', 'application/json')
    response.write('{"vaults"')
    response.end(':[]}')
  }

  test.each([{}, { late: true }, { expect: true }, { expect: true, late: true }])(
    'sees answers: %o',
    async (options) => {
      const clean = await ask(right, options)
      expect(() => clean.assertClean()).not.toThrow()
      expect([...clean.seen]).toEqual(['GET / 200'])
      const broken = await ask(wrong, options)
      expect(() => broken.assertClean()).toThrow('GET / → 200: the body /vaults must be array')
      expect(() => broken.assertClean()).not.toThrow()
    },
  )

  test('leaves 100-continue to Node where the server does', async () => {
    const observer = await ask(right, { expect: false })
    expect(servers[0]?.listenerCount('checkContinue')).toBe(0)
    observer.assertClean()
  })
})
