/** Who is let in, as it travels. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { isProblem } from '../../protocol/problem.ts'
import { parseAuthorization } from '../../server/http/authenticate.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { writeUsers } from '../support/users.ts'
import { chunk, noise, problemOf, RawConnection } from './requests.ts'

const basic = (pair: string | Buffer): string => `Basic ${Buffer.from(pair).toString('base64')}`

describe('Authorization', () => {
  const user = (name: string, password: string) => ({ kind: 'basic', name, password })
  test.each<[string, unknown]>([
    [basic('alice:geheim'), user('alice', 'geheim')],
    [basic('alice:a:b:'), user('alice', 'a:b:')],
    [basic(':'), user('', '')],
    [basic('äöü:pässwörd€'), user('äöü', 'pässwörd€')],
    [basic('\ufeffa:b'), user('\ufeffa', 'b')],
    ['bAsIc   YTpi  ', user('a', 'b')],
    ['Basic YTpi=', user('a', 'b')],
    ['Bearer cdt_1', { kind: 'bearer', token: 'cdt_1' }],
    ['bearer a.b-c_d~e+f/g==', { kind: 'bearer', token: 'a.b-c_d~e+f/g==' }],
  ])('%s', (header, credentials) => {
    expect(parseAuthorization(header)).toEqual(credentials)
  })

  test.each([
    '',
    'Basic',
    'Basic ',
    'Basic YQ==',
    'Basic !!',
    'Basic YTpi YTpi',
    'Basic\tYTpi',
    basic(Buffer.from([0x61, 0x3a, 0xff])),
    basic('a\u0000:b'),
    basic('a:b\n'),
    basic('a:\u007f'),
    basic('a\u009b31m:b'),
    'Bearer',
    'Bearer a b',
    'Bearer =',
    'Bearer ä',
    'Digest username="a"',
    'YTpi',
  ])('that is none: %j', (header) => {
    let thrown: unknown
    try {
      parseAuthorization(header)
    } catch (error) {
      thrown = error
    }
    expect(isProblem(thrown, 'unauthenticated')).toBe(true)
  })
})

let dataDir: string
let server: TestReceiver
let tokens: Record<string, string>

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-login-'))
  tokens = await writeUsers(dataDir, {
    alice: { grants: { home: 'write' } },
    bob: { grants: { home: 'append-only' } },
    root: { grants: { '*': 'admin' } },
  })
  server = await startReceiver({ dataDir })
})
afterAll(async () => {
  await server.stop()
  await rm(dataDir, { recursive: true, force: true })
})

const as = (user: string) => ({ authorization: `Bearer ${tokens[user]}` })
const ask = (path: string, init: RequestInit = {}) => fetch(`${server.url}${path}`, init)

describe('where there are users', () => {
  test.each<[string, Record<string, string>, string]>([
    ['no credentials', {}, '401 unauthenticated'],
    ['no scheme', { authorization: 'x' }, '401 unauthenticated'],
    ['another scheme', { authorization: 'Negotiate YTpi' }, '401 unauthenticated'],
    ['nobody of that name', { authorization: basic('nobody:x') }, '401 unauthenticated'],
    ['a wrong token', { authorization: `Bearer cdt_${'0'.repeat(84)}` }, '401 unauthenticated'],
  ])('%s: 401 with both challenges', async (_, headers, code) => {
    for (const path of ['/', '/home/', '/absent/', '/no/such/path', '/-/openapi.yaml', '/-/nothing']) {
      const answer = await ask(path, { headers })
      const challenge = answer.headers.get('www-authenticate') ?? ''
      expect(challenge).toMatch(/^Basic realm="chunkdav", charset="UTF-8", Bearer realm="chunkdav"/)
      expect(challenge.includes('error="invalid_token"')).toBe(
        headers.authorization?.startsWith('Bearer') === true,
      )
      expect(answer.headers.get('content-type')).toBe('application/problem+json')
      expect(await problemOf(answer)).toBe(code)
    }
  })

  test('only the health of the receiver is for anyone, and a wrong login is none there either', async () => {
    expect((await ask('/-/health')).status).toBe(200)
    expect((await ask('/-/health', { method: 'HEAD' })).status).toBe(200)
    expect((await ask('/-/health', { method: 'OPTIONS' })).status).toBe(401)
    expect((await ask('/-/health', { headers: { authorization: 'x' } })).status).toBe(401)
    expect((await ask('/-/health', { headers: as('bob') })).status).toBe(200)
  })

  test('a token stands where the password does, too', async () => {
    const login = (user: string) => ({ headers: { authorization: basic(`${user}:${tokens.alice}`) } })
    expect((await ask('/home/', login('alice'))).status).toBe(200)
    expect((await ask('/home/', login('bob'))).status).toBe(401)
  })

  test('whoever guesses is told for how long to stop, and others are not', async () => {
    let answer: Response | undefined
    for (let guess = 0; guess < 20 && answer?.status !== 429; guess++) {
      const headers = { authorization: basic(`alice:guess ${guess}`) }
      answer = await ask('/home/', { headers })
      expect([401, 429]).toContain(answer.status)
      if (answer.status === 401) await answer.arrayBuffer()
    }
    expect(Number(answer?.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(answer?.headers.get('www-authenticate')).toBe(null)
    expect(await problemOf(answer as Response)).toBe('429 too-many-requests')
    expect((await ask('/home/', { headers: as('alice') })).status).toBe(200)
  })

  test('two Authorization headers are 400', async () => {
    const connection = await RawConnection.open(server.url)
    const line = `Authorization: Bearer ${tokens.alice}\r\n`
    connection.send(`GET /home/ HTTP/1.1\r\nHost: localhost\r\n${line}${line}Connection: close\r\n\r\n`)
    expect(await connection.end()).toMatch(/^HTTP\/1.1 400 [\s\S]*invalid-request/)
  })

  test('a target that is no path is refused before anybody is asked who they are', async () => {
    const connection = await RawConnection.open(server.url)
    connection.send('GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
    expect(await connection.end()).toMatch(/^HTTP\/1.1 400 /)
  })

  test.each<[number, string, Record<string, string>]>([
    [401, '/home/', {}],
    [401, '/home/', { Authorization: 'x' }],
    [403, '/home/tree/x', { Authorization: 'bob' }],
    [404, '/other/tree/x', { Authorization: 'bob' }],
  ])('%i of a PUT to %s comes without its body being asked for', async (status, path, headers) => {
    const login = headers.Authorization === 'bob' ? as('bob').authorization : headers.Authorization
    const line = login === undefined ? '' : `Authorization: ${login}\r\n`
    for (const expect100 of ['Expect: 100-continue\r\n', '']) {
      const connection = await RawConnection.open(server.url)
      // Nothing of the body is ever sent.
      connection.send(
        `PUT ${path} HTTP/1.1\r\nHost: localhost\r\n${line}${expect100}Content-Length: 100000000\r\n\r\n`,
      )
      const answer = await connection.end()
      expect(answer.startsWith(`HTTP/1.1 ${status} `)).toBe(true)
      expect(answer).toMatch(/\r\nConnection: close\r\n/)
      expect(answer).not.toContain('100 Continue')
    }
  })

  test('a long body that nobody asked for is not read to its end', async () => {
    const body = noise(16 * 1024 * 1024)
    const { id } = chunk('x')
    const connection = await RawConnection.open(server.url)
    connection.send(
      `PUT /home/chunks/${id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n`,
    )
    connection.send(body)
    expect(await connection.end()).toMatch(/^HTTP\/1.1 401 /)
  })

  test('what needs a login is kept by no cache for others', async () => {
    const { id, bytes } = chunk('kept')
    const path = `/home/chunks/${id}`
    await ask(path, { method: 'PUT', headers: as('alice'), body: new Uint8Array(bytes) })
    const { headers } = await ask(path, { headers: as('alice') })
    expect(headers.get('cache-control')).toBe('private, max-age=31536000, immutable')
    expect(headers.get('vary')).toBe('Accept-Encoding, Authorization')
    expect((await ask('/home/tree/', { headers: as('alice') })).headers.get('vary')).toBe('Authorization')
  })

  test('free space is whole GiB to who is not operator', async () => {
    const GiB = 1024 ** 3
    const bytes = async (user: string): Promise<number[]> => {
      const headers = as(user)
      const { freeBytes } = (await (await ask('/home/', { headers })).json()) as { freeBytes: number }
      const body = '<propfind xmlns="DAV:"><prop><quota-available-bytes/></prop></propfind>'
      const found = [freeBytes]
      for (const path of user === 'bob' ? ['/home/'] : ['/home/', '/home/tree/']) {
        const init = { method: 'PROPFIND', headers: { ...headers, depth: '0' }, body }
        const xml = await (await ask(path, init)).text()
        found.push(Number(/quota-available-bytes>(\d+)</.exec(xml)?.[1]))
      }
      return found
    }
    for (const user of ['alice', 'bob']) {
      for (const free of await bytes(user)) expect([user, free % GiB]).toEqual([user, 0])
    }
    const [free = 0] = await bytes('alice')
    for (const exact of await bytes('root')) expect(Math.abs(exact - free)).toBeLessThan(2 * GiB)
  })

  test('who may only append sees neither tree nor snapshots in the vault', async () => {
    const list = async (user: string): Promise<string[]> => {
      const answer = await ask('/home/', { method: 'PROPFIND', headers: { ...as(user), depth: '1' } })
      return [...(await answer.text()).matchAll(/<D:href>([^<]*)</g)].map(([, href = '']) => href)
    }
    expect(await list('bob')).toEqual(['/home/'])
    expect(await list('alice')).toEqual(['/home/', '/home/tree/', '/home/snapshots/', '/home/trash/'])
  })
})

test('whose right is not enough is told which would be', async () => {
  const answer = await ask('/home/tree/x', { method: 'PUT', headers: as('bob'), body: 'x' })
  const { detail } = (await answer.json()) as { detail: string }
  expect([answer.status, detail]).toEqual([
    403,
    'this needs one of these rights on home: write, admin; bob has the right append-only',
  ])
})

test('a receiver without users lets everybody in, whatever they say', async () => {
  await using open = await startReceiver()
  for (const authorization of ['x', basic('a:b'), 'Bearer x']) {
    expect((await fetch(`${open.url}/home/`, { headers: { authorization } })).status).toBe(200)
  }
  const { id, bytes } = chunk('kept')
  await fetch(`${open.vaultUrl}/chunks/${id}`, { method: 'PUT', body: new Uint8Array(bytes) })
  const { headers } = await fetch(`${open.vaultUrl}/chunks/${id}`)
  expect(headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
  expect(headers.get('vary')).toBe('Accept-Encoding')
})
