/** TLS: what it speaks, which files it takes, how they are replaced while it runs, and whom a client certificate names. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { Agent, request as httpsRequest } from 'node:https'
import { connect as connectTcp } from 'node:net'
import { join } from 'node:path'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { promisify } from 'node:util'
import { type Logger, pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { editUsers } from '../../server/access/users-file.ts'
import { Certificate } from '../../server/listen/certificate.ts'
import { type IssuedCertificate, opensslIsInstalled, TestAuthority } from '../support/certificates.ts'
import { startReceiver } from '../support/receiver.ts'
import { runServerCommand, serveProcess } from '../support/serve-process.ts'
import { type TemporaryFolder, temporaryFolder } from '../support/tree.ts'
import { chunk, noise } from './requests.ts'

const run = promisify(execFile)
const skipped = opensslIsInstalled ? '' : ' (skipped: openssl is not installed)'

describe.skipIf(!opensslIsInstalled)(`TLS${skipped}`, () => {
  let folder: TemporaryFolder
  let authority: TestAuthority
  let own: IssuedCertificate
  let ca: string
  beforeAll(async () => {
    folder = await temporaryFolder()
    authority = await TestAuthority.create(folder.path)
    own = await authority.issue('receiver')
    ca = await readFile(authority.root, 'utf8')
  })
  afterAll(() => folder[Symbol.asyncDispose]())

  /** A path for a data directory or a file that no other test has. */
  let numbers = 0
  const fresh = (name: string): string => join(folder.path, `${name}-${numbers++}`)

  interface Answer {
    readonly status: number
    readonly body: string
  }

  async function ask(url: string, options: ConnectionOptions & { method?: string; headers?: object } = {}) {
    const { method = 'GET', headers = {}, ...tls } = options
    const request = httpsRequest(url, { ca, agent: false, ...tls, method, headers: { ...headers } })
    request.end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    let body = ''
    for await (const piece of response) body += piece
    return { status: response.statusCode ?? 0, body } satisfies Answer
  }

  async function open(
    port: number,
    options: ConnectionOptions = {},
    onSession = (_session: Buffer): void => {},
  ): Promise<TLSSocket> {
    const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', ca, ...options })
    socket.on('session', onSession)
    await once(socket, 'secureConnect')
    return socket
  }

  test('https, from TLS 1.2 on, and HTTP/1.1 only', async () => {
    await using server = await startReceiver({ tls: own })
    expect(server.url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/)
    expect(await ask(`${server.url}/-/health`)).toMatchObject({ status: 200 })
    const { port } = server.receiver
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const socket = await open(port, { minVersion: version, maxVersion: version })
      expect(socket.getProtocol()).toBe(version)
      socket.destroy()
    }
    const old = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const
    await expect(open(port, old)).rejects.toThrow(/protocol|alert/)
    await expect(open(port, { ALPNProtocols: ['h2'] })).rejects.toThrow(/no application protocol|ALPN/i)
    const both = await open(port, { ALPNProtocols: ['h2', 'http/1.1'] })
    expect(both.alpnProtocol).toBe('http/1.1')
    both.destroy()
    const { stdout } = await run('sh', [
      '-c',
      `openssl s_client -connect 127.0.0.1:${port} -CAfile ${authority.root} -brief 2>&1 </dev/null`,
    ])
    expect(stdout).toMatch(/Verification: OK/)
  })

  test('whatever name the certificate is for is its own', async () => {
    await using server = await startReceiver({ tls: own })
    const status = async (headers: Record<string, string>): Promise<number> =>
      (await ask(`${server.vaultUrl}/`, { headers, servername: 'localhost' })).status
    const host = 'backup.example'
    expect(await status({ Host: host })).toBe(200)
    expect(await status({ Host: host, Origin: `https://${host}` })).toBe(200)
    expect(await status({ Host: host, Origin: `http://${host}` })).toBe(400)
    expect(await status({ Host: host, Origin: 'https://evil.example' })).toBe(400)
  })

  test('plain HTTP on that port is nobody', async () => {
    await using server = await startReceiver({ tls: own })
    const socket = connectTcp(server.receiver.port, '127.0.0.1')
    socket.on('error', () => {})
    socket.write('GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n')
    let received = ''
    socket.on('data', (bytes: Buffer) => {
      received += bytes.toString('latin1')
    })
    await once(socket, 'close')
    expect(received).not.toContain('HTTP/1.1 200')
    expect(await ask(`${server.url}/-/health`)).toMatchObject({ status: 200 })
  })

  test('a connection that never agrees on its keys does not hold up the stop', async () => {
    const server = await startReceiver({ tls: own })
    const socket = connectTcp(server.receiver.port, '127.0.0.1')
    socket.on('error', () => {})
    await once(socket, 'connect')
    const idle = await open(server.receiver.port)
    const started = performance.now()
    await server.stop()
    expect(performance.now() - started).toBeLessThan(1500)
    socket.destroy()
    idle.destroy()
  })

  test('a large body goes up and comes down', async () => {
    await using server = await startReceiver({ tls: own })
    const bytes = noise(5_000_000, 4)
    const request = httpsRequest(`${server.vaultUrl}/tree/large`, { ca, method: 'PUT', agent: false })
    request.end(bytes)
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    answer.resume()
    expect(answer.statusCode).toBe(201)
    const back = httpsRequest(`${server.vaultUrl}/tree/large`, { ca, agent: false }).end()
    const [content] = (await once(back, 'response')) as [IncomingMessage]
    expect(Buffer.concat(await Array.fromAsync(content)).equals(bytes)).toBe(true)
  })

  test('who is refused before the body was read gets to know why', async () => {
    await using server = await startReceiver({ tls: own })
    const item = chunk(noise(3_000_000, 6))
    const url = `${server.url}/nowhere/chunks/${item.id}`
    const headers = { 'Content-Length': item.bytes.length }
    const refused = httpsRequest(url, { ca, method: 'PUT', agent: false, headers })
    refused.on('error', () => {})
    refused.end(item.bytes)
    const [answer] = (await once(refused, 'response')) as [IncomingMessage]
    answer.resume()
    expect(answer.statusCode).toBe(404)
  })

  describe('files that cannot be used', () => {
    const cases: [string, () => Promise<Partial<Record<'cert' | 'key' | 'clientCa', string>>>, RegExp][] = [
      ['no certificate there', async () => ({ cert: '/nowhere/cert.pem' }), /cert\.pem cannot be read/],
      ['no key there', async () => ({ key: '/nowhere/key.pem' }), /key\.pem cannot be read/],
      [
        'the key of another',
        async () => ({ key: (await authority.issue('other')).key }),
        /is not the key of/,
      ],
      ['swapped', async () => ({ cert: own.key, key: own.cert }), /has no certificate/],
      ['an empty certificate', async () => ({ cert: await written('') }), /has no certificate/],
      ['an empty key', async () => ({ key: await written('') }), /has no private key/],
      ['a damaged certificate', async () => ({ cert: await damaged(own.cert) }), /is damaged/],
      [
        'a damaged chain',
        async () => ({
          cert: await written(
            (await readFile(own.cert, 'utf8')) + (await readFile(await damaged(own.cert), 'utf8')),
          ),
        }),
        /certificate 2 .* is damaged/,
      ],
      ['a key with a passphrase', async () => ({ key: await locked(own.key) }), /has a passphrase/],
      ['no authority of clients', async () => ({ clientCa: '/nowhere/ca.pem' }), /ca\.pem cannot be read/],
      ['an empty authority of clients', async () => ({ clientCa: await written('') }), /has no certificate/],
    ]
    const written = async (text: string): Promise<string> => {
      const path = fresh('pem')
      await writeFile(path, text)
      return path
    }
    const damaged = async (path: string): Promise<string> => {
      const lines = (await readFile(path, 'utf8')).split('\n')
      lines.splice(2, 2)
      return await written(lines.join('\n'))
    }
    const locked = async (path: string): Promise<string> => {
      const out = fresh('locked')
      await run('openssl', ['pkey', '-in', path, '-aes128', '-passout', 'pass:x', '-out', out])
      return out
    }
    test.each(cases)('%s', async (_, files, expected) => {
      const problem = { code: 'bad-certificate', message: expect.stringMatching(expected) }
      const loading = Certificate.load({ ...own, ...(await files()) }, pino({ level: 'silent' }))
      await expect(loading).rejects.toThrow(expect.objectContaining(problem))
    })

    test('one line, and exit code 1', async () => {
      const { key } = await authority.issue('another')
      const args = ['--listen', '127.0.0.1:0', '--tls-cert', own.cert, '--tls-key', key]
      await using served = runServerCommand(['serve', '--data', fresh('data'), ...args])
      expect(await served.ended).toBe(1)
      expect(served.err).toMatch(/^chunkdav: [^\n]+ is not the key of [^\n]+\n$/)
      expect(served.out).toBe('')
    })
  })

  test('SIGHUP: a new certificate for who comes, while requests and connections go on; a broken one changes nothing', async () => {
    const second = await authority.issue('second')
    const [cert, key] = [fresh('cert'), fresh('key')]
    const replace = async (by: IssuedCertificate): Promise<void> => {
      await copyFile(by.cert, cert)
      await copyFile(by.key, key)
    }
    await replace(own)
    await using served = await serveProcess(fresh('data'), [
      '--listen',
      '127.0.0.1:0',
      '--tls-cert',
      cert,
      '--tls-key',
      key,
    ])
    const url = (served.urls[0] as string).replace('127.0.0.1', 'localhost')
    const port = Number(new URL(url).port)
    expect(served.out).toContain(`backup DIR https://localhost:${port}/home`)
    const shown = async (): Promise<string> => {
      const socket = await open(port)
      const { subject } = socket.getPeerCertificate()
      socket.destroy()
      return subject.CN as string
    }
    expect(await ask(`${url}/home/`, { method: 'MKCOL' })).toMatchObject({ status: 201 })
    expect(await shown()).toBe('receiver')

    const item = chunk(noise(200_000, 5))
    const idle = await open(port)
    const upload = httpsRequest(`${url}/home/chunks/${item.id}`, {
      ca,
      method: 'PUT',
      agent: false,
      headers: { 'Content-Length': item.bytes.length },
    })
    upload.write(item.bytes.subarray(0, 100_000))
    await new Promise((resolve) => setTimeout(resolve, 100))

    await replace(second)
    served.child.kill('SIGHUP')
    await served.logged('the certificate was read again')
    expect(await shown()).toBe('second')

    upload.end(item.bytes.subarray(100_000))
    const [answer] = (await once(upload, 'response')) as [IncomingMessage]
    answer.resume()
    expect(answer.statusCode).toBe(201)
    idle.write('GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n')
    const [first] = (await once(idle, 'data')) as [Buffer]
    expect(first.toString()).toContain('HTTP/1.1 200')
    idle.destroy()

    await writeFile(cert, 'nonsense')
    served.child.kill('SIGHUP')
    await served.logged('could not be read again')
    expect(served.err).toMatch(/"level":50[^\n]*could not be read again/)
    expect(await shown()).toBe('second')
    await copyFile(own.cert, cert)
    served.child.kill('SIGHUP')
    await served.logged('could not be read again', 2)
    expect(await shown()).toBe('second')
    served.child.kill('SIGTERM')
    expect(await served.ended).toBe(0)
  })

  describe('a certificate that ends', () => {
    test.each<[string, number, number | undefined, RegExp]>([
      ['in three months', 90, undefined, /^$/],
      ['in 15 days', 15, undefined, /^$/],
      ['in 13 days', 13, 40, /expires soon/],
      ['yesterday', -1, 50, /has expired/],
    ])('%s', async (_, days, level, text) => {
      const lines: { level: number; msg: string }[] = []
      const log: Logger = pino({ level: 'info' }, { write: (line) => lines.push(JSON.parse(line)) })
      const issued = await authority.issue(`days-${days}`, { days })
      const certificate = await Certificate.load(issued, log)
      certificate.close()
      expect(lines[0]?.level).toBe(level)
      expect(lines[0]?.msg ?? '').toMatch(text)
    })
  })

  describe('a client certificate', () => {
    let strangers: TestAuthority
    beforeAll(async () => {
      strangers = await TestAuthority.create(folder.path, 'strangers')
    })

    async function withUsers(isClientRequired: boolean) {
      const dataDir = fresh('data')
      const server = await startReceiver({
        dataDir,
        tls: { ...own, clientCa: authority.root, isClientRequired },
      })
      await editUsers(dataDir, ({ users }) => {
        for (const name of ['alice', 'bob']) {
          users.push({
            name,
            grants: { home: name === 'alice' ? 'write' : 'read' },
            added: '2026-01-01T00:00:00Z',
          })
        }
      })
      await server.receiver.reload()
      return server
    }

    async function showing({ cert, key }: IssuedCertificate): Promise<ConnectionOptions> {
      return { cert: await readFile(cert, 'utf8'), key: await readFile(key, 'utf8') }
    }

    const named = (name: string, options = {}): Promise<IssuedCertificate> =>
      authority.issue(fresh(name).slice(folder.path.length + 1), {
        isForClients: true,
        commonName: name,
        ...options,
      })

    test.each<[string, () => Promise<IssuedCertificate | undefined>, number, number]>([
      ['of a user who may', () => named('alice'), 200, 201],
      ['of a user who may only read', () => named('bob'), 200, 403],
      ['of nobody we know', () => named('carol'), 401, 401],
      ['none', async () => undefined, 401, 401],
      [
        'of another authority',
        () => strangers.issue('alice-there', { isForClients: true, commonName: 'alice' }),
        401,
        401,
      ],
      ['for servers', () => authority.issue('alice-server', { commonName: 'alice' }), 401, 401],
      ['that has expired', () => named('alice', { days: -1 }), 401, 401],
      ['with two names', () => named('two', { subject: '/CN=alice/CN=bob' }), 401, 401],
      ['without a name', () => named('nameless', { subject: '/O=alice' }), 401, 401],
    ])('%s', async (_, issue, reading, writing) => {
      await using server = await withUsers(false)
      const issued = await issue()
      const tls = issued === undefined ? {} : await showing(issued)
      expect((await ask(`${server.vaultUrl}/`, tls)).status).toBe(reading)
      expect((await ask(`${server.vaultUrl}/tree/folder/`, { ...tls, method: 'MKCOL' })).status).toBe(writing)
      expect((await ask(`${server.url}/-/health`, tls)).status).toBe(200)
    })

    test('names the user of a resumed session too', async () => {
      await using server = await withUsers(false)
      const tls = await showing(await named('alice'))
      const { hostname, port } = new URL(server.url)
      const agent = new Agent({ ca, ...tls, keepAlive: false })
      const reused: boolean[] = []
      for (let i = 0; i < 3; i++) {
        const request = httpsRequest({ hostname, port, path: '/home/', agent }).end()
        const [answer] = (await once(request, 'response')) as [IncomingMessage]
        reused.push((answer.socket as TLSSocket).isSessionReused())
        answer.resume()
        await once(answer, 'end')
        expect(answer.statusCode).toBe(200)
      }
      expect(reused.at(-1)).toBe(true)
    })

    test('what Authorization says goes first', async () => {
      await using server = await withUsers(false)
      const tls = await showing(await named('alice'))
      const wrong = { Authorization: `Basic ${Buffer.from('bob:wrong').toString('base64')}` }
      expect((await ask(`${server.vaultUrl}/`, { ...tls, headers: wrong })).status).toBe(401)
    })

    test('a web page of elsewhere cannot use it', async () => {
      await using server = await withUsers(false)
      const tls = await showing(await named('alice'))
      const origin = { Origin: 'https://evil.example' }
      expect((await ask(`${server.vaultUrl}/`, { ...tls, headers: origin })).status).toBe(400)
    })

    test('required: nobody else gets as far as HTTP', async () => {
      await using server = await withUsers(true)
      expect((await ask(`${server.vaultUrl}/`, await showing(await named('alice')))).status).toBe(200)
      await expect(ask(`${server.url}/-/health`)).rejects.toThrow()
      const stranger = await strangers.issue('mallory', { isForClients: true })
      await expect(ask(`${server.url}/-/health`, await showing(stranger))).rejects.toThrow()
    })

    test.each(['TLSv1.2', 'TLSv1.3'] as const)(
      '%s: an authority that was taken away is not believed any more, by resumed sessions either',
      async (version) => {
        const clientCa = fresh('ca')
        await copyFile(authority.root, clientCa)
        await using server = await startReceiver({ tls: { ...own, clientCa, isClientRequired: true } })
        const { port } = server.receiver
        const tls = { ...(await showing(await named('alice'))), minVersion: version, maxVersion: version }
        const health = async (
          options: ConnectionOptions,
        ): Promise<{ session: Buffer | undefined; reused: boolean }> => {
          let session: Buffer | undefined
          const socket = await open(port, { ...tls, ...options }, (ticket) => {
            session = ticket
          })
          const reused = socket.isSessionReused()
          socket.write('GET /-/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
          let received = ''
          for await (const bytes of socket) received += bytes
          if (!received.includes('HTTP/1.1 200')) throw new Error('no answer')
          return { session, reused }
        }
        const { session } = await health({})
        expect(session).toBeDefined()
        expect((await health({ session: session as Buffer })).reused).toBe(true)
        await copyFile(strangers.root, clientCa)
        await server.receiver.reload()
        await expect(health({ session: session as Buffer })).rejects.toThrow()
        await expect(health({})).rejects.toThrow()
      },
    )
  })
})
