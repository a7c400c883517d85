/** Garbage collection of a running receiver: what goes, what stays, and how it is told of. */
import { mkdir, mkdtemp, readFile, rm, truncate, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import type { Id } from '../../../protocol/id.ts'
import { encodeDirectoryObject } from '../../../protocol/objects.ts'
import type { CheckpointState, CollectionReport, CollectionRequest } from '../../../protocol/schema.ts'
import { checkpointHeader } from '../../../protocol/url.ts'
import { itemBytes } from '../../../server/catalog/item-list.ts'
import { PackChunkStore } from '../../../server/store/pack-chunk-store.ts'
import { chooseForCompaction } from '../../../server/upkeep/collect.ts'
import { findHarm } from '../../../server/upkeep/harm.ts'
import { backUp, restoreTo } from '../../support/backup.ts'
import { flipPayload, recordOf } from '../../support/damage.ts'
import { startReceiver, type TestReceiver } from '../../support/receiver.ts'
import { listing, seededBytes, type TemporaryFolder, temporaryFolder } from '../../support/tree.ts'
import { blockOf, chunk, fileEntry, noise } from '../requests.ts'

const KiB = 1024
let server: TestReceiver
let folder: TemporaryFolder
let dataDir: string
const source = () => join(folder.path, 'source')

const start = async (packBytes = 256 * KiB) =>
  await startReceiver({
    dataDir,
    openStore: (path) => PackChunkStore.open(path, { packBytes }),
    upkeepShare: 1,
  })

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-collect-'))
  folder = await temporaryFolder()
  await mkdir(join(source(), 'sub'), { recursive: true })
  for (const name of ['a', 'b', 'sub/c', 'sub/d'])
    await writeFile(join(source(), name), seededBytes(name, 200 * KiB))
  server = await start()
})
afterEach(async () => {
  await server.stop()
  await folder[Symbol.asyncDispose]()
  await rm(dataDir, { recursive: true, force: true })
})

const back = () => backUp(source(), { vaultUrl: server.vaultUrl, state: join(folder.path, 'state') })
const vault = () => server.receiver.vaults.get('home')
const stored = async () => (await vault()).store.usage.storedBytes

async function gc(request: CollectionRequest = { minGarbage: 0 }): Promise<CollectionReport> {
  const answer = await fetch(`${server.vaultUrl}/upkeep/collection`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(request),
  })
  expect(answer.status).toBe(202)
  // What runs is joined by a dry run, whatever it is.
  const { collector } = await vault()
  const { last } = collector.state.running
    ? await (await collector.start({ dryRun: true })).ended
    : collector.state
  expect(last).toMatchObject({ outcome: 'done' })
  return (last as NonNullable<typeof last>).report
}

async function send(
  method: string,
  path: string,
  body?: Buffer | string,
  headers: Record<string, string> = {},
) {
  const json = typeof body === 'string' ? { 'content-type': 'application/json' } : {}
  const answer = await fetch(`${server.vaultUrl}/${path}`, {
    method,
    body: body ?? null,
    headers: { ...json, ...headers },
  })
  const text = await answer.text()
  return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) }
}

const begin = async (kind = 'dir', name = 's'): Promise<CheckpointState> =>
  (await send('POST', `checkpoints/${name}/`, JSON.stringify({ kind }))).body
const named = ({ source, number }: CheckpointState) => ({ [checkpointHeader]: `${source}/${number}` })
const isHere = async (id: Id) =>
  (await fetch(`${server.vaultUrl}/chunks/${id}`, { method: 'HEAD' })).status === 200

test('what a deleted checkpoint alone had is given back; what others have stays, also over a restart', async () => {
  await back()
  await unlink(join(source(), 'a'))
  await writeFile(join(source(), 'e'), seededBytes('e', 100 * KiB))
  await back()
  const before = await stored()
  expect(await gc({ dryRun: true, minGarbage: 0 })).toMatchObject({
    garbageBytes: 0,
    dueBytes: 0,
    checkpoints: 2,
  })
  await send('DELETE', 'checkpoints/test/1')
  const dry = await gc({ dryRun: true })
  expect(dry.garbageBytes).toBeGreaterThan(190 * KiB)
  expect(await stored()).toBe(before)
  const report = await gc()
  expect(report).toMatchObject({ checkpoints: 1, garbageBytes: 0, dryRun: false })
  expect(report.freedBytes).toBeGreaterThan(190 * KiB)
  expect(await stored()).toBeLessThan(before - 190 * KiB)
  await server.stop()
  server = await start()
  const to = join(folder.path, 'restored')
  await restoreTo(to, { vaultUrl: server.vaultUrl, number: 2 })
  expect(listing(to)).toEqual(listing(source()))
  expect(await back()).toMatchObject({ problems: [] })
})

test('the live tree and its trash keep their content; what leaves the trash goes', async () => {
  const content = seededBytes('tree', 300 * KiB)
  const other = seededBytes('other', 200 * KiB)
  for (const [name, bytes] of [
    ['x', content],
    ['y', other],
  ] as const) {
    expect((await fetch(`${server.vaultUrl}/tree/${name}`, { method: 'PUT', body: bytes })).status).toBe(201)
  }
  expect((await fetch(`${server.vaultUrl}/tree/y`, { method: 'DELETE' })).status).toBe(204)
  await gc()
  const get = async (path: string) =>
    Buffer.from(await (await fetch(`${server.vaultUrl}/${path}`)).arrayBuffer())
  expect(await get('tree/x')).toEqual(content)
  expect(await get('trash/1/y')).toEqual(other)
  expect((await fetch(`${server.vaultUrl}/trash/1`, { method: 'DELETE' })).status).toBe(204)
  const before = await stored()
  await (await vault()).tree.settled()
  await gc()
  expect(await get('tree/x')).toEqual(content)
  expect(await stored()).toBeLessThan(before - 190 * KiB)
})

test('COPY keeps the content of what it copies, although a collection has marked what refers to it already', async () => {
  const content = seededBytes('copied', 100 * KiB)
  await fetch(`${server.vaultUrl}/tree/x`, { method: 'PUT', body: content })
  await fetch(`${server.vaultUrl}/tree/d/`, { method: 'MKCOL' })
  await fetch(`${server.vaultUrl}/tree/d/y`, { method: 'PUT', body: seededBytes('below', 100 * KiB) })
  const { store } = await vault()
  // As if everything had been walked, and the files removed for good just before.
  const collection = store.collect()
  for (const [from, to] of [
    ['x', 'x2'],
    ['d/', 'd2/'],
  ] as const) {
    const headers = { destination: `${server.vaultUrl}/tree/${to}` }
    expect((await fetch(`${server.vaultUrl}/tree/${from}`, { method: 'COPY', headers })).status).toBe(201)
  }
  for (const { pack } of await collection.survey({ step: async () => {} })) {
    await collection.compact(pack, { step: async () => {} })
  }
  collection.end()
  const get = async (path: string) =>
    Buffer.from(await (await fetch(`${server.vaultUrl}/tree/${path}`)).arrayBuffer())
  expect(await get('x2')).toEqual(content)
  expect(await get('d2/y')).toEqual(seededBytes('below', 100 * KiB))
})

test('a PUT and a COPY go through although a collection begins under them', async () => {
  const { store, tree } = await vault()
  const change = tree.change.bind(tree)
  let begun = 0
  // Whatever the request has found out by now is void when it gets its turn.
  tree.change = async (work) => {
    if (begun++ % 2 === 0) store.collect().end()
    return await change(work)
  }
  const put = await fetch(`${server.vaultUrl}/tree/x`, { method: 'PUT', body: seededBytes('x', 50 * KiB) })
  expect(put.status).toBe(201)
  const headers = { destination: `${server.vaultUrl}/tree/x2` }
  expect((await fetch(`${server.vaultUrl}/tree/x`, { method: 'COPY', headers })).status).toBe(201)
})

describe('an open checkpoint', () => {
  test('keeps what was sent in its name, and what was asked about', async () => {
    const [sent, asked, unnamed] = ['sent', 'asked', 'unnamed'].map((text) =>
      chunk(noise(3000, text.length)),
    ) as [ReturnType<typeof chunk>, ReturnType<typeof chunk>, ReturnType<typeof chunk>]
    for (const { id, bytes } of [asked, unnamed]) await send('PUT', `chunks/${id}`, bytes)
    const opened = await begin()
    await send('POST', 'chunks/', await blockOf([sent]), {
      ...named(opened),
      'content-type': 'application/vnd.chunkdav.batch',
    })
    await send('POST', 'chunks/missing', JSON.stringify({ ids: [asked.id] }), named(opened))
    await server.stop()
    server = await start()
    await gc()
    expect([await isHere(sent.id), await isHere(asked.id), await isHere(unnamed.id)]).toEqual([
      true,
      true,
      false,
    ])
    await send('DELETE', `checkpoints/s/${opened.number}`)
    await gc()
    expect([await isHere(sent.id), await isHere(asked.id)]).toEqual([false, false])
  })

  test('that asked about a directory keeps all that it reaches', async () => {
    const file = chunk(noise(5000, 3))
    const directory = encodeDirectoryObject([fileEntry('f', file)])
    for (const { id, bytes } of [file, directory]) await send('PUT', `chunks/${id}`, bytes)
    const opened = await begin()
    await send('POST', 'chunks/missing', JSON.stringify({ ids: [directory.id] }), named(opened))
    await gc()
    expect(await isHere(file.id)).toBe(true)
    const commit = await send(
      'POST',
      `checkpoints/s/${opened.number}/commit`,
      JSON.stringify({ root: directory.id }),
    )
    expect(commit.status).toBe(200)
  })

  test('keeps its items', async () => {
    const file = chunk(noise(5000, 4))
    await send('PUT', `chunks/${file.id}`, file.bytes)
    const opened = await begin('chunks')
    const items = [{ id: file.id, size: file.bytes.length }]
    await send('POST', `checkpoints/s/${opened.number}/items`, JSON.stringify({ first: 0, items }))
    await gc()
    expect(await isHere(file.id)).toBe(true)
    const commit = await send('POST', `checkpoints/s/${opened.number}/commit`, JSON.stringify({ items: 1 }))
    expect(commit.status).toBe(200)
    await gc()
    expect(await isHere(file.id)).toBe(true)
  })

  test('that lost what it relied on is told by its commit, and goes on when it has sent that', async () => {
    const file = chunk(noise(5000, 5))
    const directory = encodeDirectoryObject([fileEntry('f', file)])
    for (const { id, bytes } of [file, directory]) await send('PUT', `chunks/${id}`, bytes)
    const opened = await begin()
    await gc()
    const path = `checkpoints/s/${opened.number}/commit`
    expect(await send('POST', path, JSON.stringify({ root: directory.id }))).toMatchObject({
      status: 409,
      body: { missing: [{ id: directory.id }] },
    })
    for (const { id, bytes } of [file, directory]) await send('PUT', `chunks/${id}`, bytes, named(opened))
    expect((await send('POST', path, JSON.stringify({ root: directory.id }))).status).toBe(200)
  })
})

describe('what cannot be known is not guessed', () => {
  const failed = async (): Promise<string> => {
    await fetch(`${server.vaultUrl}/upkeep/collection`, { method: 'POST' })
    const { last } = await (await (await vault()).collector.start()).ended
    expect(last).toMatchObject({ outcome: 'failed' })
    return last?.detail ?? ''
  }

  test('a damaged directory list stops the collection, which names the checkpoint; then nothing is given back', async () => {
    await back()
    await server.stop()
    await flipPayload(await recordOf(dataDir, (bytes) => bytes.includes('{"type":"directory"')))
    server = await start()
    await send('PUT', `chunks/${chunk('garbage').id}`, Buffer.from('garbage'))
    expect(await failed()).toContain('test/1')
    expect(await isHere(chunk('garbage').id)).toBe(true)
    expect(await isHere(hashId(seededBytes('a', 200 * KiB)))).toBe(true)
  })

  test('so does the file of a checkpoint', async () => {
    await back()
    await writeFile(join(dataDir, 'vaults/home/checkpoints/test/1.json'), '{')
    expect(await failed()).toContain('1.json')
    await send('DELETE', 'checkpoints/test/1')
    expect(await gc()).toMatchObject({ checkpoints: 0 })
  })

  const items = ['one', 'two', 'three'].map((text) => chunk(text))
  const list = () => join(dataDir, 'vaults/home/checkpoints/s/1.items')

  test.each<[string, () => Promise<unknown>]>([
    ['is cut short', () => truncate(list(), itemBytes)],
    ['is damaged', async () => writeFile(list(), (await readFile(list())).fill(1, itemBytes, itemBytes + 8))],
    ['is gone', () => unlink(list())],
  ])('so does a list of items that %s, and readers are told', async (_, harm) => {
    const state = await begin('chunks')
    for (const { id, bytes } of items) await send('PUT', `chunks/${id}`, bytes, named(state))
    const parts = items.map(({ id, bytes }) => ({ id, size: bytes.length }))
    await send('POST', 'checkpoints/s/1/items', JSON.stringify({ first: 0, items: parts }))
    expect(await send('POST', 'checkpoints/s/1/commit', '{"items":3}')).toMatchObject({ status: 200 })
    await harm()
    expect(await send('GET', 'checkpoints/s/1/items')).toMatchObject({ status: 500 })
    expect(await failed()).toContain('1.items')
    for (const { id } of items) expect(await isHere(id)).toBe(true)
    const found = await findHarm(await vault(), { step: async () => {} })
    expect(found.harm.checkpoints).toEqual([{ source: 's', number: 1, count: 1, paths: [''] }])
  })
})

test('it is told of while it runs, can be stopped, and the next one goes on', async () => {
  await back()
  await send('DELETE', 'checkpoints/test/1')
  const { collector } = await vault()
  const { state, ended } = await collector.start({ minGarbage: 0 })
  expect(state.running).toMatchObject({ progress: { phase: 'mark' } })
  expect((await fetch(`${server.vaultUrl}/upkeep/collection`, { method: 'DELETE' })).status).toBe(204)
  expect((await ended).last?.outcome).toMatch(/stopped|done/)
  await gc()
  expect((await vault()).store.usage.chunks).toBe(0)
})

test.each([
  [
    'nothing where nothing is garbage',
    [
      [1, 0],
      [2, 0],
    ],
    0.2,
    [],
  ],
  [
    'packs with much of it, most first',
    [
      [1, 30],
      [2, 90],
      [3, 50],
    ],
    0.2,
    [2, 3, 1],
  ],
  [
    'and the oldest with any',
    [
      [1, 0],
      [2, 5],
      [3, 5],
      [4, 60],
    ],
    0.2,
    [4, 2],
  ],
  [
    'all with any',
    [
      [1, 0],
      [2, 5],
      [3, 1],
    ],
    0,
    [2, 3],
  ],
] as const)('chosen are %s', (_, packs, minGarbage, expected) => {
  const garbage = packs.map(([pack, garbageBytes]) => ({ pack, storedBytes: 100, garbageBytes }))
  expect(chooseForCompaction(garbage, minGarbage).map(({ pack }) => pack)).toEqual(expected)
})
