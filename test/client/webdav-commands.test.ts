/** The command line with a WebDAV server: every command, credentials, exit codes. */
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { davPrograms } from '../support/dav-servers.ts'
import { listing, seededBytes, temporaryFolder } from '../support/tree.ts'
import { ownTree } from '../support/webdav.ts'
import { events, runIn } from './run-cli.ts'

function makeTree(root: string): void {
  mkdirSync(join(root, 'docs', 'old'), { recursive: true })
  writeFileSync(join(root, 'docs', 'letter'), 'Dear reader')
  writeFileSync(join(root, 'docs', 'old', 'letter'), 'Dear all')
  writeFileSync(join(root, 'notes'), 'notes')
}

test('backup, checkpoints, ls, diff, restore', async () => {
  await using server = await ownTree.start()
  await using folder = await temporaryFolder()
  makeTree(join(folder.path, 'from'))
  await sleep(60)
  const url = `webdav+${server.url}/my%20backups`
  const run = (...argv: string[]) => runIn(folder.path, argv)
  const first = await run('backup', 'from', url, '--source', 'laptop', '--json')
  expect([first.code, first.err]).toEqual([0, ''])
  expect(events(first.out).at(-1)).toMatchObject({
    ...{ type: 'summary', source: 'laptop', checkpoint: 1, files: 3, filesNew: 3, problems: 0 },
  })
  writeFileSync(join(folder.path, 'from', 'notes'), 'more notes')
  const second = await run('backup', 'from', url, '--source', 'laptop')
  expect(second.code).toBe(0)
  expect(second.out).toContain('Checkpoint 2 of laptop is committed.')
  expect(second.out).toContain('1 changed, 2 unmodified')

  const checkpoints = events((await run('checkpoints', url, '--json')).out)
  expect(checkpoints).toMatchObject([
    { type: 'checkpoint', source: 'laptop', number: 1, state: 'committed', totals: { files: 3 } },
    { type: 'checkpoint', source: 'laptop', number: 2, state: 'committed' },
    { type: 'summary', sources: 1, checkpoints: 2 },
  ])
  expect((await run('ls', url)).out).toBe('docs/\nnotes\n')
  expect((await run('ls', url, 'docs/old')).out).toBe('letter\n')
  expect((await run('ls', url, 'docs/nothing')).code).toBe(1)
  expect((await run('diff', url, '1', '2')).out).toBe('M notes\n')

  const whole = await run('restore', url, '--to', 'to', '--json')
  expect(events(whole.out).at(-1)).toMatchObject({ type: 'summary', checkpoint: 2, files: 3, problems: 0 })
  expect(listing(join(folder.path, 'to'))).toEqual(listing(join(folder.path, 'from')))
  const some = await run('restore', url, '--to', 'some', '--include', 'docs/old', '--checkpoint', '1')
  expect(some.code).toBe(0)
  expect(readFileSync(join(folder.path, 'some', 'docs', 'old', 'letter'), 'utf8')).toBe('Dear all')
  expect((await run('restore', url, '--to', '-', '--include', 'docs/letter')).out).toBe('Dear reader')
  expect((await run('restore', url, '--to', 'none', '--include', 'absent')).code).toBe(1)
})

test('--verify-content sends everything again, whatever the base has', async () => {
  await using server = await ownTree.start()
  await using folder = await temporaryFolder()
  makeTree(join(folder.path, 'from'))
  await sleep(60)
  const url = `webdav+${server.url}/backups`
  const backUp = (...more: string[]) => runIn(folder.path, ['backup', 'from', url, '--source', 's', ...more])
  await backUp()
  const damaged = await fetch(`${server.url}/backups/s/1/files/docs/letter`, {
    method: 'PUT',
    body: 'damaged',
  })
  await damaged.text()
  const restore = await runIn(folder.path, ['restore', url, '--to', 'damaged'])
  expect([restore.code, restore.err]).toEqual([
    1,
    expect.stringMatching(/^chunkdav: docs\/letter: .* back up again with --verify-content \(blake3:/m),
  ])
  const help = (await backUp('--help')).out.replace(/\s+/g, ' ')
  expect(help).toContain('replaces files that were damaged there')
  await backUp('--verify-content')
  await runIn(folder.path, ['restore', url, '--to', 'to'])
  expect(listing(join(folder.path, 'to'))).toEqual(listing(join(folder.path, 'from')))
})

test('a large file to standard output, whole and damaged', async () => {
  await using server = await ownTree.start()
  await using folder = await temporaryFolder()
  mkdirSync(join(folder.path, 'from'))
  const content = seededBytes('large', 9_000_000)
  writeFileSync(join(folder.path, 'from', 'large'), content)
  const url = `webdav+${server.url}/backups`
  await runIn(folder.path, ['backup', 'from', url, '--source', 's'])
  const toOutput = () => runIn(folder.path, ['restore', url, '--to', '-', '--include', 'large'])
  const whole = await toOutput()
  expect([whole.code, whole.bytes.equals(content)]).toEqual([0, true])
  const body = new Blob([seededBytes('other', 9_000_000) as Buffer<ArrayBuffer>])
  await (await fetch(`${server.url}/backups/s/1/files/large`, { method: 'PUT', body })).text()
  const damaged = await toOutput()
  expect(damaged.code).toBe(1)
  expect(damaged.err).toMatch(/not what was backed up; .* back up again with --verify-content$/m)
})

test('a file manager sees the files, and where the server can, their times', async () => {
  await using server = await ownTree.start()
  await using folder = await temporaryFolder()
  makeTree(join(folder.path, 'from'))
  utimesSync(join(folder.path, 'from', 'docs', 'letter'), 1_234_567_890, 1_234_567_890)
  utimesSync(join(folder.path, 'from', 'notes'), -1000, -1000)
  const url = `webdav+${server.url}/backups`
  expect((await runIn(folder.path, ['backup', 'from', url, '--source', 's'])).code).toBe(0)
  const answer = await fetch(`${server.url}/backups/s/1/files/docs/letter`)
  expect(await answer.text()).toBe('Dear reader')
  expect(answer.headers.get('last-modified')).toBe('Fri, 13 Feb 2009 23:31:30 GMT')
})

test('wrong usage', async () => {
  await using folder = await temporaryFolder()
  const run = (...argv: string[]) => runIn(folder.path, argv)
  for (const argv of [
    ['backup', '.', 'webdav+http://127.0.0.1:1/x', '--as', 'chunks'],
    ['backup', '.', 'webdav+ftp://127.0.0.1/x'],
    ['backup', '.', 'webdav+http://'],
    ['ls', 'webdav+http://127.0.0.1:1/x?query'],
    ['backup', '.', 'webdav+http://a:%zz@127.0.0.1:1/x'],
  ]) {
    expect((await run(...argv)).code, argv.join(' ')).toBe(2)
  }
  const secret = await run('backup', '.', 'webdav+http://alice:geheim@127.0.0.1:1/x#y')
  expect(secret.err).not.toContain('geheim')
})

test('hints fit a server that is no receiver', async () => {
  await using folder = await temporaryFolder()
  const told = async (...argv: string[]) => {
    const { code, err } = await runIn(folder.path, argv)
    return [code, err.replace(/^chunkdav: /, '').trimEnd()]
  }
  const gone = createServer().listen(0, '127.0.0.1')
  await once(gone, 'listening')
  const at = `webdav+http://127.0.0.1:${(gone.address() as AddressInfo).port}`
  gone.close()
  await once(gone, 'close')
  const nothing = `nothing answers at ${at}; is the server running?`
  expect(await told('checkpoints', `${at}/x`)).toEqual([1, nothing])
  expect(await told('backup', '.', `${at}/x`)).toEqual([1, nothing])
  for (const command of ['checkpoints', 'freeze']) {
    const begins =
      '"webdav+ftp://h/x" is no URL of a WebDAV server; it begins with webdav+http:// or webdav+https://'
    const [code, err] = await told(command, 'webdav+ftp://h/x')
    expect([code, String(err).replace(/"webdav.*"/, '"webdav+ftp://h/x"')]).toEqual([2, begins])
  }
  for (const argv of [
    ['freeze', `${at}/x/tree`],
    ['trash', 'list', `${at}/x`],
    ['trash', 'restore', `${at}/x`, '1'],
    ['trash', 'remove', `${at}/x`, '1'],
  ]) {
    expect(await told(...argv)).toEqual([2, expect.stringContaining('; only a receiver has a live tree')])
  }
})

test.each([
  [401, / asks for a user and a password; .* webdav\+http:\/\/USER@127.* CHUNKDAV_PASSWORD$/],
  [403, / does not allow making folders \(MKCOL\); check what the user may do there$/],
  [501, / does not support making folders \(MKCOL\)$/],
  [423, / does not allow making folders \(MKCOL\): another program has locked it; /],
  [418, / failed at making folders \(MKCOL\) \(status 418\); its log may tell more$/],
  [405, / makes no folders; check the URL, and what the user may do there$/],
  [302, / answers MKCOL with status 302$/],
])('MKCOL that is answered %i is told in a sentence', async (status, sentence) => {
  await using folder = await temporaryFolder()
  const server = createServer((request, response) => {
    request.resume()
    response.writeHead(request.method === 'MKCOL' ? status : 404, { connection: 'close' }).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const url = `webdav+http://127.0.0.1:${(server.address() as AddressInfo).port}/x`
    const { code, err } = await runIn(folder.path, ['backup', '.', url])
    const [line, rest] = err.split('\n')
    expect([code, line?.startsWith(`chunkdav: ${url}`), rest]).toEqual([1, true, ''])
    expect(line).toMatch(sentence)
  } finally {
    server.close()
  }
})

test('no backups, and no folder', async () => {
  await using server = await ownTree.start()
  await using folder = await temporaryFolder()
  const run = (...argv: string[]) => runIn(folder.path, argv)
  const none = await run('checkpoints', `webdav+${server.url}`)
  expect([none.code, none.out]).toEqual([0, `There are no backups in webdav+${server.url} yet.\n`])
  const restore = await run('restore', `webdav+${server.url}`, '--to', 'to', '--json')
  expect(events(restore.out).at(-1)).toMatchObject({ type: 'error', code: 'checkpoint-not-found' })
  const absent = await run('ls', `webdav+${server.url}/absent`, '--json')
  expect(events(absent.out).at(-1)).toMatchObject({ type: 'error', code: 'not-found' })
})

test('other things in the same folder are left alone', async () => {
  await using server = await ownTree.start()
  await using folder = await temporaryFolder()
  makeTree(join(folder.path, 'from'))
  const url = `webdav+${server.url}`
  for (const path of ['photos/', 'laptop/', 'laptop/notes/', 'laptop/007/', 'laptop/x.partial/']) {
    await (await fetch(`${server.url}/${path}`, { method: 'MKCOL' })).text()
  }
  await (await fetch(`${server.url}/laptop/4`, { method: 'PUT', body: 'a file' })).text()
  const backup = await runIn(folder.path, ['backup', 'from', url, '--source', 'laptop', '--json'])
  expect(events(backup.out).at(-1)).toMatchObject({ checkpoint: 1 })
  const { out } = await runIn(folder.path, ['checkpoints', url, '--json'])
  expect(events(out)).toMatchObject([{ source: 'laptop', number: 1 }, { sources: 1 }])
  rmSync(join(folder.path, 'state'), { recursive: true })
})

for (const program of davPrograms) {
  describe.skipIf(program.missing !== undefined)(`${program.name}${program.missing ?? ''}`, () => {
    test('asks for a user and a password', async () => {
      await using server = await program.start({ user: { name: 'alice', password: 'ge:hei@m' } })
      await using folder = await temporaryFolder()
      makeTree(join(folder.path, 'from'))
      const at = (login: string): string => `webdav+${server.url.replace('://', `://${login}`)}/backups`
      const backUp = (url: string) => runIn(folder.path, ['backup', 'from', url, '--source', 's', '--json'])
      for (const login of ['', 'alice:falsch@', 'bob:ge%3Ahei%40m@']) {
        const { code, out, err } = await backUp(at(login))
        expect(code).toBe(1)
        expect(events(out).at(-1)).toMatchObject({ type: 'error', code: 'forbidden' })
        expect(err + out).not.toContain('falsch')
      }
      const url = at('alice:ge%3Ahei%40m@')
      expect((await backUp(url)).code).toBe(0)
      // What to do next is told without the password.
      const again = await runIn(folder.path, ['backup', 'from', url, '--source', 's'])
      expect([again.code, /Restore it with/.test(again.out)]).toEqual([0, true])
      expect(again.out + again.err).not.toMatch(/ge%3Ahei|ge:hei/)
      const fromEnvironment = await runIn(folder.path, ['ls', at('alice@')], undefined, {
        CHUNKDAV_PASSWORD: 'ge:hei@m',
      })
      expect([fromEnvironment.code, fromEnvironment.out]).toEqual([0, 'docs/\nnotes\n'])
      expect((await runIn(folder.path, ['restore', url, '--to', 'to'])).code).toBe(0)
      expect(listing(join(folder.path, 'to'))).toEqual(listing(join(folder.path, 'from')))
    })
  })
}
