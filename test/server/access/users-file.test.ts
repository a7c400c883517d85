/** users.json: what is taken for one, who may read it, and that commands at the same time lose nothing. */
import { spawn } from 'node:child_process'
import { chmod, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { editUsers, readUsers } from '../../../server/access/users-file.ts'
import { cheapHash, makeDataDir, putToken, putUser } from './accounts-folder.ts'

const user = {
  name: 'alice',
  password: cheapHash('geheim'),
  grants: { home: 'write' },
  added: '2026-01-02T03:04:05Z',
}
const token = { id: '0123456789ab', user: 'alice', hash: 'a'.repeat(64), created: '2026-01-02T03:04:05.678Z' }
const whole = { format: 1, users: [user], tokens: [token] }

test('there is none, or it is whole', async () => {
  await using dir = await makeDataDir()
  expect(await readUsers(dir.path)).toBeUndefined()
  await writeFile(join(dir.path, 'users.json'), JSON.stringify(whole))
  expect(await readUsers(dir.path)).toEqual(whole)
})

describe('a file that cannot be understood', () => {
  test.each([
    ['nothing', ''],
    ['a part', JSON.stringify(whole).slice(0, -1)],
    ['another document', '[]'],
    ['no format', JSON.stringify({ users: [], tokens: [] })],
    ['a later format', JSON.stringify({ ...whole, format: 2, groups: [] })],
    ['something more', JSON.stringify({ ...whole, groups: [] })],
    ['a user twice', JSON.stringify({ ...whole, users: [user, user] })],
    ['a hostile name', JSON.stringify({ ...whole, users: [{ ...user, name: '../x' }], tokens: [] })],
    ["everybody's name", JSON.stringify({ ...whole, users: [{ ...user, name: 'anybody' }], tokens: [] })],
    ['a right that is none', JSON.stringify({ ...whole, users: [{ ...user, grants: { home: 'all' } }] })],
    ['a vault that is none', JSON.stringify({ ...whole, users: [{ ...user, grants: { Home: 'read' } }] })],
    ['__proto__ for a vault', JSON.stringify(whole).replace('"home"', '"__proto__"')],
    ['a password in the clear', JSON.stringify({ ...whole, users: [{ ...user, password: 'geheim' }] })],
    ['a token of nobody', JSON.stringify({ ...whole, users: [] })],
    ['a token twice', JSON.stringify({ ...whole, tokens: [token, token] })],
    [
      'a day that is none',
      JSON.stringify({ ...whole, tokens: [{ ...token, expires: '2026-13-01T00:00:00Z' }] }),
    ],
    ['a time that is none', JSON.stringify({ ...whole, tokens: [{ ...token, expires: 'tomorrow' }] })],
  ])('%s', async (_, text) => {
    await using dir = await makeDataDir()
    const path = join(dir.path, 'users.json')
    await writeFile(path, text)
    await expect(readUsers(dir.path)).rejects.toMatchObject({
      code: 'store-corrupt',
      message: expect.stringMatching(/^.* cannot be understood: (?!.*the body).*; bring it back from a copy/),
    })
    await expect(editUsers(dir.path, () => {})).rejects.toMatchObject({ code: 'store-corrupt' })
    expect(await readFile(path, 'utf8')).toBe(text)
  })
})

test('it is for its owner alone, whatever the mask, and nothing else is left beside it', async () => {
  await using dir = await makeDataDir()
  await writeFile(join(dir.path, 'users.json.tmp'), 'left behind by a kill')
  await chmod(join(dir.path, 'users.json.tmp'), 0o644)
  const mask = process.umask(0)
  try {
    await putUser(dir.path, 'alice')
  } finally {
    process.umask(mask)
  }
  expect((await stat(join(dir.path, 'users.json'))).mode & 0o777).toBe(0o600)
  expect((await readdir(dir.path)).sort()).toEqual(['users.json', 'users.lock'])
})

test.each([
  [
    'throws',
    () => {
      throw new RangeError('no')
    },
  ],
  [
    'leaves what could not be read again',
    (users: { users: unknown[] }) => {
      users.users.push({ name: '..' })
    },
  ],
])('a change that %s changes nothing', async (_, change) => {
  await using dir = await makeDataDir()
  await putUser(dir.path, 'alice')
  const before = await readFile(join(dir.path, 'users.json'), 'utf8')
  await expect(editUsers(dir.path, change)).rejects.toThrow()
  expect(await readFile(join(dir.path, 'users.json'), 'utf8')).toBe(before)
  await putToken(dir.path, 'alice')
})

/** A process that changes the users some times over. */
function editor(dataDir: string, name: string, times: number) {
  const module = new URL('../../../server/access/users-file.ts', import.meta.url).href
  const script = `
    const { editUsers } = await import(${JSON.stringify(module)})
    for (let i = 0; i < ${times}; i++) await editUsers(${JSON.stringify(dataDir)}, ({ users }) => {
      users.push({ name: '${name}-' + i, grants: {}, added: new Date().toISOString() })
    })
    console.log('done')`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise<number | string | null>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal))
  })
  return { child, ended }
}

test('processes that change it at the same time lose nothing', async () => {
  await using dir = await makeDataDir()
  const editors = ['a', 'b', 'c', 'd'].map((name) => editor(dir.path, name, 8))
  await Promise.all([
    ...Array.from({ length: 8 }, (_, i) => putUser(dir.path, `here-${i}`)),
    ...editors.map(async ({ ended }) => expect(await ended).toBe(0)),
  ])
  const names = (await readUsers(dir.path))?.users.map(({ name }) => name) ?? []
  expect(new Set(names).size).toBe(40)
  expect(names.length).toBe(40)
})

test('one that is killed at any moment leaves one state or the next, and no lock', async () => {
  await using dir = await makeDataDir()
  await putUser(dir.path, 'alice')
  let last = 1
  for (let round = 0; round < 3; round++) {
    const { child, ended } = editor(dir.path, `r${round}`, 100_000)
    const seen = last
    const until = Date.now() + 10_000
    while (last === seen && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 5))
      last = (await readUsers(dir.path))?.users.length ?? 0
    }
    await new Promise((resolve) => setTimeout(resolve, round * 7))
    child.kill('SIGKILL')
    expect(await ended).toBe('SIGKILL')
    const names = (await readUsers(dir.path))?.users.map(({ name }) => name) ?? []
    expect(names[0]).toBe('alice')
    const ofRound = names.filter((name) => name.startsWith(`r${round}-`))
    expect(ofRound).toEqual(ofRound.map((_, i) => `r${round}-${i}`))
    expect(ofRound.length).toBeGreaterThan(0)
    await putUser(dir.path, `after-${round}`)
    last = (await readUsers(dir.path))?.users.length ?? 0
  }
})
