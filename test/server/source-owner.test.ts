/** What whoever may only back up cannot do to what others, or they themselves, have backed up. */
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { batchMediaType } from '../../protocol/block.ts'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import type { CheckpointList, CheckpointState } from '../../protocol/schema.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { writeUsers } from '../support/users.ts'
import { blockOf, chunk, fileEntry, noise, problemOf } from './requests.ts'

let dataDir: string
let server: TestReceiver
let tokens: Record<string, string>

const rights = { alice: 'append-only', bob: 'append-only', mallory: 'append+read', reader: 'read' } as const
const others = { writer: 'write', admin: 'admin' } as const

async function start(): Promise<void> {
  const all = Object.entries({ ...rights, ...others })
  tokens = await writeUsers(
    dataDir,
    Object.fromEntries(all.map(([name, right]) => [name, { grants: { home: right } }])),
  )
  server = await startReceiver({ dataDir })
}

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-owner-'))
  await start()
})
afterEach(async () => {
  await server.stop()
  await rm(dataDir, { recursive: true, force: true })
})

type Body = string | Buffer | object

async function ask(
  user: string,
  method: string,
  path: string,
  body?: Body,
  more: Record<string, string> = {},
) {
  const headers = { authorization: `Bearer ${tokens[user]}`, ...more }
  const isJson = typeof body === 'object' && !Buffer.isBuffer(body)
  const sent = isJson ? JSON.stringify(body) : Buffer.isBuffer(body) ? new Uint8Array(body) : body
  return await fetch(`${server.vaultUrl}/${path}`, {
    method,
    headers: isJson ? { ...headers, 'content-type': 'application/json' } : headers,
    ...(sent === undefined ? {} : { body: sent }),
  })
}

/** The status, or with a problem its code. */
async function told(user: string, method: string, path: string, body?: Body, more?: Record<string, string>) {
  const answer = await ask(user, method, path, body, more)
  return answer.status < 400 ? String(answer.status) : await problemOf(answer)
}

async function begin(user: string, source: string, kind: 'dir' | 'chunks' = 'dir'): Promise<CheckpointState> {
  const answer = await ask(user, 'POST', `checkpoints/${source}/`, { kind })
  expect(answer.status).toBe(201)
  return (await answer.json()) as CheckpointState
}

/** Commits a checkpoint of one file, and tells its path and its root. */
async function backUp(user: string, source: string, text: string) {
  const file = chunk(text)
  const root = encodeDirectoryObject([fileEntry('a', file)])
  await ask(user, 'PUT', `chunks/${file.id}`, file.bytes)
  await ask(user, 'PUT', `dirs/${root.id}`, root.bytes)
  const { number } = await begin(user, source)
  const path = `checkpoints/${source}/${number}`
  expect(await told(user, 'POST', `${path}/commit`, { root: root.id })).toBe('200')
  return { path, root, file }
}

const forbidden = '403 forbidden'
const ownerOf = async (source: string): Promise<unknown> =>
  JSON.parse(await readFile(join(dataDir, 'vaults/home/checkpoints', source, 'owner'), 'utf8'))

describe('a source', () => {
  test('belongs to whoever opened its first checkpoint, also after a restart and when all are deleted', async () => {
    const { number } = await begin('alice', 'laptop')
    expect(await ownerOf('laptop')).toEqual({ name: 'alice' })
    for (let round = 0; round < 2; round++) {
      expect(await told('bob', 'POST', 'checkpoints/laptop/', { kind: 'dir' })).toBe(forbidden)
      expect(await told('mallory', 'POST', 'checkpoints/laptop/', { kind: 'dir' })).toBe(forbidden)
      expect((await begin('alice', 'laptop')).number).toBe(number + 1 + 2 * round)
      expect((await begin('writer', 'laptop')).number).toBe(number + 2 + 2 * round)
      await server.stop()
      await start()
    }
    for (let each = 1; each <= 5; each++) await ask('admin', 'DELETE', `checkpoints/laptop/${each}`)
    expect(await told('bob', 'POST', 'checkpoints/laptop/', { kind: 'dir' })).toBe(forbidden)
    expect(await ownerOf('laptop')).toEqual({ name: 'alice' })
  })

  test('that two open at once belongs to one of them', async () => {
    for (let round = 0; round < 10; round++) {
      const source = `race-${round}`
      const answers = await Promise.all(
        ['alice', 'bob'].map(async (user) => [
          user,
          await told(user, 'POST', `checkpoints/${source}/`, { kind: 'dir' }),
        ]),
      )
      const winners = answers.filter(([, answer]) => answer === '201').map(([user]) => user)
      expect(winners).toHaveLength(1)
      expect(answers.map(([, answer]) => answer).sort()).toEqual(['201', forbidden])
      expect(await ownerOf(source)).toEqual({ name: winners[0] })
    }
  })

  test('of before there were users, of a freeze, or with a damaged owner, belongs to nobody', async () => {
    await ask('writer', 'PUT', 'tree/a', 'A')
    expect(await told('writer', 'POST', 'tree/', { freeze: { source: 'frozen' } })).toBe('201')
    await begin('alice', 'damaged')
    await server.stop()
    const checkpoints = join(dataDir, 'vaults/home/checkpoints')
    await mkdir(join(checkpoints, 'old'))
    await writeFile(join(checkpoints, 'old', 'last'), '7\n')
    await writeFile(join(checkpoints, 'damaged', 'owner'), '{"name":')
    await start()
    for (const source of ['frozen', 'old', 'damaged']) {
      for (const user of ['alice', 'bob', 'mallory']) {
        expect(await told(user, 'POST', `checkpoints/${source}/`, { kind: 'dir' })).toBe(forbidden)
      }
      expect(await told('writer', 'POST', `checkpoints/${source}/`, { kind: 'dir' })).toBe('201')
    }
  })

  test('of a freeze to come is nobody’s to take first', async () => {
    for (const source of ['tree', 'tree-documents']) {
      expect(await told('alice', 'POST', `checkpoints/${source}/`, { kind: 'dir' })).toBe(forbidden)
    }
    await begin('alice', 'trees')
    expect(await told('writer', 'POST', 'tree/', { freeze: {} })).toBe('201')
    expect(await told('alice', 'POST', 'checkpoints/tree/', { kind: 'dir' })).toBe(forbidden)
  })

  test('that the file system takes for another one keeps its owner', async () => {
    await begin('alice', 'laptop')
    const checkpoints = join(dataDir, 'vaults/home/checkpoints')
    // What a file system does that does not tell capital letters from small ones.
    await symlink('laptop', join(checkpoints, 'Laptop'))
    expect(await told('bob', 'POST', 'checkpoints/Laptop/', { kind: 'dir' })).toBe(forbidden)
    expect(await ownerOf('laptop')).toEqual({ name: 'alice' })
    expect((await begin('alice', 'Laptop')).number).toBe(2)
  })

  test('whose first checkpoint never got a number is still free', async () => {
    await server.stop()
    const folder = join(dataDir, 'vaults/home/checkpoints/crashed')
    await mkdir(folder, { recursive: true })
    await writeFile(join(folder, 'owner'), '{"name":"alice"}')
    await start()
    await begin('bob', 'crashed')
    expect(await ownerOf('crashed')).toEqual({ name: 'bob' })
    expect(await told('alice', 'POST', 'checkpoints/crashed/', { kind: 'dir' })).toBe(forbidden)
  })
})

test('nobody who may only back up does anything to a checkpoint of others', async () => {
  const open = await begin('alice', 'laptop', 'chunks')
  const committed = await backUp('alice', 'laptop', 'hers')
  const path = `checkpoints/laptop/${open.number}`
  const item = { id: committed.file.id, size: committed.file.bytes.length }
  for (const user of ['bob', 'mallory']) {
    expect(await told(user, 'POST', `${path}/items`, { first: 0, items: [item] })).toBe(forbidden)
    expect(await told(user, 'POST', `${path}/commit`, { items: 0 })).toBe(forbidden)
    expect(await told(user, 'DELETE', path)).toBe(forbidden)
    expect(await told(user, 'DELETE', committed.path)).toBe(forbidden)
    expect(await told(user, 'POST', `${committed.path}/commit`, { root: committed.root.id })).toBe(forbidden)
    expect(await told(user, 'PUT', `${committed.path}/pin`)).toBe(forbidden)
  }
  expect(await told('reader', 'POST', `${path}/items`, { first: 0, items: [item] })).toBe(forbidden)
  // What those may who may change anything.
  expect(await told('writer', 'POST', `${path}/items`, { first: 0, items: [item] })).toBe('200')
  expect(await told('writer', 'POST', `${path}/commit`, { items: 1 })).toBe('200')
  expect(await told('writer', 'DELETE', committed.path)).toBe('204')
})

test('nobody works in the name of a checkpoint of others', async () => {
  const { number } = await begin('alice', 'laptop')
  const { id, bytes } = chunk('mine')
  const block = await blockOf([chunk('b')])
  const requests: [string, string, Body, Record<string, string>?][] = [
    ['PUT', `chunks/${id}`, bytes],
    ['POST', 'chunks/', block, { 'content-type': batchMediaType }],
    ['POST', 'chunks/missing', { ids: [id] }],
    ['PUT', `dirs/${encodeDirectoryObject([]).id}`, encodeDirectoryObject([]).bytes],
  ]
  const named = { 'chunkdav-checkpoint': `laptop/${number}` }
  for (const [method, path, body, more] of requests) {
    for (const user of ['bob', 'mallory']) {
      expect(await told(user, method, path, body, { ...more, ...named })).toBe(forbidden)
    }
    expect(await told('alice', method, path, body, { ...more, ...named })).toMatch(/^20/)
  }
  expect(await told('reader', 'POST', 'chunks/fetch', { ids: [id] }, named)).toBe(forbidden)
  expect(await told('reader', 'POST', 'chunks/fetch', { ids: [id] })).toBe('200')
})

describe('of their own', () => {
  test('they may delete what is open, and never what is committed', async () => {
    const { number } = await begin('alice', 'laptop')
    expect(await told('alice', 'DELETE', `checkpoints/laptop/${number}`)).toBe('204')
    const { path } = await backUp('alice', 'laptop', 'hers')
    expect(await told('alice', 'DELETE', path)).toBe(forbidden)
    expect(await told('alice', 'DELETE', 'checkpoints/laptop/99')).toBe('404 checkpoint-not-found')
    expect(await told('alice', 'GET', path)).toBe('200')
  })

  test('a deletion that waits for a commit finds it committed', async () => {
    const entries = Array.from({ length: 300 }, (_, i) => {
      return { name: `f${String(i).padStart(4, '0')}`, content: chunk(noise(50, i + 1)) }
    })
    await ask('alice', 'POST', 'chunks/', await blockOf(entries.map(({ content }) => content)), {
      'content-type': batchMediaType,
    })
    const root = encodeDirectoryObject(entries.map(({ name, content }) => fileEntry(name, content)))
    await ask('alice', 'PUT', `dirs/${root.id}`, root.bytes)
    for (let round = 0; round < 20; round++) {
      const { number } = await begin('alice', 'laptop')
      const path = `checkpoints/laptop/${number}`
      const [committed, deleted] = await Promise.all([
        told('alice', 'POST', `${path}/commit`, { root: root.id }),
        told('alice', 'DELETE', path),
      ])
      const isThere = (await told('alice', 'GET', path)) === '200'
      expect([committed, deleted, isThere]).toEqual(
        committed === '200' ? ['200', forbidden, true] : ['404 checkpoint-not-found', '204', false],
      )
    }
  })

  test('a committed one never changes', async () => {
    const { path, root } = await backUp('alice', 'laptop', 'hers')
    const empty = encodeDirectoryObject([])
    await ask('alice', 'PUT', `dirs/${empty.id}`, empty.bytes)
    expect(await told('alice', 'POST', `${path}/commit`, { root: empty.id })).toBe('409 checkpoint-committed')
    expect(await told('alice', 'POST', `${path}/commit`, { root: root.id })).toBe('200')
    expect(await told('alice', 'POST', `${path}/items`, { first: 0, items: [] })).toMatch(/^40[09]/)
  })
})

test('numbers and times are the receiver’s: what a client says of them plays no part', async () => {
  const before = Date.now() - 1
  const headers = { date: 'Thu, 01 Jan 1970 00:00:00 GMT' }
  const first = await begin('alice', 'laptop')
  for (const body of [
    { kind: 'dir', number: 1 },
    { kind: 'dir', openedAt: '1970-01-01T00:00:00Z' },
    { kind: 'dir', committedAt: '2999-01-01T00:00:00Z' },
    { kind: 'dir', state: 'committed' },
  ]) {
    expect(await told('alice', 'POST', 'checkpoints/laptop/', body, headers)).toBe('400 invalid-request')
  }
  const { path } = await backUp('alice', 'laptop', 'hers')
  await ask('alice', 'DELETE', `checkpoints/laptop/${first.number}`)
  const next = await begin('alice', 'laptop')
  expect([first.number, path, next.number]).toEqual([1, 'checkpoints/laptop/2', 3])
  const list = (await (await ask('alice', 'GET', 'checkpoints/laptop/')).json()) as CheckpointList
  for (const { openedAt, committedAt = openedAt } of list.checkpoints) {
    for (const time of [openedAt, committedAt]) {
      expect(Date.parse(time)).toBeGreaterThan(before)
      expect(Date.parse(time)).toBeLessThan(Date.now() + 1)
    }
  }
})

describe('what is stored', () => {
  test('cannot be replaced, nor an id filled with other bytes', async () => {
    const { file, root } = await backUp('alice', 'laptop', 'hers')
    const other = chunk('other bytes')
    expect(await told('bob', 'PUT', `chunks/${other.id}`, 'false')).toBe('422 digest-mismatch')
    // What is here already stays as it is, whatever comes with it.
    expect(await told('bob', 'PUT', `chunks/${file.id}`, 'false')).toBe('200')
    expect(await told('bob', 'PUT', `dirs/${root.id}`, '{}')).toBe('200')
    const block = await blockOf([{ id: other.id, bytes: Buffer.from('lies') }])
    const answer = await ask('bob', 'POST', 'chunks/', block, { 'content-type': batchMediaType })
    expect(((await answer.json()) as { outcomes: string[] }).outcomes).toEqual(['refused'])
    expect(await (await ask('reader', 'GET', `chunks/${file.id}`)).text()).toBe('hers')
    expect(await told('reader', 'GET', `chunks/${other.id}`)).toBe('404 chunk-not-found')
  })

  test('cannot be read, nor guessed at through patches', async () => {
    const { file, root } = await backUp('alice', 'laptop', 'hers')
    const reading: [string, string, Body | undefined, Record<string, string>?][] = [
      ['GET', `chunks/${file.id}`, undefined],
      ['HEAD', `chunks/${file.id}`, undefined],
      ['GET', `dirs/${root.id}/a`, undefined],
      ['PROPFIND', `dirs/${root.id}`, undefined, { depth: '1' }],
      ['POST', 'chunks/fetch', { ids: [file.id] }],
      ['GET', 'snapshots/laptop/latest/a', undefined],
      ['GET', 'tree/', undefined],
      ['GET', 'trash/', undefined],
      ['PATCH', `chunks/${file.id}`, 'x', { 'chunkdav-base': file.id }],
      ['PATCH', `dirs/${root.id}`, '[]', { 'chunkdav-base': root.id }],
    ]
    for (const [method, path, body, more] of reading) {
      const { status } = await ask('bob', method, path, body, more)
      expect([method, path, status]).toEqual([method, path, 403])
    }
  })
})
