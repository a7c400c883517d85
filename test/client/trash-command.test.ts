/** `chunkdav trash`: what is listed, how it comes back, and what is in its way. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ask, content, lock, members } from '../server/dav-requests.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { events, runIn } from './run-cli.ts'

let server: TestReceiver
let folder: string
beforeEach(async () => {
  server = await startReceiver()
  folder = mkdtempSync(join(tmpdir(), 'chunkdav-trash-'))
  for (const path of ['docs/', 'docs/2024/']) await ask(server, 'MKCOL', path)
  await ask(server, 'PUT', 'docs/2024/a%20%C3%A9', {}, 'first')
})
afterEach(async () => {
  await server.stop()
  rmSync(folder, { recursive: true, force: true })
})

const trash = (command: string, ...argv: string[]) =>
  runIn(folder, ['trash', command, server.vaultUrl, ...argv])

test('lists what was deleted or overwritten, for people and for scripts', async () => {
  expect(await trash('list')).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^The trash of .* is empty\.\n$/),
  })
  await ask(server, 'PUT', 'docs/2024/a%20%C3%A9', {}, 'second')
  await ask(server, 'PUT', '%FF%0A', {}, 'odd')
  await ask(server, 'DELETE', '%FF%0A')
  await ask(server, 'DELETE', 'docs/')
  const { code, out } = await trash('list')
  const time = String.raw`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC`
  expect([code, out.split('\n')]).toEqual([
    0,
    [
      expect.stringMatching(new RegExp(`^     1  ${time}       5 B  overwritten  docs/2024/a é$`)),
      expect.stringMatching(new RegExp(String.raw`^     2  ${time}       3 B  deleted      \\xff\\x0a$`)),
      expect.stringMatching(new RegExp(`^     3  ${time}         -  deleted      docs/$`)),
      '',
    ],
  ])
  expect(events((await trash('list', '--json')).out)).toMatchObject([
    { type: 'entry', item: 1, path: 'docs/2024/a é', kind: 'file', size: 5, reason: 'overwritten' },
    { type: 'entry', item: 2, path: '\\xff\\x0a', path64: '/wo=' },
    { type: 'entry', item: 3, path: 'docs', kind: 'directory', reason: 'deleted' },
    { type: 'summary', items: 3 },
  ])
})

test('puts a folder back where it was, with all that was in it', async () => {
  await ask(server, 'DELETE', 'docs/')
  expect(await trash('restore', '1')).toMatchObject({ code: 0, out: 'docs is restored.\n', err: '' })
  expect(await content(server, 'docs/2024/a%20%C3%A9')).toBe('first')
  expect((await trash('list', '--json')).out).toContain('"items":0')
})

test('makes the folders that are gone meanwhile', async () => {
  await ask(server, 'DELETE', 'docs/2024/a%20%C3%A9')
  await ask(server, 'DELETE', 'docs/')
  expect((await trash('restore', '1')).code).toBe(0)
  expect(await content(server, 'docs/2024/a%20%C3%A9')).toBe('first')
})

test('puts a name back that is not UTF-8', async () => {
  await ask(server, 'PUT', '%FF', {}, 'odd')
  await ask(server, 'DELETE', '%FF')
  expect(await trash('restore', '1')).toMatchObject({ code: 0, out: '\\xff is restored.\n' })
  expect(await content(server, '%FF')).toBe('odd')
})

test.each([
  ['docs/b', 'docs/b', 'docs/b'],
  ['/docs/b', 'docs/b', 'docs/b'],
  ['new/folder/', 'new/folder/a é', 'new/folder/a%20%C3%A9'],
  ['/', 'a é', 'a%20%C3%A9'],
  ['\\xff', '\\xff', '%FF'],
])('--to %s', async (to, told, path) => {
  await ask(server, 'DELETE', 'docs/2024/a%20%C3%A9')
  const done = await trash('restore', '1', '--to', to)
  expect(done).toMatchObject({ code: 0, out: `docs/2024/a é is restored to ${told}.\n`, err: '' })
  expect(await content(server, path)).toBe('first')
})

test('overwrites nothing, and says what to do', async () => {
  await ask(server, 'PUT', 'docs/2024/a%20%C3%A9', {}, 'second')
  const done = await trash('restore', '1')
  expect([done.code, done.err]).toEqual([
    1,
    'chunkdav: there is something at "docs/2024/a é" already; move it away, or add --to with another path\n',
  ])
  expect(await content(server, 'docs/2024/a%20%C3%A9')).toBe('second')
})

test('a file in the place of a folder', async () => {
  await ask(server, 'DELETE', 'docs/2024/a%20%C3%A9')
  await ask(server, 'DELETE', 'docs/2024/')
  await ask(server, 'PUT', 'docs/2024', {}, 'a file')
  const done = await trash('restore', '1')
  expect([done.code, done.err]).toEqual([1, expect.stringContaining('there is a file where a folder of')])
  expect(await members(server, 'docs/')).toEqual(['2024'])
})

test('a place that somebody has locked', async () => {
  await ask(server, 'DELETE', 'docs/2024/a%20%C3%A9')
  await lock(server, 'docs/')
  const done = await trash('restore', '1')
  expect([done.code, done.err]).toEqual([1, expect.stringContaining('somebody has locked "docs/2024/a é"')])
})

test('removes for good', async () => {
  await ask(server, 'DELETE', 'docs/')
  expect(await trash('remove', '1')).toMatchObject({ code: 0, out: 'Item 1 is removed for good.\n' })
  for (const command of ['remove', 'restore']) {
    const again = await trash(command, '1')
    expect([again.code, again.err]).toEqual([
      1,
      `chunkdav: item 1 is not in the trash; see: chunkdav trash list ${server.vaultUrl}\n`,
    ])
  }
})

describe('several items', () => {
  beforeEach(async () => {
    // As rm -r in a mount does it.
    await ask(server, 'PUT', 'docs/b', {}, 'B')
    for (const path of ['docs/2024/a%20%C3%A9', 'docs/b', 'docs/2024/', 'docs/']) {
      await ask(server, 'DELETE', path)
    }
  })

  test('come back from the last to the first, in whatever order they are named', async () => {
    const done = await trash('restore', '2', '1', '4', '3', '2')
    const paths = ['docs', 'docs/2024', 'docs/b', 'docs/2024/a é']
    expect(done).toMatchObject({
      code: 0,
      out: paths.map((path) => `${path} is restored.\n`).join(''),
      err: '',
    })
    expect(await content(server, 'docs/2024/a%20%C3%A9')).toBe('first')
    expect(await content(server, 'docs/b')).toBe('B')
  })

  test('that cannot be restored stop no others', async () => {
    await ask(server, 'MKCOL', 'docs/')
    await ask(server, 'PUT', 'docs/b', {}, 'in the way')
    const done = await trash('restore', '1', '2', '3', '99')
    expect([done.code, done.out, done.err.split('\n')]).toEqual([
      1,
      'docs/2024 is restored.\ndocs/2024/a é is restored.\n',
      [
        expect.stringContaining('there is something at "docs/b" already'),
        expect.stringContaining('item 99 is not in the trash'),
        'chunkdav: 2 items of 4 failed',
        '',
      ],
    ])
  })

  test('for scripts', async () => {
    const restored = await trash('restore', '1', '3', '99', '--to', 'old/', '--json')
    expect([restored.code, restored.err, events(restored.out)]).toEqual([
      1,
      '',
      [
        { type: 'entry', item: 3, path: 'docs/2024', to: 'old/2024' },
        { type: 'entry', item: 1, path: 'docs/2024/a é', to: 'old/a é' },
        { type: 'problem', item: 99, code: 'not-found', detail: expect.any(String) },
        { type: 'summary', restored: 2, problems: 1 },
      ],
    ])
    const removed = await trash('remove', '2', '99', '4', '--json')
    expect([removed.code, events(removed.out)]).toEqual([
      1,
      [
        { type: 'entry', item: 2 },
        { type: 'problem', item: 99, code: 'not-found', detail: expect.any(String) },
        { type: 'entry', item: 4 },
        { type: 'summary', removed: 2, problems: 1 },
      ],
    ])
    expect((await trash('list', '--json')).out).toContain('"items":0')
  })
})

test.each<[string, string[]]>([
  ['several items to one file', ['trash', 'restore', 'http://127.0.0.1:1/home', '1', '2', '--to', 'a']],
  ['no command', ['trash']],
  ['another command', ['trash', 'burn']],
  ['no item', ['trash', 'restore', 'http://127.0.0.1:1/home']],
  ['an item that is no number', ['trash', 'remove', 'http://127.0.0.1:1/home', '-']],
  ['no URL', ['trash', 'list', 'home']],
  ['an empty --to', ['trash', 'restore', 'http://127.0.0.1:1/home', '1', '--to', '']],
])('%s is wrong usage', async (_, argv) => {
  const done = await runIn(folder, argv)
  expect([done.code, done.out]).toEqual([2, ''])
})

test('each command has its help', async () => {
  for (const argv of [['trash'], ['trash', 'list'], ['trash', 'restore'], ['trash', 'remove'], ['freeze']]) {
    const { code, out } = await runIn(folder, [...argv, '--help'])
    expect([code, out]).toEqual([0, expect.stringMatching(/Examples?:\n {2}chunkdav /)])
  }
})
