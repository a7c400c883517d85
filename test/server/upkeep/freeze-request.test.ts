/** POST to the live tree: its answers, and the checkpoint as clients see it. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../../support/receiver.ts'
import { ask, type Headers, lock, tells } from '../dav-requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
  for (const path of ['docs/', 'docs/2024/', 'other/']) await ask(server, 'MKCOL', path)
  for (const [path, body] of files) await ask(server, 'PUT', path, { 'X-OC-Mtime': '1600000000' }, body)
})
afterAll(async () => {
  await server.stop()
})

const files: [string, string][] = [
  ['docs/a.txt', 'first'],
  ['docs/2024/b%20%C3%A9.txt', 'second'],
  ['docs/2024/empty', ''],
  ['other/large', 'x'.repeat(3_000_000)],
]
const json = { 'Content-Type': 'application/json' }

test('every file of the checkpoint is as it was put', async () => {
  const answer = await ask(server, 'POST', '', json, '{"freeze":{}}')
  expect([answer.status, answer.headers.location]).toEqual([201, '/home/checkpoints/tree/1'])
  expect(JSON.parse(answer.text)).toMatchObject({
    source: 'tree',
    number: 1,
    state: 'committed',
    about: { path: 'tree', madeBy: 'freeze' },
    totals: { files: 4, directories: 4, bytes: 3_000_011 },
  })
  await ask(server, 'PUT', 'docs/a.txt', {}, 'changed')
  for (const [path, body] of files) {
    const { status, text, headers } = await ask(server, 'GET', `/home/snapshots/tree/1/${path}`)
    expect([status, text === body]).toEqual([200, true])
    expect(headers['last-modified']).toBe('Sun, 13 Sep 2020 12:26:40 GMT')
  }
})

test.each<[string, string, Headers, string, string]>([
  ['a folder', 'docs/2024/', json, '{"freeze":{}}', 'tree-docs-2024'],
  ['a folder without its slash', 'docs/2024', json, '{"freeze":{}}', 'tree-docs-2024'],
  [
    'a source',
    'docs/',
    { 'Content-Type': 'application/json; charset=utf-8' },
    '{"freeze":{"source":"papers"}}',
    'papers',
  ],
])('%s', async (_, path, headers, body, source) => {
  const answer = await ask(server, 'POST', path, headers, body)
  expect([answer.status, JSON.parse(answer.text).source]).toEqual([201, source])
})

test('a lock keeps nobody from it', async () => {
  await lock(server, 'docs/a.txt')
  expect(await tells(server, 'POST', 'docs/', json, '{"freeze":{}}')).toBe('201')
})

test.each<[string, string, Headers, string, string]>([
  ['what is not there', 'no/', json, '{"freeze":{}}', '404 not-found'],
  ['a vault that is not there', '/no/tree/', json, '{"freeze":{}}', '404 vault-not-found'],
  ['a file', 'docs/2024/empty', json, '{"freeze":{}}', '405 method-not-allowed'],
  ['the trash', '/home/trash/', json, '{"freeze":{}}', '403 forbidden'],
  ['a form', '', { 'Content-Type': 'text/plain' }, '{"freeze":{}}', '415 unsupported-media-type'],
  ['no type', '', {}, '{"freeze":{}}', '415 unsupported-media-type'],
  ['no JSON', '', json, '{', '400 invalid-request'],
  ['nothing', '', json, '', '400 invalid-request'],
  ['another question', '', json, '{}', '400 invalid-request'],
  ['a malformed source', '', json, '{"freeze":{"source":"a/b"}}', '400 invalid-request'],
  ['a hostile source', '', json, '{"freeze":{"source":"a..b"}}', '400 invalid-name'],
  [
    'a condition that does not hold',
    '',
    { ...json, If: '(<urn:uuid:none>)' },
    '{"freeze":{}}',
    '412 precondition-failed',
  ],
])('%s cannot be frozen', async (_, path, headers, body, expected) => {
  expect(await tells(server, 'POST', path, headers, body)).toBe(expected)
})
