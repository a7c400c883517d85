/** COPY and MOVE within the live tree. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, content, lock, members, property, responses, setProperties, tells } from './dav-requests.ts'

let server: TestReceiver
/** `f`, `g`, and `c/` with `a`, `sub/b` and a property. */
beforeEach(async () => {
  server = await startReceiver()
  for (const path of ['c', 'c/sub', 'other']) await ask(server, 'MKCOL', path)
  for (const path of ['f', 'g', 'c/a', 'c/sub/b', 'other/o']) await ask(server, 'PUT', path, {}, path)
  for (const path of ['c', 'c/a', 'f'])
    await ask(server, 'PROPPATCH', path, {}, setProperties('<x:p xmlns:x="urn:x">kept</x:p>'))
})
afterEach(() => server.stop())

const to = (path: string, more = {}): Record<string, string> => ({
  Destination: `/home/tree/${path}`,
  ...more,
})

async function all(path = ''): Promise<string[]> {
  const found: string[] = []
  for (const member of await members(server, path)) {
    found.push(path + member)
    if (member.endsWith('/')) found.push(...(await all(path + member)))
  }
  return found
}

const start = ['c/', 'c/a', 'c/sub/', 'c/sub/b', 'f', 'g', 'other/', 'other/o']
const without = (...gone: string[]): string[] => start.filter((path) => !gone.includes(path))

describe.each(['COPY', 'MOVE'])('%s', (method) => {
  const left = (...from: string[]): string[] => (method === 'MOVE' ? without(...from) : start)

  test.each([
    ['a file to a free name', 'f', to('new'), '201', ['f'], ['new']],
    ['a file over a file', 'f', to('g'), '204', ['f'], []],
    ['a file over a file, Overwrite: T', 'f', to('g', { Overwrite: 'T' }), '204', ['f'], []],
    [
      'a collection to a free name',
      'c',
      to('d'),
      '201',
      ['c/', 'c/a', 'c/sub/', 'c/sub/b'],
      ['d/', 'd/a', 'd/sub/', 'd/sub/b'],
    ],
    [
      'a collection, with slashes',
      'c/',
      to('d/'),
      '201',
      ['c/', 'c/a', 'c/sub/', 'c/sub/b'],
      ['d/', 'd/a', 'd/sub/', 'd/sub/b'],
    ],
    [
      'a collection into another',
      'c/sub',
      to('other/sub'),
      '201',
      ['c/sub/', 'c/sub/b'],
      ['other/sub/', 'other/sub/b'],
    ],
    ['a file to its own collection', 'c/a', to('c/n'), '201', ['c/a'], ['c/n']],
    [
      'a name that begins as another',
      'c',
      to('cc'),
      '201',
      ['c/', 'c/a', 'c/sub/', 'c/sub/b'],
      ['cc/', 'cc/a', 'cc/sub/', 'cc/sub/b'],
    ],
  ])('%s', async (_, from, headers, expected, gone, added) => {
    expect(await tells(server, method, from, headers)).toBe(expected)
    expect(await all()).toEqual([...left(...gone), ...added].sort())
  })

  test('over a collection replaces it wholly', async () => {
    expect(await tells(server, method, 'c', to('other'))).toBe('204')
    const moved = ['other/', 'other/a', 'other/sub/', 'other/sub/b']
    expect(await all()).toEqual(
      [...(method === 'MOVE' ? ['f', 'g'] : without('other/', 'other/o')), ...moved].sort(),
    )
  })

  test('a file over a collection, a collection over a file', async () => {
    expect(await tells(server, method, 'f', to('other/'))).toBe('204')
    expect(await content(server, 'other')).toBe('f')
    expect(await tells(server, method, 'c', to('g'))).toBe('204')
    expect(await content(server, 'g/sub/b')).toBe('c/sub/b')
  })

  test.each([
    ['onto itself', 'f', to('f'), '403 forbidden'],
    ['onto itself, otherwise encoded', 'f', to('%66'), '403 forbidden'],
    ['onto itself, Overwrite: F', 'f', to('f', { Overwrite: 'F' }), '403 forbidden'],
    ['a collection onto itself', 'c/', to('c'), '403 forbidden'],
    ['into its own child', 'c', to('c/n'), '403 forbidden'],
    ['over its own child', 'c', to('c/sub'), '403 forbidden'],
    ['below its own child', 'c', to('c/sub/n'), '403 forbidden'],
    ['over its own parent', 'c/sub', to('c'), '403 forbidden'],
    ['over the parent of its parent', 'c/sub/b', to('c'), '403 forbidden'],
    ['a file over its own parent', 'c/a', to('c/'), '403 forbidden'],
    ['over the tree', 'c', to(''), '403 forbidden'],
    ['nothing', 'none', to('n'), '404 not-found'],
    ['a file with a slash', 'f/', to('n'), '404 not-found'],
    ['to no collection', 'f', to('none/n'), '409 conflict'],
    ['a collection to no collection', 'c', to('none/n'), '409 conflict'],
    ['below a file', 'f', to('g/n'), '409 conflict'],
    ['over a file, Overwrite: F', 'f', to('g', { Overwrite: 'F' }), '412 precondition-failed'],
    ['over a collection, Overwrite: F', 'c', to('other', { Overwrite: 'F' }), '412 precondition-failed'],
    ['with If-Match of another', 'f', to('n', { 'If-Match': '"x"' }), '412 precondition-failed'],
    ['with Depth: 1', 'c', to('n', { Depth: '1' }), '400 invalid-request'],
    ['with an unknown Overwrite', 'f', to('n', { Overwrite: 'maybe' }), '400 invalid-request'],
    ['without a Destination', 'f', {}, '400 invalid-request'],
    ['with a malformed time', 'f', to('n', { 'X-OC-Mtime': 'now' }), '400 invalid-request'],
  ])('%s is refused, plainly', async (_, from, headers, expected) => {
    expect(await tells(server, method, from, headers as Record<string, string>)).toBe(expected)
    expect(await all()).toEqual(start)
  })

  test('takes dead properties and times along', async () => {
    await ask(server, 'PUT', 'timed', { 'X-OC-Mtime': '1700000000' }, 'timed')
    await ask(server, method, 'timed', to('timed2'))
    expect((await ask(server, 'HEAD', 'timed2')).headers['last-modified']).toBe(
      'Tue, 14 Nov 2023 22:13:20 GMT',
    )
    await ask(server, method, 'c', to('d'))
    await ask(server, method, 'f', to('g'))
    for (const path of ['d', 'd/a', 'g']) {
      expect((await property(server, path, 'urn:x', 'p'))?.content).toEqual(['kept'])
    }
  })

  test('X-OC-Mtime sets the time of what is there then', async () => {
    const answer = await ask(server, method, 'f', to('n', { 'X-OC-Mtime': '1000000000.5' }))
    expect([answer.status, answer.headers['x-oc-mtime']]).toEqual([201, 'accepted'])
    expect((await ask(server, 'HEAD', 'n')).headers['last-modified']).toBe('Sun, 09 Sep 2001 01:46:40 GMT')
  })

  test('what is there then has another ETag', async () => {
    const before = (await ask(server, 'HEAD', 'g')).headers.etag
    await ask(server, method, 'f', to('g'))
    const { headers } = await ask(server, 'HEAD', 'g')
    expect(headers.etag).not.toBe(before)
    expect(await tells(server, 'PUT', 'g', { 'If-Match': headers.etag ?? '' }, 'x')).toBe('204')
  })

  test('a locked destination: 423 with its href, and nothing changes', async () => {
    const token = await lock(server, 'g')
    const answer = await ask(server, method, 'f', to('g'))
    expect(answer.status).toBe(423)
    expect(answer.text).toContain(
      '<D:lock-token-submitted><D:href>/home/tree/g</D:href></D:lock-token-submitted>',
    )
    expect(await content(server, 'g')).toBe('g')
    expect(await tells(server, method, 'f', to('g', { If: `</home/tree/g> (<${token}>)` }))).toBe('204')
    expect(await content(server, 'g')).toBe('f')
  })

  test('a locked member of the destination: 207 names it, and nothing changes', async () => {
    const token = await lock(server, 'other/o')
    const answer = await ask(server, method, 'c', to('other'))
    expect(responses(answer.text)).toEqual([{ href: '/home/tree/other/o', status: ['423'] }])
    expect(await all()).toEqual(start)
    expect(await tells(server, method, 'c', to('other', { If: `</home/tree/other/o> (<${token}>)` }))).toBe(
      '204',
    )
  })

  test('a new name in a locked collection needs its token', async () => {
    const token = await lock(server, 'other', { Depth: '0' })
    expect(await tells(server, method, 'f', to('other/n'))).toBe('423 lock-token-submitted')
    expect(await tells(server, method, 'f', to('other/n', { If: `</home/tree/other/> (<${token}>)` }))).toBe(
      '201',
    )
  })
})

describe('COPY', () => {
  test('Depth: 0 makes only the collection, with its dead properties', async () => {
    expect(await tells(server, 'COPY', 'c', to('d', { Depth: '0' }))).toBe('201')
    expect(await all('d/')).toEqual([])
    expect((await property(server, 'd', 'urn:x', 'p'))?.content).toEqual(['kept'])
  })

  test('Depth: 0 over a collection replaces it wholly', async () => {
    expect(await tells(server, 'COPY', 'c', to('other', { Depth: '0' }))).toBe('204')
    expect(await all('other/')).toEqual([])
  })

  test('Depth: 0 may go into the collection itself: there is nothing to repeat', async () => {
    expect(await tells(server, 'COPY', 'c', to('c/c', { Depth: '0' }))).toBe('201')
    expect(await all('c/')).toEqual(['c/a', 'c/c/', 'c/sub/', 'c/sub/b'])
  })

  test('locks are not copied, and do not keep anybody from copying', async () => {
    await lock(server, 'f')
    expect(await tells(server, 'COPY', 'f', to('n'))).toBe('201')
    expect(await tells(server, 'PUT', 'n', {}, 'x')).toBe('204')
  })
})

describe('MOVE', () => {
  test('of the tree is refused', async () => {
    expect(await tells(server, 'MOVE', '', to('n'))).toBe('403 forbidden')
  })

  test('of a collection with Depth: 0 is refused', async () => {
    expect(await tells(server, 'MOVE', 'c', to('d', { Depth: '0' }))).toBe('400 invalid-request')
  })

  test('what is locked needs its token; the lock does not move', async () => {
    const token = await lock(server, 'f')
    expect(await tells(server, 'MOVE', 'f', to('n'))).toBe('423 lock-token-submitted')
    expect(await tells(server, 'MOVE', 'f', to('n', { If: `(<${token}>)` }))).toBe('201')
    expect(await tells(server, 'PUT', 'n', {}, 'x')).toBe('204')
    expect(await tells(server, 'PUT', 'f', {}, 'x')).toBe('201')
  })

  test('a locked member: 207 names it, and nothing changes', async () => {
    await lock(server, 'c/sub/b')
    const answer = await ask(server, 'MOVE', 'c', to('d'))
    expect(answer.status).toBe(207)
    expect(responses(answer.text)).toEqual([{ href: '/home/tree/c/sub/b', status: ['423'] }])
    expect(await all()).toEqual(start)
  })

  test('out of a locked collection needs its token', async () => {
    await lock(server, 'c', { Depth: '0' })
    expect(await tells(server, 'MOVE', 'c/a', to('n'))).toBe('423 lock-token-submitted')
  })
})
