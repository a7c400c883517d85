/** What one client may have under way, and what that means for others: turns are counted, not milliseconds. */
import { Agent, type IncomingMessage, request } from 'node:http'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import { defaultClientLimits } from '../../server/http/client-limits.ts'
import { networkOf } from '../../server/http/client-name.ts'
import { ClientPace } from '../../server/http/client-pace.ts'
import type { CollectableStore } from '../../server/store/collectable.ts'
import { MemoryChunkStore } from '../../server/store/memory-chunk-store.ts'
import { startReceiver, type TestReceiver, type TestReceiverOptions } from '../support/receiver.ts'
import { temporaryFolder } from '../support/tree.ts'
import { writeUsers } from '../support/users.ts'
import { connectFrom, elsewhere, type RawClient, until } from './connect-from.ts'
import { begin, chunk, fileEntry, MiB, noise, put } from './requests.ts'

let server: TestReceiver
let agents: Agent[] = []
const raw: RawClient[] = []
const start = async (options: TestReceiverOptions = {}): Promise<void> => {
  server = await startReceiver({ unobserved: true, ...options })
}
afterEach(async () => {
  for (const agent of agents) agent.destroy()
  agents = []
  for (const { socket } of raw.splice(0)) socket.destroy()
  await server?.stop()
})

interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly text: string
}

/** Requests of a client at this address. */
function clientAt(localAddress: string): (method: string, path: string, body?: Buffer) => Promise<Answer> {
  const agent = new Agent({ keepAlive: true, localAddress })
  agents.push(agent)
  return (method, path, body) =>
    new Promise((resolve, reject) => {
      const headers = { 'Content-Length': body?.length ?? 0 }
      const sent = request(`${server.url}${path}`, { method, agent, headers }, (answer) => {
        let text = ''
        answer.setEncoding('utf8')
        answer.on('data', (piece: string) => {
          text += piece
        })
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }))
      })
      sent.on('error', reject)
      sent.end(body)
    })
}

const openRaw = async (from: string, text: string): Promise<RawClient> => {
  const client = await connectFrom(from, server.url)
  raw.push(client)
  client.socket.write(text)
  return client
}
const headOf = (id: string, length: number): string =>
  `PUT /home/chunks/${id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${length}\r\n\r\n`
const turns = () => server.receiver.turns.usage

describe('requests of one client', () => {
  beforeEach(() => start({ clientLimits: { maxClientRequests: 2, maxWaitingRequests: 3 } }))

  test('wait for their turn, then are refused; others are served, and so is whoever asks how it is', async () => {
    const greedy = []
    for (let i = 0; i < 5; i++) greedy.push(await openRaw(elsewhere, headOf(chunk(`${i}`).id, 1)))
    await until(() => turns().held === 2 && turns().waiting === 3)
    const over = clientAt(elsewhere)
    const refused = await over('GET', '/home/')
    expect(refused).toMatchObject({ status: 429, headers: { 'retry-after': '1' } })
    expect(refused.text).toContain('urn:chunkdav:problem:too-many-requests')
    expect((await over('GET', '/-/health')).status).toBe(200)
    expect((await clientAt('127.0.0.1')('GET', '/home/')).status).toBe(200)
    expect(turns()).toMatchObject({ held: 2, waiting: 3, refused: 1 })
    // Whoever leaves gives the place back, waiting or not.
    for (const { socket } of greedy.slice(1)) socket.destroy()
    await until(() => turns().held === 1 && turns().waiting === 0)
    expect((await over('GET', '/home/')).status).toBe(200)
  })

  test('one behind the other on a connection are answered in order', async () => {
    const client = await openRaw('127.0.0.1', 'GET /home/ HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(5))
    await until(() => client.text().split('HTTP/1.1 200').length === 6)
    expect(turns()).toMatchObject({ held: 0, refused: 0 })
  })
})

test('users have turns of their own, wherever they come from', async () => {
  await using folder = await temporaryFolder()
  const tokens = await writeUsers(folder.path, {
    alice: { grants: { home: 'write' } },
    bob: { grants: { home: 'write' } },
  })
  await start({ dataDir: folder.path, clientLimits: { maxClientRequests: 1, maxWaitingRequests: 1 } })
  const as = (name: string): string => `Authorization: Bearer ${tokens[name]}\r\n`
  const put = `PUT /home/chunks/${chunk('x').id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n`
  const get = 'GET /home/ HTTP/1.1\r\nHost: localhost\r\n'
  await openRaw('127.0.0.1', `${put}${as('alice')}\r\n`)
  await until(() => turns().held === 1)
  await openRaw(elsewhere, `${put}${as('alice')}\r\n`)
  await until(() => turns().waiting === 1)
  const [alice, bob] = [
    await openRaw('127.0.0.3', `${get}${as('alice')}\r\n`),
    await openRaw('127.0.0.1', `${get}${as('bob')}\r\n`),
  ]
  await until(() => alice.text() !== '' && bob.text() !== '')
  expect([alice.text().slice(9, 12), bob.text().slice(9, 12)]).toEqual(['429', '200'])
})

describe('a greedy client', () => {
  test('with 200 uploads at once lets a small one through: between question and answer few of its own end', async () => {
    await start()
    const greedy = clientAt(elsewhere)
    let ended = 0
    let isOver = false
    const uploads = Array.from({ length: 200 }, async (_, lane) => {
      for (let i = 0; !isOver; i++) {
        const item = chunk(noise(30_000, lane * 1000 + i))
        const { status } = await greedy('PUT', `/home/chunks/${item.id}`, item.bytes)
        expect(status).toBe(201)
        ended++
      }
    })
    await until(() => ended > 100 && turns().waiting > 50)
    const small = clientAt('127.0.0.1')
    await small('GET', '/home/')
    const between: number[] = []
    for (let i = 0; i < 20; i++) {
      const item = chunk(`small ${i}`)
      const before = ended
      expect((await small('PUT', `/home/chunks/${item.id}`, item.bytes)).status).toBe(201)
      between.push(ended - before)
    }
    isOver = true
    await Promise.all(uploads)
    // At work are 32 at once, some for the second time; without turns it is all 200.
    const median = between.sort((a, b) => a - b)[10]
    expect(median, String(between)).toBeLessThanOrEqual(2 * defaultClientLimits.maxClientRequests)
    expect(between.at(-1), String(between)).toBeLessThanOrEqual(4 * defaultClientLimits.maxClientRequests)
  })

  test('that holds memory for bodies which never come leaves some for others', async () => {
    await start({ memoryBytes: 4 * MiB, limits: { ...limits, maxChunkBytes: MiB } })
    for (let i = 0; i < 50; i++) await openRaw(elsewhere, headOf(chunk(`${i}`).id, MiB))
    const { uploads } = server.receiver
    await until(() => uploads.usage.waiting === defaultClientLimits.maxClientRequests - 3)
    expect(uploads.usage.heldBytes).toBe(3 * MiB)
    for (let i = 0; i < 5; i++)
      expect((await put(server, 'chunks', chunk(noise(MiB / 2, i)))).status).toBe(201)
  })

  test('and another like it hold all: a third goes on as soon as one of them leaves', async () => {
    await start({ memoryBytes: 4 * MiB, limits: { ...limits, maxChunkBytes: MiB } })
    const { uploads } = server.receiver
    const greedy: RawClient[] = []
    for (const from of [elsewhere, '127.0.0.3']) {
      for (let i = 0; i < 20; i++) greedy.push(await openRaw(from, headOf(chunk(`${from} ${i}`).id, MiB)))
    }
    await until(() => uploads.usage.heldBytes === 4 * MiB && uploads.usage.waiting === 36)
    const item = chunk(noise(MiB, 99))
    const answer = put(server, 'chunks', item)
    await until(() => uploads.usage.waiting === 37)
    for (const { socket } of greedy.slice(0, 20)) socket.destroy()
    expect((await answer).status).toBe(201)
  })
})

test('a client whose commits take long leaves a walk to others of the same vault', async () => {
  const held = new Set<Id>()
  const gate = Promise.withResolvers<void>()
  let walking = 0
  const openStore = async (): Promise<CollectableStore> => {
    const store = await MemoryChunkStore.open()
    return new Proxy(store, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target)
        if (name === 'get') {
          return async (id: Id) => {
            if (held.has(id)) walking++
            if (held.has(id)) await gate.promise
            return await target.get(id)
          }
        }
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
  }
  await start({ openStore })
  const greedy = clientAt(elsewhere)
  const file = chunk('a file')
  await put(server, 'chunks', file)
  const commits: Promise<Answer>[] = []
  for (let i = 0; i < 9; i++) {
    const root = encodeDirectoryObject([fileEntry(`file-${i}`, file)])
    // As a chunk: what is put as a directory is known to be whole.
    await put(server, 'chunks', root)
    const path = await begin(server, `source-${i}`, 'dir')
    const body = Buffer.from(JSON.stringify({ root: root.id }))
    if (i < 8) {
      held.add(root.id)
      commits.push(greedy('POST', `/home/${path}/commit`, body))
    } else {
      await until(() => walking === 3 && turns().held === 8)
      expect((await clientAt('127.0.0.1')('POST', `/home/${path}/commit`, body)).status).toBe(200)
    }
  }
  gate.resolve()
  expect((await Promise.all(commits)).map(({ status }) => status)).toEqual(Array(8).fill(200))
})

describe('the pace', () => {
  beforeEach(() => vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }))
  afterEach(() => vi.useRealTimers())
  const rules = { silentMs: 30_000, graceMs: 30_000 }

  /** After how many seconds somebody is given up who sends `bytes` every `everyMs`; undefined if not within a day. */
  function givenUpAfter(
    bytes: number,
    everyMs: number,
    isPressed: (ms: number) => boolean,
  ): number | undefined {
    const began = performance.now()
    let given: number | undefined
    const pace = new ClientPace({ ...rules, isPressed: () => isPressed(performance.now() - began) })
    const giveUp = (): void => {
      given = Math.round((performance.now() - began) / 1000)
    }
    for (let ms = 0; ms < 86_400_000 && given === undefined; ms += everyMs) {
      pace.wait(giveUp)
      vi.advanceTimersByTime(everyMs)
      if (given === undefined) pace.came(bytes)
    }
    return given
  }

  test.each([
    ['nothing', 0, 60_000, () => false, 30],
    ['one byte every 29 s', 1, 29_000, () => false, 30],
    ['600 bytes in a second', 600, 1000, () => false, undefined],
    ['400 bytes in a second', 400, 1000, () => false, 134],
    ['10 KiB in a second, nobody waits', 10_240, 1000, () => false, undefined],
    ['10 KiB in a second, somebody waits', 10_240, 1000, () => true, 80],
    ['10 KiB in a second, somebody waits after an hour', 10_240, 1000, (ms: number) => ms > 3_600_000, 3601],
    ['20 KiB in a second, somebody waits', 20_480, 1000, () => true, undefined],
    ['64 KiB every 25 s, nobody waits', 65_536, 25_000, () => false, undefined],
  ])('%s', (_, bytes, everyMs, isPressed, expected) => {
    const after = givenUpAfter(bytes, everyMs, isPressed)
    if (expected === undefined) expect(after).toBeUndefined()
    else expect(Math.abs((after ?? 0) - expected)).toBeLessThanOrEqual(2)
  })

  test('what we do between two pieces does not count', () => {
    const giveUp = vi.fn()
    const pace = new ClientPace({ ...rules, isPressed: () => true })
    for (let i = 0; i < 100; i++) {
      pace.wait(giveUp)
      vi.advanceTimersByTime(100)
      pace.came(2000)
      vi.advanceTimersByTime(60_000)
    }
    expect(giveUp).not.toHaveBeenCalled()
  })

  test('nobody waits for a transfer that is over', () => {
    const giveUp = vi.fn()
    const pace = new ClientPace({ ...rules, isPressed: () => true })
    pace.wait(giveUp)
    pace.end()
    pace.wait(giveUp)
    vi.advanceTimersByTime(86_400_000)
    expect(giveUp).not.toHaveBeenCalled()
    expect(vi.getTimerCount()).toBe(0)
  })

  test('a client is given up once', () => {
    const giveUp = vi.fn()
    const pace = new ClientPace({ ...rules, isPressed: () => false })
    pace.wait(giveUp)
    vi.advanceTimersByTime(86_400_000)
    expect(giveUp).toHaveBeenCalledTimes(1)
  })
})

test.each([
  [undefined, 'local'],
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['2001:db8:0:0:5:6:7:8', '2001:db8:0:0::/64'],
  ['2001:db8:1::', '2001:db8:1:0::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
])('%s is counted as %s', (address, client) => {
  expect(networkOf(address)).toBe(client)
})
