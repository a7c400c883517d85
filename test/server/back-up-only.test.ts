/** What whoever may only back up learns from refusals about what others have stored: nothing of what it says. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { writeUsers } from '../support/users.ts'
import { chunk, directoryEntry, fileEntry } from './requests.ts'

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

async function ask(user: string, method: string, path: string, body?: Buffer | object): Promise<string> {
  const sent = body === undefined || Buffer.isBuffer(body) ? body : JSON.stringify(body)
  const answer = await fetch(`${server.vaultUrl}/${path}`, {
    method,
    headers: { authorization: `Bearer ${tokens[user]}`, 'content-type': 'application/json' },
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
