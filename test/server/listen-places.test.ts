/** Where a receiver listens: Unix sockets, sockets of systemd, several at once; and where it refuses to. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { lstat, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { editUsers } from '../../server/access/users-file.ts'
import { type ListenOptions, listeningOf, withListenOptions } from '../../server/commands/listen-options.ts'
import { ProxyTrust } from '../../server/http/proxy-trust.ts'
import { openReceiver } from '../../server/index.ts'
import { parsePlace, parseSocketMode } from '../../server/listen/place.ts'
import { opensslIsInstalled, TestAuthority } from '../support/certificates.ts'
import { startReceiver } from '../support/receiver.ts'
import { nodeArguments, runServerCommand, serveProcess, watch } from '../support/serve-process.ts'
import { type TemporaryFolder, temporaryFolder } from '../support/tree.ts'

let folder: TemporaryFolder
let dataDir: string
let socketPath: string
beforeEach(async () => {
  folder = await temporaryFolder()
  dataDir = join(folder.path, 'data')
  socketPath = join(folder.path, 'http.sock')
})
afterEach(() => folder[Symbol.asyncDispose]())

async function statusOf(where: { socketPath: string } | string, path = '/-/health', host = 'any.example') {
  const headers = { Host: host }
  const asked =
    typeof where === 'string' ? request(where + path) : request({ ...where, path, headers, agent: false })
  asked.end()
  const [answer] = (await once(asked, 'response')) as [IncomingMessage]
  answer.resume()
  return answer.statusCode
}

async function addUser(): Promise<void> {
  await mkdir(dataDir, { recursive: true })
  await editUsers(dataDir, ({ users }) => {
    users.push({ name: 'alice', grants: { '*': 'admin' }, added: '2026-01-01T00:00:00Z' })
  })
}

describe('a Unix socket', () => {
  test.each<[string[], number]>([
    [[], 0o600],
    [['--socket-mode', '0660'], 0o660],
  ])('%j', async (args, mode) => {
    await using served = await serveProcess(dataDir, ['--listen', `unix:${socketPath}`, ...args])
    expect(served.urls).toEqual([`unix:${socketPath}`])
    expect(served.out).toContain(`backup DIR http+unix://${encodeURIComponent(socketPath)}/home`)
    const { mode: bits } = await lstat(socketPath)
    expect(bits & 0o777).toBe(mode)
    expect(await statusOf({ socketPath })).toBe(200)
    served.child.kill('SIGTERM')
    expect(await served.ended).toBe(0)
    expect(existsSync(socketPath)).toBe(false)
  })

  test('that was left behind by one that was killed is replaced', async () => {
    const first = await serveProcess(dataDir, ['--listen', `unix:${socketPath}`])
    first.child.kill('SIGKILL')
    await first.ended
    expect(existsSync(socketPath)).toBe(true)
    await using second = await serveProcess(dataDir, ['--listen', `unix:${socketPath}`])
    expect(await statusOf({ socketPath })).toBe(200)
    expect(second.err).toBe('')
  })

  test('on which somebody listens stays theirs', async () => {
    const other = createServer().listen(socketPath)
    await once(other, 'listening')
    await using served = runServerCommand(['serve', '--data', dataDir, '--listen', `unix:${socketPath}`])
    expect(await served.ended).toBe(1)
    expect(served.err).toMatch(/^chunkdav: somebody listens on [^\n]+\n$/)
    expect(other.listening && existsSync(socketPath)).toBe(true)
    other.close()
  })

  test.each<[string, (path: string) => Promise<unknown>]>([
    ['a file', (path) => writeFile(path, 'mine')],
    ['a folder', (path) => mkdir(path)],
    ['a link', (path) => symlink('/nowhere', path)],
  ])('%s of that name stays', async (_, make) => {
    await make(socketPath)
    const before = await lstat(socketPath)
    await using served = runServerCommand(['serve', '--data', dataDir, '--listen', `unix:${socketPath}`])
    expect(await served.ended).toBe(1)
    expect(served.err).toMatch(/^chunkdav: [^\n]+ is no socket\n$/)
    expect((await lstat(socketPath)).ino).toBe(before.ino)
  })

  test.each([['unix:relative.sock'], ['unix:'], ['nowhere'], ['127.0.0.1:99999'], ['[::1:80'], ['Systemd']])(
    '%s is no place',
    (place) => {
      expect(() => parsePlace(place)).toThrow(expect.objectContaining({ code: 'usage' }))
    },
  )

  test.each([['0999'], ['rw'], ['07777'], ['']])('"%s" is no mode', (mode) => {
    expect(() => parseSocketMode(mode)).toThrow(expect.objectContaining({ code: 'usage' }))
  })

  test.each([
    [`unix:/${'x'.repeat(108)}`, 2],
    ['unix:/nowhere/http.sock', 1],
  ])('%s cannot be listened on', async (place, code) => {
    await using served = runServerCommand(['serve', '--data', dataDir, '--listen', place])
    expect(await served.ended).toBe(code)
    expect(served.err).toMatch(/^chunkdav: [^\n]+\n$/)
  })

  test('several places at once, each as it is', async () => {
    const args = ['--listen', '127.0.0.1:0', '--listen', `unix:${socketPath}`, '--listen', '[::1]:0']
    await using served = await serveProcess(dataDir, args)
    const [first = '', unix, third = ''] = served.urls
    expect(unix).toBe(`unix:${socketPath}`)
    expect(await statusOf(first)).toBe(200)
    expect(await statusOf({ socketPath })).toBe(200)
    expect(await statusOf(third)).toBe(200)
    // Without a certificate there is less to read again, but it ends nobody.
    served.child.kill('SIGHUP')
    await new Promise((resolve) => setTimeout(resolve, 100))
    // Only what web pages can reach asks for its own name.
    expect((await fetch(`${first}/-/health`)).status).toBe(200)
    const { port } = new URL(first)
    const strange = request({
      port,
      host: '127.0.0.1',
      path: '/-/health',
      headers: { Host: 'evil.example' },
    }).end()
    const [answer] = (await once(strange, 'response')) as [IncomingMessage]
    expect(answer.statusCode).toBe(400)
    answer.resume()
    served.child.kill('SIGTERM')
    expect(await served.ended).toBe(0)
  })

  test('when one of several cannot be had, it listens nowhere', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    const args = ['--listen', `unix:${socketPath}`, '--listen', `127.0.0.1:${port}`]
    await using served = runServerCommand(['serve', '--data', dataDir, ...args])
    expect(await served.ended).toBe(1)
    expect(served.err).toContain('in use')
    expect(existsSync(socketPath)).toBe(false)
    other.close()
  })

  test('in a library', async () => {
    const places = [{ kind: 'unix', path: socketPath, mode: 0o600 }] as const
    await using server = await startReceiver({ places })
    expect(server.receiver).toMatchObject({ host: socketPath, port: 0, url: `unix:${socketPath}` })
    expect(await statusOf({ socketPath }, '/home/')).toBe(200)
  })
})

const activate = '/usr/bin/systemd-socket-activate'
const skipped = existsSync(activate) ? '' : ' (skipped: systemd-socket-activate is not installed)'

describe.skipIf(skipped !== '')(`sockets of systemd${skipped}`, () => {
  async function freePort(): Promise<number> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    server.close()
    await once(server, 'close')
    return port
  }

  /** Starts the receiver as systemd does: with the first connection. */
  function activated(listen: readonly string[], args: readonly string[]) {
    const sockets = listen.flatMap((place) => ['-l', place])
    const words = [process.execPath, ...nodeArguments, 'serve', '--data', dataDir, ...args]
    return watch(
      spawn(activate, [...sockets, ...words], { env: process.env, stdio: ['ignore', 'pipe', 'pipe'] }),
    )
  }

  async function connected<T>(ask: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await ask()
      } catch (error) {
        if (attempt > 100) throw error
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
  }

  test.each([[['--listen', 'systemd']], [[]]])(
    '%j: the connection that started it is answered',
    async (args) => {
      const url = `http://127.0.0.1:${await freePort()}`
      await using served = activated([url.slice('http://'.length), socketPath], args)
      expect(await connected(() => statusOf(url))).toBe(200)
      expect(await statusOf({ socketPath })).toBe(200)
      expect(served.out).toContain(`chunkdav listens on ${url}, a Unix socket of systemd`)
      served.child.kill('SIGTERM')
      expect(await served.ended).toBe(0)
      // It is systemd's, and there for the next one.
      expect(existsSync(socketPath)).toBe(true)
    },
  )

  test.skipIf(!opensslIsInstalled)(
    'with a certificate the addresses speak TLS, Unix sockets do not',
    async () => {
      const authority = await TestAuthority.create(folder.path)
      const { cert, key } = await authority.issue('receiver')
      const port = await freePort()
      const places = [`127.0.0.1:${port}`, socketPath]
      await using served = activated(places, ['--tls-cert', cert, '--tls-key', key])
      const ca = await readFile(authority.root)
      const secure = async (): Promise<number | undefined> => {
        const asked = httpsRequest(`https://localhost:${port}/-/health`, {
          ca,
          agent: false,
          family: 4,
        }).end()
        const [answer] = (await once(asked, 'response')) as [IncomingMessage]
        answer.resume()
        return answer.statusCode
      }
      expect(await connected(secure)).toBe(200)
      expect(await statusOf({ socketPath })).toBe(200)
      expect(served.out).toContain(`chunkdav listens on https://127.0.0.1:${port}, a Unix socket of systemd`)
      served.child.kill('SIGHUP')
      await served.logged('the certificate was read again')
      expect(await secure()).toBe(200)
      await expect(statusOf(`http://127.0.0.1:${port}`)).rejects.toThrow()
      served.child.kill('SIGTERM')
      expect(await served.ended).toBe(0)
    },
  )

  test('an address that others can reach is judged like any other', async () => {
    const port = await freePort()
    await using served = activated([`0.0.0.0:${port}`, socketPath], [])
    await expect(connected(() => statusOf(`http://127.0.0.1:${port}`))).rejects.toThrow()
    expect(await served.ended).toBe(2)
    expect(served.err).toContain('0.0.0.0 can be reached by others')
  })

  test('without them --listen systemd is refused', async () => {
    await using served = runServerCommand(['serve', '--data', dataDir, '--listen', 'systemd'], {
      LISTEN_FDS: '1',
      LISTEN_PID: '1',
    })
    expect(await served.ended).toBe(2)
    expect(served.err).toMatch(/^chunkdav: systemd has handed over no socket[^\n]*\n$/)
  })
})

const surroundings = { calledAs: 'chunkdav', defaultDataDir: '/nowhere', systemdSockets: 0 }

describe('who may come, and how', () => {
  const everywhere = ['--listen', '0.0.0.0:0']
  const tls = ['--tls-cert', 'x', '--tls-key', 'y']
  test.each<[string, boolean, string[], string]>([
    ['nobody is known', false, everywhere, '--no-auth'],
    ['passwords in the clear', true, everywhere, '--plain-http'],
    ['--no-auth is no word on passwords', true, [...everywhere, '--no-auth'], '--plain-http'],
    ['a proxy for nobody', false, ['--trust-proxy', '127.0.0.1', '--listen', '127.0.0.1:0'], '--no-auth'],
    ['one of several', true, ['--listen', '127.0.0.1:0', ...everywhere], '--plain-http'],
    ['a certificate without its key', false, ['--tls-cert', 'x'], '--tls-key'],
    ['a key without its certificate', false, ['--tls-key', 'x'], '--tls-cert'],
    ['authorities without a certificate', false, ['--tls-client-ca', 'x'], '--tls-cert'],
    ['client certificates of nobody', false, [...tls, '--tls-client-required'], '--tls-client-ca'],
    ['a header without a proxy', true, ['--proxy-user-header', 'X-User'], '--trust-proxy'],
    [
      'a header that is none',
      true,
      ['--trust-proxy', 'unix', '--proxy-user-header', 'a b'],
      'name of a header',
    ],
    ['a proxy that is none', true, ['--trust-proxy', 'proxy.example'], 'no address'],
    [
      'a Unix socket is no proxy on the network',
      true,
      [...everywhere, '--trust-proxy', 'unix'],
      '--plain-http',
    ],
  ])('%s: refused', async (_, hasUsers, args, text) => {
    if (hasUsers) await addUser()
    const opened = async (): Promise<unknown> => {
      const options = withListenOptions(new Command()).parse(args, { from: 'user' }).opts<ListenOptions>()
      return await openReceiver({ dataDir, ...listeningOf(options, surroundings) })
    }
    await expect(opened()).rejects.toThrow(
      expect.objectContaining({ code: 'usage', message: expect.stringContaining(text) }),
    )
  })

  test('with users, and a word that passwords may travel in the clear', async () => {
    await addUser()
    await using served = await serveProcess(dataDir, [...everywhere, '--plain-http'])
    expect(served.out).toContain('log in with a user and CHUNKDAV_PASSWORD')
    expect(served.out).toMatch(/backup DIR http:\/\/USER@127\.0\.0\.1:\d+\/home/)
    const url = (served.urls[0] as string).replace('0.0.0.0', '127.0.0.1')
    expect(await statusOf(url)).toBe(200)
    expect(await statusOf(url, '/')).toBe(401)
  })

  // All of 127/8 is this machine: what stands for others is an address that the machine has besides.
  const outside = otherAddress()
  const why = outside === undefined ? ' (skipped: this machine has no address but loopback)' : ''
  test.skipIf(outside === undefined)(
    `with a proxy that is trusted, on the network: others are turned away at the door${why}`,
    async () => {
      const places = [{ kind: 'tcp', host: '0.0.0.0', port: 0 }] as const
      await addUser()
      const exposure = { isOpen: false, allowsPlainHttp: false }
      for (const [trusted, expected] of [
        ['192.0.2.1', 'turned away'],
        [outside as string, '200'],
      ] as const) {
        const trust = new ProxyTrust([trusted])
        await using server = await startReceiver({ dataDir, places, trust, exposure, unobserved: true })
        const url = `http://${outside}:${server.receiver.port}`
        expect(String(await statusOf(url).catch(() => 'turned away'))).toBe(expected)
        expect(await statusOf(`http://127.0.0.1:${server.receiver.port}`)).toBe(200)
      }
    },
  )
})

function otherAddress(): string | undefined {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
  return all.find(({ family, internal }) => family === 'IPv4' && !internal)?.address
}
