import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { encodeDirectoryObject, encodeFileObject } from '../../protocol/objects.ts'
import type { CheckpointState } from '../../protocol/schema.ts'
import { readTouched } from '../../server/catalog/touched-log.ts'
import { nodeFiles } from '../../server/file-layer.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import {
  begin,
  chunk,
  directoryEntry,
  fileEntry,
  missingIds,
  noise,
  post,
  problemOf,
  put,
  smallTree,
} from './requests.ts'

let server: TestReceiver
const tree = smallTree()
beforeAll(async () => {
  server = await startReceiver()
  for (const item of tree.chunks) await put(server, 'chunks', item)
  await put(server, 'files', tree.big)
  for (const item of [tree.sub, tree.root]) await put(server, 'dirs', item)
})
afterAll(() => server.stop())

const get = async (path: string): Promise<unknown> => await (await fetch(`${server.vaultUrl}/${path}`)).json()
const folder = (source: string): string => join(server.dataDir, 'vaults/home/checkpoints', source)
const commit = (path: string, body: unknown): Promise<Response> => post(server, `${path}/commit`, body)
const root = { root: tree.root.id }

describe('lifecycle', () => {
  test('open, commit, list, delete; numbers are never given twice', async () => {
    const opened = await post(server, 'checkpoints/life/', { kind: 'dir', about: { host: 'x' } })
    expect([opened.status, opened.headers.get('location')]).toEqual([201, '/home/checkpoints/life/1'])
    expect(await opened.json()).toMatchObject({ source: 'life', number: 1, kind: 'dir', state: 'open' })
    const totals = { files: 2, directories: 2, bytes: 5039 }
    const committed = await commit('checkpoints/life/1', { ...root, totals })
    expect(committed.status).toBe(200)
    const state = (await committed.json()) as CheckpointState
    expect(state).toMatchObject({ state: 'committed', ...root, totals, about: { host: 'x' } })
    expect(await get('checkpoints/life/1')).toEqual(state)
    expect(await begin(server, 'life', 'chunks')).toBe('checkpoints/life/2')
    expect(await get('checkpoints/life/')).toMatchObject({
      checkpoints: [state, { number: 2, state: 'open', items: 0 }],
    })
    expect(await get('checkpoints/')).toMatchObject({ sources: expect.arrayContaining(['life']) })
    for (const number of [1, 2]) {
      const answer = await fetch(`${server.vaultUrl}/checkpoints/life/${number}`, { method: 'DELETE' })
      expect(answer.status).toBe(204)
    }
    expect(await get('checkpoints/life/')).toEqual({ checkpoints: [] })
    expect(await readdir(folder('life'))).toEqual(['last'])
    expect(await begin(server, 'life', 'dir')).toBe('checkpoints/life/3')
  })

  test.each([
    ['GET', 'checkpoints/none/1', undefined, '404 checkpoint-not-found'],
    ['GET', 'checkpoints/none/x', undefined, '404 checkpoint-not-found'],
    ['GET', 'checkpoints/none/01', undefined, '404 checkpoint-not-found'],
    ['DELETE', 'checkpoints/none/1', undefined, '404 checkpoint-not-found'],
    ['POST', 'checkpoints/none/1/commit', root, '404 checkpoint-not-found'],
    [
      'POST',
      'checkpoints/none/1/items',
      { first: 0, items: [{ id: tree.a.id, size: 1 }] },
      '404 checkpoint-not-found',
    ],
    ['POST', 'checkpoints/bad%20name/', { kind: 'dir' }, '400 invalid-name'],
    ['POST', 'checkpoints/ok/', { kind: 'tree' }, '400 invalid-request'],
    ['GET', 'checkpoints/none/1/other', undefined, '404 not-found'],
  ])('%s %s is refused', async (method, path, body, expected) => {
    const answer = await fetch(`${server.vaultUrl}/${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    expect(await problemOf(answer)).toBe(expected)
  })

  test('PROPFIND lists what the list has', async () => {
    await begin(server, 'dav', 'dir')
    const answer = await fetch(`${server.vaultUrl}/checkpoints/dav/`, {
      method: 'PROPFIND',
      headers: { Depth: '1' },
    })
    expect(answer.status).toBe(207)
    expect(await answer.text()).toContain('<D:href>/home/checkpoints/dav/1</D:href>')
  })
})

describe('commit', () => {
  test('is idempotent, and only for the same request', async () => {
    const path = await begin(server, 'same', 'dir')
    const first = await (await commit(path, root)).json()
    expect(await (await commit(path, root)).json()).toEqual(first)
    expect(await problemOf(await commit(path, { root: tree.sub.id }))).toBe('409 checkpoint-committed')
    expect(
      await problemOf(await commit(path, { ...root, totals: { files: 1, directories: 1, bytes: 1 } })),
    ).toBe('409 checkpoint-committed')
  })

  test('at once from many gives all the same answer', async () => {
    const path = await begin(server, 'many', 'dir')
    const answers = await Promise.all(Array.from({ length: 8 }, () => commit(path, root)))
    expect(new Set(await Promise.all(answers.map((answer) => answer.text()))).size).toBe(1)
  })

  test('against delete: one of both comes first, nothing is left in between', async () => {
    for (let round = 0; round < 10; round++) {
      const path = await begin(server, 'race', 'dir')
      const [committed, deleted] = await Promise.all([
        commit(path, root),
        fetch(`${server.vaultUrl}/${path}`, { method: 'DELETE' }),
      ])
      expect(deleted.status).toBe(204)
      expect([200, 404]).toContain(committed.status)
      expect((await fetch(`${server.vaultUrl}/${path}`)).status).toBe(404)
    }
    expect(await readdir(folder('race'))).toEqual(['last'])
  })

  test('tells what is missing and within what, and goes on when it was sent', async () => {
    const [lone, part, deep] = [chunk('lone'), chunk(noise(10, 51)), chunk('deep')] as const
    const file = encodeFileObject([{ id: part.id, size: 10 }], hashId(part.bytes))
    const absentFile = encodeFileObject([{ id: deep.id, size: 4 }], deep.id)
    const below = encodeDirectoryObject([fileEntry('deep', deep)])
    const top = encodeDirectoryObject([
      { ...fileEntry('absent', deep), id: absentFile.id, chunked: true },
      directoryEntry('below', below),
      { ...fileEntry('file', part), id: file.id, chunked: true },
      fileEntry('lone', lone),
    ] as never)
    await put(server, 'files', file)
    await put(server, 'dirs', top)
    const path = await begin(server, 'missing', 'dir')
    const answer = await commit(path, { root: top.id })
    expect(answer.status).toBe(409)
    const body = (await answer.json()) as { type: string; missing: { id: Id; within: Id }[] }
    expect(body.type).toBe('urn:chunkdav:problem:missing-chunks')
    const byId = (a: { id: Id }, b: { id: Id }) => a.id.localeCompare(b.id)
    expect(body.missing.sort(byId)).toEqual(
      [
        { id: lone.id, within: lone.id },
        { id: part.id, within: file.id },
        { id: absentFile.id, within: absentFile.id },
        { id: below.id, within: below.id },
      ].sort(byId),
    )
    expect(await get(`${path}?root=${top.id}`)).toMatchObject({
      state: 'open',
      missing: expect.arrayContaining([part.id]),
    })
    for (const item of [lone, part, deep]) await put(server, 'chunks', item)
    await put(server, 'files', absentFile)
    expect(missingIds(await (await commit(path, { root: top.id })).json())).toEqual([below.id])
    await put(server, 'dirs', below)
    expect((await commit(path, { root: top.id })).status).toBe(200)
  })

  test('lists at most 1,000 missing chunks', async () => {
    const entries = Array.from({ length: 1500 }, (_, i) =>
      fileEntry(`f${String(i).padStart(4, '0')}`, chunk(`m${i}`)),
    )
    const many = encodeDirectoryObject(entries)
    await put(server, 'dirs', many)
    const answer = await commit(await begin(server, 'lots', 'dir'), { root: many.id })
    expect(missingIds(await answer.json())).toHaveLength(1000)
  })

  test.each([
    ['no root', {}, '400 invalid-request'],
    ['items in a dir checkpoint', { ...root, items: 0 }, '400 invalid-request'],
    ['a root that is no directory', { root: tree.a.id }, '400 invalid-object'],
    ['a root that is absent', { root: chunk('absent root').id }, '409 missing-chunks'],
  ])('refuses %s', async (_, body, expected) => {
    const path = await begin(server, 'refused', 'dir')
    expect(await problemOf(await commit(path, body))).toBe(expected)
    expect(await get(path)).toMatchObject({ state: 'open' })
  })

  test('refuses a size that is not the chunk’s', async () => {
    const entry = { ...fileEntry('a', tree.a), size: 3 } as never
    const lying = encodeDirectoryObject([entry])
    const above = encodeDirectoryObject([directoryEntry('d', lying)])
    expect(await problemOf(await put(server, 'dirs', lying))).toBe('400 invalid-object')
    expect(await problemOf(await put(server, 'dirs', above))).toBe('400 invalid-object')
    const path = await begin(server, 'sizes', 'dir')
    expect(await problemOf(await commit(path, { root: above.id }))).toBe('400 invalid-object')
  })

  test('walks a deep tree', async () => {
    let below = tree.sub
    for (let depth = 0; depth < 500; depth++) {
      below = encodeDirectoryObject([directoryEntry('d', below)])
      await put(server, 'chunks', below)
    }
    expect((await commit(await begin(server, 'deep', 'dir'), { root: below.id })).status).toBe(200)
  })
})

describe('items', () => {
  test('that cannot be right are not kept: the right ones take their place', async () => {
    const path = await begin(server, 'wrong-items', 'chunks')
    const right = { id: tree.a.id, size: tree.a.bytes.length }
    const absent = Array.from({ length: 1001 }, (_, i) => ({ id: chunk(`no item ${i}`).id, size: 9 }))
    const huge = { id: chunk('huge').id, size: Number.MAX_SAFE_INTEGER }
    const send = (items: unknown[]) => post(server, `${path}/items`, { first: 0, items })
    for (const wrong of [[{ ...right, size: 1 }], [...absent, { ...right, size: 1 }]]) {
      expect(await problemOf(await send(wrong))).toBe('400 invalid-object')
    }
    expect(await problemOf(await send([{ ...right, chunked: true }]))).toBe('400 invalid-object')
    expect(await problemOf(await send([huge, huge]))).toBe('400 invalid-request')
    expect(await get(path)).toMatchObject({ items: 0, itemBytes: 0, missing: [] })
    expect(await (await send([right])).json()).toEqual({ total: 1, missing: [] })
    expect((await commit(path, { items: 1 })).status).toBe(200)
  })

  const items = [tree.a, tree.b].map(({ id, bytes }) => ({ id, size: bytes.length }))
  const add = (path: string, first: number, list: unknown): Promise<Response> =>
    post(server, `${path}/items`, { first, items: list })

  test('are appended, repeated, paged, and committed', async () => {
    const path = await begin(server, 'items', 'chunks')
    expect(await (await add(path, 0, items)).json()).toEqual({ total: 2, missing: [] })
    expect(await (await add(path, 0, items)).json()).toEqual({ total: 2, missing: [] })
    const absent = { id: chunk('absent item').id, size: 11 }
    const big = { id: tree.big.id, size: tree.content.length, chunked: true }
    expect(await (await add(path, 1, [items[1], absent, big])).json()).toEqual({
      total: 4,
      missing: [absent.id],
    })
    expect(await get(path)).toMatchObject({ items: 4, missing: [absent.id] })
    expect(await get(`${path}/items?first=1&limit=2`)).toEqual({
      first: 1,
      total: 4,
      items: [items[1], absent],
      next: 3,
    })
    expect(await get(`${path}/items?first=3`)).toEqual({ first: 3, total: 4, items: [big] })
    expect(await get(`${path}/items?first=9`)).toEqual({ first: 9, total: 4, items: [] })
    const refused = await commit(path, { items: 4 })
    expect(missingIds(await refused.json())).toEqual([absent.id])
    await put(server, 'chunks', chunk('absent item'))
    expect(await problemOf(await commit(path, { items: 3 }))).toBe('409 items-conflict')
    expect(await (await commit(path, { items: 4, ...root })).json()).toMatchObject({
      state: 'committed',
      items: 4,
      itemBytes: items.reduce((sum, { size }) => sum + size, 11 + tree.content.length),
      ...root,
    })
    expect((await commit(path, { items: 4, ...root })).status).toBe(200)
    expect(await get(`${path}/items?first=3`)).toEqual({ first: 3, total: 4, items: [big] })
    expect(await problemOf(await add(path, 4, items))).toBe('409 checkpoint-committed')
  })

  test.each([
    ['a gap', 3, items, '409 items-conflict'],
    ['other items', 0, [items[1]], '409 items-conflict'],
    ['another size', 0, [{ ...items[0], size: 1 }], '409 items-conflict'],
    ['no items', 0, [], '400 invalid-request'],
    ['too many', 2, Array.from({ length: 5001 }, () => items[0]), '413 body-too-large'],
  ])('%s is refused', async (_, first, list, expected) => {
    const path = await begin(server, 'conflict', 'chunks')
    await add(path, 0, items)
    expect(await problemOf(await add(path, first, list))).toBe(expected)
    expect(await get(path)).toMatchObject({ items: 2 })
  })

  test('a dir checkpoint has none', async () => {
    const path = await begin(server, 'noitems', 'dir')
    expect(await problemOf(await add(path, 0, items))).toBe('400 invalid-request')
    expect((await fetch(`${server.vaultUrl}/${path}/items`)).status).toBe(404)
  })

  test.each(['first=-1', 'first=x', 'limit=0'])('%s is refused', async (query) => {
    const path = await begin(server, 'queries', 'chunks')
    expect(await problemOf(await fetch(`${server.vaultUrl}/${path}/items?${query}`))).toBe(
      '400 invalid-request',
    )
  })
})

describe('in the name of an open checkpoint', () => {
  test('everything sent, or asked about and found, is noted; at the commit the note goes', async () => {
    const path = await begin(server, 'touch', 'dir')
    const headers = { 'Chunkdav-Checkpoint': 'touch/1' }
    const [sent, known] = [chunk('touch sent'), chunk('touch known')] as const
    await put(server, 'chunks', known)
    await put(server, 'chunks', sent, headers)
    await put(server, 'dirs', tree.root, headers)
    await fetch(`${server.vaultUrl}/chunks/missing`, {
      method: 'POST',
      headers,
      body: JSON.stringify({ ids: [known.id, chunk('touch absent').id] }),
    })
    const touched: Id[] = []
    for await (const page of readTouched(nodeFiles, join(folder('touch'), '1.touched')))
      touched.push(...page.map(({ id }) => id))
    expect(touched).toEqual([sent.id, tree.root.id, known.id])
    await commit(path, root)
    expect((await readdir(folder('touch'))).sort()).toEqual(['1.json', 'last'])
    expect(JSON.parse(await readFile(join(folder('touch'), '1.json'), 'utf8'))).toMatchObject(root)
    expect(await problemOf(await put(server, 'chunks', sent, headers))).toBe('409 checkpoint-committed')
  })
})
