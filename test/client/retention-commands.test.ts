/** `chunkdav policy`, `prune`, `pin`, `unpin`, `forget` and `quota`: what they say, do, and refuse. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { runCli } from '../../client/cli.ts'
import { parseSize } from '../../client/commands/size.ts'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import { begin, post, put } from '../server/requests.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { events, runIn, Sink } from './run-cli.ts'

let server: TestReceiver
let folder: string
let url: string
const empty = encodeDirectoryObject([])
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'chunkdav-retention-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

beforeEach(async () => {
  server = await startReceiver()
  url = server.vaultUrl
  await put(server, 'dirs', empty)
  return () => server.stop()
})

async function commit(source: string, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const path = await begin(server, source, 'dir')
    expect((await post(server, `${path}/commit`, { root: empty.id })).status).toBe(200)
  }
}
const run = (...argv: string[]) => runIn(folder, argv)
/** Lines of output, with times left out. */
const lines = (out: string): string[] =>
  out
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/g, 'TIME'))

describe('policy', () => {
  test('shows, sets and replaces; of sources too', async () => {
    expect(lines((await run('policy', url)).out)).toEqual([`${url} keeps everything.`])
    const set = await run('policy', url, '--keep-last', '3', '--keep-daily', '7', '--keep-within', '6mo')
    expect([set.code, set.err, lines(set.out)]).toEqual([
      0,
      '',
      [
        `${url} keeps the last 3, 7 daily and all within 6mo.`,
        `See what that means with: chunkdav prune ${url} --dry-run`,
      ],
    ])
    await run('policy', url, '--source', 'photos', '--keep-all')
    await run('policy', url, '--source', 'mail', '--keep-last', '1')
    await run('policy', url, '--keep-yearly', '2', '--time-zone', 'Europe/Vienna')
    expect(lines((await run('policy', url)).out)).toEqual([
      `${url} keeps 2 yearly.`,
      '  but of mail: the last one',
      '  but of photos: everything',
      '  days and weeks are those of Europe/Vienna',
    ])
    const [of] = lines((await run('policy', url, '--source', 'photos')).out)
    expect(of).toBe('Of photos it keeps everything.')
    await run('policy', url, '--source', 'photos', '--inherit')
    const [inherited] = lines((await run('policy', url, '--source', 'photos')).out)
    expect(inherited).toBe('Of photos it keeps 2 yearly, as of the vault.')
    const json = events((await run('policy', url, '--json')).out)
    expect(json).toEqual([
      {
        type: 'summary',
        retention: { keepYearly: 2 },
        sources: { mail: { keepLast: 1 } },
        timeZone: 'Europe/Vienna',
      },
    ])
    expect(lines((await run('policy', url, '--keep-all')).out)[0]).toBe(`${url} keeps everything.`)
  })

  test('keeps the quota that stands there, and the other way round', async () => {
    await run('quota', url, '1GB')
    await run('policy', url, '--keep-last', '2')
    await run('quota', url, '2GB')
    const [settings] = events((await run('policy', url, '--json')).out)
    expect(settings).toEqual({ type: 'summary', retention: { keepLast: 2 }, quotaBytes: 2e9 })
  })

  test.each([
    [['--keep-last', '0'], 'at least 1'],
    [['--keep-daily', 'x'], 'at least 1'],
    [['--keep-within', '6m'], '6mo'],
    [['--keep-all', '--keep-last', '1'], 'exclude each other'],
    [['--time-zone', 'Mars/Olympus'], 'such as Europe/Vienna'],
    [['--inherit'], 'needs a --source'],
    [['--source', '../x', '--keep-all'], 'no source name'],
  ])('%j is refused', async (options, text) => {
    const { code, err } = await run('policy', url, ...options)
    expect([code, err.split('\n')]).toEqual([2, [expect.stringContaining(text), '']])
  })

  test('only receivers have one', async () => {
    const { code, err } = await run('policy', 'webdav+http://alice:secret@127.0.0.1:1/x')
    expect([code, err]).toEqual([2, expect.stringContaining('only')])
    expect(err).not.toContain('secret')
  })
})

describe('prune', () => {
  test('tells what would go and what stays, and why; then does it', async () => {
    await commit('laptop', 3)
    await commit('photos', 1)
    await run('policy', url, '--keep-last', '2')
    await run('policy', url, '--source', 'photos', '--keep-all')
    const tried = await run('prune', url, '--dry-run')
    expect([tried.code, tried.err, lines(tried.out)]).toEqual([
      0,
      '',
      [
        'laptop keeps the last 2.',
        '  1  TIME  would be removed',
        '  2  TIME  keep    last',
        '  3  TIME  keep    newest, last',
        'photos keeps everything.',
        '1 backup would be removed, 3 kept. Nothing was changed.',
      ],
    ])
    expect(lines((await run('prune', url)).out)).toContain('  1  TIME  removed')
    expect(lines((await run('prune', url)).out).at(-1)).toBe('0 backups removed, 3 kept.')
    const found = await run('checkpoints', url, '--source', 'laptop', '--json')
    expect(
      events(found.out)
        .slice(0, -1)
        .map(({ number }) => number),
    ).toEqual([2, 3])
  })

  test('--json; of one source', async () => {
    await commit('a', 2)
    await commit('b', 2)
    await run('policy', url, '--keep-last', '1')
    const found = events((await run('prune', url, '--source', 'a', '--json')).out)
    expect(found).toEqual([
      {
        type: 'checkpoint',
        source: 'a',
        number: 1,
        committedAt: expect.any(String),
        kept: false,
        reasons: [],
      },
      {
        type: 'checkpoint',
        source: 'a',
        number: 2,
        committedAt: expect.any(String),
        kept: true,
        reasons: ['newest', 'last'],
      },
      { type: 'summary', dryRun: false, kept: 1, removed: 1 },
    ])
    const { code, err } = await run('prune', url, '--source', 'c')
    expect([code, err]).toEqual([1, expect.stringContaining('the vault has: a, b')])
  })

  test('where nothing is said, everything stays', async () => {
    await commit('a', 2)
    expect(lines((await run('prune', url)).out).at(-1)).toBe(
      `Everything is kept. Set what is: chunkdav policy ${url} --keep-daily 7 …`,
    )
  })
})

describe('pin, unpin and forget', () => {
  test('what is pinned stays until it is not', async () => {
    await commit('s', 2)
    expect((await run('pin', url, 's/1')).out).toBe('s/1 is pinned.\n')
    expect((await run('checkpoints', url)).out).toContain('pinned')
    const refused = await run('forget', url, 's/1', '--yes')
    expect([refused.code, refused.err]).toEqual([
      1,
      `chunkdav: s/1 is pinned; to delete it: chunkdav unpin ${url} s/1\n`,
    ])
    expect(events((await run('unpin', url, 's/1', '--json')).out)).toEqual([
      { type: 'summary', source: 's', checkpoint: 1, pinned: false },
    ])
    expect((await run('forget', url, 's/1', '--yes')).out).toBe('s/1 is deleted.\n')
    const gone = await run('forget', url, 's/1', '--yes')
    expect([gone.code, gone.err]).toEqual([1, 'chunkdav: checkpoint 1 of s does not exist; there are: 2\n'])
  })

  test.each(['s', 's/', 's/x', 's/1/2', '/1', 's/0'])('"%s" is no checkpoint', async (name) => {
    for (const command of ['pin', 'unpin', 'forget']) expect((await run(command, url, name)).code).toBe(2)
  })

  test('forget asks first, and does not where nobody is', async () => {
    await commit('s', 2)
    const nobody = await run('forget', url, 's/1')
    expect([nobody.code, nobody.err]).toEqual([2, expect.stringContaining('add --yes')])
    const asked: string[] = []
    const answered = async (answer: boolean): Promise<number> => {
      const [stdout, stderr] = [new Sink(), new Sink()]
      return await runCli(['forget', url, 's/1'], {
        stdout,
        stderr,
        stderrIsTerminal: false,
        confirm: async (question) => {
          asked.push(question)
          return answer
        },
        env: { HOME: folder },
        workingFolder: folder,
        signal: new AbortController().signal,
      })
    }
    expect(await answered(false)).toBe(1)
    expect((await run('checkpoints', url, '--json')).out).toContain('"number":1')
    expect(await answered(true)).toBe(0)
    expect((await run('checkpoints', url, '--json')).out).not.toContain('"number":1')
    expect(lines(asked[0] ?? '')).toEqual(['Delete s/1 of TIME for good?'])
  })
})

describe('quota', () => {
  test('shows, sets, and takes off', async () => {
    expect((await run('quota', url)).out).toMatch(/holds .* and has no quota\.\n$/)
    expect((await run('quota', url, '1.5TiB')).out).toMatch(/ of 1\.65 TB\.\n$/)
    expect(events((await run('quota', url, '0', '--json')).out)).toMatchObject([
      { type: 'summary', quotaBytes: 0 },
    ])
    expect((await run('quota', url)).out).toContain('it holds more than it may')
    expect((await run('quota', url, 'none')).out).toContain('has no quota')
    expect((await run('quota', url, 'plenty')).code).toBe(2)
  })

  test.each([
    ['1000', 1000],
    ['500GB', 5e11],
    ['1.5 TiB', 1.5 * 2 ** 40],
    ['64M', 64 * 2 ** 20],
    ['1kb', 1000],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes)
  })
  test.each(['', '-1', 'GB', '1XB', '99999999TB', '1e9'])('"%s" is no size', (text) => {
    expect(() => parseSize(text)).toThrow('is no size')
  })
})
