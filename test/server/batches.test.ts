import { afterAll, beforeAll, expect, test } from 'vitest'
import { assembleBlock, sliceRow, splitBatch, verifyBlock } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import type { BatchAnswer } from '../../protocol/schema.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { blockOf, chunk, noise, post, problemOf, put } from './requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
})
afterAll(() => server.stop())

const batchType = 'application/vnd.chunkdav.batch'
const sendBatch = (blocks: Buffer[], type = batchType): Promise<Response> =>
  fetch(`${server.vaultUrl}/chunks/`, {
    method: 'POST',
    body: new Uint8Array(Buffer.concat(blocks)),
    headers: { 'Content-Type': type },
  })

async function fetched(
  ids: readonly Id[],
): Promise<{ blocks: number; chunks: Map<Id, Buffer>; bytes: number }> {
  const answer = await post(server, 'chunks/fetch', { ids })
  expect([answer.status, answer.headers.get('content-type')]).toEqual([200, batchType])
  const body = Buffer.from(await answer.arrayBuffer())
  const chunks = new Map<Id, Buffer>()
  const blocks = body.length === 0 ? [] : splitBatch(body)
  for (const block of blocks) {
    const plain = await verifyBlock(block)
    for (const row of block.header.rows) chunks.set(row.id, Buffer.from(sliceRow(plain, row)))
  }
  return { blocks: blocks.length, chunks, bytes: body.length }
}

test('a batch stores every chunk of its blocks, and tells what was known', async () => {
  const [a, b, c] = [chunk('batch a'), chunk(''), chunk(noise(50_000, 5))] as const
  await put(server, 'chunks', a)
  const answer = await sendBatch([await blockOf([a, b]), await blockOf([c], 'identity')])
  expect([answer.status, await answer.json()]).toEqual([
    200,
    { outcomes: ['known', 'stored', 'stored'], problems: [] },
  ])
  const { blocks, chunks } = await fetched([c.id, a.id, b.id])
  expect(blocks).toBeLessThanOrEqual(3)
  for (const { id, bytes } of [a, b, c]) expect(chunks.get(id)?.equals(bytes)).toBe(true)
})

test('a block with a false chunk is refused whole, the others are stored', async () => {
  const [good, bad, other] = [
    chunk('good'),
    { id: chunk('other bytes').id, bytes: Buffer.from('bad') },
    chunk('third'),
  ]
  const answer = await sendBatch([
    await blockOf([good as never, bad as never]),
    await blockOf([other as never]),
  ])
  const { outcomes, problems } = (await answer.json()) as BatchAnswer
  expect(outcomes).toEqual(['refused', 'refused', 'stored'])
  expect(problems.map(({ id, type }) => [id, type])).toEqual([
    [bad?.id, 'urn:chunkdav:problem:digest-mismatch'],
  ])
  const missing = await post(server, 'chunks/missing', { ids: [good?.id, bad?.id, other?.id] })
  expect(await missing.json()).toEqual({ missing: [good?.id, bad?.id] })
})

test('what the table of a batch takes is reserved too', async () => {
  const { decoding } = server.receiver
  const all = await decoding.reserve(decoding.totalBytes)
  const chunks = Array.from({ length: 4000 }, (_, i) => chunk(`of many ${i}`))
  const answer = sendBatch([await blockOf(chunks, 'identity')])
  await expect.poll(() => decoding.usage.waiting).toBe(1)
  all.shrinkTo(decoding.totalBytes - 500_000)
  expect(decoding.usage.waiting).toBe(1)
  all.release()
  expect((await answer).status).toBe(200)
  expect(decoding.usage).toMatchObject({ heldBytes: 0, waiting: 0 })
})

test.each([
  ['nothing', async () => []],
  ['text', async () => [Buffer.from('this is no batch at all, but it is long enough')]],
  [
    'a good block and a cut one',
    async () => [await blockOf([chunk('m1')]), (await blockOf([chunk('m2')])).subarray(0, -1)],
  ],
  ['a good block and rubbish', async () => [await blockOf([chunk('m3')]), Buffer.alloc(64)]],
])('a malformed batch is refused before anything is stored: %s', async (_, blocks) => {
  expect(await problemOf(await sendBatch(await blocks()))).toBe('400 invalid-batch')
  const ids = ['m1', 'm2', 'm3'].map((text) => chunk(text).id)
  expect(await (await post(server, 'chunks/missing', { ids })).json()).toEqual({ missing: ids })
})

test('a batch has so many chunks and no more, and one reason for each refused block', async () => {
  const rows = (id: Id) => Array.from({ length: limits.maxBlockChunks }, () => ({ id, length: 0 }))
  const block = (id: Id) => assembleBlock(rows(id), 'identity', Buffer.alloc(0)).bytes
  const blocks = limits.maxBatchChunks / limits.maxBlockChunks
  const full = Array.from({ length: blocks }, () => block(chunk('false').id))
  const answer = (await (await sendBatch(full)).json()) as BatchAnswer
  expect([answer.outcomes.length, answer.problems.length]).toEqual([limits.maxBatchChunks, blocks])
  const over = [...full, await blockOf([chunk('one too many')])]
  expect(await problemOf(await sendBatch(over))).toBe('413 body-too-large')
  const missing = await post(server, 'chunks/missing', { ids: [chunk('one too many').id] })
  expect(await missing.json()).toEqual({ missing: [chunk('one too many').id] })
})

test('of many refused blocks the first thousand have a reason', async () => {
  const lies = Array.from({ length: 1100 }, (_, i) => chunk(`promised ${i}`).id)
  const blocks = lies.map((id) => assembleBlock([{ id, length: 3 }], 'identity', Buffer.from('lie')).bytes)
  const good = chunk('the one true chunk')
  const answer = (await (await sendBatch([...blocks, await blockOf([good])])).json()) as BatchAnswer
  expect(answer.outcomes).toEqual([...lies.map(() => 'refused'), 'stored'])
  expect(answer.problems.map(({ id }) => id)).toEqual(lies.slice(0, 1000))
})

test('a batch of another media type is refused', async () => {
  expect(await problemOf(await sendBatch([Buffer.from('x')], 'text/plain'))).toBe(
    '415 unsupported-media-type',
  )
})

test('missing answers in the order of the question, each id once', async () => {
  const [a, b, c] = ['q1', 'q2', 'q3'].map((text) => chunk(text).id)
  await put(server, 'chunks', chunk('q2'))
  const answer = await post(server, 'chunks/missing', { ids: [c, a, b, c, a] })
  expect(await answer.json()).toEqual({ missing: [c, a] })
})

test.each([
  [
    'too many ids',
    { ids: Array.from({ length: 10_001 }, (_, i) => chunk(`n${i}`).id) },
    '413 body-too-large',
  ],
  ['no ids', {}, '400 invalid-request'],
  ['a malformed id', { ids: ['blake3:1'] }, '400 invalid-request'],
])('missing refuses %s', async (_, body, expected) => {
  expect(await problemOf(await post(server, 'chunks/missing', body))).toBe(expected)
})

test('missing refuses what is no JSON', async () => {
  const answer = await fetch(`${server.vaultUrl}/chunks/missing`, { method: 'POST', body: '{' })
  expect(await problemOf(answer)).toBe('400 invalid-request')
})

test('fetch leaves out what is absent', async () => {
  const { chunks, bytes } = await fetched([chunk('absent 1').id, chunk('absent 2').id])
  expect([chunks.size, bytes]).toEqual([0, 0])
})

test('fetch does not send a large block for a small part of it', async () => {
  const chunks = Array.from({ length: 20 }, (_, i) => chunk(noise(20_000, 100 + i)))
  await sendBatch([await blockOf(chunks)])
  const [first] = chunks
  const one = await fetched([first?.id as Id])
  expect(one.chunks.get(first?.id as Id)?.equals(first?.bytes as Buffer)).toBe(true)
  expect(one.bytes).toBeLessThan(25_000)
  const all = await fetched(chunks.map(({ id }) => id))
  expect([all.blocks, all.chunks.size]).toEqual([1, 20])
})
