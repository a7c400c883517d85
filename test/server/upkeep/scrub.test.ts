/**
 * What rots in a vault is found by scrub, what it harms is named, and the next backup from the unchanged source heals it.
 * Real receiver, real client, its database unchanged.
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ChunkSource } from '../../../client/sources/chunk-source.ts'
import { hashId } from '../../../protocol/hash.ts'
import { idToBytes } from '../../../protocol/id.ts'
import { check, type ScrubReport, ScrubState } from '../../../protocol/schema.ts'
import { PackChunkStore } from '../../../server/store/pack-chunk-store.ts'
import { backUp, restoreTo } from '../../support/backup.ts'
import {
  cutIn,
  type FoundRecord,
  flipAt,
  flipHeader,
  flipPayload,
  recordOf,
  recordsOf,
  recordWith,
  removePack,
} from '../../support/damage.ts'
import { startReceiver, type TestReceiver } from '../../support/receiver.ts'
import { listing, seededBytes, type TemporaryFolder, temporaryFolder } from '../../support/tree.ts'
import { writeUsers } from '../../support/users.ts'

const MiB = 1024 * 1024

let server: TestReceiver
let folder: TemporaryFolder
let dataDir: string
const source = () => join(folder.path, 'source')

/** Packs of 2 MiB, so that there are several. */
const start = async () =>
  await startReceiver({
    dataDir,
    openStore: (path) => PackChunkStore.open(path, { packBytes: 2 * MiB }),
    scrubBytesPerSecond: 1024 * MiB,
  })

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-scrub-'))
  folder = await temporaryFolder()
  await mkdir(join(source(), 'docs/old'), { recursive: true })
  await writeFile(join(source(), 'one'), seededBytes('one', 900_000))
  await writeFile(join(source(), 'docs/two'), seededBytes('two', 900_000))
  await writeFile(join(source(), 'docs/big'), seededBytes('big', 5 * MiB))
  await writeFile(join(source(), 'docs/old/three é'), seededBytes('three', 900_000))
  server = await start()
})
afterEach(async () => {
  await server.stop()
  await folder[Symbol.asyncDispose]()
  await rm(dataDir, { recursive: true, force: true })
})

const back = () => backUp(source(), { vaultUrl: server.vaultUrl, state: join(folder.path, 'state') })
const idOf = (name: string, bytes = 900_000) => hashId(seededBytes(name, bytes))
const withChunk = (name: string) => recordWith(dataDir, idOf(name))
const withText = (text: string) => recordOf(dataDir, (bytes) => bytes.includes(text))
const upkeep = () => `${server.vaultUrl}/upkeep/scrub`
const state = async () => check(ScrubState, await (await fetch(upkeep())).json())

async function scrub(): Promise<ScrubReport> {
  const answer = await fetch(upkeep(), { method: 'POST' })
  expect(answer.status).toBe(202)
  for (;;) {
    const { running, last } = await state()
    if (running === undefined && last !== undefined) {
      expect(last).toMatchObject({ outcome: 'done', report: { complete: true } })
      return last.report
    }
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

const both = (...paths: string[]) =>
  [1, 2].map((number) => ({ source: 'test', number, count: paths.length, paths }))

async function secondBackup(isChanged = true): Promise<void> {
  await back()
  if (isChanged) await writeFile(join(source(), 'four'), seededBytes('four', 900_000))
  await back()
}

async function expectHealed(number: number): Promise<void> {
  expect(await back()).toMatchObject({ problems: [] })
  const report = await scrub()
  expect(report.harm).toMatchObject({ missingChunks: 0, checkpoints: [] })
  const to = join(folder.path, 'restored')
  expect(await restoreTo(to, { vaultUrl: server.vaultUrl, number })).toMatchObject({ problems: 0 })
  expect(listing(to)).toEqual(listing(source()))
}

test('what is sound is told to be sound, and how much it was', async () => {
  await secondBackup()
  const records = await recordsOf(dataDir)
  const report = await scrub()
  expect(report).toMatchObject({
    records: records.length,
    chunks: records.reduce((sum, { header }) => sum + header.rows.length, 0),
    bytes: records.reduce((sum, { header }) => sum + header.totalBytes, 0),
    badRecords: 0,
    strayRows: 0,
    lostChunks: 0,
    found: [],
    harm: { missingChunks: 0, checkpoints: [] },
  })
  expect(report.totalBytes).toBe(report.bytes)
})

describe('damage is found, named, and healed by the next backup', () => {
  /** What to damage, how, and the files that it harms. */
  const cases: [string, () => Promise<FoundRecord>, (at: FoundRecord) => Promise<void>, string[], object][] =
    [
      ['a payload', () => withChunk('one'), flipPayload, ['one'], { badRecords: 1, lostChunks: 1 }],
      ['a payload further down', () => withChunk('three'), flipPayload, ['docs/old/three%20%C3%A9'], {}],
      ['a header of a record', () => withChunk('two'), flipHeader, ['docs/two'], { badRecords: 1 }],
      ['the object of a long file', () => withText('"type":"file"'), flipPayload, ['docs/big'], {}],
      ['the object of a directory', () => withText('"name":"three '), flipPayload, ['docs/old/'], {}],
      ['the object of the root', () => withText('"name":"docs"'), flipPayload, [''], {}],
    ]
  test.each(cases)('%s', async (_, find, damage, paths, counts) => {
    // The root of what the source has no more could not be sent again.
    await secondBackup(paths[0] !== '')
    await damage(await find())
    const report = await scrub()
    expect(report.harm?.checkpoints).toEqual(both(...paths))
    expect(report).toMatchObject(counts)
    expect(report.found[0]).toMatchObject({ quarantined: true })
    const failed = await restoreTo(join(folder.path, 'harmed'), { vaultUrl: server.vaultUrl, number: 1 })
    expect(failed.problems).toBeGreaterThan(0)
    expect(failed.problemList.every(({ code }) => code === 'chunk-not-found' || code === 'not-found')).toBe(
      true,
    )
    await expectHealed(3)
  })

  test('a pack that is gone', async () => {
    await secondBackup()
    const at = await withChunk('one')
    const lost = (await recordsOf(dataDir)).filter(({ pack }) => pack === at.pack)
    await removePack(at)
    const report = await scrub()
    expect(report.strayRows).toBe(lost.reduce((sum, { header }) => sum + header.rows.length, 0))
    expect(report.found).toMatchObject([{ pack: at.pack, damage: 'its pack is gone', quarantined: false }])
    expect(report.harm?.checkpoints.map(({ number }) => number)).toEqual([1, 2])
    expect(report.harm?.checkpoints[0]?.paths).toContain('one')
    await expectHealed(3)
  })

  test('a pack that was cut short', async () => {
    await secondBackup(false)
    await cutIn(await withChunk('two'))
    const report = await scrub()
    expect(report.harm?.checkpoints.map(({ number }) => number)).toEqual([1, 2])
    await expectHealed(3)
  })

  test("a pack's own header: nothing is harmed, and it is told once", async () => {
    await secondBackup()
    const { path, pack } = await withChunk('one')
    await flipAt(path, 3)
    expect(await scrub()).toMatchObject({
      badRecords: 1,
      lostChunks: 0,
      found: [{ pack, offset: 0, damage: 'the pack has no header' }],
      harm: { missingChunks: 0, checkpoints: [] },
    })
    expect(await scrub()).toMatchObject({ badRecords: 0, found: [] })
  })

  test('the bytes are put aside, with a note', async () => {
    await back()
    const at = await withChunk('one')
    await flipPayload(at)
    const bad = (await readFile(at.path)).subarray(at.offset, at.offset + at.header.totalBytes)
    await scrub()
    const kept = join(dataDir, 'vaults/home/quarantine')
    const name = `${String(at.pack).padStart(8, '0')}-${at.offset}`
    expect((await readdir(kept)).sort()).toEqual([`${name}.block`, `${name}.json`])
    expect(bad.equals(await readFile(join(kept, `${name}.block`)))).toBe(true)
    expect(JSON.parse(await readFile(join(kept, `${name}.json`), 'utf8'))).toMatchObject({
      offset: at.offset,
      bytes: at.header.totalBytes,
      chunks: 1,
      ids: [idOf('one')],
    })
    // It stays where it is in the pack, and is not told of again.
    expect(await scrub()).toMatchObject({ badRecords: 0, lostChunks: 0 })
  })
})

test('a list of chunks and a stream are healed too', async () => {
  const asChunks = {
    vaultUrl: server.vaultUrl,
    state: join(folder.path, 'state'),
    source: 'list',
    as: 'chunks',
  } as const
  await backUp(source(), asChunks)
  await flipPayload(await withChunk('one'))
  expect((await scrub()).harm?.checkpoints).toMatchObject([{ source: 'list', number: 1, paths: ['one'] }])
  await backUp(source(), asChunks)
  expect((await scrub()).harm?.checkpoints).toEqual([])
  const stream = () => ChunkSource.open(join(source(), 'docs/big'))
  const setup = { ...asChunks, source: 'stream' }
  await backUp(await stream(), setup)
  const answer = await fetch(`${server.vaultUrl}/checkpoints/stream/1/items`)
  const [{ id }] = ((await answer.json()) as { items: [{ id: string }] }).items
  await flipPayload(await recordWith(dataDir, id))
  const { harm } = await scrub()
  expect(harm?.checkpoints).toContainEqual({ source: 'stream', number: 1, count: 1, paths: [] })
  await backUp(await stream(), setup)
  expect((await scrub()).harm?.checkpoints.filter((each) => each.source === 'stream')).toEqual([])
})

test.each([
  ['removed', removePack],
  ['cut short', cutIn],
])('when the pack that is written to is %s, what is sent again is safe', async (_, damage) => {
  await server.stop()
  server = await startReceiver({ dataDir, scrubBytesPerSecond: 1024 * MiB })
  await back()
  await damage(await withChunk('one'))
  expect((await scrub()).harm?.checkpoints).toMatchObject([{ source: 'test', number: 1 }])
  await back()
  // What was written into a file that has no name any more would be gone now.
  await server.stop()
  server = await start()
  await expectHealed(3)
})

describe('damage in the index', () => {
  /** Changes the row of a chunk while nobody has the index open. */
  async function changeRow(name: string, change: (value: Buffer) => void): Promise<void> {
    await server.stop()
    const index = new Level<Buffer, Buffer>(join(dataDir, 'vaults/home/index'), {
      keyEncoding: 'buffer',
      valueEncoding: 'buffer',
    })
    const key = idToBytes(idOf(name))
    const value = Buffer.from((await index.get(key)) as Buffer)
    change(value)
    await index.put(key, value)
    await index.close()
    server = await start()
  }

  test.each([
    ['another place in the pack', 4, 17],
    ['another pack', 0, 77],
    ['another length', 12, 1],
  ])('a row that tells of %s', async (_, at, by) => {
    await secondBackup()
    await changeRow('one', (value) => {
      value.writeUInt32LE(value.readUInt32LE(at) + by, at)
      value.writeUInt32LE(crc32(value.subarray(0, 16), crc32(idToBytes(idOf('one')))), 16)
    })
    expect(await scrub()).toMatchObject({ badRecords: 0, strayRows: 1, lostChunks: 1, healedChunks: 1 })
    expect((await scrub()).harm).toMatchObject({ missingChunks: 0, checkpoints: [] })
  })

  test('a row with a wrong checksum: it says what mends it', async () => {
    await secondBackup()
    await changeRow('one', (value) => value.writeUInt32LE(1, 4))
    await fetch(upkeep(), { method: 'POST' })
    const { scrub: own } = await server.receiver.vaults.get('home')
    const { last } = await (await own.everything()).ended
    expect(last).toMatchObject({ outcome: 'failed', detail: expect.stringContaining('chunkdav reindex') })
    expect(last?.report.harm).toBeUndefined()
  })
})

test('a chunk that another record holds too is healed from there', async () => {
  await back()
  const at = await withChunk('one')
  const bytes = await readFile(at.path)
  const block = bytes.subarray(at.offset, at.offset + at.header.totalBytes)
  await server.stop()
  // As a put of a block that is known in part leaves it: the index points at the later of the two.
  const packs = join(dataDir, 'vaults/home/packs')
  await writeFile(join(packs, '00000090.pack'), Buffer.concat([bytes.subarray(0, 16), block]))
  await rm(join(dataDir, 'vaults/home/index'), { recursive: true })
  server = await start()
  await fetch(`${server.vaultUrl}/`)
  await flipAt(join(packs, '00000090.pack'), 16 + block.length - 1000)
  expect(await scrub()).toMatchObject({
    badRecords: 1,
    lostChunks: 1,
    healedChunks: 1,
    harm: { missingChunks: 0, checkpoints: [] },
  })
})

test('files of the live tree and of its trash are named', async () => {
  const put = async (path: string, name: string) =>
    await fetch(`${server.vaultUrl}/${path}`, {
      method: 'PUT',
      body: new Uint8Array(seededBytes(name, 50_000)),
    })
  await fetch(`${server.vaultUrl}/tree/sub/`, { method: 'MKCOL' })
  for (const [path, name] of [
    ['tree/sub/a%20b', 'live'],
    ['tree/gone', 'trashed'],
    ['tree/sound', 'sound'],
    ['tree/empty', ''],
  ] as const) {
    if (name === '') await fetch(`${server.vaultUrl}/${path}`, { method: 'PUT', body: '' })
    else await put(path, name)
  }
  await fetch(`${server.vaultUrl}/tree/gone`, { method: 'DELETE' })
  for (const name of ['live', 'trashed']) await flipPayload(await recordWith(dataDir, idOf(name, 50_000)))
  const { harm } = await scrub()
  expect(harm?.tree).toEqual({ count: 2, paths: ['tree/sub/a%20b', 'trash/1/gone'] })
  await put('tree/sub/a%20b', 'live')
  expect((await scrub()).harm?.tree).toEqual({ count: 1, paths: ['trash/1/gone'] })
})

test('it goes on where it was after a stop, and after a restart', async () => {
  await secondBackup()
  await server.stop()
  const slow = async () =>
    await startReceiver({
      dataDir,
      openStore: (path) => PackChunkStore.open(path, { packBytes: 2 * MiB }),
      scrubBytesPerSecond: 4 * MiB,
    })
  server = await slow()
  const some = async (): Promise<number> => {
    for (;;) {
      const { running } = await state()
      if (running !== undefined && running.progress.bytes > MiB) return running.progress.bytes
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  await fetch(upkeep(), { method: 'POST' })
  const read = await some()
  await server.stop()
  server = await start()
  const { vaults } = server.receiver
  const { scrub: own } = await vaults.get('home')
  expect(own.state.last).toMatchObject({ outcome: 'stopped', report: { complete: false } })
  expect(own.state.last?.report.bytes).toBeGreaterThanOrEqual(read)
  await own.share(30 * 24 * 3_600_000)
  expect(own.state.last).toMatchObject({ outcome: 'done', report: { complete: true } })
  const records = await recordsOf(dataDir)
  expect(own.state.last?.report).toMatchObject({ records: records.length, badRecords: 0 })
})

test('a share each hour reads everything once within the period', async () => {
  await secondBackup()
  const { scrub: own } = await server.receiver.vaults.get('home')
  const periodMs = 10 * 3_600_000
  const records = await recordsOf(dataDir)
  const all = records.reduce((sum, { header }) => sum + header.totalBytes, 0)
  let hours = 0
  await own.share(periodMs, Date.now())
  const first = own.state.last?.report
  expect(first?.bytes).toBeGreaterThan(all / 10 - 1)
  expect(first?.bytes).toBeLessThan(all / 2)
  while (own.state.last?.report.complete !== true) {
    hours++
    await own.share(periodMs, Date.now() + hours * 3_600_000)
  }
  expect(hours).toBeLessThan(10)
  expect(own.state.last.report).toMatchObject({ records: records.length, bytes: all, badRecords: 0 })
})

test('the next share sees that what was lost has been sent again, or that nobody needs it any more', async () => {
  await secondBackup()
  const { scrub: own, catalog } = await server.receiver.vaults.get('home')
  const harmed = () => own.state.last?.report.harm?.checkpoints.map(({ number }) => number)
  const periodMs = 30 * 24 * 3_600_000
  await flipPayload(await withChunk('one'))
  await scrub()
  await own.share(periodMs)
  expect(harmed()).toEqual([1, 2])
  await catalog.checkpoints.delete({ source: 'test', number: 1 })
  await own.share(periodMs)
  expect(harmed()).toEqual([2])
  await back()
  await own.share(periodMs)
  expect(harmed()).toEqual([])
  // In a round that is at work it is the same.
  await flipPayload(await withChunk('two'))
  for (let hour = 0; harmed()?.length === 0; hour++)
    await own.share(3_600_000 * 6, Date.now() + hour * 3_600_000)
  expect(harmed()).toEqual([2, 3])
  await back()
  await own.share(periodMs)
  expect(harmed()).toEqual([])
})

test('DELETE stops it', async () => {
  await secondBackup()
  await fetch(upkeep(), { method: 'POST' })
  expect((await fetch(upkeep(), { method: 'DELETE' })).status).toBe(204)
  expect((await state()).running).toBeUndefined()
})

test('the schedule reads the share of every vault', async () => {
  await back()
  await server.receiver.vaults.create('other')
  await server.stop()
  server = await startReceiver({ dataDir, scrubMs: 3_600_000 })
  await server.receiver.schedule.scrub()
  expect((await state()).last).toMatchObject({ outcome: 'done', report: { complete: true, badRecords: 0 } })
})

test('whoever may not restore is told of harm, and no names; only an admin begins and stops it', async () => {
  await back()
  await flipPayload(await withChunk('one'))
  await scrub()
  await server.stop()
  const tokens = await writeUsers(dataDir, {
    admin: { grants: { home: 'admin' } },
    reader: { grants: { home: 'read' } },
    appender: { grants: { home: 'append-only' } },
    stranger: { grants: { other: 'admin' } },
  })
  server = await startReceiver({ dataDir })
  const ask = async (user: string, method: string) => {
    const answer = await fetch(upkeep(), { method, headers: { Authorization: `Bearer ${tokens[user]}` } })
    const told = answer.status === 200 ? check(ScrubState, await answer.json()) : undefined
    return [answer.status, told?.last?.report.harm?.checkpoints]
  }
  const named = { source: 'test', number: 1, count: 1, paths: ['one'] }
  expect(await ask('reader', 'GET')).toEqual([200, [named]])
  expect(await ask('appender', 'GET')).toEqual([200, [{ ...named, paths: [] }]])
  expect(await ask('stranger', 'GET')).toEqual([404, undefined])
  for (const [user, status] of Object.entries({ reader: 403, appender: 403, stranger: 404 })) {
    expect((await ask(user, 'POST'))[0]).toBe(status)
    expect((await ask(user, 'DELETE'))[0]).toBe(status)
  }
  expect((await ask('admin', 'POST'))[0]).toBe(202)
  expect((await ask('admin', 'DELETE'))[0]).toBe(204)
})
