import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { databaseFolder, ownStatePatterns } from '../../client/commands/own-state.ts'
import { errorEvent, exitCodeOf, lineOf, reasonOf } from '../../client/commands/report.ts'
import { defaultSourceName } from '../../client/commands/source-name.ts'
import { ExcludeRules } from '../../client/sources/exclude-rules.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'
import { Problem } from '../../protocol/problem.ts'
import { parseSourceName } from '../../protocol/url.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { events, runIn } from './run-cli.ts'

let receiver: TestReceiver
let folder: string
let url: string
beforeAll(async () => {
  receiver = await startReceiver()
  url = receiver.vaultUrl
  folder = mkdtempSync(join(tmpdir(), 'chunkdav-backup-'))
})
afterAll(async () => {
  await receiver.stop()
  rmSync(folder, { recursive: true, force: true })
})

/** A folder in `folder` that holds these files. */
function tree(name: string, files: Record<string, string>): string {
  const path = join(folder, name)
  mkdirSync(path, { recursive: true })
  for (const [file, content] of Object.entries(files)) writeFileSync(join(path, file), content)
  return path
}

describe('the name of a source that nobody gave', () => {
  test.each([
    ['laptop', ['/home/alice'], 'laptop-home-alice'],
    ['laptop', ['sub'], 'laptop-here-sub'],
    ['web-1.example', ['/'], 'web-1.example'],
    ['laptop', ['-'], 'laptop-stdin'],
    ['laptop', ['/home/Документы'], /^laptop-home-[0-9a-f]{8}$/],
    ['laptop', ['/a b'], /^laptop-a-b-[0-9a-f]{8}$/],
    ['laptop', ['/a..b'], /^laptop-a\.b-[0-9a-f]{8}$/],
    ['Ноутбук', ['/Фото'], /^backup-[0-9a-f]{8}$/],
    ['laptop', [`/${'x'.repeat(200)}`], /^laptop-x{112}-[0-9a-f]{8}$/],
    ['laptop', ['/a', '/b'], /^laptop-a-[0-9a-f]{8}$/],
  ])('%s %j', (host, paths, expected) => {
    const name = defaultSourceName(host, '/here', paths)
    expect(name).toEqual(typeof expected === 'string' ? expected : expect.stringMatching(expected))
    expect(parseSourceName(name)).toBe(name)
  })

  test('differs where what is meant differs', () => {
    const long = `/${'x'.repeat(130)}`
    const meant = [['/a b'], ['/a-b'], ['/a?b'], ['/Документы'], ['/Фото'], [`${long}1`], [`${long}2`]]
    const lists = [['/a', '/b'], ['/a', '/c'], ['/a'], ['/a', '/b', '/c']]
    const names = [...meant, ...lists].map((paths) => defaultSourceName('host', '/', paths))
    expect(new Set(names).size).toBe(names.length)
    expect(defaultSourceName('host', '/', ['b', '/a'])).toBe(defaultSourceName('host', '/', ['/a', '/b']))
  })
})

describe("the client's own state", () => {
  const location = parseVaultUrl('http://127.0.0.1:8420/home')

  test('below the source it is left out, and nothing else is', async () => {
    const home = tree('home', { letter: 'x' })
    const state = tree('home/.local/state', { notes: 'mine' })
    for (const expected of ['x', 'y']) {
      writeFileSync(join(home, 'letter'), expected)
      expect((await runIn(folder, ['backup', 'home', url, '--source', 'home'], state)).code).toBe(0)
      const { out } = await runIn(folder, ['ls', url, '.local/state', '--source', 'home'])
      expect(out).toBe('notes\n')
    }
    expect((await runIn(folder, ['backup', 'home', 'half', url, '--source', 'two'], state)).code).toBe(2)
    tree('other', { o: 'o' })
    expect((await runIn(folder, ['backup', 'home', 'other', url, '--source', 'two'], state)).code).toBe(0)
    const { out } = await runIn(folder, ['ls', url, 'home/.local/state', '--source', 'two'])
    expect(out).toBe('notes\n')
    expect((await runIn(folder, ['backup', '--help'])).out).toMatch(/own state is left out/)
  })

  test.each([
    ['state', ['.'], ['state']],
    ['state', ['state'], ['']],
    ['not/yet/there', ['.'], ['not/yet/there']],
    ['link/state', ['real'], ['state']],
    ['a [b] *!#{c}\\ ', ['.'], ['a [b] *!#{c}\\ ']],
    ['!ü', ['.'], ['!ü']],
    ['state', ['source'], []],
    ['states', ['state'], []],
    ['source/state', ['source', 'other'], ['source/state']],
  ])('state folder %j, sources %j', async (state, sources, expected) => {
    const base = join(folder, 'patterns')
    mkdirSync(join(base, 'real'), { recursive: true })
    rmSync(join(base, 'link'), { force: true })
    symlinkSync('real', join(base, 'link'))
    const paths = sources.map((source) => join(base, source))
    const patterns = await ownStatePatterns(join(base, state), paths)
    const rules = new ExcludeRules({ patterns, caches: false })
    const database = databaseFolder('', location, 'laptop', 'dir')
    const matched = (path: string) => rules.matches(Buffer.from(path).toString('latin1'), true)
    expect(patterns).toHaveLength(2 * expected.length)
    for (const inside of expected) {
      const path = inside === '' ? '' : `${inside}/`
      expect([matched(path + database), matched(`${path}${database}.damaged`)]).toEqual([true, true])
      expect([matched(`${path}notes`), matched(`x/${path}${database}`)]).toEqual([false, false])
    }
  })
})

describe('run by npm', () => {
  test.each([
    ['chunkdav', 'chunkdav', 'inner', /Restore it with: npm run -s chunkdav -- restore /],
    // A script of another package may have gone elsewhere before it calls us.
    ['theirs', 'chunkdav', 'outer', /Restore it with: chunkdav restore /],
    ['chunkdav', 'test', 'outer', /Restore it with: chunkdav restore /],
  ])('package %s, script %s', async (name, script, file, hint) => {
    const outer = tree('outer', { outer: 'o' })
    const env = {
      npm_package_name: name,
      npm_lifecycle_event: script,
      INIT_CWD: tree('outer/inner', { inner: 'i' }),
    }
    const source = `${name}-${script}`
    const { code, out } = await runIn(outer, ['backup', '.', url, '--source', source], undefined, env)
    expect([code, out]).toEqual([0, expect.stringMatching(hint)])
    const { out: list } = await runIn(folder, ['ls', url, '--source', source])
    expect(list.split('\n')).toContain(file)
    const { err } = await runIn(outer, ['backup', url], undefined, env)
    expect(err.includes('see npm run -s chunkdav -- backup --help')).toBe(file === 'inner')
    rmSync(outer, { recursive: true })
  })
})

describe('the state folder', () => {
  test.each([
    ['file/below', /not a directory; CHUNKDAV_STATE_DIR/],
    ['/proc/chunkdav', /CHUNKDAV_STATE_DIR/],
  ])('that cannot be made: %s', async (state, expected) => {
    tree('small', { file: 'x' })
    const stateFolder = resolve(folder, 'small', state)
    const { code, err } = await runIn(folder, ['backup', 'small', url], stateFolder)
    expect([code, err]).toEqual([1, expect.stringMatching(expected)])
    expect(err).toMatch(/^chunkdav: [^\n]+\n$/)
  })
})

describe('what is told', () => {
  test('a file name cannot forge a line', async () => {
    const evil = 'x\u001b[31mRED\nchunkdav: all is well'
    const shown = 'x\\x1b[31mRED\\x0achunkdav: all is well'
    tree('evil', { [evil]: 'x' })
    tree('in-the-way', { [evil]: 'other' })
    expect((await runIn(folder, ['backup', 'evil', url, '--source', 'evil'])).code).toBe(0)
    const restore = ['restore', url, '--source', 'evil', '--to', 'in-the-way']
    const { err } = await runIn(folder, restore)
    const [first, second, ...others] = err.trimEnd().split('\n')
    expect([first?.startsWith(`chunkdav: ${shown}: `), others]).toEqual([true, []])
    expect(second).toMatch(/^chunkdav: 1 path could not/)
    expect(events((await runIn(folder, [...restore, '--json'])).out)[0]).toMatchObject({ path: shown })
    // Nor can one that stands in a message, or where a path is named by its user.
    const missing = await runIn(folder, ['backup', 'evil', url, '--exclude-from', `${evil}\u009b`])
    expect(missing.err).toMatch(/^chunkdav: cannot read the patterns in [ -~]*: no such file or directory\n$/)
  })

  test.each([
    ['EACCES', 'permission denied'],
    ["EACCES: permission denied, open '/a/b'", 'permission denied'],
    ['ENOENT', 'no such file or directory'],
    ["EWEIRD: it is odd, open '/a/b'", 'EWEIRD'],
    ['EVERY word of ours stays', 'EVERY word of ours stays'],
    ['it changed while it was read', 'it changed while it was read'],
  ])('%j reads %j', (detail, reason) => expect(reasonOf(detail)).toBe(reason))

  const full = new Problem('destination-failed', 'no space left in /state')
  const wrong = new Problem('usage', 'it is used wrongly')
  const odd = new Error('odd')
  test.each<[string, unknown, string, number]>([
    ['both', new SuppressedError(full, wrong), 'it is used wrongly', 2],
    ['twice', new SuppressedError(odd, new SuppressedError(odd, full)), 'no space left in /state', 1],
    ['the closing alone says what is wrong', new SuppressedError(full, odd), 'no space left in /state', 1],
    ['neither', new SuppressedError(new Error('later'), odd), 'unexpected Error: odd; please report this', 1],
  ])('a failure while closing after a failure: %s', (_, error, line, code) => {
    expect([lineOf(error), exitCodeOf(error)]).toEqual([line, code])
    expect(errorEvent(error)).toMatchObject({ type: 'error', detail: line })
  })

  test.each([
    ['open', 'EACCES', '/a/b: permission denied'],
    ['connect', 'EWEIRD', '/a/b: EWEIRD'],
  ])('what the system says is no defect of ours: %s %s', (syscall, code, line) => {
    const error = Object.assign(new Error('x'), { syscall, code, path: '/a/b' })
    expect([lineOf(error), exitCodeOf(error)]).toEqual([line, 1])
  })

  test('one is no many', async () => {
    tree('one', { file: '1' })
    const { out } = await runIn(folder, ['backup', 'one', url, '--source', 'one'])
    expect(out).toMatch(/files {2}1 new, 0 changed, 0 unmodified; 1 directory, 1 B in all\n/)
    expect(out).toMatch(/stored; 0 chunks were there already\n/)
  })

  test.each([
    ['dir', 'DIR'],
    ['chunks', 'FILE'],
  ])('a stream as %s', async (as, to) => {
    const content = 'y'.repeat(2000)
    tree('stream', { dump: content })
    const source = `stream-${as}`
    const { code, out } = await runIn(folder, ['backup', 'stream/dump', url, '--as', as, '--source', source])
    expect([code, out]).toEqual([0, expect.stringMatching(/\n {2}stream 2 kB\n {2}data {3}2 kB read, /)])
    expect(out.endsWith(`--to ${to}\n`)).toBe(true)
    const target = join(folder, `restored-${as}`)
    const restored = await runIn(folder, ['restore', url, '--source', source, '--to', target])
    expect(restored.out).toMatch(as === 'dir' ? /\n {2}1 file, 1 directory\n/ : /\n {2}1 file\n/)
    expect(readFileSync(as === 'dir' ? join(target, 'dump') : target, 'utf8')).toBe(content)
    const json = await runIn(folder, ['backup', 'stream/dump', url, '--as', as, '--source', source, '--json'])
    expect(events(json.out).at(-1)).toMatchObject({
      type: 'summary',
      source,
      problems: 0,
      files: 1,
      bytes: 2000,
    })
  })
})
