/** Who gets in, what is remembered, what is held back, and how changes of the files arrive. */
import { execFileSync } from 'node:child_process'
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Accounts, type AccountsOptions } from '../../../server/access/accounts.ts'
import * as passwords from '../../../server/access/passwords.ts'
import { editUsers } from '../../../server/access/users-file.ts'
import { Audit } from '../../../server/audit.ts'
import { makeDataDir, putToken, putUser } from './accounts-folder.ts'

vi.mock('../../../server/access/passwords.ts', async (original) => {
  const real = await original<typeof passwords>()
  return { ...real, isPassword: vi.fn(real.isPassword) }
})
const hashings = vi.mocked(passwords.isPassword)

let dir: Awaited<ReturnType<typeof makeDataDir>>
let opened: Accounts[] = []
beforeEach(async () => {
  dir = await makeDataDir()
  hashings.mockClear()
})
afterEach(async () => {
  for (const accounts of opened) await accounts.close()
  opened = []
  await dir[Symbol.asyncDispose]()
})

async function open(options: Partial<AccountsOptions> = {}): Promise<Accounts> {
  const accounts = await Accounts.open({ dataDir: dir.path, lookEveryMs: 10, ...options })
  opened.push(accounts)
  return accounts
}

const basic = (name: string, password: string) => ({ kind: 'basic', name, password }) as const
const bearer = (token: string) => ({ kind: 'bearer', token }) as const
const home = '192.0.2.1'

/** At once: whoever looks meanwhile finds the old one or the new. */
async function replaceFile(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text)
  await rename(`${path}.new`, path)
}

/** Waits until it holds. */
async function soon(holds: () => boolean | Promise<boolean>): Promise<void> {
  const until = Date.now() + 5000
  while (!(await holds())) {
    if (Date.now() > until) throw new Error('it never held')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

async function auditLines(): Promise<Record<string, unknown>[]> {
  const text = await readFile(join(dir.path, 'audit.jsonl'), 'utf8')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

describe('passwords', () => {
  test.each([
    ['the right one', 'alice', 'geheim 1', true],
    ['of another user', 'alice', 'geheim 2', false],
    ['empty', 'alice', '', false],
    ['a name in other letters', 'Alice', 'geheim 1', false],
    ['a user who has none', 'nopass', '', false],
    ['nobody', 'mallory', 'geheim 1', false],
    ['no name', '', 'geheim 1', false],
    ['a name that cannot be', 'a:b\0', 'geheim 1', false],
    ['a name of the language', '__proto__', 'geheim 1', false],
    ['a long name', 'a'.repeat(60_000), 'x', false],
    ['a long password', 'alice', 'a'.repeat(60_000), false],
    ['a name in two pieces', 'ju\u0308rgen', 'geheim 3', true],
    ['a name in one piece', 'j\u00fcrgen', 'geheim 3', true],
  ])('%s', async (_, name, password, isRight) => {
    await putUser(dir.path, 'alice', { password: 'geheim 1', grants: { home: 'write' } })
    await putUser(dir.path, 'bob', { password: 'geheim 2' })
    await putUser(dir.path, 'j\u00fcrgen', { password: 'geheim 3' })
    await putUser(dir.path, 'nopass')
    const accounts = await open()
    const who = await accounts.verify(basic(name, password), home)
    expect(who?.name).toBe(isRight ? name.normalize('NFC') : undefined)
    // Whoever it was, and whether there is such a user: one hashing.
    expect(hashings).toHaveBeenCalledTimes(1)
  })

  test('an identity has the rights that were granted', async () => {
    await putUser(dir.path, 'alice', {
      password: 'geheim 1',
      grants: { home: 'write', '*': 'read' },
      metrics: true,
    })
    const who = await (await open()).verify(basic('alice', 'geheim 1'), home)
    expect([who?.rightOn('home'), who?.rightOn('x'), who?.isOperator, who?.mayReadMetrics]).toEqual([
      'write',
      'read',
      false,
      true,
    ])
  })

  test('a password that was looked at is remembered, right or wrong, and hashed once for many requests', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const accounts = await open()
    const many = await Promise.all(
      Array.from({ length: 100 }, () => accounts.verify(basic('alice', 'geheim 1'), home)),
    )
    expect(many.every((who) => who?.name === 'alice')).toBe(true)
    for (let i = 0; i < 100; i++) expect(await accounts.verify(basic('alice', 'wrong'), home)).toBeUndefined()
    expect(hashings).toHaveBeenCalledTimes(2)
    expect((await accounts.verify(basic('alice', 'geheim 1'), '192.0.2.2'))?.name).toBe('alice')
    expect(hashings).toHaveBeenCalledTimes(2)
  })

  test('it is forgotten after five minutes', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const accounts = await open()
    const now = vi.spyOn(performance, 'now')
    try {
      const start = performance.now()
      now.mockImplementation(() => start)
      await accounts.verify(basic('alice', 'geheim 1'), home)
      now.mockImplementation(() => start + 299_000)
      await accounts.verify(basic('alice', 'geheim 1'), home)
      expect(hashings).toHaveBeenCalledTimes(1)
      await new Promise((resolve) => setTimeout(resolve, 5))
      now.mockImplementation(() => start + 301_000)
      await accounts.verify(basic('alice', 'geheim 1'), home)
      expect(hashings).toHaveBeenCalledTimes(2)
    } finally {
      now.mockRestore()
    }
  })
})

describe('tokens', () => {
  const past = () => new Date(Date.now() - 1000).toISOString()
  const future = () => new Date(Date.now() + 60_000).toISOString()

  test('as Bearer, and where the password of its user stands', async () => {
    await putUser(dir.path, 'alice', { grants: { home: 'admin' } })
    const { token } = await putToken(dir.path, 'alice', { expires: future() })
    const accounts = await open()
    expect((await accounts.verify(bearer(token), home))?.name).toBe('alice')
    expect((await accounts.verify(basic('alice', token), home))?.rightOn('home')).toBe('admin')
    expect(await accounts.verify(basic('bob', token), home)).toBeUndefined()
    expect(await accounts.verify(basic('', token), home)).toBeUndefined()
    expect(hashings).not.toHaveBeenCalled()
  })

  test('one that has expired, is of another receiver, was cut off', async () => {
    await putUser(dir.path, 'alice')
    const expired = await putToken(dir.path, 'alice', { expires: past() })
    const good = await putToken(dir.path, 'alice')
    await editUsers(dir.path, (users) => {
      users.tokens = users.tokens.map((each) =>
        each.id === good.id ? { ...each, hash: 'a'.repeat(64) } : each,
      )
    })
    const accounts = await open()
    for (const token of [expired.token, good.token, good.token.slice(0, -1), '', 'x'.repeat(60_000)]) {
      expect(await accounts.verify(bearer(token), home)).toBeUndefined()
    }
  })

  test('one expires while the receiver runs', async () => {
    await putUser(dir.path, 'alice')
    const { token } = await putToken(dir.path, 'alice', { expires: new Date(Date.now() + 300).toISOString() })
    const accounts = await open()
    expect((await accounts.verify(bearer(token), home))?.name).toBe('alice')
    await soon(async () => (await accounts.verify(bearer(token), home)) === undefined)
  })

  test('one that was narrowed does no more than both', async () => {
    await putUser(dir.path, 'alice', { grants: { '*': 'admin', photos: 'read' }, metrics: true })
    const { token } = await putToken(dir.path, 'alice', { grants: { home: 'append-only', photos: 'write' } })
    const who = await (await open()).verify(bearer(token), home)
    expect(['home', 'photos', 'other'].map((vault) => who?.rightOn(vault))).toEqual([
      'append-only',
      'read',
      undefined,
    ])
    expect([who?.isOperator, who?.mayReadMetrics]).toEqual([false, false])
  })

  test('when it was used last is told, about, and survives', async () => {
    await putUser(dir.path, 'alice')
    const [used, unused] = [await putToken(dir.path, 'alice'), await putToken(dir.path, 'alice')]
    const accounts = await open()
    await accounts.verify(bearer(used.token), home)
    await accounts.close()
    const path = join(dir.path, 'tokens-used.json')
    const times = JSON.parse(await readFile(path, 'utf8')) as Record<string, string>
    expect(Object.keys(times)).toEqual([used.id])
    expect(Math.abs(Date.now() - Date.parse(times[used.id] as string))).toBeLessThan(10_000)
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    const again = await open()
    await again.verify(bearer(unused.token), home)
    await again.close()
    expect(Object.keys(JSON.parse(await readFile(path, 'utf8')) as object).sort()).toEqual(
      [used.id, unused.id].sort(),
    )
  })

  test.each([['{'], ['[1]'], ['null'], ['"x"']])('what tells of that may be damaged: %s', async (text) => {
    await writeFile(join(dir.path, 'tokens-used.json'), text)
    await (await open()).close()
  })
})

describe('the files change', () => {
  test('with the first user the receiver is no longer open, and stays so', async () => {
    const accounts = await open()
    expect(accounts.isEmpty).toBe(true)
    expect(await accounts.verify(basic('alice', 'x'), home)).toBeUndefined()
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    await soon(() => !accounts.isEmpty)
    await editUsers(dir.path, (users) => {
      users.users = []
    })
    await soon(async () => (await accounts.byName('alice')) === undefined)
    expect(accounts.isEmpty).toBe(false)
    expect((await open()).isEmpty).toBe(true)
  })

  test('a user, a right and a token are gone at once when they were taken', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1', grants: { home: 'write' } })
    const { token } = await putToken(dir.path, 'alice')
    const accounts = await open({ lookEveryMs: 1_000_000 })
    const rightNow = async () => (await accounts.verify(basic('alice', 'geheim 1'), home))?.rightOn('home')
    expect(await rightNow()).toBe('write')
    await putUser(dir.path, 'alice', { password: 'geheim 1', grants: { home: 'read' } })
    await accounts.reload()
    expect(await rightNow()).toBe('read')
    await putUser(dir.path, 'alice', { password: 'geheim 2' })
    await accounts.reload()
    expect(await accounts.verify(basic('alice', 'geheim 1'), home)).toBeUndefined()
    expect((await accounts.verify(basic('alice', 'geheim 2'), home))?.name).toBe('alice')
    expect((await accounts.verify(bearer(token), home))?.name).toBe('alice')
    await editUsers(dir.path, (users) => {
      users.tokens = []
    })
    await accounts.reload()
    expect(await accounts.verify(bearer(token), home)).toBeUndefined()
  })

  test('a wrong password that has become the right one is taken', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const accounts = await open()
    expect(await accounts.verify(basic('alice', 'geheim 2'), home)).toBeUndefined()
    await putUser(dir.path, 'alice', { password: 'geheim 2' })
    await accounts.reload()
    expect((await accounts.verify(basic('alice', 'geheim 2'), home))?.name).toBe('alice')
  })

  test('a password that is changed while it is hashed is compared with the new one', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const accounts = await open({ lookEveryMs: 1_000_000 })
    let go = (): void => {}
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    hashings.mockImplementationOnce(async () => {
      await gate
      return true
    })
    const verified = accounts.verify(basic('alice', 'geheim 1'), home)
    await putUser(dir.path, 'alice', { password: 'geheim 2' })
    await accounts.reload()
    go()
    expect(await verified).toBeUndefined()
    expect(await accounts.verify(basic('alice', 'geheim 1'), home)).toBeUndefined()
  })

  test.each([
    ['cut off', '{"format":1,"users":['],
    ['a later format', '{"format":2}'],
    ['removed', undefined],
  ])('a file that is %s leaves what was known, until it is mended', async (_, text) => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const errors: unknown[] = []
    const log = { error: (...line: unknown[]) => errors.push(line), info: () => {}, warn: () => {} }
    const accounts = await open({ log: log as never })
    const path = join(dir.path, 'users.json')
    const whole = await readFile(path, 'utf8')
    await (text === undefined ? rm(path) : replaceFile(path, text))
    await soon(() => errors.length > 0)
    await new Promise((resolve) => setTimeout(resolve, 100))
    // Once, not each time that it is looked at.
    expect(errors.length).toBe(1)
    expect((await accounts.verify(basic('alice', 'geheim 1'), home))?.name).toBe('alice')
    await replaceFile(path, whole.replace('alice', 'alicia'))
    await soon(async () => (await accounts.byName('alicia')) !== undefined)
    expect(await accounts.byName('alice')).toBeUndefined()
  })

  test('a damaged file lets nobody in where everybody was', async () => {
    const accounts = await open()
    expect(accounts.isEmpty).toBe(true)
    await writeFile(join(dir.path, 'users.json'), '{')
    await soon(() => !accounts.isEmpty)
  })

  test('it does not start with one', async () => {
    await writeFile(join(dir.path, 'users.json'), '{')
    await expect(open()).rejects.toMatchObject({ code: 'store-corrupt' })
  })
})

describe('htpasswd', () => {
  const make = (path: string, ...users: [string, string][]): void => {
    users.forEach(([name, password], i) => {
      execFileSync('htpasswd', [i === 0 ? '-cbB' : '-bB', path, name, password], { stdio: 'ignore' })
    })
  }

  test("its users get in, with the rights of users.json; a password there goes before the file's", async () => {
    const htpasswd = join(dir.path, 'htpasswd')
    make(htpasswd, ['alice', 'geheim 1'], ['bob', 'geheim 2'], ['carol', 'geheim 3'])
    await putUser(dir.path, 'alice', { grants: { home: 'write' } })
    await putUser(dir.path, 'carol', { password: 'geheim 4' })
    const accounts = await open({ htpasswd })
    expect(accounts.isEmpty).toBe(false)
    const alice = await accounts.verify(basic('alice', 'geheim 1'), home)
    expect(alice?.rightOn('home')).toBe('write')
    const bob = await accounts.verify(basic('bob', 'geheim 2'), home)
    expect([bob?.name, bob?.rightOn('home'), bob?.isOperator]).toEqual(['bob', undefined, false])
    expect((await accounts.byName('bob'))?.name).toBe('bob')
    expect(await accounts.verify(basic('carol', 'geheim 3'), home)).toBeUndefined()
    expect((await accounts.verify(basic('carol', 'geheim 4'), home))?.name).toBe('carol')
  })

  test('a wrong password costs the same work for everybody', async () => {
    const htpasswd = join(dir.path, 'htpasswd')
    make(htpasswd, ['alice', 'geheim 1'])
    await putUser(dir.path, 'carol', { password: 'geheim 4' })
    const accounts = await open({ htpasswd })
    for (const name of ['alice', 'carol', 'nobody']) {
      hashings.mockClear()
      expect(await accounts.verify(basic(name, 'wrong'), home)).toBeUndefined()
      expect(hashings.mock.calls.map(([, hash]) => hash.slice(0, 3)).sort()).toEqual(['$2y', '$sc'])
    }
  })

  test('it is read again when htpasswd has changed it; a line that cannot be taken leaves what was known', async () => {
    const htpasswd = join(dir.path, 'htpasswd')
    make(htpasswd, ['alice', 'geheim 1'])
    const accounts = await open({ htpasswd })
    execFileSync('htpasswd', ['-bB', htpasswd, 'bob', 'geheim 2'], { stdio: 'ignore' })
    await soon(async () => (await accounts.byName('bob')) !== undefined)
    await replaceFile(htpasswd, 'bob:$apr1$abc$def\n')
    await accounts.reload()
    expect((await accounts.verify(basic('bob', 'geheim 2'), home))?.name).toBe('bob')
  })

  test.each([
    ['MD5', '-m'],
    ['SHA-1', '-s'],
    ['crypt', '-d'],
    ['in the clear', '-p'],
  ])('a password as %s is refused, and the line named', async (_, flag) => {
    const htpasswd = join(dir.path, 'htpasswd')
    make(htpasswd, ['alice', 'geheim 1'])
    execFileSync('htpasswd', ['-b', flag, htpasswd, 'bob', 'geheim'], { stdio: 'ignore' })
    await expect(open({ htpasswd })).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringMatching(/htpasswd, line 2: .*bob.*htpasswd -B/),
    })
  })

  test.each([
    ['a hostile name', '../x:$2y$05$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'],
    ['no colon', 'alice'],
    ['a user twice', `a:$2y$05$${'a'.repeat(53)}\na:$2y$05$${'a'.repeat(53)}`],
  ])('%s is refused', async (_, text) => {
    const htpasswd = join(dir.path, 'htpasswd')
    await writeFile(htpasswd, text)
    await expect(open({ htpasswd })).rejects.toMatchObject({ code: 'usage' })
  })

  test('comments, empty lines, line ends of Windows and further fields do no harm', async () => {
    const htpasswd = join(dir.path, 'htpasswd')
    make(htpasswd, ['alice', 'geheim 1'])
    const line = (await readFile(htpasswd, 'utf8')).trim()
    await writeFile(htpasswd, `# ours\r\n\r\n  ${line}:x:y  \r\n`)
    expect((await (await open({ htpasswd })).verify(basic('alice', 'geheim 1'), home))?.name).toBe('alice')
  })

  test('none there', async () => {
    await expect(open({ htpasswd: join(dir.path, 'none') })).rejects.toMatchObject({ code: 'unavailable' })
  })
})

describe('too many failures', () => {
  const attacker = '198.51.100.9'
  const guess = async (accounts: Accounts, from: string, name: string, i: number) => {
    try {
      return (await accounts.verify(basic(name, `guess ${i}`), from))?.name ?? 'wrong'
    } catch (error) {
      return (error as { code: string }).code
    }
  }

  test('are held back without hashing, audited, and harm nobody elsewhere', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const { token } = await putToken(dir.path, 'alice')
    const audit = await Audit.open(dir.path)
    const accounts = await open({ audit })
    const answers: string[] = []
    for (let i = 0; i < 14; i++) answers.push(await guess(accounts, attacker, 'alice', i))
    expect(answers.slice(0, 10)).toEqual(Array(10).fill('wrong'))
    expect(answers.slice(10)).toEqual(Array(4).fill('too-many-requests'))
    expect(hashings).toHaveBeenCalledTimes(10)
    // The right password from there is not looked at either, or the wait would be no wait.
    await expect(accounts.verify(basic('alice', 'geheim 1'), attacker)).rejects.toMatchObject({
      code: 'too-many-requests',
      extensions: { retryAfter: 1 },
    })
    expect((await accounts.verify(bearer(token), attacker))?.name).toBe('alice')
    expect((await accounts.verify(basic('alice', 'geheim 1'), home))?.name).toBe('alice')
    // Found right elsewhere a moment ago is still not for those who have to wait.
    await expect(accounts.verify(basic('alice', 'geheim 1'), attacker)).rejects.toMatchObject({
      code: 'too-many-requests',
    })
    await accounts.close()
    await audit.close()
    const lines = await auditLines()
    expect(lines.filter(({ event }) => event === 'login-failed')).toHaveLength(10)
    expect(lines.filter(({ event }) => event === 'login-blocked')).toEqual([
      expect.objectContaining({ who: 'alice', from: attacker, seconds: 1 }),
    ])
    expect(JSON.stringify(lines)).not.toContain('guess')
  })

  test('the same wrong password again and again counts once: a forgotten device locks nobody out', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const accounts = await open()
    for (let i = 0; i < 200; i++) expect(await guess(accounts, home, 'alice', 0)).toBe('wrong')
    expect((await accounts.verify(basic('alice', 'geheim 1'), home))?.name).toBe('alice')
    expect(hashings).toHaveBeenCalledTimes(2)
  })

  test('also for days: it is not counted once more whenever it would have been forgotten', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const accounts = await open()
    const now = vi.spyOn(performance, 'now')
    try {
      let time = performance.now()
      now.mockImplementation(() => time)
      for (let i = 0; i < 100; i++) {
        time += 20 * 60_000
        expect(await guess(accounts, home, 'alice', 0)).toBe('wrong')
        // lru-cache looks at the clock once a millisecond.
        await new Promise((resolve) => setTimeout(resolve, 3))
      }
      expect((await accounts.verify(basic('alice', 'geheim 1'), home))?.name).toBe('alice')
      expect(hashings).toHaveBeenCalledTimes(2)
    } finally {
      now.mockRestore()
    }
  })

  test('many addresses at one name do not keep its owner out', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const accounts = await open()
    for (let i = 0; i < 60; i++) await guess(accounts, `198.51.100.${i}`, 'alice', i)
    expect((await accounts.verify(basic('alice', 'geheim 1'), '203.0.113.5'))?.name).toBe('alice')
    expect(await guess(accounts, '203.0.113.6', 'alice', 100)).toBe('wrong')
    expect(await guess(accounts, '203.0.113.6', 'alice', 101)).toBe('too-many-requests')
  })

  test('hundreds of guesses at once: few are hashed, never more than two side by side, the rest is told to wait', async () => {
    await putUser(dir.path, 'alice', { password: 'geheim 1' })
    const accounts = await open()
    let [running, most] = [0, 0]
    hashings.mockImplementation(async () => {
      most = Math.max(most, ++running)
      await new Promise((resolve) => setTimeout(resolve, 2))
      running--
      return false
    })
    try {
      const fromOne = Array.from({ length: 300 }, (_, i) => guess(accounts, attacker, 'alice', i))
      const fromMany = Array.from({ length: 300 }, (_, i) =>
        guess(accounts, `10.0.${i >> 4}.${i & 15}`, `n${i}`, i),
      )
      const answers = await Promise.all([...fromOne, ...fromMany])
      const count = (what: string) => answers.filter((answer) => answer === what).length
      expect(count('too-many-requests')).toBe(290)
      expect(count('unavailable')).toBe(600 - 290 - 66)
      expect(most).toBe(2)
    } finally {
      hashings.mockReset()
    }
  })

  test('wrong tokens are counted by address and fill no audit', async () => {
    await putUser(dir.path, 'alice')
    const audit = await Audit.open(dir.path)
    const accounts = await open({ audit })
    let blocked = 0
    for (let i = 0; i < 3000; i++) {
      await accounts.verify(bearer(`x${i}`), `10.${i % 3}.${i % 100}.1`).catch(() => blocked++)
    }
    expect(blocked).toBeGreaterThan(0)
    await accounts.close()
    await audit.close()
    const lines = await auditLines()
    expect(lines.length).toBe(121)
    expect(lines.at(-1)).toMatchObject({ event: 'login-failed', linesLeftOut: expect.any(Number) })
  })

  test('what was claimed is told in one short line, whatever it was', async () => {
    await putUser(dir.path, 'alice')
    const audit = await Audit.open(dir.path)
    const accounts = await open({ audit })
    await accounts.verify(basic(`a\n{"event":"x"}\u2028${'b'.repeat(10_000)}`, 'x'), home)
    await accounts.close()
    await audit.close()
    const [line, ...more] = await auditLines()
    expect(more).toEqual([])
    expect(String(line?.who).length).toBe(80)
  })
})

test('close is idempotent', async () => {
  const accounts = await open()
  await Promise.all([accounts.close(), accounts.close()])
})
