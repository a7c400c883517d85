/** The trash: what is in it, and how it comes back. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { TrashList } from '../../protocol/schema.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { problemOf } from './requests.ts'

let server: TestReceiver
const send = (method: string, path: string, headers = {}, body?: string): Promise<Response> =>
  fetch(`${server.vaultUrl}/${path}`, { method, headers, ...(body !== undefined && { body }) })
const list = async (): Promise<TrashList['items']> => {
  const answer = await send('GET', 'trash/', { Accept: 'application/json' })
  expect(answer.headers.get('content-type')).toMatch(/^application\/json/)
  return ((await answer.json()) as TrashList).items
}

const day = 24 * 3600 * 1000
beforeEach(async () => {
  server = await startReceiver({ trashMs: day })
  await send('MKCOL', 'tree/a')
  await send('PUT', 'tree/a/%FF%20x', {}, 'first')
  await send('PUT', 'tree/a/%FF%20x', {}, 'second')
  await send('MKCOL', 'tree/b')
  await send('PUT', 'tree/b/file', {}, 'in b')
  await send('DELETE', 'tree/b')
})
afterEach(() => server.stop())

describe('what is in it', () => {
  test('as JSON, in the order in which it came', async () => {
    const items = await list()
    expect(items).toMatchObject([
      { path: 'a/%FF%20x', kind: 'file', size: 5, reason: 'overwritten' },
      { path: 'b', kind: 'directory', reason: 'deleted' },
    ])
    for (const { deletedAt, expiresAt } of items) {
      expect(Date.parse(expiresAt) - Date.parse(deletedAt)).toBe(day)
    }
  })

  test('as a page, and by WebDAV', async () => {
    const [first, second] = (await list()).map(({ item }) => item)
    expect(await (await send('GET', 'trash/')).text()).toContain(`href="/home/trash/${first}/"`)
    expect(await (await send('GET', `trash/${first}/%FF%20x`)).text()).toBe('first')
    const body =
      '<D:propfind xmlns:D="DAV:"><D:prop><o:original-path xmlns:o="urn:chunkdav:"/><o:deleted-at xmlns:o="urn:chunkdav:"/></D:prop></D:propfind>'
    const told = async (path: string): Promise<string> =>
      await (await send('PROPFIND', path, { Depth: '1' }, body)).text()
    expect((await told('trash/')).match(/<D:href>[^<]*|original-path xmlns[^>]*>[^<]+/g)).toEqual([
      '<D:href>/home/trash/',
      `<D:href>/home/trash/${first}/`,
      'original-path xmlns:x="urn:chunkdav:">a/%FF%20x',
      `<D:href>/home/trash/${second}/`,
      'original-path xmlns:x="urn:chunkdav:">b',
    ])
    const names = async (path: string): Promise<string[]> => {
      const text = await (await send('PROPFIND', path, { Depth: '1' })).text()
      return [...text.matchAll(/<D:displayname>([^<]*)</g)].map(([, name = '']) => name)
    }
    expect(await names('trash/')).toEqual(['trash', 'a/\ufffd x', 'b'])
    expect(await names(`trash/${second}/`)).toEqual(['b', 'b'])
    expect(await told(`trash/${second}/b/`)).toMatch(/deleted-at xmlns:x="urn:chunkdav:">\d{4}-\d\d-\d\dT/)
  })
})

describe('MOVE into the tree restores', () => {
  test('a file; what is there meanwhile goes to the trash', async () => {
    const [{ item } = { item: 0 }] = await list()
    const moved = await send('MOVE', `trash/${item}/%FF%20x`, { Destination: '/home/tree/a/%FF%20x' })
    expect(moved.status).toBe(204)
    expect(await (await send('GET', 'tree/a/%FF%20x')).text()).toBe('first')
    expect((await list()).map(({ path, size }) => [path, size])).toEqual([
      ['b', undefined],
      ['a/%FF%20x', 6],
    ])
  })

  test('a collection with all that is in it, and single things out of it', async () => {
    const [, { item } = { item: 0 }] = await list()
    const single = await send('MOVE', `trash/${item}/b/file`, { Destination: '/home/tree/alone' })
    expect([single.status, await (await send('GET', 'tree/alone')).text()]).toEqual([201, 'in b'])
    expect((await send('MOVE', `trash/${item}/b`, { Destination: '/home/tree/b' })).status).toBe(201)
    expect((await send('PROPFIND', 'tree/b', { Depth: '0' })).status).toBe(207)
    expect((await list()).map(({ path }) => path)).toEqual(['a/%FF%20x'])
    expect((await send('GET', `trash/${item}/`)).status).toBe(404)
  })
})

test('DELETE of an item purges it', async () => {
  const [, { item } = { item: 0 }] = await list()
  expect((await send('DELETE', `trash/${item}`)).status).toBe(204)
  expect((await list()).map(({ path }) => path)).toEqual(['a/%FF%20x'])
  expect(await problemOf(await send('DELETE', `trash/${item}`))).toBe('404 not-found')
})

test('nothing else changes it', async () => {
  const [{ item } = { item: 0 }] = await list()
  const path = `trash/${item}/%FF%20x`
  for (const method of ['PUT', 'MKCOL', 'COPY', 'PROPPATCH', 'LOCK', 'DELETE']) {
    const answer = await send(method, path, { Destination: '/home/tree/copy' })
    expect([method, await problemOf(answer)]).toEqual([method, '403 forbidden'])
  }
  for (const method of ['PUT', 'MKCOL', 'MOVE', 'DELETE']) {
    const answer = await send(method, 'trash/', { Destination: '/home/tree/copy' })
    expect([method, await problemOf(answer)]).toEqual([method, '403 forbidden'])
  }
  for (const destination of ['/home/trash/1/x', `/home/${path}`]) {
    expect(await problemOf(await send('MOVE', path, { Destination: destination }))).toBe('403 forbidden')
  }
  expect((await send('MOVE', `trash/${item}`, { Destination: '/home/tree/x' })).status).toBe(403)
  expect(await list()).toHaveLength(2)
})
