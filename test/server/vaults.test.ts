import { afterAll, beforeAll, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { RawConnection } from './requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
})
afterAll(() => server.stop())

test('a vault is created once, and listed', async () => {
  expect((await fetch(`${server.url}/work/`, { method: 'MKCOL' })).status).toBe(201)
  const again = await fetch(`${server.url}/work/`, { method: 'MKCOL' })
  expect(again.status).toBe(405)
  expect(await again.json()).toMatchObject({ type: 'urn:chunkdav:problem:vault-exists' })
  expect(await (await fetch(`${server.url}/`)).json()).toEqual({ vaults: ['home', 'work'] })
})

test.each([
  ['an upper-case name', '/Work/', undefined, 400, 'invalid-name'],
  ['a name with two dots', '/a..b/', undefined, 400, 'invalid-name'],
  ['a body', '/body/', '<x/>', 415, 'unsupported-media-type'],
])('MKCOL with %s is refused', async (_, path, body, status, code) => {
  const answer = await fetch(server.url + path, { method: 'MKCOL', ...(body === undefined ? {} : { body }) })
  expect(answer.status).toBe(status)
  expect(await answer.json()).toMatchObject({ type: `urn:chunkdav:problem:${code}` })
})

test.each([
  ['empty', '0\r\n\r\n', 201],
  ['not empty', '2\r\nab\r\n0\r\n\r\n', 415],
])('MKCOL with a body in chunks, %s', async (name, body, status) => {
  const raw = await RawConnection.open(server.url)
  raw.send(
    `MKCOL /chunked-${name.replace(' ', '-')}/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n${body}`,
  )
  expect(await raw.end()).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
})

test.each(['/none/', '/none/chunks/missing', '/none/checkpoints/', '/none/checkpoints/a/1'])(
  'below an absent vault there is nothing: %s',
  async (path) => {
    const answer = await fetch(server.url + path)
    expect(answer.status).toBe(404)
    expect(await answer.json()).toMatchObject({ type: 'urn:chunkdav:problem:vault-not-found' })
  },
)

test('a vault says what the receiver can do', async () => {
  const answer = await fetch(`${server.vaultUrl}/`)
  expect(await answer.json()).toMatchObject({
    protocol: 1,
    encodings: ['identity', 'zstd'],
    hashAlgorithms: ['blake3', 'sha256'],
    limits: { maxChunkBytes: 16 * 1024 * 1024 },
  })
})
