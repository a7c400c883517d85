/** What whoever may only back up learns of what others have stored, and takes of the receiver's time. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { batchMediaType } from '../../protocol/block.ts'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { writeUsers } from '../support/users.ts'
import { blockOf, chunk, directoryEntry, fileEntry } from './requests.ts'

let dataDir: string
let server: TestReceiver
let tokens: Record<string, string>

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-back-up-only-'))
  const mayBackUp = { grants: { home: 'append-only' } } as const
  tokens = await writeUsers(dataDir, { alice: mayBackUp, mallory: mayBackUp })
  server = await startReceiver({ dataDir })
})
afterEach(async () => {
  await server.stop()
  await rm(dataDir, { recursive: true, force: true })
})

async function ask(
  user: string,
  method: string,
  path: string,
  body?: Buffer | object,
  { type = 'application/json', signal }: { type?: string; signal?: AbortSignal } = {},
): Promise<string> {
  const sent = body === undefined || Buffer.isBuffer(body) ? body : JSON.stringify(body)
  const answer = await fetch(`${server.vaultUrl}/${path}`, {
    method,
    ...(signal && { signal }),
    headers: { authorization: `Bearer ${tokens[user]}`, 'content-type': type },
    ...(sent === undefined ? {} : { body: typeof sent === 'string' ? sent : new Uint8Array(sent) }),
  })
  return `${answer.status} ${await answer.text()}`
}

const unordered = [fileEntry('zz-hunter2', chunk('')), fileEntry('aa-hunter2', chunk(''))]

test.each([
  ['text', 'hunter2 is my password'],
  ['JSON', '{"hunter2":"hunter2"}'],
  ['a directory out of order', JSON.stringify({ type: 'directory', entries: unordered })],
  ['a file with too much in it', JSON.stringify({ type: 'file', size: 1, parts: [], hunter2: 'hunter2' })],
])('%s that is taken for an object is not told in the refusal', async (_, text) => {
  const { id, bytes } = chunk(text)
  expect(await ask('alice', 'PUT', `chunks/${id}`, bytes)).toMatch(/^201 /)
  const above = encodeDirectoryObject([directoryEntry('a', { id, bytes })])
  await ask('mallory', 'PUT', `dirs/${above.id}`, above.bytes)
  for (const kind of ['dir', 'chunks']) await ask('mallory', 'POST', 'checkpoints/false/', { kind })
  const refused = [
    await ask('mallory', 'GET', `checkpoints/false/1?root=${id}`),
    await ask('mallory', 'POST', 'checkpoints/false/1/commit', { root: id }),
    await ask('mallory', 'POST', 'checkpoints/false/1/commit', { root: above.id }),
    await ask('mallory', 'POST', 'checkpoints/false/2/items', {
      first: 0,
      items: [{ id, size: 1, chunked: true }],
    }),
    await ask('mallory', 'PUT', `dirs/${above.id}`, above.bytes),
  ]
  for (const answer of refused) {
    expect(answer).toMatch(/^400 .*invalid-object.* is no (directory|file) object"/)
    expect(answer).not.toContain('hunter2')
  }
})

test('walks over what is not whole are few at a time, and end when nobody waits for them', async () => {
  const there = chunk('')
  await ask('mallory', 'PUT', `chunks/${there.id}`, there.bytes)
  const entries = Array.from({ length: 2000 }, (_, i) => fileEntry(`f${String(i).padStart(4, '0')}`, there))
  const long = encodeDirectoryObject([...entries, fileEntry('lacks', chunk('absent'))])
  await ask('mallory', 'PUT', `dirs/${long.id}`, long.bytes)
  const between = Array.from({ length: 500 }, (_, i) =>
    encodeDirectoryObject([directoryEntry(`b${i}`, long)]),
  )
  await ask('mallory', 'POST', 'chunks/', await blockOf(between), { type: batchMediaType })
  const top = encodeDirectoryObject(
    between.map((each, i) => directoryEntry(`t${String(i).padStart(3, '0')}`, each)),
  )
  const { turns, walks } = server.receiver
  const leaving = new AbortController()
  const asked = Array.from({ length: 8 }, () =>
    ask('mallory', 'PUT', `dirs/${top.id}`, top.bytes, { signal: leaving.signal }).catch(() => 'left'),
  )
  await vi.waitFor(
    () => {
      expect(turns.usage.held).toBe(8)
      expect(walks.usage.waiting).toBeGreaterThan(2)
    },
    { timeout: 10_000 },
  )
  expect(walks.usage.peak).toBeLessThanOrEqual(3)
  leaving.abort()
  expect(await Promise.all(asked)).toEqual(asked.map(() => 'left'))
  await vi.waitFor(() => expect([turns.usage.held, walks.usage.held]).toEqual([0, 0]), { timeout: 5000 })
}, 30_000)
