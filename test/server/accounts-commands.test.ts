/** The commands `user` and `token`: what they say, what they refuse, and that a running receiver follows them. */
import { execFileSync, spawn } from 'node:child_process'
import { access, chmod, chown, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { Accounts } from '../../server/access/accounts.ts'
import { main } from '../../server/main.ts'
import { startReceiver } from '../support/receiver.ts'

let dir: string
let data: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'chunkdav-commands-'))
  data = join(dir, 'data')
})
afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs a command in this process. */
async function run(...words: string[]): Promise<Ended> {
  const [out, err]: [string[], string[]] = [[], []]
  const into = (pieces: string[]) => (text: string | Uint8Array) => pieces.push(String(text)) > 0
  const spies = [
    vi.spyOn(process.stdout, 'write').mockImplementation(into(out)),
    vi.spyOn(process.stderr, 'write').mockImplementation(into(err)),
  ]
  const before = process.exitCode
  process.exitCode = 0
  try {
    await main(words.includes('--help') ? words : [...words, '--data', data])
    return { code: Number(process.exitCode ?? 0), out: out.join(''), err: err.join('') }
  } finally {
    process.exitCode = before
    for (const spy of spies) spy.mockRestore()
  }
}

/** Runs it as a process, with what stands on its standard input. */
async function runProcess(words: string[], input: string): Promise<Ended> {
  const bin = new URL('../../client/bin.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [bin, ...words, '--data', data])
  let [out, err] = ['', '']
  child.stdout.on('data', (text: Buffer) => {
    out += text
  })
  child.stderr.on('data', (text: Buffer) => {
    err += text
  })
  child.stdin.end(input)
  const code = await new Promise<number>((resolve) => child.once('close', (code) => resolve(code ?? -1)))
  return { code, out, err }
}

async function passwordFile(password: string): Promise<string> {
  const path = join(dir, 'password')
  await writeFile(path, password)
  return path
}

async function addUser(name: string, ...words: string[]): Promise<Ended> {
  return await run('user', 'add', name, '--password-file', await passwordFile('geheim 1\n'), ...words)
}

async function login(name: string, password: string): Promise<string | undefined> {
  const accounts = await Accounts.open({ dataDir: data })
  try {
    return (await accounts.verify({ kind: 'basic', name, password }, '192.0.2.1'))?.name
  } finally {
    await accounts.close()
  }
}

async function audited(): Promise<Record<string, unknown>[]> {
  const lines = (await readFile(join(data, 'audit.jsonl'), 'utf8')).trimEnd().split('\n')
  return lines.map((line) => {
    const { time: _time, by, ...rest } = JSON.parse(line) as Record<string, unknown>
    expect(by).toMatch(/^os:./)
    return rest
  })
}

const oneLine = /^chunkdav: [^\n]+\n$/

test('a user from beginning to end, each step in the audit', async () => {
  const added = await addUser('alice', '--grant', 'home=write', '--grant', '*=read')
  expect([added.code, added.out]).toEqual([0, 'alice was added, and may: home=write *=read\n'])
  expect(added.err).toContain('asks everybody who they are')
  expect(added.err).toContain('backup DIR http://alice@HOST:PORT/home')
  expect((await stat(data)).mode & 0o777).toBe(0o700)
  expect(await login('alice', 'geheim 1')).toBe('alice')

  await writeFile(join(dir, 'empty'), '')
  const empty = await run('user', 'passwd', 'alice', '--password-file', join(dir, 'empty'))
  expect([empty.code, empty.err]).toEqual([2, 'chunkdav: no password came\n'])
  await writeFile(join(dir, 'other'), 'geheim 2\r\nand another line\n')
  expect((await run('user', 'passwd', 'alice', '--password-file', join(dir, 'other'))).code).toBe(0)
  expect([await login('alice', 'geheim 1'), await login('alice', 'geheim 2')]).toEqual([undefined, 'alice'])

  expect((await run('user', 'grant', 'alice', 'photos=append-only', '--metrics')).out).toBe(
    'alice may now: home=write *=read photos=append-only metrics\n',
  )
  expect((await run('user', 'revoke', 'alice', '*', 'home', '--metrics')).out).toBe(
    'alice may now: photos=append-only\n',
  )
  expect((await run('user', 'list')).out).toMatch(/^NAME .*\nalice +yes +0 +photos=append-only\n$/)
  const { token } = JSON.parse((await run('token', 'create', 'alice', '--json')).out) as { token: string }
  const removed = await run('user', 'remove', 'alice')
  expect([removed.code, removed.out]).toEqual([0, 'alice was removed, with 1 token\n'])
  expect(removed.err).toContain('Nobody is left')
  expect(await login('alice', 'geheim 2')).toBeUndefined()
  const lines = await audited()
  expect(lines).toEqual([
    { event: 'user-added', user: 'alice', may: 'home=write *=read' },
    { event: 'user-changed', user: 'alice', password: 'changed' },
    { event: 'user-changed', user: 'alice', may: expect.stringContaining('metrics') },
    { event: 'user-changed', user: 'alice', may: 'photos=append-only' },
    { event: 'token-created', user: 'alice', id: token.slice(4, 16), created: expect.any(String) },
    { event: 'user-removed', user: 'alice', tokens: 1 },
  ])
  const all = await readFile(join(data, 'audit.jsonl'), 'utf8')
  expect(all).not.toContain('geheim')
  expect(all).not.toContain(token.slice(17))
})

test('a token from beginning to end', async () => {
  await addUser('alice', '--grant', 'home=write')
  const made = await run('token', 'create', 'alice', '--label', 'my laptop', '--expires', '90d')
  expect(made.out).toMatch(/^cdt_[0-9a-f]{12}_[0-9a-f]{72}\n$/)
  expect(made.err).toMatch(/^Token [0-9a-f]{12} of alice, good until 2\d\d\d-.* It is not shown again\.\n$/)
  const token = made.out.trim()
  expect(await login('alice', token)).toBe('alice')
  expect(await readFile(join(data, 'users.json'), 'utf8')).not.toContain(token.slice(17))
  const narrow = await run(
    'token',
    'create',
    'alice',
    '--grant',
    'home=admin',
    '--grant',
    'x=read',
    '--metrics',
  )
  expect(narrow.err).toContain('alice has write on home, so this token is good for write there')
  expect(narrow.err).toContain('alice has no right on x, so this token is good for nothing there')

  const { out } = await run('token', 'list', 'alice', '--json')
  const rows = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(rows).toEqual([
    expect.objectContaining({
      type: 'token',
      id: token.slice(4, 16),
      user: 'alice',
      label: 'my laptop',
      lastUsed: expect.any(String),
    }),
    expect.objectContaining({
      type: 'token',
      grants: { home: 'admin', x: 'read' },
      metrics: true,
      hasExpired: false,
    }),
    { type: 'summary', tokens: 2 },
  ])
  expect(out).not.toContain('hash')
  const table = await run('token', 'list')
  expect(table.out).toMatch(/^ID .*\n[0-9a-f]{12} {2}alice {2}my laptop +all of its user +2\d{3}-/)
  // By its id, or by itself.
  expect((await run('token', 'revoke', token)).out).toBe(
    `the token ${token.slice(4, 16)} of alice is revoked\n`,
  )
  expect(await login('alice', token)).toBeUndefined()
  expect((await run('token', 'revoke', narrow.out.slice(4, 16))).code).toBe(0)
  expect((await run('token', 'list')).err).toBe('there are no tokens\n')
  expect((await audited()).map(({ event }) => event)).toEqual([
    'user-added',
    'token-created',
    'token-created',
    'token-revoked',
    'token-revoked',
  ])
})

describe('users without a password here', () => {
  test.each([['--htpasswd'], ['--no-password']])('%s', async (flag) => {
    expect((await run('user', 'add', 'bob', '--grant', 'home=read', flag)).code).toBe(0)
    expect((await run('user', 'list', '--json')).out).toContain('"password":false')
    expect(await login('bob', '')).toBeUndefined()
  })

  test('a user of an htpasswd file has what was granted', async () => {
    await run('user', 'add', 'bob', '--grant', 'home=read', '--htpasswd')
    const htpasswd = join(dir, 'htpasswd')
    execFileSync('htpasswd', ['-cbB', htpasswd, 'bob', 'geheim 3'], { stdio: 'ignore' })
    const accounts = await Accounts.open({ dataDir: data, htpasswd })
    const who = await accounts.verify({ kind: 'basic', name: 'bob', password: 'geheim 3' }, '192.0.2.1')
    expect(who?.rightOn('home')).toBe('read')
    await accounts.close()
  })
})

describe('the password', () => {
  test('is a line of standard input where there is no terminal', async () => {
    expect((await runProcess(['user', 'add', 'alice'], 'geheim 1\nmore')).code).toBe(0)
    expect(await login('alice', 'geheim 1')).toBe('alice')
    expect((await runProcess(['user', 'passwd', 'alice', '--password-file', '-'], 'geheim 2')).code).toBe(0)
    expect(await login('alice', 'geheim 2')).toBe('alice')
  })

  test.each([
    ['none', ''],
    ['seven characters', '1234567'],
    ['a control character', '12345678\t'],
    ['too long', 'a'.repeat(2000)],
  ])('%s is refused, and nothing is made', async (_, text) => {
    const ended = await run('user', 'add', 'alice', '--password-file', await passwordFile(text))
    expect(ended.code).toBe(2)
    expect(ended.err).toMatch(oneLine)
    await expect(access(join(data, 'users.json'))).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('a file that is not there', async () => {
    const ended = await run('user', 'add', 'alice', '--password-file', join(dir, 'none'))
    expect([ended.code, ended.err]).toEqual([1, `chunkdav: there is nothing at ${join(dir, 'none')}\n`])
  })
})

test.skipIf(process.platform !== 'linux')('a terminal is asked twice and shows nothing of it', async () => {
  const bin = new URL('../../client/bin.ts', import.meta.url).pathname
  const ask = async (first: string, second: string): Promise<{ shown: string; code: number }> => {
    const script = `
import os, pty, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b''
answers = [(b'New password for alice: ', os.environ['FIRST']), (b'Once more: ', os.environ['SECOND'])]
while True:
    try:
        piece = os.read(fd, 1000)
    except OSError:
        break
    if not piece:
        break
    seen += piece
    if answers and answers[0][0] in seen:
        os.write(fd, answers.pop(0)[1].encode() + b'\\r')
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`
    const words = ['-c', script, process.execPath, bin, 'user', 'add', 'alice', '--data', data]
    const child = spawn('python3', words, { env: { ...process.env, FIRST: first, SECOND: second } })
    let shown = ''
    child.stdout.on('data', (text: Buffer) => {
      shown += text
    })
    const code = await new Promise<number>((resolve) => child.once('close', (code) => resolve(code ?? -1)))
    return { shown, code }
  }
  const different = await ask('geheim 1', 'geheim 2')
  expect(different.code).toBe(2)
  expect(different.shown).toContain('two different passwords')
  expect((await ask('\u0003', '')).code).toBe(1)
  const same = await ask('geheim 1', 'geheim 1')
  expect([same.code, same.shown]).toEqual([0, expect.not.stringContaining('geheim')])
  expect(await login('alice', 'geheim 1')).toBe('alice')
})

describe('what is refused', () => {
  let shared: string
  beforeAll(async () => {
    shared = await mkdtemp(join(tmpdir(), 'chunkdav-commands-'))
    data = shared
    await run('user', 'add', 'alice', '--grant', 'home=write', '--no-password')
  })
  afterAll(async () => {
    await rm(shared, { recursive: true, force: true })
  })

  test.each([
    [2, ['user', 'add', 'a b', '--no-password']],
    [2, ['user', 'add', '../x', '--no-password']],
    [2, ['user', 'add', 'anybody', '--no-password']],
    [2, ['user', 'add', 'bob', '--no-password', '--grant', 'home']],
    [2, ['user', 'add', 'bob', '--no-password', '--grant', 'home=all']],
    [2, ['user', 'add', 'bob', '--no-password', '--grant', 'HOME=read']],
    [2, ['user', 'add', 'bob', '--no-password', '--password-file', '/dev/null']],
    [2, ['user', 'add']],
    [2, ['user', 'grant', 'alice']],
    [2, ['user', 'grant', 'alice', 'home=']],
    [2, ['user', 'revoke', 'alice']],
    [2, ['user', 'frob']],
    [2, ['token', 'frob']],
    [2, ['token', 'create', 'alice', '--expires', 'soon']],
    [2, ['token', 'create', 'alice', '--expires', '0']],
    [2, ['token', 'create', 'alice', '--label', 'a\nb']],
    [2, ['token', 'create', 'alice', '--frob']],
    [1, ['user', 'add', 'alice', '--no-password']],
    [1, ['user', 'passwd', 'bob', '--password-file', '/dev/null']],
    [1, ['user', 'grant', 'bob', 'home=read']],
    [1, ['user', 'revoke', 'alice', 'photos']],
    [1, ['user', 'remove', 'bob']],
    [1, ['token', 'create', 'bob']],
    [1, ['token', 'list', 'bob']],
    [1, ['token', 'revoke', '0123456789ab']],
  ])('%d %j', async (code, words) => {
    data = shared
    const before = await readFile(join(data, 'users.json'), 'utf8')
    const ended = await run(...words)
    expect([ended.code, ended.out]).toEqual([code, ''])
    expect(ended.err).toMatch(oneLine)
    expect(await readFile(join(data, 'users.json'), 'utf8')).toBe(before)
  })

  test('a damaged file is named, and left as it is', async () => {
    await addUser('alice')
    await writeFile(join(data, 'users.json'), '{"format":1')
    for (const words of [
      ['user', 'list'],
      ['user', 'remove', 'alice'],
      ['token', 'list'],
    ]) {
      const ended = await run(...words)
      expect([ended.code, ended.err]).toEqual([1, expect.stringContaining(join(data, 'users.json'))])
    }
    expect(await readFile(join(data, 'users.json'), 'utf8')).toBe('{"format":1')
  })

  test('no data directory', async () => {
    const ended = await run('user', 'list')
    expect([ended.code, ended.err]).toEqual([1, `chunkdav: there is nothing at ${data}\n`])
  })
})

test.each([
  ['user add', 'RIGHT is one of'],
  ['user passwd', 'user passwd alice'],
  ['user grant', 'append-only'],
  ['user revoke', 'revoke alice'],
  ['user list', 'user list'],
  ['user remove', 'stays'],
  ['token create', 'Bearer'],
  ['token list', '--json'],
  ['token revoke', 'token revoke'],
])('%s --help has examples and the exit codes', async (command, word) => {
  const { code, out } = await run(...command.split(' '), '--help')
  expect([code, out]).toEqual([0, expect.stringMatching(/Example.*Exit codes: 0/s)])
  expect(out).toContain(word)
  expect(out).not.toContain('default: false')
})

test('processes that add users and tokens at once, beside a receiver, lose nothing', async () => {
  await addUser('alice', '--grant', 'home=admin')
  await using receiver = await startReceiver({ dataDir: data })
  const words = [1, 2].flatMap((i) => [
    ['user', 'add', `user${i}`, '--no-password'],
    ['token', 'create', 'alice'],
  ])
  const ended = await Promise.all(words.map((each) => runProcess(each, '')))
  expect(ended.map(({ code }) => code)).toEqual(words.map(() => 0))
  const listed = await run('user', 'list', '--json')
  expect(listed.out).toContain('"users":3')
  const tokens = ended.filter(({ out }) => out.startsWith('cdt_')).map(({ out }) => out.trim())
  expect(tokens).toHaveLength(2)
  const { accounts } = receiver.receiver
  const until = Date.now() + 5000
  for (const token of tokens) {
    while ((await accounts.verify({ kind: 'bearer', token }, '192.0.2.1')) === undefined) {
      if (Date.now() > until) throw new Error('the receiver does not follow')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
})

test('serve names the line of an htpasswd file that it cannot take', async () => {
  const htpasswd = join(dir, 'htpasswd')
  execFileSync('htpasswd', ['-cb', '-m', htpasswd, 'bob', 'geheim 3'], { stdio: 'ignore' })
  const ended = await run('serve', '--listen', '127.0.0.1:0', '--htpasswd', htpasswd)
  expect([ended.code, ended.out]).toEqual([2, ''])
  expect(ended.err).toMatch(/^chunkdav: \S+htpasswd, line 1: the password of bob [^\n]+\n$/)
})

test('a receiver does not start with users that it cannot read, and does when they are mended', async () => {
  await addUser('alice')
  const path = join(data, 'users.json')
  const whole = await readFile(path, 'utf8')
  await writeFile(path, whole.replace('"format": 1', '"format": 2'))
  await expect(startReceiver({ dataDir: data })).rejects.toMatchObject({ code: 'store-corrupt' })
  await writeFile(path, whole)
  await using receiver = await startReceiver({ dataDir: data })
  expect(receiver.receiver.accounts.isEmpty).toBe(false)
})

test.skipIf(process.geteuid?.() !== 0)(
  'root acts as the owner of the data, so that the receiver can read it',
  async () => {
    const nobody = 65534
    await mkdir(data, { mode: 0o700 })
    await chown(data, nobody, nobody)
    await chmod(dir, 0o755)
    expect((await runProcess(['user', 'add', 'alice'], 'geheim 1\n')).code).toBe(0)
    for (const name of ['users.json', 'users.lock', 'users.lock/LOCK', 'audit.jsonl']) {
      expect((await stat(join(data, name))).uid).toBe(nobody)
    }
    expect(await readFile(join(data, 'audit.jsonl'), 'utf8')).toContain('"by":"os:root"')
  },
)
