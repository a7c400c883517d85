/** Open checkpoints that nobody goes on with: what keeps them, and what does not. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { MemoryChunkStore } from '../../../server/store/memory-chunk-store.ts'
import { OpenExpiry } from '../../../server/upkeep/open-expiry.ts'
import { type Vault, Vaults } from '../../../server/vaults.ts'
import { startReceiver } from '../../support/receiver.ts'
import { begin, chunk, post, problemOf, put } from '../requests.ts'

const hour = 3_600_000
const day = 24 * hour
let folder: string
let vaults: Vaults
let vault: Vault
/** The clock that nobody sets. */
let now = 0

async function open(): Promise<void> {
  vaults = await Vaults.open(folder, { openStore: async () => new MemoryChunkStore(), trashMs: 1 })
  if (!(await vaults.list()).includes('home')) await vaults.create('home')
  vault = await vaults.get('home')
}

/** Another process, which has just begun. */
async function restart(): Promise<OpenExpiry> {
  await vaults.close()
  await open()
  return new OpenExpiry(7 * day, now)
}

beforeEach(async () => {
  now = 1e6
  vi.spyOn(performance, 'now').mockImplementation(() => now)
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-expiry-'))
  await open()
})
afterEach(async () => {
  vi.restoreAllMocks()
  await vaults.close()
  await rm(folder, { recursive: true, force: true })
})

const { id } = chunk('some')
const checkpoints = () => vault.catalog.checkpoints
const openNumbers = (): number[] =>
  checkpoints()
    .listOpen('s')
    .map(({ number }) => number)
/** Looks every eight hours, and at the end. */
async function hours(expiry: OpenExpiry, count: number): Promise<void> {
  for (let left = count; left > 0; left -= 8) {
    now += Math.min(left, 8) * hour
    await expiry.run(vault)
  }
}

test('without a sign of life it goes; what was given signs stays', async () => {
  const expiry = new OpenExpiry(7 * day, now)
  for (let i = 0; i < 4; i++) await checkpoints().begin('s', { kind: i === 2 ? 'chunks' : 'dir' })
  await hours(expiry, 6 * 24)
  await checkpoints().touch({ source: 's', number: 2 }, [id])
  await checkpoints().addItems({ source: 's', number: 3 }, { first: 0, items: [{ id, size: 4 }] })
  ;(await checkpoints().enter({ source: 's', number: 4 }))()
  await hours(expiry, 24)
  expect(openNumbers()).toEqual([1, 2, 3, 4])
  await hours(expiry, 1)
  expect(openNumbers()).toEqual([2, 3, 4])
  await hours(expiry, 6 * 24)
  expect(openNumbers()).toEqual([])
  await expect(checkpoints().state({ source: 's', number: 2 })).rejects.toMatchObject({
    code: 'checkpoint-not-found',
  })
  expect((await checkpoints().begin('s', { kind: 'dir' })).number).toBe(5)
})

test('a request that is under way keeps it, however long', async () => {
  const expiry = new OpenExpiry(7 * day, now)
  await checkpoints().begin('s', { kind: 'dir' })
  const leave = await checkpoints().enter({ source: 's', number: 1 })
  await hours(expiry, 20 * 24)
  expect(openNumbers()).toEqual([1])
  leave()
  await hours(expiry, 7 * 24)
  expect(openNumbers()).toEqual([1])
  await hours(expiry, 1)
  expect(openNumbers()).toEqual([])
})

test('one that shows a sign just as it is to be deleted stays', async () => {
  await checkpoints().begin('s', { kind: 'dir' })
  const [seen] = await checkpoints().openSigns()
  now += 1
  const left = await checkpoints().enter({ source: 's', number: 1 })
  left()
  expect(await checkpoints().deleteAbandoned({ source: 's', number: 1 }, seen as never)).toBe(false)
  expect(openNumbers()).toEqual([1])
})

test('time while the receiver was down does not count', async () => {
  await checkpoints().begin('s', { kind: 'dir' })
  await hours(new OpenExpiry(7 * day, now), 3 * 24)
  now += 60 * day
  const expiry = await restart()
  await hours(expiry, 4 * 24)
  expect(openNumbers()).toEqual([1])
  await hours(expiry, 1)
  expect(openNumbers()).toEqual([])
})

test('the count goes on over restarts, however often', async () => {
  await checkpoints().begin('s', { kind: 'dir' })
  let expiry = new OpenExpiry(7 * day, now)
  for (let days = 0; days < 7; days++) {
    await hours(expiry, 24)
    expiry = await restart()
  }
  expect(openNumbers()).toEqual([1])
  await hours(expiry, 1)
  expect(openNumbers()).toEqual([])
})

test('what came in its name before a restart, after the last look, begins the count anew', async () => {
  await checkpoints().begin('s', { kind: 'dir' })
  await hours(new OpenExpiry(7 * day, now), 6 * 24)
  await checkpoints().touch({ source: 's', number: 1 }, [id])
  await hours(await restart(), 6 * 24)
  expect(openNumbers()).toEqual([1])
})

test('a clock that was set changes nothing', async () => {
  const expiry = new OpenExpiry(7 * day, now)
  await checkpoints().begin('s', { kind: 'dir' })
  vi.spyOn(Date, 'now').mockReturnValue(Date.now() + 1000 * day)
  await hours(expiry, 24)
  expect(openNumbers()).toEqual([1])
})

test('notes that are damaged begin anew; when nothing is open there are none', async () => {
  const path = join(folder, 'vaults/home/upkeep/open-checkpoints.json')
  await checkpoints().begin('s', { kind: 'dir' })
  await hours(new OpenExpiry(7 * day, now), 6 * 24)
  expect(JSON.parse(await readFile(path, 'utf8'))).toEqual({ 's/1': { idleMs: 6 * day, bytes: 0 } })
  for (const text of ['{', 'null', '{"s/1":null}', '{"s/1":{"idleMs":"x","bytes":0}}']) {
    await writeFile(path, text)
    await hours(await restart(), 24)
    expect(openNumbers()).toEqual([1])
  }
  await checkpoints().delete({ source: 's', number: 1 })
  await hours(await restart(), 1)
  await expect(readFile(path)).rejects.toThrow('ENOENT')
})

test('the schedule does it, and says so in the audit; a slow upload keeps it', async () => {
  vi.restoreAllMocks()
  await using server = await startReceiver({ expireOpenMs: 100 })
  await begin(server, 's', 'dir')
  await begin(server, 's', 'dir')
  const item = chunk('slowly')
  const headers = { 'Chunkdav-Checkpoint': 's/2' }
  async function* slowly() {
    yield new Uint8Array(item.bytes.subarray(0, 2))
    await sleep(300)
    await server.receiver.schedule.prune()
    yield new Uint8Array(item.bytes.subarray(2))
  }
  const path = `${server.vaultUrl}/chunks/${item.id}`
  const upload = { method: 'PUT', headers, body: slowly() as never, duplex: 'half' as const }
  expect((await fetch(path, upload)).status).toBe(201)
  const commit = (number: number) => post(server, `checkpoints/s/${number}/commit`, {})
  expect(await problemOf(await commit(1))).toBe('404 checkpoint-not-found')
  expect(await problemOf(await commit(2))).toBe('400 invalid-request')
  await sleep(200)
  await server.receiver.schedule.prune()
  expect(await problemOf(await put(server, 'chunks', item, headers))).toBe('404 checkpoint-not-found')
  await sleep(50)
  const lines = (await readFile(join(server.dataDir, 'audit.jsonl'), 'utf8')).trimEnd().split('\n')
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { event: 'checkpoint-expired', vault: 'home', source: 's', number: 1 },
    { event: 'checkpoint-expired', vault: 'home', source: 's', number: 2 },
  ])
})
