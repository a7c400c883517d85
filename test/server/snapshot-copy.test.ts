/** COPY out of a snapshot into the tree: a restore that moves no byte. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, told } from './dav-requests.ts'
import { attributes, begin, post, put, smallTree } from './requests.ts'

let server: TestReceiver
const tree = smallTree()

beforeAll(async () => {
  server = await startReceiver()
  for (const item of tree.chunks) await put(server, 'chunks', item)
  await put(server, 'files', tree.big)
  for (const item of [tree.sub, tree.root]) await put(server, 'dirs', item)
  const path = await begin(server, 'laptop', 'dir')
  await post(server, `${path}/commit`, { root: tree.root.id, attributes })
})

afterAll(() => server.stop())

const copy = (from: string, to: string, headers = {}) =>
  ask(server, 'COPY', `/home/snapshots/laptop/${from}`, { Destination: `/home/tree/${to}`, ...headers })

async function contentOf(path: string): Promise<string> {
  const answer = await fetch(`${server.vaultUrl}/tree/${path}`)
  return answer.status === 200
    ? Buffer.from(await answer.arrayBuffer()).toString('latin1')
    : `status ${answer.status}`
}

describe('what a snapshot holds is in the tree afterwards', () => {
  test('a whole snapshot', async () => {
    const before = server.receiver.vaults
    const { chunks } = (await before.get('home')).store.usage
    expect(told(await copy('latest/', 'all'))).toBe('201')
    expect(await contentOf('all/a.txt')).toBe('the first file\n')
    expect(await contentOf('all/link')).toBe('the first file\n')
    expect(await contentOf('all/big')).toBe(tree.content.toString('latin1'))
    expect(await contentOf('all/sub/b%20c.txt')).toBe('the second file, below\n')
    expect((await before.get('home')).store.usage.chunks).toBe(chunks)
    const { headers } = await ask(server, 'HEAD', 'all/a.txt')
    expect(headers['last-modified']).toBe('Tue, 14 Nov 2023 22:13:20 GMT')
    const { text } = await ask(server, 'PROPFIND', 'all/', { Depth: '0' })
    expect(text).toContain('<D:getlastmodified>Tue, 14 Nov 2023 22:13:20 GMT')
  })

  test('a directory, a file, and a collection without its members', async () => {
    expect(told(await copy('1/sub', 'sub'))).toBe('201')
    expect(told(await copy('1/big', 'one'))).toBe('201')
    expect(told(await copy('1/', 'empty', { Depth: '0' }))).toBe('201')
    expect(await contentOf('sub/b%20c.txt')).toBe('the second file, below\n')
    expect(await contentOf('one')).toBe(tree.content.toString('latin1'))
    expect(await contentOf('empty/a.txt')).toBe('status 404')
  })

  test('over what is there, which goes to the trash', async () => {
    await ask(server, 'PUT', 'mine', {}, 'my own')
    expect(told(await copy('1/a.txt', 'mine', { Overwrite: 'F' }))).toBe('412 precondition-failed')
    expect(told(await copy('1/a.txt', 'mine'))).toBe('204')
    expect(await contentOf('mine')).toBe('the first file\n')
    const trash = await fetch(`${server.vaultUrl}/trash/`, { headers: { Accept: 'application/json' } })
    expect(JSON.stringify(await trash.json())).toContain('"path":"mine"')
  })
})

describe('conditions are held against what the snapshot shows', () => {
  const tag = `"${tree.a.id}"`

  test.each<[string, Record<string, string>, string]>([
    ['If with its ETag', { If: `(["${tree.a.id}"])` }, '204'],
    ['If with another', { If: '(["x"])' }, '412 precondition-failed'],
    ['If of another file', { If: `</home/snapshots/laptop/1/big> (["${tree.big.id}"])` }, '204'],
    [
      'If of another file that has another',
      { If: `</home/snapshots/laptop/1/big> (${`[${tag}]`})` },
      '412 precondition-failed',
    ],
    ['If-Match with its ETag', { 'If-Match': tag }, '204'],
    ['If-Match with another', { 'If-Match': '"x"' }, '412 precondition-failed'],
  ])('%s', async (_, headers, expected) => {
    await ask(server, 'PUT', 'judged', {}, 'x')
    expect(told(await copy('1/a.txt', 'judged', headers))).toBe(expected)
  })
})

describe('what cannot be copied', () => {
  test.each([
    ['what is not there', '1/no', 'x', '404 not-found'],
    ['a snapshot that is not there', '9/', 'x', '404 not-found'],
    ['to where the parent is missing', '1/a.txt', 'no/x', '409 conflict'],
    ['over the tree itself', '1/', '', '403 forbidden'],
    ['into a snapshot', '1/a.txt', '../snapshots/laptop/1/x', '403 forbidden'],
  ])('%s', async (_, from, to, expected) => {
    const destination = new URL(`${server.vaultUrl}/tree/${to}`).pathname
    const answer = await ask(server, 'COPY', `/home/snapshots/laptop/${from}`, { Destination: destination })
    expect(told(answer)).toBe(expected)
  })

  test('a source, or what is moved', async () => {
    expect(told(await copy('', 'x'))).toBe('403 forbidden')
    const headers = { Destination: '/home/tree/x' }
    expect(told(await ask(server, 'MOVE', '/home/snapshots/laptop/1/a.txt', headers))).toBe('403 forbidden')
  })

  test('to where a lock holds', async () => {
    const body =
      '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>'
    await ask(server, 'LOCK', 'locked', {}, body)
    expect(told(await copy('1/a.txt', 'locked'))).toBe('423 lock-token-submitted')
  })
})
