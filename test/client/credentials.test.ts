/** Users and passwords: from the URL or the environment to the server, and nowhere else. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseTreeUrl, parseVaultUrl, parseWebDavUrl } from '../../client/index.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { runIn } from './run-cli.ts'

const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString('base64')}`

describe('a URL', () => {
  test.each<[string, string | undefined, string | undefined, string]>([
    ['http://h/v', undefined, undefined, 'http://h/v'],
    ['http://h/v', 'env', undefined, 'http://h/v'],
    ['http://alice@h:81/v/', 'en%v', 'alice:en%v', 'http://alice@h:81/v'],
    ['http://alice:url@h/v', 'env', 'alice:url', 'http://alice@h/v'],
    ['http://alice:p%40ss@h/v', undefined, 'alice:p@ss', 'http://alice@h/v'],
    ['http://a%20b@h/v', undefined, 'a b:', 'http://a%20b@h/v'],
    ['http://:url@h/v', 'env', ':url', 'http://h/v'],
  ])('%s and the password %s', (url, password, pair, withUser) => {
    const expected = {
      headers: pair === undefined ? {} : { authorization: basic(pair) },
      shown: withUser.replace(/[^/]*@/, ''),
      withUser,
    }
    expect(parseVaultUrl(url, { password })).toMatchObject(expected)
    expect(parseTreeUrl(`${url}/tree/a`, { password }).vault).toMatchObject(expected)
    const { headers } = expected
    const webdav = { headers, shown: `webdav+${expected.shown}`, withUser: `webdav+${withUser}` }
    expect(parseWebDavUrl(`webdav+${url}`, password)).toMatchObject(webdav)
  })
})

describe('a backup', () => {
  let receiver: TestReceiver
  let folder: string
  beforeAll(async () => {
    receiver = await startReceiver()
    folder = mkdtempSync(join(tmpdir(), 'chunkdav-credentials-'))
    mkdirSync(join(folder, 'from'))
    writeFileSync(join(folder, 'from', 'a'), 'A')
  })
  afterAll(async () => {
    await receiver.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const at = (login: string): string => receiver.vaultUrl.replace('://', `://${login}`)

  test.each<[string, Record<string, string>, string[]]>([
    ['', {}, []],
    ['alice:geheim@', {}, ['  with the password in CHUNKDAV_PASSWORD']],
    ['alice@', { CHUNKDAV_PASSWORD: 'geheim' }, []],
  ])('at %s is told how to restore, and not the password', async (login, env, more) => {
    const argv = ['backup', 'from', at(login), '--source', 's']
    const { code, out, err } = await runIn(folder, argv, undefined, env)
    expect([code, err]).toEqual([0, ''])
    const user = login === '' ? '' : 'alice@'
    const hint = `Restore it with: chunkdav restore ${at(user)} --source s --to DIR`
    expect(
      out
        .trimEnd()
        .split('\n')
        .slice(-1 - more.length),
    ).toEqual([hint, ...more])
  })

  test('so is a freeze', async () => {
    const { out } = await runIn(folder, ['freeze', `${at('alice:geheim@')}/tree`])
    expect(out).toContain(`restore ${at('alice@')} --source tree`)
    expect(out).not.toContain('geheim')
  })
})

test.each<[string[], string]>([
  [['checkpoints', 'http://alice@{host}/home'], 'PROPFIND|GET'],
  [['restore', 'webdav+http://alice@{host}/x', '--to', 'to'], 'PROPFIND'],
  [['backup', '.', 'webdav+http://alice@{host}/x'], 'OPTIONS|PROPFIND'],
  [['backup', '.', 'http://alice@{host}/home'], 'GET|MKCOL'],
  [['trash', 'list', 'http://alice@{host}/home'], 'GET'],
  [['freeze', 'http://alice@{host}/home/tree'], 'POST'],
])('%j takes the password from the environment', async (argv, method) => {
  const folder = mkdtempSync(join(tmpdir(), 'chunkdav-credentials-'))
  const seen: string[] = []
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.headers.authorization}`)
    request.resume()
    response.writeHead(403, { connection: 'close' }).end()
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  try {
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
    const words = argv.map((word) => word.replace('{host}', host))
    const { code, out, err } = await runIn(folder, words, undefined, { CHUNKDAV_PASSWORD: 'geheim' })
    expect([code, (out + err).includes('geheim')]).toEqual([1, false])
    expect(seen[0]).toMatch(new RegExp(`^(${method}) `))
    expect(new Set(seen.map((line) => line.replace(/^\S+ /, '')))).toEqual(new Set([basic('alice:geheim')]))
  } finally {
    server.close()
    rmSync(folder, { recursive: true, force: true })
  }
})

test.each([
  'http://alice:gehe@im@h/v?x',
  'http://alice:gehe/im@h/v/w',
  'alice:geheim@h/v',
  'webdav+ftp://alice:geheim@h/v',
  `http://alice:${'geheim'.repeat(50)}@h:x/v`,
])('%s is refused without its password', async (url) => {
  for (const command of ['checkpoints', 'freeze']) {
    const { code, out, err } = await runIn(tmpdir(), [command, url])
    expect([code, out]).toEqual([2, ''])
    expect(err).not.toMatch(/gehe|im@/)
  }
})

test('the help of what takes a URL says so', async () => {
  const commands = ['', 'backup', 'restore', 'checkpoints', 'ls', 'diff', 'freeze']
  const argv = [
    ...commands.map((each) => [each]),
    ...['list', 'restore', 'remove'].map((each) => ['trash', each]),
  ]
  for (const words of argv) {
    const { out } = await runIn(tmpdir(), [...words.filter((word) => word !== ''), '--help'])
    expect(out, words.join(' ')).toContain('CHUNKDAV_PASSWORD')
  }
})
