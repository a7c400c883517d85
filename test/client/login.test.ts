/** The command line at a receiver that has users: what it may do, what it says when it may not, and what it keeps to itself. */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { parseVaultUrl } from '../../client/index.ts'
import { headersOf } from '../../client/login.ts'
import { isProblem } from '../../protocol/problem.ts'
import { opensslIsInstalled, TestAuthority } from '../support/certificates.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { writeUsers } from '../support/users.ts'
import { events, runIn } from './run-cli.ts'

const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString('base64')}`

test.each<[string, { password?: string; token?: string }, string | undefined]>([
  ['http://h/v', {}, undefined],
  ['http://h/v', { password: 'p' }, undefined],
  ['http://h/v', { token: 'cdt_1' }, 'Bearer cdt_1'],
  ['http://h/v', { token: ' cdt_1\n' }, 'Bearer cdt_1'],
  ['http://alice@h/v', { token: 'cdt_1' }, basic('alice:cdt_1')],
  ['http://alice@h/v', { token: 'cdt_1', password: 'p' }, basic('alice:p')],
  ['http://alice:q@h/v', { token: 'cdt_1', password: 'p' }, basic('alice:q')],
])('%s with %j', (url, login, authorization) => {
  expect(headersOf(new URL(url), login)).toEqual(authorization === undefined ? {} : { authorization })
})

test.each(['a b', 'ä', 'x\r\nHost: y', '='])('that is no token: %j', (token) => {
  let thrown: unknown
  try {
    headersOf(new URL('http://h/v'), { token })
  } catch (error) {
    thrown = error
  }
  expect(isProblem(thrown, 'usage')).toBe(true)
  expect((thrown as Error).message).not.toContain(token)
})

test('the URL of a Unix socket', () => {
  expect(parseVaultUrl('http+unix://alice@%2Frun%2Fc%20d.sock/home', { password: 'p' })).toEqual({
    origin: 'http+unix://%2Frun%2Fc%20d.sock',
    socketPath: '/run/c d.sock',
    vault: 'home',
    headers: { authorization: basic('alice:p') },
    shown: 'http+unix://%2Frun%2Fc%20d.sock/home',
    withUser: 'http+unix://alice@%2Frun%2Fc%20d.sock/home',
  })
  for (const url of [
    'http+unix://run/home',
    'http+unix:///home',
    'http+unix://%2/home',
    'http+unix://%2Fx/',
  ]) {
    expect(() => parseVaultUrl(url)).toThrow(expect.objectContaining({ code: 'usage' }))
  }
})

let folder: string
let server: TestReceiver
let tokens: Record<string, string>

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'chunkdav-login-'))
  const dataDir = join(folder, 'data')
  mkdirSync(dataDir)
  tokens = await writeUsers(dataDir, {
    appender: { grants: { home: 'append-only' } },
    other: { grants: { home: 'append-only' } },
    reader: { grants: { home: 'read' } },
    writer: { grants: { home: 'write' } },
    admin: { grants: { '*': 'admin' } },
    expired: { grants: { home: 'admin' }, expired: true },
  })
  server = await startReceiver({ dataDir })
  mkdirSync(join(folder, 'from', 'sub'), { recursive: true })
  for (let i = 0; i < 20; i++)
    writeFileSync(join(folder, 'from', i < 10 ? `f${i}` : `sub/f${i}`), `file ${i}`)
})
afterAll(async () => {
  await server.stop()
  rmSync(folder, { recursive: true, force: true })
})

const run = (user: string | undefined, argv: string[], state = 'state', more: Record<string, string> = {}) =>
  runIn(folder, argv, join(folder, state), {
    ...(user === undefined ? {} : { CHUNKDAV_TOKEN: tokens[user] as string }),
    ...more,
  })
const summaryOf = (out: string): Record<string, unknown> => events(out).at(-1) as Record<string, unknown>

describe.each(['dir', 'chunks'])('who may only append, with backups as %s,', (form) => {
  const source = `laptop-${form}`
  const backUp = (state: string) =>
    run('appender', ['backup', 'from', server.vaultUrl, '--source', source, '--as', form, '--json'], state)

  test('backs up to the end, again, and again when the database is gone', async () => {
    const first = await backUp(`one-${form}`)
    expect([first.code, first.err]).toEqual([0, ''])
    expect(summaryOf(first.out)).toMatchObject({ type: 'summary', checkpoint: 1, filesNew: 20 })
    writeFileSync(join(folder, 'from', 'f0'), `changed for ${form}`)
    const second = await backUp(`one-${form}`)
    expect([second.code, second.err]).toEqual([0, ''])
    expect(summaryOf(second.out)).toMatchObject({ checkpoint: 2, filesChanged: 1, filesUnmodified: 19 })
    // The last backup cannot be read: everything is looked at, nothing is sent again.
    const third = await backUp(`two-${form}`)
    expect([third.code, third.err]).toEqual([0, ''])
    expect(summaryOf(third.out)).toMatchObject({ checkpoint: 3, filesNew: 20, chunksSent: 0 })
    const list = await run('appender', ['checkpoints', server.vaultUrl, '--source', source, '--json'])
    expect(list.code).toBe(0)
    expect(events(list.out).filter(({ type }) => type === 'checkpoint')).toHaveLength(3)
  })

  test('gives up an open checkpoint of before', async () => {
    const headers = { authorization: `Bearer ${tokens.appender}`, 'content-type': 'application/json' }
    const state = `three-${form}`
    await backUp(state)
    const stale = { method: 'POST', headers, body: JSON.stringify({ kind: 'dir' }) }
    expect((await fetch(`${server.vaultUrl}/checkpoints/${source}/`, stale)).status).toBe(201)
    const { code, err } = await backUp(state)
    expect([code, err]).toEqual([0, ''])
  })

  test('cannot read it, and is told which right that takes', async () => {
    for (const argv of [
      ['restore', server.vaultUrl, '--source', source, '--to', 'no'],
      ['ls', server.vaultUrl, '--source', source],
    ]) {
      const { code, err } = await run('appender', argv)
      expect(code).toBe(1)
      expect(err).toBe(
        'chunkdav: this needs one of these rights on home: read, append+read, write, admin; appender has the right append-only; ask whoever runs the receiver\n',
      )
    }
    const { code } = await run('reader', [
      'restore',
      server.vaultUrl,
      '--source',
      source,
      '--to',
      `to-${form}`,
    ])
    expect(code).toBe(0)
    const restored = readFileSync(join(folder, `to-${form}`, 'f0'), 'utf8')
    expect(restored).toBe(`changed for ${form}`)
  })

  test('does not get at the source of others', async () => {
    const argv = ['backup', 'from', server.vaultUrl, '--source', source, '--as', form]
    const { code, err } = await run('other', argv, 'other')
    expect([code, err]).toEqual([
      1,
      `chunkdav: the source ${source} belongs to somebody else; use another name for yours, or ask for the right to write\n`,
    ])
    expect((await run('writer', argv, 'writer')).code).toBe(0)
  })
})

describe('a refusal says what to do next, and no secret', () => {
  const nothing = 'none-of-this-name'
  test.each<[string, string | undefined, (url: string) => string[], Record<string, string>, RegExp]>([
    [
      'nobody',
      undefined,
      (url) => ['checkpoints', url],
      {},
      /asks who you are; put a token into CHUNKDAV_TOKEN, or name the user in the URL, http:\/\/USER@127.0.0.1:\d+\/home, and put the password into CHUNKDAV_PASSWORD$/,
    ],
    ['nobody', undefined, (url) => ['backup', 'from', url], {}, /asks who you are/],
    ['nobody', undefined, (url) => ['freeze', `${url}/tree`], {}, /asks who you are/],
    ['nobody', undefined, (url) => ['trash', 'list', url], {}, /asks who you are/],
    [
      'an old token',
      'expired',
      (url) => ['checkpoints', url],
      {},
      /does not take the token in CHUNKDAV_TOKEN; it may have expired, or been revoked: ask for a new one$/,
    ],
    [
      'a wrong password',
      undefined,
      (url) => ['checkpoints', url.replace('://', '://reader@')],
      { CHUNKDAV_PASSWORD: 'geheim' },
      /does not take this user and password; check the URL and CHUNKDAV_PASSWORD$/,
    ],
    [
      'no password',
      undefined,
      (url) => ['checkpoints', url.replace('://', '://reader@')],
      {},
      /asks for the password of the user in the URL; put it into CHUNKDAV_PASSWORD$/,
    ],
    [
      'a reader',
      'reader',
      (url) => ['backup', 'from', url, '--source', 'r'],
      {},
      /needs one of these rights on home: append-only, append\+read, write, admin; reader has the right read; ask whoever runs the receiver$/,
    ],
    [
      'a reader',
      'reader',
      (url) => ['freeze', `${url}/tree`],
      {},
      /needs one of these rights on home: write, admin/,
    ],
    [
      'a vault of others',
      'reader',
      (url) => ['checkpoints', url.replace('home', nothing)],
      {},
      /there is no vault at .*, or none on which you have a right; check the URL and who you are there/,
    ],
    [
      'a vault of others',
      'appender',
      (url) => ['backup', 'from', url.replace('home', nothing)],
      {},
      /there is no vault at .*, or none on which you have a right; check the URL and who you are there; only whoever has the right admin .* makes one: ask whoever runs the receiver$/,
    ],
  ])('%s: %s', async (_, user, argv, env, message) => {
    const { code, out, err } = await run(user, argv(server.vaultUrl), 'refused', env)
    expect(code).toBe(1)
    expect(err.trimEnd()).toMatch(message)
    for (const secret of [...Object.values(tokens), 'geheim']) expect(out + err).not.toContain(secret)
  })

  test('a token stands where the password does', async () => {
    const url = server.vaultUrl.replace('://', '://reader@')
    const { code, out } = await run(undefined, ['checkpoints', url], 's', {
      CHUNKDAV_PASSWORD: tokens.reader as string,
    })
    expect([code, out.includes('laptop-dir')]).toEqual([0, true])
    expect((await run('reader', ['checkpoints', url])).code).toBe(0)
    expect((await run('writer', ['checkpoints', url])).code).toBe(1)
  })
})

describe('answers of', () => {
  const servers: Server[] = []
  afterEach(() => {
    for (const each of servers.splice(0)) each.close().closeAllConnections()
  })
  async function serve(
    listener: (request: IncomingMessage, response: ServerResponse) => void,
  ): Promise<string> {
    const made = createServer(listener).listen(0, '127.0.0.1')
    servers.push(made)
    await new Promise((resolve) => made.once('listening', resolve))
    return `http://127.0.0.1:${(made.address() as AddressInfo).port}`
  }
  const problem = (response: ServerResponse, status: number, code: string, headers = {}, detail = 'no') => {
    response.writeHead(status, { 'content-type': 'application/problem+json', ...headers })
    response.end(JSON.stringify({ type: `urn:chunkdav:problem:${code}`, title: 'x', status, detail }))
  }

  test('another origin that is pointed to are not asked for, so it sees no token', async () => {
    const seen: unknown[] = []
    const foreign = await serve((request, response) => {
      seen.push(request.headers)
      response.end('{}')
    })
    for (const status of [301, 302, 303, 307, 308]) {
      const url = await serve((request, response) => {
        request.resume()
        response.writeHead(status, { location: `${foreign}/home/` }).end()
      })
      const { code, err } = await run('reader', ['checkpoints', `${url}/home`])
      expect([status, code, err.includes(tokens.reader as string)]).toEqual([status, 1, false])
    }
    expect(seen).toEqual([])
  })

  test('other WebDAV servers are asked without the token of a receiver', async () => {
    const seen: unknown[] = []
    const url = await serve((request, response) => {
      seen.push(request.headers.authorization)
      request.resume()
      response.writeHead(404).end()
    })
    const { code } = await run('reader', ['checkpoints', `webdav+${url}/folder`])
    expect([code, new Set(seen)]).toEqual([1, new Set([undefined])])
  })

  test('429 are waited for as long as they say', async () => {
    let asked = 0
    const times: number[] = []
    const url = await serve((request, response) => {
      request.resume()
      times.push(performance.now())
      if (asked++ < 2) problem(response, 429, 'too-many-requests', { 'retry-after': '1' })
      else response.setHeader('content-type', 'application/json').end('{"sources":[]}')
    })
    const { code } = await run('reader', ['checkpoints', `${url}/home`])
    expect(code).toBe(0)
    expect(asked).toBe(3)
    for (const i of [1, 2]) expect((times[i] as number) - (times[i - 1] as number)).toBeGreaterThan(990)
  })

  test('429 that say to wait for long are told', async () => {
    let asked = 0
    const url = await serve((request, response) => {
      request.resume()
      asked++
      problem(response, 429, 'too-many-requests', { 'retry-after': '600' }, 'too many wrong passwords')
    })
    const { code, err } = await run('reader', ['checkpoints', `${url}/home`])
    expect([code, asked, err]).toEqual([
      1,
      1,
      'chunkdav: too many wrong passwords; try again in 600 seconds\n',
    ])
  })

  test('500 say where to look in the log', async () => {
    const url = await serve((request, response) => {
      request.resume()
      const detail = 'the receiver failed; its log tells more under the request id'
      problem(response, 500, 'internal-error', { 'x-request-id': 'r-17' }, detail)
    })
    const { code, err } = await run('reader', ['checkpoints', `${url}/home`])
    const text = 'the receiver failed; its log tells more under the request id r-17'
    expect([code, err]).toEqual([1, `chunkdav: ${text}\n`])
  })

  test('507 say that the backup goes on later', async () => {
    const url = await serve((request, response) => {
      request.resume()
      problem(response, 507, 'insufficient-storage', {}, 'the quota of home is used up')
    })
    const { code, err } = await run('reader', ['checkpoints', `${url}/home`])
    const text =
      'the quota of home is used up; when there is room, run the command again, it goes on from what was done'
    expect([code, err]).toEqual([1, `chunkdav: ${text}\n`])
  })

  test('507 of a full vault says how full, and how to make room', async () => {
    const url = await serve((request, response) => {
      request.resume()
      response.writeHead(507, { 'content-type': 'application/problem+json' })
      const facts = { quotaBytes: 3_000_000, storedBytes: 2_990_000 }
      const type = 'urn:chunkdav:problem:insufficient-storage'
      response.end(JSON.stringify({ type, title: 'full', status: 507, detail: 'full', ...facts }))
    })
    const { code, err } = await run('reader', ['checkpoints', `${url}/home`])
    expect([code, err]).toEqual([1, expect.stringMatching(/quota is 3 MB, .* holds 2\.99 MB; .*chunkdav gc/)])
  })
})

describe('elsewhere than on a TCP port in the clear', () => {
  test('a Unix socket: back up, freeze and restore out of the trash', async () => {
    const path = join(folder, 'receiver.sock')
    await using local = await startReceiver({ places: [{ kind: 'unix', path, mode: 0o600 }] })
    const url = `http+unix://${encodeURIComponent(path)}/home`
    await local.receiver.vaults.get('home')
    const from = await runIn(folder, ['backup', 'from', url, '--source', 's'], join(folder, 'unix'))
    expect([from.code, from.err]).toEqual([0, ''])
    const to = await runIn(folder, ['restore', url, '--source', 's', '--to', 'to-unix'], join(folder, 'unix'))
    expect([to.code, to.err]).toEqual([0, ''])
    expect(readFileSync(join(folder, 'to-unix', 'f1'), 'utf8')).toBe('file 1')
    const absent = `http+unix://${encodeURIComponent(`${path}.not`)}/home`
    const { code, err } = await runIn(folder, ['checkpoints', absent], join(folder, 'unix'))
    expect([code, err.includes('there is no socket at http+unix://')]).toEqual([1, true])
  })

  describe.skipIf(!opensslIsInstalled)('https', () => {
    let authority: TestAuthority
    beforeAll(async () => {
      authority = await TestAuthority.create(folder)
    })

    /** The program as a process: Node reads which certificates to trust when it starts. */
    async function backUp(url: string, env: Record<string, string>) {
      const bin = fileURLToPath(new URL('../../client/bin.ts', import.meta.url))
      const argv = ['backup', join(folder, 'from'), `${url}/home`, '--source', 's']
      const child = spawn(process.execPath, [bin, ...argv], {
        env: { ...process.env, CHUNKDAV_STATE_DIR: join(folder, 'tls'), ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      let text = ''
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (piece: Buffer) => {
          text += piece
        })
      }
      const code = await new Promise((resolve) => child.once('close', resolve))
      return { code, text }
    }

    test('with a certificate of one’s own', async () => {
      await using secure = await startReceiver({ tls: await authority.issue('receiver') })
      const untrusted = await backUp(secure.url, {})
      expect(untrusted.code).toBe(1)
      expect(untrusted.text).toContain('if it is your own, name its file in NODE_EXTRA_CA_CERTS')
      const plain = await backUp(secure.url.replace('https:', 'http:'), {})
      expect([plain.code, plain.text]).toEqual([
        1,
        expect.stringContaining('the URL must begin with https://'),
      ])
      const trusted = await backUp(secure.url, { NODE_EXTRA_CA_CERTS: authority.root })
      expect(trusted.text).toContain('Checkpoint 1 of s is committed')
    })

    test('a certificate of the client says who it is', async () => {
      const dataDir = join(folder, 'certified')
      mkdirSync(dataDir)
      await writeUsers(dataDir, { laptop: { grants: { home: 'append-only' } } })
      const own = await authority.issue('receiver')
      const tls = { ...own, clientCa: authority.root, isClientRequired: true }
      await using secure = await startReceiver({ dataDir, tls })
      const trust = { NODE_EXTRA_CA_CERTS: authority.root }
      const none = await backUp(secure.url, trust)
      expect([none.code, none.text]).toEqual([1, expect.stringContaining('name its file in CHUNKDAV_CERT')])
      for (const [name, says] of [
        ['laptop', 'is committed'],
        ['stranger', 'knows no user by the certificate in CHUNKDAV_CERT'],
      ] as const) {
        const { cert, key } = await authority.issue(name, { isForClients: true })
        const answer = await backUp(secure.url, { ...trust, CHUNKDAV_CERT: cert, CHUNKDAV_KEY: key })
        expect(answer.text).toContain(says)
      }
      const absent = await runIn(folder, ['checkpoints', 'https://127.0.0.1:1/v'], undefined, {
        CHUNKDAV_CERT: join(folder, 'none.pem'),
      })
      expect([absent.code, absent.err]).toEqual([
        2,
        expect.stringMatching(/none\.pem \(CHUNKDAV_CERT\) .*no such file/),
      ])
      const { cert } = await authority.issue('laptop', { isForClients: true })
      const keyless = await runIn(folder, ['checkpoints', 'https://127.0.0.1:1/v'], undefined, {
        CHUNKDAV_CERT: cert,
      })
      expect([keyless.code, keyless.err]).toEqual([2, expect.stringContaining('in CHUNKDAV_KEY')])
    })
  })
})
