/** Behind real nginx and Apache with TLS, by a Unix socket and by TCP: what clients see is as if they were asked directly. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hashPassword } from '../../server/access/passwords.ts'
import { editUsers } from '../../server/access/users-file.ts'
import { ProxyTrust } from '../../server/http/proxy-trust.ts'
import { type IssuedCertificate, TestAuthority } from '../support/certificates.ts'
import { type FrontProxy, frontPrograms } from '../support/front-proxies.ts'
import { litmusIsInstalled, runLitmus } from '../support/litmus.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { watch } from '../support/serve-process.ts'
import { type TemporaryFolder, temporaryFolder } from '../support/tree.ts'
import { chunk, MiB, noise } from './requests.ts'

let folder: TemporaryFolder
let certificate: IssuedCertificate
let ca: string
beforeAll(async () => {
  folder = await temporaryFolder()
  // Apache opens the sockets in it as somebody else.
  await chmod(folder.path, 0o755)
  const authority = await TestAuthority.create(folder.path)
  certificate = await authority.issue('front')
  ca = await readFile(authority.root, 'utf8')
})
afterAll(() => folder[Symbol.asyncDispose]())

interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

async function ask(url: string, method: string, options: RequestOptions & { body?: Buffer | string } = {}) {
  const { body, ...rest } = options
  const asked = url.startsWith('https:')
    ? httpsRequest(url, { ca, agent: false, method, ...rest })
    : httpRequest(url, { agent: false, method, ...rest })
  asked.end(body)
  const [answer] = (await once(asked, 'response')) as [IncomingMessage]
  const all = Buffer.concat(await Array.fromAsync(answer))
  return { status: answer.statusCode ?? 0, headers: answer.headers, body: all } satisfies Answer
}

/** Whoever failed to log in is in the audit, with their address. */
async function failedLogins({ receiver }: TestReceiver): Promise<unknown[]> {
  await receiver.audit.close()
  const lines = (await readFile(join(receiver.dataDir, 'audit.jsonl'), 'utf8')).trim().split('\n')
  return lines.map((line) => JSON.parse(line)).filter(({ event }) => event === 'login-failed')
}

const basic = (name: string, password: string): string =>
  `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`

async function withUser(dataDir: string): Promise<void> {
  const password = await hashPassword('secret')
  await editUsers(dataDir, ({ users }) => {
    for (const name of ['alice', 'mallory']) {
      const grants = name === 'alice' ? ({ '*': 'admin' } as const) : {}
      users.push({ name, password, grants, added: '2026-01-01T00:00:00Z' })
    }
  })
}

describe.each(frontPrograms)('$name', ({ name, missing, start }) => {
  describe.skipIf(missing !== '').each(['unix', 'tcp'] as const)(`%s${missing}`, (kind) => {
    let server: TestReceiver
    let front: FrontProxy
    let vault: string
    beforeAll(async () => {
      const path = join(folder.path, `${name}.sock`)
      server = await startReceiver(
        kind === 'unix'
          ? { places: [{ kind, path, mode: 0o666 }], trust: new ProxyTrust(['unix']) }
          : { trust: new ProxyTrust(['127.0.0.1']) },
      )
      front = await start({ upstream: server.url, certificate })
      vault = `${front.url}/home`
    })
    afterAll(async () => {
      await front[Symbol.asyncDispose]()
      await server.stop()
    })

    test('a file is written, moved and copied by its https URL', async () => {
      expect((await ask(`${vault}/tree/a`, 'PUT', { body: 'content' })).status).toBe(201)
      const to = (where: string): RequestOptions => ({ headers: { Destination: where } })
      expect((await ask(`${vault}/tree/a`, 'MOVE', to(`${vault}/tree/b`))).status).toBe(201)
      expect((await ask(`${vault}/tree/b`, 'COPY', to(`${vault}/tree/c`))).status).toBe(201)
      expect((await ask(`${vault}/tree/c`, 'GET')).body.toString()).toBe('content')
      expect((await ask(`${vault}/tree/c`, 'MOVE', to('https://elsewhere.example/home/tree/d'))).status).toBe(
        502,
      )
      const tagged = { If: `<${vault}/tree/c> (Not <urn:x:no-lock>)` }
      expect((await ask(`${vault}/tree/c`, 'DELETE', { headers: tagged })).status).toBe(204)
    })

    test('names pass unchanged', async () => {
      for (const file of [
        'ä ö.txt',
        'a%b',
        'a;b=c',
        'a#b',
        'a?b',
        'a\'b"c',
        'a\\b',
        'a+b&c',
        '%2F',
        '{x}|y^',
      ]) {
        const url = `${vault}/tree/${encodeURIComponent(file)}`
        expect([file, (await ask(url, 'PUT', { body: file })).status]).toEqual([file, 201])
        expect((await ask(url, 'GET')).body.toString()).toBe(file)
        const listing = (await ask(`${vault}/tree/`, 'PROPFIND', { headers: { Depth: '1' } })).body.toString()
        expect(listing).toContain(encodeURIComponent(file).replaceAll("'", '%27').slice(0, 3))
        expect((await ask(url, 'DELETE')).status).toBe(204)
      }
    })

    test.skipIf(kind === 'tcp')('a large file goes up and comes down', async () => {
      const bytes = noise(24 * MiB, 9)
      expect((await ask(`${vault}/tree/large`, 'PUT', { body: bytes })).status).toBe(201)
      const back = await ask(`${vault}/tree/large`, 'GET')
      const digest = (content: Buffer): string => createHash('sha256').update(content).digest('hex')
      expect(digest(back.body)).toBe(digest(bytes))
      const part = await ask(`${vault}/tree/large`, 'GET', { headers: { Range: 'bytes=1000000-1000009' } })
      expect([part.status, part.body.equals(bytes.subarray(1_000_000, 1_000_010))]).toEqual([206, true])
    })

    test('chunks, and what is refused before its body was read', async () => {
      const item = chunk(noise(9 * MiB, 10))
      const url = `${vault}/chunks/${item.id}`
      const length = { 'Content-Length': item.bytes.length }
      expect((await ask(url, 'PUT', { body: item.bytes, headers: length })).status).toBe(201)
      expect(
        (await ask(url, 'PUT', { body: item.bytes, headers: { ...length, Expect: '100-continue' } })).status,
      ).toBe(200)
      expect((await ask(url, 'GET')).body.equals(item.bytes)).toBe(true)
      const absent = url.replace('/home/', '/nowhere/')
      const refused = await ask(absent, 'PUT', { body: item.bytes, headers: length })
      expect([refused.status, refused.body.toString()]).toEqual([
        404,
        expect.stringContaining('vault-not-found'),
      ])
    })

    test('a web page of elsewhere is turned away, one of its own is not', async () => {
      const origin = (of: string): RequestOptions => ({ headers: { Origin: of } })
      expect((await ask(`${vault}/`, 'GET', origin('https://evil.example'))).status).toBe(400)
      expect((await ask(`${vault}/`, 'GET', origin(front.url))).status).toBe(200)
    })

    test.skipIf(kind === 'tcp')('our own client backs up and restores', async () => {
      const [from, to] = [join(folder.path, `${name}-from`), join(folder.path, `${name}-to`)]
      await mkdir(from)
      for (let i = 0; i < 40; i++) await writeFile(join(from, `${i}`), noise(i * 5000, i))
      await writeFile(join(from, 'large'), noise(20 * MiB, 77))
      const env = {
        ...process.env,
        NODE_EXTRA_CA_CERTS: join(folder.path, 'root.pem'),
        CHUNKDAV_STATE_DIR: join(folder.path, `${name}-state`),
      }
      const cli = async (...words: string[]): Promise<unknown> => {
        const program = new URL('../../client/bin.ts', import.meta.url).pathname
        await using command = watch(
          spawn(process.execPath, [program, ...words], { env, stdio: ['ignore', 'pipe', 'pipe'] }),
        )
        return [await command.ended, command.err.includes('error')]
      }
      expect(await cli('backup', from, vault, '--source', 's')).toEqual([0, false])
      expect(await cli('restore', vault, '--source', 's', '--to', to)).toEqual([0, false])
      for (const file of ['0', '39', 'large']) {
        expect((await readFile(join(to, file))).equals(await readFile(join(from, file)))).toBe(true)
      }
    })

    test.skipIf(!litmusIsInstalled || kind === 'tcp')('litmus', async () => {
      const report = await runLitmus(`${front.plainUrl}/home/tree/`)
      expect(report.suites.length).toBeGreaterThan(3)
      expect(report.suites.filter(({ failed }) => failed > 0)).toEqual([])
    })
  })

  test.skipIf(missing !== '')(
    `the address of the client is known, and not what it says of itself${missing}`,
    async () => {
      const path = join(folder.path, `${name}-client.sock`)
      const trust = new ProxyTrust(['unix'])
      await using server = await startReceiver({ places: [{ kind: 'unix', path, mode: 0o666 }], trust })
      await withUser(server.dataDir)
      await server.receiver.reload()
      await using front = await start({ upstream: server.url, certificate })
      const headers = { Authorization: basic('alice', 'wrong'), 'X-Forwarded-For': '198.51.100.7' }
      expect((await ask(`${front.url}/home/`, 'GET', { headers, localAddress: '127.0.0.9' })).status).toBe(
        401,
      )
      expect(await failedLogins(server)).toMatchObject([{ who: 'alice', from: '127.0.0.9' }])
    },
  )

  test.skipIf(missing !== '')(
    `a user whom the proxy has let in, and nobody who only says so${missing}`,
    async () => {
      const path = join(folder.path, `${name}-user.sock`)
      const trust = new ProxyTrust(['unix'], 'X-Remote-User')
      const places = [
        { kind: 'unix', path, mode: 0o666 },
        { kind: 'tcp', host: '127.0.0.1', port: 0 },
      ] as const
      await using server = await startReceiver({ places, trust })
      await withUser(server.dataDir)
      await server.receiver.reload()
      await using front = await start({
        upstream: server.url,
        certificate,
        user: { name: 'alice', password: 'at the door' },
      })
      const url = `${front.url}/home/`
      const status = async (at: string, headers: Record<string, string>): Promise<number> =>
        (await ask(at, 'GET', { headers })).status
      const atTheDoor = basic('alice', 'at the door')
      expect(await status(url, { Authorization: atTheDoor })).toBe(200)
      expect(await status(url, { Authorization: atTheDoor, 'X-Remote-User': 'mallory' })).toBe(200)
      expect(await status(url, { 'X-Remote-User': 'alice' })).toBe(401)
      expect(await status(url, { Authorization: basic('alice', 'secret') })).toBe(401)
      const direct = `${server.receiver.listeners[1]?.url}/home/`
      expect(await status(direct, { 'X-Remote-User': 'alice' })).toBe(401)
      expect(await status(direct, { Authorization: basic('alice', 'secret') })).toBe(200)
    },
  )
})

test.each(['nginx', 'apache'])('what is tested of %s stands in docs/operations.md', async (language) => {
  const docs = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  const tested = await readFile(new URL('../support/front-proxies.ts', import.meta.url), 'utf8')
  const [, block = ''] = docs.split(`\`\`\`${language}\n`, 2)
  const lines = (block.split('```', 1)[0] as string).split('\n').map((line) => line.trim())
  // Names, addresses and paths are the test's own.
  const own =
    /^(#|$|[<}]|listen|server|upstream|location|ssl_|SSL|ServerName|ProxyPass |RequestHeader set X-Forwarded-Proto)/
  const said = lines.filter((line) => !own.test(line))
  expect(said.length).toBeGreaterThan(4)
  expect(said.filter((line) => !tested.includes(line))).toEqual([])
})

test('without a proxy that is trusted, forwarded headers are nothing but text', async () => {
  await using server = await startReceiver()
  const headers = {
    'X-Forwarded-Host': 'backup.example',
    'X-Forwarded-Proto': 'https',
    'X-Forwarded-For': '198.51.100.7',
  }
  await ask(`${server.vaultUrl}/tree/a`, 'PUT', { body: 'a' })
  const move = { ...headers, Destination: 'https://backup.example/home/tree/b' }
  expect((await ask(`${server.vaultUrl}/tree/a`, 'MOVE', { headers: move })).status).toBe(502)
  await withUser(server.dataDir)
  await server.receiver.reload()
  const wrong = { ...headers, Authorization: basic('alice', 'wrong') }
  expect((await ask(`${server.vaultUrl}/`, 'GET', { headers: wrong })).status).toBe(401)
  expect(await failedLogins(server)).toMatchObject([{ from: '127.0.0.1' }])
})
