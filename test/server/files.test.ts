import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hashId } from '../../protocol/hash.ts'
import { encodeFileObject } from '../../protocol/objects.ts'
import { compress } from '../../protocol/zstd.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { chunk, noise, problemOf, put } from './requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
})
afterAll(() => server.stop())

const url = (id: string): string => `${server.vaultUrl}/files/${id}`

function fileOf(...contents: Buffer[]) {
  const chunks = contents.map((bytes) => chunk(bytes))
  const content = Buffer.concat(contents)
  const parts = chunks.map(({ id, bytes }) => ({ id, size: bytes.length }))
  return { chunks, content, parts, object: encodeFileObject(parts, hashId(content)) }
}

describe('PUT', () => {
  test('tells what the receiver lacks, until it has it whole', async () => {
    const { object, chunks } = fileOf(noise(1000, 21), noise(1000, 22))
    const [first, second] = chunks.map(({ id }) => id)
    const answer = await put(server, 'files', object)
    expect(answer.status).toBe(201)
    expect(await answer.json()).toEqual({
      id: object.id,
      outcome: 'stored',
      whole: false,
      missing: [first, second],
    })
    await put(server, 'chunks', chunks[0] as never)
    const again = await put(server, 'files', object)
    expect(await again.json()).toEqual({ id: object.id, outcome: 'known', whole: false, missing: [second] })
    await put(server, 'chunks', chunks[1] as never)
    const whole = await put(server, 'files', object)
    expect([whole.status, await whole.json()]).toEqual([
      200,
      { id: object.id, outcome: 'known', whole: true, missing: [] },
    ])
  })

  test('takes zstd', async () => {
    const { object } = fileOf(noise(10, 23), noise(10, 24))
    const bytes = await compress(object.bytes)
    const answer = await put(server, 'files', { id: object.id, bytes }, { 'Content-Encoding': 'zstd' })
    expect(answer.status).toBe(201)
    expect(Buffer.from(await (await fetch(url(object.id))).arrayBuffer()).equals(object.bytes)).toBe(true)
  })

  const { object } = fileOf(noise(10, 25), noise(10, 26))
  test.each([
    ['no JSON', chunk('no json'), '400 invalid-object'],
    ['a directory', chunk('{"type":"directory","entries":[]}'), '400 invalid-object'],
    ['a false sum', chunk(object.bytes.toString().replace('"size":20', '"size":21')), '400 invalid-object'],
    ['a false hash', { id: chunk('x').id, bytes: object.bytes }, '422 digest-mismatch'],
  ])('refuses %s', async (_, item, expected) => {
    expect(await problemOf(await put(server, 'files', item))).toBe(expected)
    expect((await fetch(url(item.id))).status).toBe(404)
  })

  test('refuses a part whose size is not what the chunk has', async () => {
    const part = chunk(noise(100, 27))
    await put(server, 'chunks', part)
    const false_ = encodeFileObject([{ id: part.id, size: 99 }], undefined)
    expect(await problemOf(await put(server, 'files', false_))).toBe('400 invalid-object')
  })

  test('a file of lists of lists is whole when its innermost chunks are here', async () => {
    const inner = fileOf(noise(500, 28), noise(500, 29))
    const list = encodeFileObject(inner.parts, undefined)
    const outer = encodeFileObject([{ id: list.id, size: 1000, chunked: true }], hashId(inner.content))
    await put(server, 'files', list)
    expect(await (await put(server, 'files', outer)).json()).toMatchObject({
      whole: false,
      missing: [list.id],
    })
    for (const item of inner.chunks) await put(server, 'chunks', item)
    expect(await (await put(server, 'files', outer)).json()).toMatchObject({ whole: true, missing: [] })
    const answer = await fetch(url(outer.id), {
      headers: { Accept: 'application/octet-stream', Range: 'bytes=499-501' },
    })
    expect(Buffer.from(await answer.arrayBuffer()).equals(inner.content.subarray(499, 502))).toBe(true)
  })
})

describe('GET', () => {
  const file = fileOf(noise(70_000, 31), noise(1, 32), noise(70_000, 33))
  const content = { Accept: 'application/octet-stream' }
  beforeAll(async () => {
    for (const item of file.chunks) await put(server, 'chunks', item)
    await put(server, 'files', file.object)
  })

  test('gives the object', async () => {
    const answer = await fetch(url(file.object.id))
    expect(answer.headers.get('content-type')).toBe('application/vnd.chunkdav.file+json')
    expect(answer.headers.get('etag')).toBe(`"${file.object.id}-object"`)
    expect(await answer.json()).toMatchObject({ type: 'file', size: 140_001, parts: file.parts })
  })

  test.each([
    ['object', {}, 'object', 304],
    ['object', content, 'object', 200],
    ['content', {}, 'content', 200],
    ['content', content, 'content', 304],
  ])('the tag of the %s is good for that alone: %o', async (_, headers, of, status) => {
    const tag = of === 'object' ? `"${file.object.id}-object"` : `"${file.object.id}"`
    const answer = await fetch(url(file.object.id), { headers: { ...headers, 'If-None-Match': tag } })
    expect(answer.status).toBe(status)
    await answer.arrayBuffer()
  })

  test('gives the content', async () => {
    const answer = await fetch(url(file.object.id), { headers: content })
    expect(answer.headers.get('content-length')).toBe('140001')
    expect(Buffer.from(await answer.arrayBuffer()).equals(file.content)).toBe(true)
  })

  test.each([
    ['bytes=0-0', 0, 1],
    ['bytes=69999-70001', 69_999, 70_002],
    ['bytes=70000-70000', 70_000, 70_001],
    ['bytes=70001-', 70_001, 140_001],
    ['bytes=-1', 140_000, 140_001],
  ])('gives a range of the content: %s', async (range, start, end) => {
    const answer = await fetch(url(file.object.id), { headers: { ...content, Range: range } })
    expect([answer.status, answer.headers.get('content-range')]).toEqual([
      206,
      `bytes ${start}-${end - 1}/140001`,
    ])
    expect(Buffer.from(await answer.arrayBuffer()).equals(file.content.subarray(start, end))).toBe(true)
  })

  test.each([
    ['an unacceptable form', { Accept: 'text/html' }, '406 not-acceptable'],
    ['a range behind the end', { ...content, Range: 'bytes=140001-' }, '416 range-not-satisfiable'],
    ['a failed precondition', { 'If-Match': '"x"' }, '412 precondition-failed'],
  ])('refuses %s', async (_, headers, expected) => {
    expect(await problemOf(await fetch(url(file.object.id), { headers: headers as never }))).toBe(expected)
  })

  test('a chunk that is no file object is no file', async () => {
    expect(await problemOf(await fetch(url(file.chunks[0]?.id as string)))).toBe('404 not-found')
  })

  test('content that is not all here is a problem, not a short file', async () => {
    const partial = fileOf(noise(10, 34), noise(10, 35))
    await put(server, 'files', partial.object)
    expect(await problemOf(await fetch(url(partial.object.id), { headers: content }))).toBe(
      '404 chunk-not-found',
    )
    await put(server, 'chunks', partial.chunks[0] as never)
    // The first part is on its way when the second turns out to be absent: the connection breaks.
    const broken = await fetch(url(partial.object.id), { headers: content })
    await expect(broken.arrayBuffer()).rejects.toThrow()
  })
})
