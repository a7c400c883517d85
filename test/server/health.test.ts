/** `/-/health`: what it says, to whom, and when it is not well. */
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { check, Health } from '../../protocol/schema.ts'
import { makeToken } from '../../server/access/tokens.ts'
import { editUsers } from '../../server/access/users-file.ts'
import { MemoryChunkStore } from '../../server/store/memory-chunk-store.ts'
import { WritableProbe } from '../../server/watch/writable-probe.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { chunk, put, smallTree } from './requests.ts'

let server: TestReceiver
beforeEach(async () => {
  server = await startReceiver()
})
afterEach(() => server.stop())

async function health({ url }: TestReceiver = server): Promise<{ answer: Response; body: Health }> {
  const answer = await fetch(`${url}/-/health`)
  return { answer, body: check(Health, await answer.json()) }
}

test('a receiver that is well', async () => {
  await put(server, 'chunks', chunk('some bytes'))
  const { answer, body } = await health()
  expect(answer.status).toBe(200)
  expect(answer.headers.get('cache-control')).toBe('no-store')
  expect(body).toMatchObject({
    status: 'ok',
    writable: true,
    vaultsOpen: 1,
    vaultsUnopened: [],
    diskFaults: 0,
  })
  expect(body.freeBytes).toBeGreaterThan(0)
  expect(body.lastSyncAt).toBeUndefined()
})

test('a commit is a sync', async () => {
  const { root, chunks, objects } = smallTree()
  for (const item of chunks) await put(server, 'chunks', item)
  await put(server, 'files', objects[0] as (typeof objects)[0])
  for (const item of objects.slice(1)) await put(server, 'dirs', item)
  const opened = await fetch(`${server.vaultUrl}/checkpoints/s/`, { method: 'POST', body: '{"kind":"dir"}' })
  const { number } = (await opened.json()) as { number: number }
  const before = Date.now()
  const commit = { method: 'POST', body: JSON.stringify({ root: root.id }) }
  expect((await fetch(`${server.vaultUrl}/checkpoints/s/${number}/commit`, commit)).status).toBe(200)
  const { body } = await health()
  expect(Date.parse(body.lastSyncAt ?? '')).toBeGreaterThanOrEqual(before)
})

test('a vault that cannot be opened: degraded, and named, until it opens again', async () => {
  let isBroken = true
  await using other = await startReceiver({
    unobserved: true,
    openStore: async () => {
      if (isBroken) throw Object.assign(new Error('the disk failed'), { code: 'EIO' })
      return await MemoryChunkStore.open()
    },
  })
  expect((await fetch(`${other.vaultUrl}/`)).status).toBe(503)
  const { answer, body } = await health(other)
  expect([answer.status, body.status]).toEqual([200, 'degraded'])
  expect(body.vaultsUnopened).toEqual([{ vault: 'home', code: 'EIO' }])
  isBroken = false
  expect((await fetch(`${other.vaultUrl}/`)).status).toBe(200)
  expect((await health(other)).body).toMatchObject({ status: 'ok', vaultsUnopened: [] })
})

test('a fault of the disk makes it degraded for a while', async () => {
  server.receiver.metrics.noteFault()
  expect((await health()).body).toMatchObject({ status: 'degraded', diskFaults: 1 })
})

describe('whether a folder can be written', () => {
  test('one that is gone cannot, and is not asked again at once', async () => {
    const folder = join(server.dataDir, 'probed')
    const probe = new WritableProbe(folder)
    expect(await probe.ask()).toBe('no')
    await mkdir(folder)
    expect(await probe.ask()).toBe('no')
    expect(await new WritableProbe(folder).ask()).toBe('yes')
  })

  test('a failing receiver answers 503, and says so in the same document', async () => {
    // Nobody can write a file where a folder has its name.
    await mkdir(join(server.dataDir, 'writable.probe'))
    await writeFile(join(server.dataDir, 'writable.probe', 'x'), '')
    const { answer, body } = await health()
    expect(answer.status).toBe(503)
    expect(answer.headers.get('retry-after')).toBe('10')
    expect(body).toMatchObject({ status: 'failing', writable: false })
  })

  test.skipIf(process.getuid?.() === 0)('neither can one without permission', async () => {
    await chmod(server.dataDir, 0o500)
    expect(await new WritableProbe(server.dataDir).ask()).toBe('no')
    await chmod(server.dataDir, 0o700)
  })
})

describe('where there are users', () => {
  let guarded: TestReceiver
  const logins = new Map<string, string>()
  beforeAll(async () => {
    guarded = await startReceiver({ unobserved: true })
    await editUsers(guarded.dataDir, ({ users, tokens }) => {
      const now = new Date().toISOString()
      for (const [name, metrics] of [
        ['prometheus', true],
        ['alice', false],
      ] as const) {
        const { id, token, hash } = makeToken()
        users.push({ name, grants: { home: 'admin' }, metrics, added: now })
        tokens.push({ id, user: name, hash, created: now })
        logins.set(name, `Bearer ${token}`)
      }
    })
    await guarded.receiver.reload()
  })
  afterAll(() => guarded.stop())

  const asking = (name: string): RequestInit => {
    const authorization = logins.get(name)
    return authorization === undefined ? {} : { headers: { authorization } }
  }

  test.each([
    ['nobody', false, 401],
    ['alice', false, 403],
    ['prometheus', true, 200],
  ])('%s is told all of the health: %s; metrics: %d', async (name, isTold, status) => {
    const answer = await fetch(`${guarded.url}/-/health`, asking(name))
    expect(answer.status).toBe(200)
    const members = Object.keys(check(Health, await answer.json()))
    if (isTold) expect(members).toContain('vaultsOpen')
    else expect(members).toEqual(['status', 'version'])
    expect((await fetch(`${guarded.url}/-/metrics`, asking(name))).status).toBe(status)
  })

  test('a wrong token at the health is told as that', async () => {
    const headers = { authorization: 'Bearer wrong' }
    expect((await fetch(`${guarded.url}/-/health`, { headers })).status).toBe(401)
  })

  test('failed logins are counted', async () => {
    const headers = { authorization: `Basic ${Buffer.from('alice:wrong').toString('base64')}` }
    expect((await fetch(`${guarded.url}/home/`, { headers })).status).toBe(401)
    const text = await (await fetch(`${guarded.url}/-/metrics`, asking('prometheus'))).text()
    expect(text).toMatch(/^chunkdav_login_failures_total [12]$/m)
  })
})
