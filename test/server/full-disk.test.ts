/** A full disk, whoever of the receiver's parts is the first to notice it. */
import { Level } from 'level'
import { afterEach, expect, test, vi } from 'vitest'
import { Problem } from '../../protocol/problem.ts'
import { isDiskFull } from '../../server/full-disk.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask } from './dav-requests.ts'
import { chunk, put } from './requests.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

const levelError = (folder: string): Error =>
  new Error('Database failed to open', {
    cause: Object.assign(new Error(`IO error: ${folder}/MANIFEST-000001: No space left on device`), {
      code: 'LEVEL_IO_ERROR',
    }),
  })
const systemError = (code: string): Error => Object.assign(new Error(`${code}: x, write`), { code })

test.each<[string, unknown, boolean]>([
  ['ENOSPC', systemError('ENOSPC'), true],
  ['EDQUOT', systemError('EDQUOT'), true],
  ['EIO', systemError('EIO'), false],
  ['a cause', new Problem('unavailable', 'x', { cause: systemError('ENOSPC') }), true],
  ["LevelDB's text", levelError('/data'), true],
  ["LevelDB's text of a quota", new Error('IO error: /data/000003.log: Disk quota exceeded'), true],
  ['another of LevelDB', new Error('IO error: /data/000003.log: Input/output error'), false],
  ['no error', 'No space left on device', false],
])('%s: %#', (_, error, expected) => {
  expect(isDiskFull(error)).toBe(expected)
})

/** Calls fail as on a full disk until the mock is restored. */
function fill(method: 'open' | 'batch'): { mockRestore(): void } {
  return vi.spyOn(Level.prototype, method).mockImplementation(async function (this: Level) {
    throw levelError(this.location)
  } as never)
}

const newVault = (server: TestReceiver) => ask(server, 'GET', '/new/')
const newTree = (server: TestReceiver) => ask(server, 'PUT', '/new/tree/a', {}, 'x')

test.each([
  ['the content index of a new vault', 'open', newVault],
  ['the content index, for a tree', 'open', newTree],
  ['a change of a live tree', 'batch', (server: TestReceiver) => ask(server, 'MKCOL', 'c/')],
] as const)('%s: 507 in a clear line without a path, and it goes on', async (_, method, request) => {
  await using server = await startReceiver()
  await ask(server, 'GET', '')
  // It opens the vaults that there are.
  await server.receiver.schedule.expireTrash()
  await ask(server, 'MKCOL', '/new/')
  const full = fill(method)
  const answer = await request(server)
  full.mockRestore()
  expect([answer.status, JSON.parse(answer.text)]).toEqual([
    507,
    expect.objectContaining({
      type: 'urn:chunkdav:problem:insufficient-storage',
      detail: 'there is no space left on the disk of the receiver',
    }),
  ])
  expect([200, 201]).toContain((await request(server)).status)
})

test('the content index, when it is written: what a commit refers to is told, and can be sent again', async () => {
  await using server = await startReceiver()
  const items = [{ id: chunk('content').id, size: 7 }]
  const send = (path: string, body: unknown) =>
    ask(server, 'POST', `/home/checkpoints/s/${path}`, {}, JSON.stringify(body))
  await put(server, 'chunks', chunk('content'))
  await send('', { kind: 'chunks' })
  await send('1/items', { first: 0, items })
  const batch = vi.spyOn(Level.prototype, 'batch').mockImplementationOnce(
    () =>
      ({
        put() {
          return this
        },
        write: async () => Promise.reject(levelError('/data')),
        [Symbol.asyncDispose]: async () => {},
      }) as never,
  )
  const answer = await send('1/commit', { items: 1 })
  expect(batch).toHaveBeenCalled()
  expect([answer.status, answer.text.includes('/data')]).toEqual([507, false])
  expect((await send('1/commit', { items: 1 })).status).toBe(200)
})
