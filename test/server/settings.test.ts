/** `/{vault}/settings`, prunes and pins, as clients see them. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import type { CheckpointList, CheckpointState, PruneAnswer, VaultSettings } from '../../protocol/schema.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { begin, post, problemOf, put } from './requests.ts'

const empty = encodeDirectoryObject([])

async function withRoot(): Promise<TestReceiver> {
  const server = await startReceiver()
  await put(server, 'dirs', empty)
  return server
}

async function commit(server: TestReceiver, source: string, count = 1): Promise<void> {
  for (let i = 0; i < count; i++) {
    const path = await begin(server, source, 'dir')
    expect((await post(server, `${path}/commit`, { root: empty.id })).status).toBe(200)
  }
}

const getSettings = (server: TestReceiver, headers = {}) => fetch(`${server.vaultUrl}/settings`, { headers })
const putSettings = (server: TestReceiver, settings: unknown, headers = {}) =>
  fetch(`${server.vaultUrl}/settings`, { method: 'PUT', body: JSON.stringify(settings), headers })
const settingsPath = (server: TestReceiver) => join(server.dataDir, 'vaults/home/settings.json')
const prune = async (server: TestReceiver, body?: unknown): Promise<PruneAnswer> => {
  const asked = body === undefined ? {} : { body: JSON.stringify(body) }
  const answer = await fetch(`${server.vaultUrl}/upkeep/prune`, { method: 'POST', ...asked })
  expect(answer.status).toBe(200)
  return (await answer.json()) as PruneAnswer
}
const numbersOf = async (server: TestReceiver, source: string): Promise<number[]> => {
  const answer = await fetch(`${server.vaultUrl}/checkpoints/${source}/`)
  return ((await answer.json()) as CheckpointList).checkpoints.map(({ number }) => number)
}
const pin = (server: TestReceiver, name: string, method = 'PUT') =>
  fetch(`${server.vaultUrl}/checkpoints/${name}/pin`, { method })
const audit = async (server: TestReceiver): Promise<Record<string, unknown>[]> => {
  // Lines are written soon after the answer.
  await new Promise((resolve) => setTimeout(resolve, 50))
  const text = await readFile(join(server.dataDir, 'audit.jsonl'), 'utf8')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

describe('settings', () => {
  let server: TestReceiver
  beforeAll(async () => {
    server = await withRoot()
  })
  afterAll(() => server.stop())

  test('there are none at first; they are kept as they were put, and have an ETag', async () => {
    const first = await getSettings(server)
    expect([first.status, await first.json()]).toEqual([200, {}])
    const settings: VaultSettings = {
      retention: { keepDaily: 7, keepWithin: '30d' },
      sources: { laptop: 'keep-all', 'web.server': { keepLast: 3 } },
      timeZone: 'Europe/Vienna',
      quotaBytes: 1e12,
    }
    const answer = await putSettings(server, settings)
    expect([answer.status, await answer.json()]).toEqual([200, settings])
    const etag = answer.headers.get('etag') ?? ''
    const again = await getSettings(server)
    expect([await again.json(), again.headers.get('etag')]).toEqual([settings, etag])
    expect((await getSettings(server, { 'If-None-Match': etag })).status).toBe(304)
    expect(JSON.parse(await readFile(settingsPath(server), 'utf8'))).toEqual(settings)
  })

  test('two who change them at once: the second is refused', async () => {
    const etag = (await getSettings(server)).headers.get('etag') ?? ''
    const changed = { retention: { keepLast: 5 } }
    expect((await putSettings(server, changed, { 'If-Match': etag })).status).toBe(200)
    expect(await problemOf(await putSettings(server, {}, { 'If-Match': etag }))).toBe(
      '412 precondition-failed',
    )
    expect(await problemOf(await putSettings(server, {}, { 'If-None-Match': '*' }))).toBe(
      '412 precondition-failed',
    )
    expect(await (await getSettings(server)).json()).toEqual(changed)
  })

  test.each<[string, unknown]>([
    ['a policy that says nothing', { retention: {} }],
    ['a count of 0', { retention: { keepLast: 0 } }],
    ['a count that is none', { retention: { keepDaily: 1.5 } }],
    ['a span in minutes', { retention: { keepWithin: '6m' } }],
    ['an unknown rule', { retention: { keepDecadely: 1 } }],
    ['keep-all for the vault', { retention: 'keep-all' }],
    ['a source name that is none', { sources: { '../x': 'keep-all' } }],
    ['a time zone that is none', { timeZone: 'Mars/Olympus' }],
    ['a negative quota', { quotaBytes: -1 }],
    ['a list', []],
  ])('%s is refused, and changes nothing', async (_, settings) => {
    const before = await (await getSettings(server)).json()
    expect(await problemOf(await putSettings(server, settings))).toBe('400 invalid-request')
    expect(await (await getSettings(server)).json()).toEqual(before)
  })

  test('of a vault that is not there', async () => {
    expect(await problemOf(await fetch(`${server.url}/none/settings`))).toBe('404 vault-not-found')
    expect((await fetch(`${server.vaultUrl}/settings`, { method: 'DELETE' })).status).toBe(405)
  })

  test('changes are in the audit, the quota by itself', async () => {
    await putSettings(server, { quotaBytes: 5 })
    await putSettings(server, { quotaBytes: 5 })
    await putSettings(server, { retention: { keepLast: 1 } })
    const lines = (await audit(server)).slice(-4)
    const by = { who: 'anybody', from: '127.0.0.1', vault: 'home' }
    expect(lines).toMatchObject([
      { event: 'quota-changed', ...by, quotaBytes: 5, before: null },
      { event: 'settings-changed', ...by },
      { event: 'quota-changed', ...by, quotaBytes: null, before: 5 },
      { event: 'settings-changed', ...by, retention: { keepLast: 1 } },
    ])
  })
})

test('damaged settings: nothing is pruned, backups go on, and new ones heal it', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-settings-'))
  try {
    const first = await startReceiver({ dataDir })
    await put(first, 'dirs', empty)
    await commit(first, 's', 3)
    await putSettings(first, { retention: { keepLast: 1 }, quotaBytes: 1 })
    await first.stop()
    await writeFile(settingsPath(first), '{"retention":{"keepLast":1}')
    await using server = await startReceiver({ dataDir })
    expect((await fetch(`${server.vaultUrl}/upkeep/prune`, { method: 'POST' })).status).toBe(500)
    expect((await getSettings(server)).status).toBe(500)
    await commit(server, 's')
    expect(await numbersOf(server, 's')).toEqual([1, 2, 3, 4])
    expect((await putSettings(server, { retention: { keepLast: 2 } })).status).toBe(200)
    expect(await prune(server)).toMatchObject({ kept: 2, removed: 2 })
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
})

describe('prune', () => {
  test('tells what it would remove, then removes it, and tells it again', async () => {
    await using server = await withRoot()
    await commit(server, 'laptop', 5)
    await commit(server, 'server', 2)
    await begin(server, 'laptop', 'dir')
    await putSettings(server, { retention: { keepLast: 2 }, sources: { server: 'keep-all' } })
    const tried = await prune(server, { dryRun: true })
    expect(tried).toMatchObject({ dryRun: true, kept: 4, removed: 3 })
    expect(await numbersOf(server, 'laptop')).toEqual([1, 2, 3, 4, 5, 6])
    const done = await prune(server)
    expect(done).toEqual({ ...tried, dryRun: false })
    const [laptop, other] = done.sources
    expect(laptop).toMatchObject({ source: 'laptop', retention: { keepLast: 2 } })
    expect(laptop?.removed.map(({ number }) => number)).toEqual([1, 2, 3])
    expect(laptop?.kept.map(({ number, reasons }) => [number, reasons])).toEqual([
      [4, ['last']],
      [5, ['newest', 'last']],
    ])
    expect(other?.kept.map(({ reasons }) => reasons)).toEqual([['keep-all'], ['newest', 'keep-all']])
    expect(await numbersOf(server, 'laptop')).toEqual([4, 5, 6])
    expect(await prune(server)).toMatchObject({ kept: 4, removed: 0 })
    const lines = (await audit(server)).filter(({ event }) => event === 'pruned')
    expect(lines).toMatchObject([
      { vault: 'home', who: 'anybody', removed: 3, checkpoints: { laptop: [1, 2, 3] } },
    ])
  })

  test('of one source; of more at once than are deleted under one lock', async () => {
    await using server = await withRoot()
    await commit(server, 'many', 60)
    await commit(server, 'few', 2)
    await putSettings(server, { retention: { keepLast: 1 } })
    expect(await prune(server, { source: 'many' })).toMatchObject({ kept: 1, removed: 59 })
    expect([await numbersOf(server, 'many'), await numbersOf(server, 'few')]).toEqual([[60], [1, 2]])
    const refused = (body: unknown) => post(server, 'upkeep/prune', body)
    expect(await problemOf(await refused({ source: 'none' }))).toBe('404 checkpoint-not-found')
    expect(await problemOf(await refused({ source: '..' }))).toBe('400 invalid-name')
    expect(await problemOf(await refused({ dry: true }))).toBe('400 invalid-request')
  })

  test('without a policy nothing goes', async () => {
    await using server = await withRoot()
    await commit(server, 's', 3)
    expect(await prune(server)).toMatchObject({ kept: 3, removed: 0 })
  })

  test('what was removed is told to whoever collects garbage', async () => {
    const told: string[] = []
    await using server = await withRoot()
    const { vaults } = server.receiver
    vaults.noteRemoved = (name) => void told.push(name)
    await commit(server, 's', 3)
    await putSettings(server, { retention: { keepLast: 2 } })
    await prune(server, { dryRun: true })
    expect(told).toEqual([])
    await prune(server)
    await prune(server)
    await fetch(`${server.vaultUrl}/checkpoints/s/3`, { method: 'DELETE' })
    expect(told).toEqual(['home', 'home'])
  })
})

describe('pins', () => {
  let server: TestReceiver
  beforeAll(async () => {
    server = await withRoot()
  })
  afterAll(() => server.stop())

  test('a pinned checkpoint is shown as such, is not deleted, and is not pruned', async () => {
    await commit(server, 'pins', 4)
    const answer = await pin(server, 'pins/1')
    expect([answer.status, await answer.json()]).toMatchObject([
      200,
      { number: 1, pinned: true, root: empty.id },
    ])
    expect((await pin(server, 'pins/1')).status).toBe(200)
    const read = async (): Promise<CheckpointState> =>
      (await (await fetch(`${server.vaultUrl}/checkpoints/pins/1`)).json()) as CheckpointState
    expect((await read()).pinned).toBe(true)
    const remove = () => fetch(`${server.vaultUrl}/checkpoints/pins/1`, { method: 'DELETE' })
    const refused = await remove()
    expect([refused.status, await refused.text()]).toEqual([409, expect.stringContaining('unpin it first')])
    await putSettings(server, { retention: { keepLast: 1 } })
    expect((await prune(server, { source: 'pins' })).sources[0]?.kept).toMatchObject([
      { number: 1, reasons: ['pinned'] },
      { number: 4 },
    ])
    expect((await pin(server, 'pins/1', 'DELETE')).status).toBe(204)
    expect((await pin(server, 'pins/1', 'DELETE')).status).toBe(204)
    expect((await read()).pinned).toBeUndefined()
    expect((await remove()).status).toBe(204)
    const events = (await audit(server)).map(({ event, source, number }) => [event, source, number])
    expect(events.filter(([, source]) => source === 'pins')).toEqual([
      ['checkpoint-pinned', 'pins', 1],
      ['checkpoint-pinned', 'pins', 1],
      ['checkpoint-unpinned', 'pins', 1],
      ['checkpoint-deleted', 'pins', 1],
    ])
  })

  test.each([
    ['none/1', '404 checkpoint-not-found'],
    ['pins/99', '404 checkpoint-not-found'],
    ['pins/x', '404 checkpoint-not-found'],
  ])('of %s: %s', async (name, expected) => {
    expect(await problemOf(await pin(server, name))).toBe(expected)
    expect(await problemOf(await pin(server, name, 'DELETE'))).toBe(expected)
  })

  test('is taken off one that is damaged, so that it can be deleted', async () => {
    await commit(server, 'damaged', 1)
    await pin(server, 'damaged/1')
    await writeFile(join(server.dataDir, 'vaults/home/checkpoints/damaged/1.json'), '{')
    const remove = () => fetch(`${server.vaultUrl}/checkpoints/damaged/1`, { method: 'DELETE' })
    expect((await remove()).status).toBe(409)
    expect((await pin(server, 'damaged/1', 'DELETE')).status).toBe(204)
    expect((await remove()).status).toBe(204)
  })

  test('an open checkpoint cannot be pinned', async () => {
    const path = await begin(server, 'open', 'dir')
    expect(await problemOf(await fetch(`${server.vaultUrl}/${path}/pin`, { method: 'PUT' }))).toBe(
      '409 conflict',
    )
  })

  test('a pin is there after a restart, and one without its checkpoint is cleared away', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-pins-'))
    try {
      const first = await startReceiver({ dataDir })
      await put(first, 'dirs', empty)
      await commit(first, 's', 2)
      await pin(first, 's/2')
      await first.stop()
      await writeFile(join(dataDir, 'vaults/home/checkpoints/s/7.pin'), '')
      await using second = await startReceiver({ dataDir })
      const listed = (await (await fetch(`${second.vaultUrl}/checkpoints/s/`)).json()) as CheckpointList
      expect(listed.checkpoints.map(({ number, pinned }) => [number, pinned])).toEqual([
        [1, undefined],
        [2, true],
      ])
      await expect(readFile(join(dataDir, 'vaults/home/checkpoints/s/7.pin'))).rejects.toThrow('ENOENT')
    } finally {
      await rm(dataDir, { recursive: true, force: true })
    }
  })
})
