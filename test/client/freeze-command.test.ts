/** `chunkdav freeze`: what it says, what it makes, and what it refuses. */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseTreeUrl } from '../../client/index.ts'
import { isProblem } from '../../protocol/problem.ts'
import { ask } from '../server/dav-requests.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { events, runIn } from './run-cli.ts'

let server: TestReceiver
let folder: string
let url: string
beforeAll(async () => {
  server = await startReceiver()
  url = server.vaultUrl
  folder = mkdtempSync(join(tmpdir(), 'chunkdav-freeze-'))
  for (const path of ['docs/', 'docs/my%20%C3%A9/']) await ask(server, 'MKCOL', path)
  await ask(server, 'PUT', 'docs/a.txt', { 'X-OC-Mtime': '1600000000' }, 'first')
  await ask(server, 'PUT', 'docs/my%20%C3%A9/b', {}, 'second')
  await ask(server, 'PUT', 'empty', {}, '')
})
afterAll(async () => {
  await server.stop()
  rmSync(folder, { recursive: true, force: true })
})

const run = (...argv: string[]) => runIn(folder, argv)

test('tells the checkpoint and what is in it; it can be looked at and restored as it says', async () => {
  const { code, out, err } = await run('freeze', `${url}/tree`)
  expect([code, err]).toEqual([0, ''])
  expect(out.split('\n')).toEqual([
    'Checkpoint 1 of tree is committed.',
    '  3 files, 3 directories, 11 B',
    `Look at it in ${url}/snapshots/tree/1/`,
    `Restore it with: chunkdav restore ${url} --source tree --to DIR`,
    '',
  ])
  const [, shown = ''] = /Look at it in (\S+)/.exec(out) ?? []
  expect(await (await fetch(`${shown}docs/a.txt`)).text()).toBe('first')
  expect((await run('restore', url, '--source', 'tree', '--to', 'restored')).code).toBe(0)
  const restored = (path: string) => join(folder, 'restored', path)
  expect(readFileSync(restored('docs/my é/b'), 'utf8')).toBe('second')
  expect(readFileSync(restored('empty'), 'utf8')).toBe('')
  expect([statSync(restored('docs/a.txt')).mtimeMs, statSync(restored('docs')).mode & 0o777]).toEqual([
    1_600_000_000_000, 0o755,
  ])
})

test('takes a folder and a source; --json', async () => {
  const { code, out } = await run('freeze', `${url}/tree/docs/my%20é/`, '--json')
  expect([code, events(out)]).toEqual([
    0,
    [
      {
        type: 'summary',
        source: 'tree-docs-my--',
        checkpoint: 1,
        root: expect.stringMatching(/^blake3:/),
        files: 1,
        directories: 1,
        bytes: 6,
      },
    ],
  ])
  const named = events((await run('freeze', `${url}/tree/docs`, '--source', 'papers', '--json')).out)
  expect(named).toMatchObject([{ source: 'papers', files: 2 }])
  expect((await run('checkpoints', url, '--source', 'papers')).out).toContain('tree/docs')
})

test.each<[string, string[], number, RegExp]>([
  ['no folder', ['/tree/no/where'], 1, /there is no folder "no\/where" in http:.*\/home\/tree\n$/],
  ['a file', ['/tree/docs/a.txt'], 2, /"docs\/a\.txt" is a file; freeze the folder/],
  ['the vault', [''], 2, /is not in a live tree; that of this vault is http:.*\/home\/tree\n$/],
  ['a source that is none', ['/tree', '--source', 'a/b'], 2, /is no source name/],
  ['a path that is none', ['/tree/docs/../..'], 2, /a name is "\.\."/],
])('%s cannot be frozen', async (_, [path, ...more], code, told) => {
  const done = await run('freeze', `${url}${path}`, ...more)
  expect([done.code, done.out, done.err]).toEqual([code, '', expect.stringMatching(told)])
})

test('a vault that is not there, and a receiver that is not', async () => {
  const none = await run('freeze', `${server.url}/none/tree`)
  expect([none.code, none.err]).toEqual([1, expect.stringContaining('there is no vault at')])
  const nobody = await run('freeze', 'http://127.0.0.1:1/home/tree', '--json')
  expect([nobody.code, events(nobody.out)]).toMatchObject([1, [{ type: 'error', code: 'transport-failed' }]])
})

describe('the URL of a tree', () => {
  const parts = (text: string): unknown => {
    try {
      const { vault, names } = parseTreeUrl(text)
      return [vault.shown, ...names.map((name) => name.toString('latin1'))]
    } catch (error) {
      return isProblem(error) ? error.code : error
    }
  }
  test.each<[string, unknown]>([
    ['http://h/home/tree', ['http://h/home']],
    ['http://h/home/tree/', ['http://h/home']],
    ['http://me:secret@h:81/home/tree/a//b/', ['http://h:81/home', 'a', 'b']],
    ['https://h/home/tree/a%2Fb', 'usage'],
    ['http://h/home/tree/%ff%20', ['http://h/home', '\xff ']],
    ['http://h/home/tree/%zz', 'usage'],
    ['http://h/home/tree/.', 'usage'],
    ['http://h/home/tree?x', 'usage'],
    ['http://h/home/trash', 'usage'],
    ['http://h', 'usage'],
    ['ftp://h/home/tree', 'usage'],
    ['home/tree', 'usage'],
  ])('%s', (text, expected) => {
    expect(parts(text)).toEqual(expected)
  })
})
