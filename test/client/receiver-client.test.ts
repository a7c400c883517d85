import { createServer, type RequestListener } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { readBlocks } from '../../client/block-stream.ts'
import { Transport, type TransportOptions } from '../../client/http.ts'
import { ReceiverClient } from '../../client/receiver-client.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'
import { type Block, encodeBlock } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { encodeDirectoryObject, encodeFileObject } from '../../protocol/objects.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { compress } from '../../protocol/zstd.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { FlakyProxy } from './flaky-proxy.ts'

const quick: TransportOptions = { firstPauseMs: 5 }
const bytesOf = (seed: number, length: number): Buffer => {
  const bytes = Buffer.alloc(length)
  for (let i = 0, x = seed * 2654435761 + 1; i < length; i++) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0
    bytes[i] = x >>> 24
  }
  return bytes
}
const chunkOf = (bytes: Buffer) => ({ id: hashId(bytes), bytes, length: bytes.length })
const blockOf = (...chunks: Buffer[]): Promise<Block> =>
  encodeBlock(chunks.map(chunkOf), Buffer.concat(chunks))

async function codeOf(action: Promise<unknown>): Promise<string> {
  try {
    await action
    return 'none'
  } catch (error) {
    if (isProblem(error)) return error.code
    throw error
  }
}

async function readToEnd(body: AsyncIterable<Buffer>): Promise<void> {
  for await (const _ of body);
}

describe('vault URLs', () => {
  test.each([
    ['http://127.0.0.1:8420/laptop', 'http://127.0.0.1:8420', 'laptop'],
    ['http://127.0.0.1:8420/laptop/', 'http://127.0.0.1:8420', 'laptop'],
    ['https://backup.example/a-b.c_9', 'https://backup.example', 'a-b.c_9'],
    ['http://[::1]:8420/v', 'http://[::1]:8420', 'v'],
  ])('%s', (text, origin, vault) => {
    expect(parseVaultUrl(text)).toMatchObject({ origin, vault, headers: {} })
  })

  test.each([
    '',
    'laptop',
    '127.0.0.1:8420/laptop',
    'ftp://host/laptop',
    'http://host',
    'http://host/',
    'http://host/a/b',
    'http://host/UPPER',
    'http://host/..',
    'http://host/a?b',
    'http://host/a#b',
  ])('refuses %j', (text) => {
    expect(() => parseVaultUrl(text)).toThrow(expect.objectContaining({ code: 'usage' }))
  })

  test('credentials become a header and never a message', () => {
    const { headers, shown } = parseVaultUrl('http://me:s%3Acret@host:1/v')
    expect(headers.authorization).toBe(`Basic ${Buffer.from('me:s:cret').toString('base64')}`)
    expect(shown).toBe('http://host:1/v')
    for (const wrong of [
      'http://me:s3cret@host/',
      'ftp://me:s3cret@host/v',
      'me:s3cret@host/v',
      'http://me:s3cret@',
    ]) {
      expect(() => parseVaultUrl(wrong)).toThrow(
        expect.not.objectContaining({ message: expect.stringMatching(/s3cret/) }),
      )
    }
  })
})

describe('every request, against a receiver', () => {
  let receiver: TestReceiver
  let client: ReceiverClient
  beforeAll(async () => {
    receiver = await startReceiver()
    client = new ReceiverClient(parseVaultUrl(receiver.vaultUrl), quick)
  })
  afterAll(async () => {
    await client.close()
    await receiver.stop()
  })

  test('receiver and vaults', async () => {
    expect(await client.health()).toMatchObject({ status: 'ok' })
    const other = new ReceiverClient(parseVaultUrl(`${receiver.url}/other`), quick)
    expect(await codeOf(other.capabilities())).toBe('vault-not-found')
    expect(await other.createVault()).toBe(true)
    expect(await other.createVault()).toBe(false)
    await other.close()
    expect(await client.listVaults()).toEqual(['home', 'other'])
    expect((await client.capabilities()).hashAlgorithms).toContain('blake3')
    expect(await client.options()).toMatchObject({ 'chunkdav-version': '1', allow: expect.any(String) })
    expect(await client.propfind('/', { depth: 1 })).toMatch(/multistatus/)
  })

  test('a chunk: put, get, ranges, head, delta', async () => {
    const { id, bytes } = chunkOf(bytesOf(1, 100_000))
    expect(await client.headChunk(id)).toBe(undefined)
    expect(await codeOf(client.getChunk(id))).toBe('chunk-not-found')
    expect(await client.putChunk(id, bytes)).toEqual({ id, outcome: 'stored' })
    expect(await client.putChunk(id, await compress(bytes), { encoding: 'zstd' })).toEqual({
      id,
      outcome: 'known',
    })
    expect(await client.headChunk(id)).toEqual({ bytes: 100_000 })
    expect(await client.getChunk(id)).toEqual(bytes)
    expect(await client.getChunk(id, { range: { first: 10, last: 19 } })).toEqual(bytes.subarray(10, 20))
    expect(await client.getChunk(id, { range: { first: 99_990 } })).toEqual(bytes.subarray(99_990))
    expect(await codeOf(client.getChunk(id, { range: { first: 100_000 } }))).toBe('range-not-satisfiable')
    expect(await codeOf(client.putChunk(hashId(Buffer.from('other')), bytes))).toBe('digest-mismatch')

    const next = chunkOf(Buffer.concat([Buffer.from('new'), bytes]))
    const delta = await compress(next.bytes, { dictionary: bytes })
    expect(await client.patchChunk(next.id, id, delta)).toEqual({ id: next.id, outcome: 'stored' })
    expect(await client.getChunk(next.id)).toEqual(next.bytes)
    const third = chunkOf(Buffer.from('never stored'))
    expect(await codeOf(client.patchChunk(third.id, hashId(Buffer.from('none')), delta))).toBe(
      'base-not-found',
    )
  })

  test('a compressible chunk travels compressed and comes back plain', async () => {
    const { id, bytes } = chunkOf(Buffer.alloc(1_000_000, 'text '))
    const before = { ...client.counters }
    await client.putChunk(id, await compress(bytes), { encoding: 'zstd' })
    expect(await client.getChunk(id)).toEqual(bytes)
    expect(client.counters.bytesSent - before.bytesSent).toBeLessThan(1000)
    expect(client.counters.bytesReceived - before.bytesReceived).toBeLessThan(1000)
    expect(client.counters.requests - before.requests).toBe(2)
  })

  test('an empty chunk', async () => {
    const { id, bytes } = chunkOf(Buffer.alloc(0))
    expect((await client.putChunk(id, bytes)).id).toBe(id)
    expect(await client.getChunk(id)).toEqual(bytes)
    expect(await client.headChunk(id)).toEqual({ bytes: 0 })
  })

  test('batches, missing, fetch', async () => {
    const chunks = Array.from({ length: 40 }, (_, i) => bytesOf(100 + i, 20_000 + i))
    const ids = chunks.map((bytes) => hashId(bytes))
    expect(await client.missing(ids)).toEqual(ids)
    const blocks = [await blockOf(...chunks.slice(0, 20)), await blockOf(...chunks.slice(20, 30))]
    const answer = await client.putBatch(blocks)
    expect(answer.outcomes).toEqual(Array(30).fill('stored'))
    expect(await client.missing([...ids, ...ids])).toEqual(ids.slice(30))
    const came = new Set<Id>()
    for await (const block of client.fetch([...ids, ...ids])) {
      for (const { id } of block.header.rows) came.add(id)
    }
    expect([...came].sort()).toEqual(ids.slice(0, 30).sort())
  })

  test('missing asks for any number in as few requests as it takes', async () => {
    const ids = Array.from({ length: 25_000 }, (_, i) => `blake3:${i.toString(16).padStart(64, '0')}` as Id)
    const before = client.counters.requests
    expect(await client.missing(ids)).toEqual(ids)
    expect(client.counters.requests - before).toBe(3)
  })

  test('file objects: put, get, content, patch', async () => {
    const parts = [bytesOf(7, 300_000), bytesOf(8, 200_000)].map(chunkOf)
    const whole = Buffer.concat(parts.map((part) => part.bytes))
    const list = parts.map(({ id, length }) => ({ id, size: length }))
    const file = encodeFileObject(list, hashId(whole))
    const [first, second] = parts
    if (first === undefined || second === undefined) throw new TypeError('two parts')
    await client.putChunk(first.id, first.bytes)
    expect(await client.putFile(file.id, file.bytes)).toMatchObject({ whole: false, missing: [second.id] })
    await client.putChunk(second.id, second.bytes)
    expect(await client.putFile(file.id, file.bytes)).toMatchObject({
      outcome: 'known',
      whole: true,
      missing: [],
    })
    expect(await client.getFile(file.id)).toMatchObject({ size: 500_000, parts: list })
    expect(await codeOf(client.getFile(first.id))).toBe('not-found')
    expect(await collect(client.fileContent(file.id))).toEqual(whole)
    const range = { first: 299_990, last: 300_009 }
    expect(await collect(client.fileContent(file.id, { range }))).toEqual(whole.subarray(299_990, 300_010))

    const shorter = encodeFileObject(list.slice(0, 1), first.id)
    const patch = [
      { op: 'remove', path: '/parts/1' },
      { op: 'replace', path: '/size', value: 300_000 },
      { op: 'replace', path: '/digest', value: first.id },
    ]
    expect(await client.patchFile(shorter.id, file.id, patch)).toMatchObject({ id: shorter.id, whole: true })
  })

  test('directory objects: put, get, patch, propfind', async () => {
    const { id, bytes } = chunkOf(Buffer.from('hello'))
    const attributes = { mode: 0o644, uid: 0, gid: 0, mtimeNs: '1' }
    const entry = { kind: 'file', name: 'a b.txt', ...attributes, id, size: 5 } as const
    const directory = encodeDirectoryObject([entry])
    expect(await client.putDirectory(directory.id, directory.bytes)).toMatchObject({
      whole: false,
      missing: [id],
    })
    await client.putChunk(id, bytes)
    expect(await client.getDirectory(directory.id)).toEqual({ type: 'directory', entries: [entry] })
    expect(await client.propfindDirectory(directory.id, { depth: 1 })).toMatch(/a%20b\.txt/)
    expect(await client.propfindDirectory(directory.id, { path: ['a b.txt'] })).toMatch(/getcontentlength>5</)
    const renamed = encodeDirectoryObject([{ ...entry, name: 'b' }])
    const patch = [{ op: 'replace', path: '/entries/0/name', value: 'b' }]
    expect(await client.patchDirectory(renamed.id, directory.id, patch)).toMatchObject({ whole: true })
    const wrong = [{ op: 'remove', path: '/entries/7' }]
    expect(await codeOf(client.patchDirectory(id, directory.id, wrong))).toBe('patch-conflict')
  })

  test('checkpoints: open, touch, items, commit, list, remove', async () => {
    const { id, bytes } = chunkOf(Buffer.from('item'))
    const open = await client.openCheckpoint('one', { kind: 'chunks', about: { host: 'here' } })
    expect(open).toMatchObject({ source: 'one', state: 'open', about: { host: 'here' } })
    const items = [
      { id, size: 4 },
      { id, size: 4 },
    ]
    expect(await client.addItems(open, 0, items)).toEqual({ total: 2, missing: [id] })
    expect(await codeOf(client.addItems(open, 5, items))).toBe('items-conflict')
    expect((await client.getCheckpoint(open)).missing).toEqual([id])
    expect(await codeOf(client.commitCheckpoint(open, { items: 2 }))).toBe('missing-chunks')
    const unknown = { source: 'one', number: open.number + 9 }
    expect(await codeOf(client.putChunk(id, bytes, { checkpoint: unknown }))).toBe('checkpoint-not-found')
    await client.putChunk(id, bytes, { checkpoint: open })
    expect(await client.itemsPage(open, 1, { limit: 1 })).toMatchObject({ first: 1, total: 2 })
    expect(await all(client.items(open))).toEqual(items)
    const committed = await client.commitCheckpoint(open, { items: 2 })
    expect(committed).toMatchObject({ state: 'committed', items: 2, itemBytes: 8 })
    expect(await client.commitCheckpoint(open, { items: 2 })).toEqual(committed)
    expect(await codeOf(client.commitCheckpoint(open, { items: 1 }))).toBe('checkpoint-committed')
    expect(await client.sources()).toEqual(['one'])
    expect((await client.listCheckpoints('one')).map((each) => each.number)).toEqual([open.number])
    expect(await client.removeCheckpoint(open)).toBe(true)
    expect(await client.removeCheckpoint(open)).toBe(false)
  })
})

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

async function collect(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  return Buffer.concat(await all(stream))
}

describe('a flaky network', () => {
  let receiver: TestReceiver
  let proxy: FlakyProxy
  let client: ReceiverClient
  const open = async (options: TransportOptions = {}) => {
    receiver = await startReceiver()
    proxy = await FlakyProxy.start(receiver.url)
    client = new ReceiverClient(parseVaultUrl(`${proxy.url}/home`), { ...quick, ...options })
  }
  afterEach(async () => {
    await client.close()
    await proxy.stop()
    await receiver.stop()
  })

  test.each([
    ['reset at once', 'reset' as const],
    ['reset within the headers', { answerBytes: 10 }],
    ['reset within the body', { answerBytes: 500 }],
  ])('%s: the request is made again', async (_, fault) => {
    await open()
    const { id, bytes } = chunkOf(bytesOf(3, 500_000))
    proxy.faults = [fault, fault, fault]
    expect((await client.putChunk(id, bytes)).id).toBe(id)
    await client.close()
    client = new ReceiverClient(parseVaultUrl(`${proxy.url}/home`), quick)
    proxy.faults = [fault, fault, fault]
    expect(await client.getChunk(id)).toEqual(bytes)
    expect(client.counters.requests).toBe(4)
  })

  test('fetch goes on with what is still wanted', async () => {
    await open()
    const chunks = Array.from({ length: 12 }, (_, i) => bytesOf(i, 1_000_000))
    for (const bytes of chunks) await client.putBatch([await blockOf(bytes)])
    await client.close()
    client = new ReceiverClient(parseVaultUrl(`${proxy.url}/home`), quick)
    proxy.faults = [{ answerBytes: 3_500_000 }, { answerBytes: 2_500_000 }, 'reset']
    const came: Id[] = []
    for await (const block of client.fetch(chunks.map((bytes) => hashId(bytes)))) {
      came.push(...block.header.rows.map((row) => row.id))
    }
    expect(came).toEqual(chunks.map((bytes) => hashId(bytes)))
    expect(client.counters.bytesReceived).toBeLessThan(14_500_000)
  })

  test('the content of a file goes on where it broke', async () => {
    await open()
    const parts = [bytesOf(7, 3_000_000), bytesOf(8, 2_000_000)].map(chunkOf)
    const whole = Buffer.concat(parts.map((part) => part.bytes))
    for (const { id, bytes } of parts) await client.putChunk(id, bytes)
    const list = parts.map(({ id, length }) => ({ id, size: length }))
    const file = encodeFileObject(list, hashId(whole))
    await client.putFile(file.id, file.bytes)
    await client.close()
    client = new ReceiverClient(parseVaultUrl(`${proxy.url}/home`), quick)
    proxy.faults = [{ answerBytes: 1_000_000 }, { answerBytes: 3_000_000 }]
    expect(await collect(client.fileContent(file.id))).toEqual(whole)
    proxy.faults = [{ answerBytes: 500_000 }]
    const range = { first: 100, last: 4_000_000 }
    expect(await collect(client.fileContent(file.id, { range }))).toEqual(whole.subarray(100, 4_000_001))
  })

  test('fetch holds back while its consumer is busy', async () => {
    await open()
    const chunks = Array.from({ length: 40 }, (_, i) => bytesOf(i, 1_000_000))
    for (const bytes of chunks) await client.putBatch([await blockOf(bytes)])
    proxy.bytesForwarded = 0
    for await (const _ of client.fetch(chunks.map((bytes) => hashId(bytes)))) {
      await sleep(300)
      break
    }
    // What the two sockets' buffers on the way hold, and not 40 MB.
    expect(proxy.bytesForwarded).toBeLessThan(25_000_000)
    expect(client.counters.bytesReceived).toBeLessThan(5_000_000)
  })

  test('tries are bounded', async () => {
    await open({ retries: 3 })
    await client.health()
    proxy.otherwise = 'reset'
    await client.close()
    client = new ReceiverClient(parseVaultUrl(`${proxy.url}/home`), { ...quick, retries: 3 })
    expect(await codeOf(client.health())).toBe('transport-failed')
    expect(client.counters).toMatchObject({ requests: 4, bytesSent: 0 })
  })

  test('an aborted signal ends a retried request at once', async () => {
    await open({ firstPauseMs: 10_000 })
    proxy.otherwise = 'reset'
    const startedAt = performance.now()
    expect(await codeOf(client.health({ signal: AbortSignal.timeout(50) }))).toBe('cancelled')
    expect(performance.now() - startedAt).toBeLessThan(2000)
    const reason = new Problem('in-use', 'a reason of its own')
    expect(await codeOf(client.health({ signal: AbortSignal.abort(reason) }))).toBe('in-use')
  })
})

describe('odd answers', () => {
  let stop: () => Promise<void>
  let client: ReceiverClient
  let seen = 0
  const serve = async (listener: RequestListener, options: TransportOptions = {}) => {
    seen = 0
    const server = createServer((request, response) => {
      seen++
      request.resume().on('end', () => listener(request, response))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    stop = async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
    const { port } = server.address() as AddressInfo
    client = new ReceiverClient(parseVaultUrl(`http://127.0.0.1:${port}/v`), { ...quick, ...options })
  }
  afterEach(async () => {
    await client.close()
    await stop()
  })

  test('503 is tried again, not before Retry-After', async () => {
    const times: number[] = []
    await serve((_, response) => {
      times.push(performance.now())
      if (times.length === 1) response.writeHead(503, { 'retry-after': '1' }).end()
      else response.end('{"status":"ok","version":"1"}')
    })
    expect(await client.health()).toMatchObject({ status: 'ok' })
    expect((times[1] as number) - (times[0] as number)).toBeGreaterThan(990)
  })

  test.each([
    [400, 'invalid-request'],
    [404, 'not-found'],
    [500, 'internal-error'],
    [507, 'insufficient-storage'],
  ])('%i without a problem document is not tried again', async (status, code) => {
    await serve((_, response) => response.writeHead(status, { 'content-type': 'text/html' }).end('<p>no</p>'))
    expect(await codeOf(client.health())).toBe(code)
    expect(seen).toBe(1)
  })

  test.each([
    ['no JSON', 'hello'],
    ['another document', '{"a":1}'],
    ['an unknown field', '{"status":"ok","version":"1","more":1}'],
  ])('%s is a protocol violation', async (_, body) => {
    await serve((_request, response) => response.end(body))
    expect(await codeOf(client.health())).toBe('protocol-violation')
    expect(seen).toBe(1)
  })

  test('outcomes that do not fit the batch are a protocol violation', async () => {
    await serve((_, response) => response.end('{"outcomes":["stored","stored"],"problems":[]}'))
    expect(await codeOf(client.putBatch([await blockOf(Buffer.from('one'))]))).toBe('protocol-violation')
  })

  test('an endless answer is cut off', async () => {
    const piece = Buffer.alloc(1024 * 1024, 'x')
    await serve((_, response) => {
      const more = () => {
        while (!response.destroyed && response.write(piece));
      }
      response.on('drain', more)
      more()
    })
    expect(await codeOf(client.health())).toBe('protocol-violation')
    expect(client.counters.bytesReceived).toBeLessThan(40_000_000)
  })

  test('an answer that breaks off before anybody reads it', async () => {
    await serve((_, response) => {
      response.writeHead(200, { 'content-length': 100 }).write('x')
      setTimeout(() => response.destroy(), 10)
    })
    const transport = new Transport(client.location.origin, quick)
    const { body } = await transport.stream({ method: 'GET', path: '/' })
    await sleep(100)
    expect(await codeOf(readToEnd(body))).toBe('transport-failed')
    await transport.close()
  })

  test('an object that is not what its id says', async () => {
    const { bytes } = encodeDirectoryObject([])
    await serve((_, response) => response.end(bytes))
    expect(await codeOf(client.getDirectory(hashId(Buffer.from('x'))))).toBe('digest-mismatch')
  })

  test('a batch that never gets anywhere is given up', async () => {
    const block = await blockOf(Buffer.from('one'))
    await serve((_, response) => response.end(block.bytes.subarray(0, 40)))
    expect(await codeOf(all(client.fetch([hashId(Buffer.from('one'))])))).toBe('transport-failed')
    expect(seen).toBe(6)
  })
})

test('nothing there: told within seconds, with the URL and what to do', async () => {
  const server = createTcpServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.on('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  const client = new ReceiverClient(parseVaultUrl(`http://me:s3cret@127.0.0.1:${port}/v`), {
    firstContactMs: 200,
  })
  const error = await client.health().catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ code: 'transport-failed', cause: expect.any(Error) })
  expect((error as Error).message).toMatch(new RegExp(`http://127.0.0.1:${port}; .*chunkdav serve`))
  expect((error as Error).message).not.toMatch(/s3cret/)
  await client.close()
  await client.close()
  await expect(client.health()).rejects.toThrow(TypeError)
})

test('what does not speak HTTP is a protocol violation', async () => {
  const server = createTcpServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.write('220 mail.example ESMTP\r\n'))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const client = new ReceiverClient(parseVaultUrl(`http://127.0.0.1:${port}/v`), quick)
  expect(await codeOf(client.health())).toBe('protocol-violation')
  await client.close()
  await new Promise((resolve) => server.close(resolve))
})

describe('a batch read as it arrives', () => {
  const cut = async function* (bytes: Buffer, at: readonly number[]): AsyncIterable<Buffer> {
    const places = [0, ...at.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
    for (const [index, place] of places.slice(1).entries()) yield bytes.subarray(places[index], place)
  }

  test('in pieces of any size', async () => {
    const blocks = [
      await blockOf(bytesOf(1, 3000), Buffer.alloc(0), bytesOf(2, 10)),
      await encodeBlock([chunkOf(Buffer.alloc(5000))], Buffer.alloc(5000), { encoding: 'zstd' }),
      await blockOf(bytesOf(3, 1)),
    ]
    const batch = Buffer.concat(blocks.map((block) => block.bytes))
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(), { maxLength: 40 }), async (at) => {
        const read = await all(readBlocks(cut(batch, at)))
        expect(read.map((block) => block.bytes)).toEqual(blocks.map((block) => block.bytes))
      }),
      { numRuns: 60 },
    )
  })

  test('any one byte that is wrong or missing is told', async () => {
    const batch = (await blockOf(bytesOf(1, 100), bytesOf(2, 50))).bytes
    for (let at = 0; at < batch.length; at++) {
      const wrong = Buffer.from(batch)
      wrong[at] = (wrong[at] as number) ^ 1
      expect(['protocol-violation', 'transport-failed']).toContain(
        await codeOf(all(readBlocks(cut(wrong, [])))),
      )
      const short = batch.subarray(0, at)
      expect(await codeOf(all(readBlocks(cut(short, []))))).toBe(at === 0 ? 'none' : 'transport-failed')
    }
  })
})
