import { spawn } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { createProgress, duration, progressLine } from '../../client/progress.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { FlakyProxy } from './flaky-proxy.ts'
import { events, runIn, Sink } from './run-cli.ts'
import { randomBytes } from './tree-fixture.ts'

let receiver: TestReceiver
let folder: string
let url: string
beforeAll(async () => {
  receiver = await startReceiver()
  url = receiver.vaultUrl
  folder = mkdtempSync(join(tmpdir(), 'chunkdav-cli-'))
})
afterAll(async () => {
  await receiver.stop()
  rmSync(folder, { recursive: true, force: true })
})

const run = (...argv: string[]) => runIn(folder, argv)

describe('a vault with two sources', () => {
  beforeAll(async () => {
    const source = join(folder, 'source')
    mkdirSync(join(source, 'docs'), { recursive: true })
    writeFileSync(join(source, 'docs', 'letter'), 'Dear reader')
    writeFileSync(join(source, 'large'), randomBytes(1, 2_000_000))
    chmodSync(join(source, 'large'), 0o640)
    utimesSync(join(source, 'large'), 1_600_000_000, 1_600_000_000)
    expect((await run('backup', 'source', url, '--source', 'laptop')).code).toBe(0)
    writeFileSync(join(source, 'docs', 'letter'), 'Dear readers')
    writeFileSync(join(source, 'new'), 'N')
    expect((await run('backup', 'source', url, '--source', 'laptop')).code).toBe(0)
    expect((await run('backup', 'source/docs', url, '--source', 'docs')).code).toBe(0)
  })

  test('checkpoints', async () => {
    const { code, out } = await run('checkpoints', url)
    expect([code, out.trimEnd().split('\n').length]).toEqual([0, 4])
    const [header = '', docs = ''] = out.split('\n')
    expect(header).toMatch(/^SOURCE {2}N {2}TIME +FILES +SIZE {2}WHAT$/)
    expect(docs).toMatch(/^docs {4}1 {2}\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC {6}1 +12 B {2}\S/)
    expect(docs.indexOf('UTC') + 10).toBe(header.indexOf('FILES') + 5)
    const lines = events((await run('checkpoints', url, '--source', 'laptop', '--json')).out)
    expect(lines).toMatchObject([
      { type: 'checkpoint', source: 'laptop', number: 1, state: 'committed' },
      { type: 'checkpoint', number: 2 },
      { type: 'summary', checkpoints: 2 },
    ])
  })

  test('several sources must be told apart', async () => {
    for (const command of [
      ['ls', url],
      ['restore', url, '--to', 'x'],
      ['diff', url, '1', '2'],
    ]) {
      const { code, err } = await run(...command)
      expect([code, err]).toEqual([2, expect.stringMatching(/^chunkdav: .*--source .*docs, laptop\n$/)])
    }
  })

  test('ls', async () => {
    const laptop = ['--source', 'laptop']
    expect((await run('ls', url, ...laptop)).out).toBe('docs/\nlarge\nnew\n')
    expect((await run('ls', url, ...laptop, '--checkpoint', '1')).out).toBe('docs/\nlarge\n')
    expect((await run('ls', url, 'large', '-l', ...laptop)).out).toMatch(
      /^-rw-r----- +\d+ +\d+ +2000000 2020-09-13 12:26:40 large\n$/,
    )
    expect(events((await run('ls', url, 'docs', '--json', ...laptop)).out)).toMatchObject([
      { type: 'entry', path: 'docs/letter', kind: 'file', size: 12 },
      { type: 'summary', source: 'laptop', checkpoint: 2, entries: 1 },
    ])
    expect(await run('ls', url, 'none', ...laptop)).toMatchObject({ code: 1, out: '' })
  })

  test('diff', async () => {
    const { code, out } = await run('diff', url, '1', '2', '--source', 'laptop')
    expect([code, out]).toEqual([0, 'M docs/letter\n+ new\n'])
    const lines = events((await run('diff', url, '2', '1', '--source', 'laptop', '--json')).out)
    expect(lines.at(-1)).toEqual({
      type: 'summary',
      source: 'laptop',
      from: 2,
      to: 1,
      added: 0,
      removed: 1,
      changed: 1,
    })
    for (const [a, b] of [
      ['1', 'latest'],
      ['latest', '1'],
    ] as const) {
      const latest = await run('diff', url, a, b, '--source', 'laptop', '--json')
      expect(events(latest.out).at(-1)).toMatchObject({ from: a === '1' ? 1 : 2, to: a === '1' ? 2 : 1 })
    }
    expect(await run('diff', url, '2', 'latest', '--source', 'laptop')).toMatchObject({
      ...{ code: 0, out: '', err: 'chunkdav: no difference between checkpoints 2 and 2 of laptop\n' },
    })
  })

  test('restore: all, an older one, a path, to a pipe', async () => {
    const laptop = ['--source', 'laptop']
    const all = await run('restore', url, '--to', 'all', ...laptop)
    expect([all.code, all.err]).toEqual([0, ''])
    expect(all.out).toMatch(/^Checkpoint 2 of laptop is restored to .*all\.\n {2}3 files, 2 directories\n/)
    expect(readFileSync(join(folder, 'all', 'large')).equals(randomBytes(1, 2_000_000))).toBe(true)
    await run('restore', url, '--to', 'old', '--checkpoint', '1', '--include', 'docs', ...laptop)
    expect(readFileSync(join(folder, 'old', 'docs', 'letter'), 'utf8')).toBe('Dear reader')
    // A path may be written as in the file system.
    await run('restore', url, '--to', 'slash', '--include', '/docs/', ...laptop)
    expect(readFileSync(join(folder, 'slash', 'docs', 'letter'), 'utf8')).toBe('Dear readers')
    expect(existsSync(join(folder, 'slash', 'large'))).toBe(false)
    const piped = await run('restore', url, '--to', '-', '--include', 'large', ...laptop)
    expect([piped.code, piped.err, piped.bytes.equals(randomBytes(1, 2_000_000))]).toEqual([0, '', true])
  })

  test('restore tells what it could not do, exits 1, and overwrites when told', async () => {
    mkdirSync(join(folder, 'half'))
    writeFileSync(join(folder, 'half', 'new'), 'other')
    const command = ['restore', url, '--to', 'half', '--source', 'laptop']
    const { code, out, err } = await run(...command)
    expect([code, err]).toEqual([
      1,
      expect.stringMatching(/^chunkdav: new: .*--overwrite.*\nchunkdav: 1 path could not/),
    ])
    expect(out).toMatch(/ is restored in part to .*half: 1 path could not be restored\.\n/)
    const json = await run(...command, '--json')
    expect(events(json.out)).toMatchObject([
      { type: 'problem', path: 'new', code: 'destination-exists' },
      { type: 'summary', problems: 1, filesKept: 2, checkpoint: 2 },
    ])
    expect(readFileSync(join(folder, 'half', 'new'), 'utf8')).toBe('other')
    expect((await run(...command, '--overwrite')).code).toBe(0)
    expect(readFileSync(join(folder, 'half', 'new'), 'utf8')).toBe('N')
  })

  test.each([
    [['restore', '{url}', '--to', 'x', '--source', 'none'], 1, 'checkpoint-not-found'],
    [['restore', '{url}', '--to', 'x', '--source', 'laptop', '--checkpoint', '9'], 1, 'checkpoint-not-found'],
    [['restore', '{url}', '--to', 'x', '--source', 'a/b'], 2, 'invalid-name'],
    [['restore', '{url}', '--to', '-', '--source', 'laptop'], 2, 'usage'],
    [['restore', '{url}', '--to', 'x', '--checkpoint', 'newest'], 2, 'usage'],
    [['restore', '{url}'], 2, 'usage'],
    [['restore', '{url}', '--to', ''], 2, 'usage'],
    [['restore', '{url}', '--to', 'x', '--include', ''], 2, 'usage'],
    [['restore', '{url}', '--to', 'source/new/below', '--source', 'laptop'], 1, 'destination-failed'],
    [['backup', '', '{url}'], 2, 'usage'],
    [['restore', '{url}', '--to', 'x', '--source', 'laptop', '--include', 'typo'], 1, 'not-found'],
    [['checkpoints', '{url}', '--source', 'none'], 1, 'checkpoint-not-found'],
    [['restore', '{url}x', '--to', 'x'], 1, 'vault-not-found'],
    [['restore', 'nowhere', '--to', 'x'], 2, 'usage'],
    [['ls', '{url}', '--bogus'], 2, 'usage'],
    [['diff', '{url}', '1', '--source', 'laptop'], 2, 'usage'],
    [['diff', '{url}', '1', 'two', '--source', 'laptop'], 2, 'usage'],
    [['diff', '{url}', 'latest', '9', '--source', 'laptop'], 1, 'checkpoint-not-found'],
    [['nonsense'], 2, 'usage'],
    [['help', 'nonsense'], 2, 'usage'],
    [['trash', 'help', 'nonsense'], 2, 'usage'],
  ])('%j exits %i with one line', async (command, code, problem) => {
    const argv = command.map((word) => word.replace('{url}', url))
    const plain = await run(...argv)
    expect([plain.code, plain.err]).toEqual([code, expect.stringMatching(/^chunkdav: [^\n]+\n$/)])
    expect(plain.err).not.toMatch(/^\s+at /m)
    expect(existsSync(join(folder, 'x'))).toBe(false)
    const json = await run(...argv, '--json')
    expect([json.code, events(json.out).at(-1)]).toMatchObject([code, { type: 'error', code: problem }])
  })
})

describe('a server that is no receiver', () => {
  const commands = [['checkpoints'], ['ls'], ['backup', 'source'], ['restore', '--to', 'x']]
  const attempt = async (listener: RequestListener, scheme = 'http') => {
    const server = createServer(listener)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const origin = `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`
    const runs = []
    for (const command of commands) runs.push(await run(...command, `${origin}/home`))
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    return { origin, runs }
  }

  test.each([200, 400, 404, 405, 501])('is told so: status %i', async (status) => {
    const { origin, runs } = await attempt((_, response) =>
      response.writeHead(status, { 'content-type': 'text/html' }).end('<p>hello</p>'),
    )
    const line = `chunkdav: ${origin} answers, but is no chunkdav receiver (status ${status}); check the URL\n`
    expect(runs.map(({ code, err }) => [code, err])).toEqual(commands.map(() => [1, line]))
  })

  test('TLS where there is none', async () => {
    const { runs } = await attempt((_, response) => response.end(), 'https')
    for (const { code, err } of runs) expect([code, err]).toEqual([1, expect.stringMatching(/ TLS .*http:/)])
  })
})

test.each([
  ['help nonsense', "unknown command 'nonsense'; see chunkdav --help"],
  ['trash help nonsense', "unknown command 'nonsense'; see chunkdav trash --help"],
  ['help trash nonsense', "unknown command 'nonsense'; see chunkdav trash --help"],
  ['trash nonsense', "unknown command 'nonsense'; see chunkdav trash --help"],
  ['trash restore', "missing required argument 'url'; see chunkdav trash restore --help"],
  ['ls --bogus', "unknown option '--bogus'; see chunkdav ls --help"],
])('wrong usage of %s is told with the help that helps', async (words, text) => {
  expect(await run(...words.split(' '))).toEqual({
    ...{ code: 2, out: '', err: `chunkdav: ${text}\n` },
    bytes: Buffer.of(),
  })
})

test('help and version', async () => {
  const { code, out, err } = await run('--help')
  expect([code, err]).toEqual([0, ''])
  for (const command of ['serve', 'reindex', 'backup', 'restore', 'checkpoints', 'ls', 'diff']) {
    expect(out).toMatch(new RegExp(`^  ${command}\\b`, 'm'))
    expect((await run(command, '--help')).code).toBe(0)
  }
  for (const command of ['backup', 'restore', 'checkpoints', 'ls', 'diff']) {
    const { out: help } = await run(command, '--help')
    expect(help).toMatch(/Examples:\n {2}chunkdav /)
    expect(help).not.toMatch(/default: (false|\[\]|"")/)
  }
  expect(await run('--version')).toMatchObject({ code: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) })
  const trash = (await run('trash', 'restore', '--help')).out
  for (const words of ['help trash restore', 'trash help restore']) {
    expect(await run(...words.split(' '))).toMatchObject({ code: 0, out: trash, err: '' })
  }
  expect(await run('help', 'ls')).toMatchObject({ code: 0, out: (await run('ls', '--help')).out })
  expect(await run('help')).toMatchObject({ code: 0, out })
  expect(await run()).toMatchObject({ code: 2, out: '', err: expect.stringMatching(/^Usage: chunkdav/) })
})

describe('the program itself', () => {
  const bin = fileURLToPath(new URL('../../client/bin.ts', import.meta.url))
  const start = (...argv: string[]) => {
    const env = { ...process.env, CHUNKDAV_STATE_DIR: join(folder, 'state') }
    const child = spawn(process.execPath, [bin, ...argv], { env, cwd: folder })
    const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
    return { child, ended, out: text(child.stdout), err: text(child.stderr) }
  }

  test('an empty standard input is doubtful', async () => {
    const backup = (input: string) => {
      const run = start('backup', '-', url, '--source', `piped-${input}`)
      run.child.stdin.end(input)
      return run
    }
    const [empty, full] = [backup(''), backup('x')]
    expect([await empty.ended, await full.ended]).toEqual([0, 0])
    expect(await empty.err).toBe(
      'chunkdav: standard input was empty; was the command before the pipe successful?\n',
    )
    expect([await full.err, await empty.out]).toEqual(['', expect.stringMatching(/^Checkpoint 1 /)])
  })

  test('tells scripts how far a stream is, and claims not to know how long it is', async () => {
    const { child, ended, out } = start('backup', '-', url, '--source', 'slowly', '--json')
    child.stdin.write('first')
    let told = 0
    child.stdout.on('data', () => told++)
    while (told === 0) await new Promise((resolve) => setTimeout(resolve, 50))
    child.stdin.end('last')
    expect(await ended).toBe(0)
    const [first] = events(await out)
    expect(first).toMatchObject({ type: 'progress', bytesDone: 0, seconds: expect.any(Number) })
    expect(first).not.toHaveProperty('bytesTotal')
    expect(events(await out).at(-1)).toMatchObject({ type: 'summary', bytes: 9 })
  })

  test('hands serve to the receiver, and everything else to the client', async () => {
    const version = start('--version')
    expect([await version.ended, await version.out]).toEqual([0, expect.stringMatching(/^\d/)])
    const help = start('help', 'serve')
    expect([await help.ended, await help.out]).toEqual([0, expect.stringContaining('--listen')])
    const serve = start('serve', '--listen', 'nonsense')
    expect(await serve.ended).toBe(2)
    expect(await serve.err).toMatch(/HOST:PORT/)
  })

  test('a working directory that is gone is told in one line', async () => {
    const gone = join(folder, 'gone')
    mkdirSync(gone)
    const script = 'cd "$1" && rmdir "$1" && exec "$2" "$3" checkpoints x'
    const child = spawn('sh', ['-c', script, 'sh', gone, process.execPath, bin])
    const err = text(child.stderr)
    expect(await err).toMatch(/^chunkdav: the working directory [^\n]+\n$/)
  })

  test.runIf(process.platform === 'linux')('output that cannot be written is told in one line', async () => {
    const child = spawn('sh', ['-c', '"$1" "$2" --help > /dev/full', 'sh', process.execPath, bin])
    expect(await text(child.stderr)).toBe(
      'chunkdav: cannot write to standard output: no space is left on the disk\n',
    )
  })

  test('SIGINT stops a restore cleanly, and the same command goes on', async () => {
    const source = join(folder, 'slow')
    writeFileSync(source, randomBytes(5, 20_000_000))
    expect((await run('backup', 'slow', url, '--source', 'slow')).code).toBe(0)
    const proxy = await FlakyProxy.start(receiver.url)
    try {
      // Every connection breaks before the end: the restore keeps trying until it is told to stop.
      proxy.otherwise = { answerBytes: 30_000 }
      const through = `${proxy.url}/home`
      const { child, ended, err } = start('restore', through, '--source', 'slow', '--to', 'slow-out')
      while (proxy.connections < 4) await new Promise((resolve) => setTimeout(resolve, 20))
      child.kill('SIGINT')
      expect(await ended).toBe(1)
      expect(await err).toBe('chunkdav: stopped; run the same command again, it goes on from what is done\n')
    } finally {
      await proxy.stop()
    }
    expect((await run('restore', url, '--source', 'slow', '--to', 'slow-out')).code).toBe(0)
    expect(readFileSync(join(folder, 'slow-out', 'slow')).equals(readFileSync(source))).toBe(true)
  })
})

describe('progress', () => {
  test.each([
    [{ filesDone: 1, bytesDone: 0 }, undefined, '1 file  0 B'],
    [{ filesDone: 3, bytesDone: 5000 }, 1000, '3 files  5 kB  1 kB/s'],
    [
      { filesDone: 1, filesTotal: 4, bytesDone: 2500, bytesTotal: 10_000 },
      100,
      '█████░░░░░░░░░░░░░░░  25%  1 of 4 files  2.5 kB of 10 kB  100 B/s  1 min 15 s left',
    ],
    [
      { filesDone: 4, filesTotal: 4, bytesDone: 12_000, bytesTotal: 10_000 },
      undefined,
      '████████████████████ 100%  4 of 4 files  12 kB of 10 kB',
    ],
  ])('%j', (counts, rate, line) => expect(progressLine(counts, rate)).toBe(line))

  test.each([
    [0.04, '0.0 s'],
    [41.4, '41 s'],
    [59.7, '1 min 0 s'],
    [200, '3 min 20 s'],
    [7500, '2 h 5 min'],
  ])('%d seconds', (seconds, shown) => expect(duration(seconds)).toBe(shown))

  test('for scripts, about once a second', () => {
    vi.useFakeTimers()
    try {
      const told: unknown[] = []
      const progress = createProgress({ stream: new Sink(), isTTY: true, json: (event) => told.push(event) })
      for (let filesDone = 0; filesDone < 25; filesDone++) {
        progress.update({ filesDone, bytesDone: 10 * filesDone, filesTotal: 25 })
        vi.advanceTimersByTime(100)
      }
      progress.stop()
      expect(told).toEqual([
        { type: 'progress', filesDone: 10, bytesDone: 100, filesTotal: 25, seconds: 1 },
        { type: 'progress', filesDone: 20, bytesDone: 200, filesTotal: 25, seconds: 2 },
      ])
    } finally {
      vi.useRealTimers()
    }
  })

  test('nothing where nobody watches; a bar on a terminal that goes away again', () => {
    const [quiet, watched] = [new Sink(), Object.assign(new Sink(), { isTTY: true, columns: 100 })]
    for (const stream of [quiet, watched]) {
      const progress = createProgress({ stream, isTTY: stream === watched })
      progress.update({ filesDone: 1, bytesDone: 10 })
      progress.stop()
      progress.stop()
      progress.update({ filesDone: 2, bytesDone: 20 })
    }
    expect(quiet.text).toBe('')
    expect(watched.text).toMatch(/1 file {2}10 B/)
    expect(watched.text).not.toMatch(/2 files/)
  })
})
