import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import Koa from 'koa'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Context, RequestState } from '../../server/http/context.ts'
import { expectation } from '../../server/http/expectation.ts'
import { lingerAfterEarlyAnswers } from '../../server/http/linger.ts'
import { problemAnswers } from '../../server/http/problem-answers.ts'
import { requestIds } from '../../server/http/request-log.ts'
import { streamedBody } from '../../server/http/streamed-body.ts'
import { MiB, noise, RawConnection } from './requests.ts'

const idleMs = 300

let server: Server
let url: string
/** What is done with a request. */
let handle: (ctx: Context) => Promise<void>
/** How handlers ended, in order: a problem's code, `ok`, and the bytes that were counted. */
let ends: { code: string; bytesIn: number }[]

beforeEach(async () => {
  ends = []
  handle = async (ctx) => {
    let text = ''
    for await (const piece of streamedBody(ctx)) text += piece.toString('latin1')
    ctx.body = text
  }
  const app = new Koa<RequestState>()
  app.silent = true
  app.use(requestIds(pino({ level: 'silent' }), { idleMs, stallMs: 60_000 }))
  app.use(lingerAfterEarlyAnswers())
  app.use(problemAnswers())
  app.use(expectation())
  app.use(async (ctx) => {
    try {
      await handle(ctx as unknown as Context)
      ends.push({ code: 'ok', bytesIn: ctx.state.bytesIn })
    } catch (error) {
      ends.push({ code: (error as { code: string }).code, bytesIn: ctx.state.bytesIn })
      throw error
    }
  })
  const callback = app.callback()
  server = createServer({ requestTimeout: 0 }, callback)
  server.on('checkContinue', callback)
  server.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

const head = (headers: Record<string, string | number>): string =>
  `PUT /x HTTP/1.1\r\nHost: x\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`

async function ended(): Promise<{ code: string; bytesIn: number }> {
  while (ends.length === 0) await sleep(5)
  return ends[0] as { code: string; bytesIn: number }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

describe('a whole body', () => {
  test.each([
    ['by its length', { 'Content-Length': 11 }, 'hello world', 'hello world'],
    [
      'in chunks',
      { 'Transfer-Encoding': 'chunked' },
      '5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n',
      'hello world',
    ],
    ['an empty one by its length', { 'Content-Length': 0 }, '', ''],
    ['an empty one in chunks', { 'Transfer-Encoding': 'chunked' }, '0\r\n\r\n', ''],
    ['none', {}, '', ''],
    ['identity by name', { 'Content-Length': 2, 'Content-Encoding': 'identity' }, 'hi', 'hi'],
  ])('%s', async (_, headers, sent, text) => {
    const raw = await RawConnection.open(url)
    raw.send(head({ ...headers, Connection: 'close' }) + sent)
    const answer = await raw.end()
    expect(answer).toMatch(/^HTTP\/1\.1 200 /)
    expect(answer.endsWith(`\r\n\r\n${text}`)).toBe(true)
    expect(ends).toEqual([{ code: 'ok', bytesIn: text.length }])
  })

  test.each([
    [{ 'Content-Length': 11 }, 11],
    [{ 'Transfer-Encoding': 'chunked' }, undefined],
    [{}, 0],
  ])('announces what the headers say: %o', async (headers, announced) => {
    let seen: unknown = 'nothing'
    handle = async (ctx) => {
      seen = streamedBody(ctx).announcedBytes
      ctx.body = 'x'
    }
    const raw = await RawConnection.open(url)
    raw.send(head(headers))
    await raw.until('HTTP/1.1 200')
    expect(seen).toBe(announced)
    raw.socket.destroy()
  })
})

test.each([['gzip'], ['zstd']])('a body in %s is refused before it is sent', async (encoding) => {
  const raw = await RawConnection.open(url)
  raw.send(head({ 'Content-Length': 5, 'Content-Encoding': encoding, Expect: '100-continue' }))
  expect(await raw.end()).toMatch(/^HTTP\/1\.1 415 /)
})

test('100 Continue is sent when the first piece is asked for, and once', async () => {
  const ask = Promise.withResolvers<void>()
  const plain = handle
  handle = async (ctx) => {
    await ask.promise
    await plain(ctx)
  }
  const raw = await RawConnection.open(url)
  raw.send(head({ 'Content-Length': 5, Expect: '100-continue' }))
  await sleep(50)
  expect(raw.received).toBe('')
  ask.resolve()
  expect(await raw.until('100 Continue')).toBe('HTTP/1.1 100 Continue\r\n\r\n')
  raw.send('hello')
  expect(await raw.until('hello')).toMatch(/100 Continue\r\n\r\nHTTP\/1\.1 200 /)
  expect(raw.received.match(/100 Continue/g)).toHaveLength(1)
  raw.socket.destroy()
})

describe('a body that ends early', () => {
  test.each([
    ['by its length', { 'Content-Length': 1000 }, 'x'.repeat(999)],
    ['in the middle of its chunks', { 'Transfer-Encoding': 'chunked' }, '3e8\r\nxxx'],
    ['between its chunks', { 'Transfer-Encoding': 'chunked' }, '3\r\nxxx\r\n'],
  ])('%s is incomplete', async (_, headers, sent) => {
    for (const how of ['end', 'destroy'] as const) {
      ends = []
      const raw = await RawConnection.open(url)
      raw.send(head(headers) + sent)
      await sleep(30)
      raw.socket[how]()
      expect((await ended()).code).toBe('incomplete-body')
    }
  })

  test('while nobody asks for it', async () => {
    const plain = handle
    handle = async (ctx) => {
      await sleep(100)
      await plain(ctx)
    }
    const raw = await RawConnection.open(url)
    raw.send(head({ 'Content-Length': 1000 }))
    await sleep(30)
    raw.socket.destroy()
    expect((await ended()).code).toBe('incomplete-body')
  })
})

describe('the pace', () => {
  test('a client that sends nothing is cut off', async () => {
    const raw = await RawConnection.open(url)
    raw.send(`${head({ 'Content-Length': 5 })}x`)
    const since = performance.now()
    expect(await ended()).toEqual({ code: 'too-slow', bytesIn: 1 })
    expect(performance.now() - since).toBeLessThan(idleMs * 3)
    raw.socket.destroy()
  })

  test('a client that sends too slowly is cut off, though it is never idle for long', async () => {
    const raw = await RawConnection.open(url)
    raw.send(head({ 'Content-Length': 1000 }))
    const drip = setInterval(() => raw.send('x'), 20)
    expect((await ended()).code).toBe('too-slow')
    clearInterval(drip)
    raw.socket.destroy()
  })

  test('the time in which nobody asks is not counted', async () => {
    let pieces = 0
    handle = async (ctx) => {
      for await (const _ of streamedBody(ctx)) {
        pieces++
        // Far longer in all than a client may take for so little.
        await sleep(idleMs)
      }
      ctx.body = 'taken'
    }
    const raw = await RawConnection.open(url)
    raw.send(head({ 'Content-Length': 5 }))
    for (const letter of 'hello') {
      const before = pieces
      raw.send(letter)
      while (pieces === before) await sleep(2)
      await sleep(idleMs - 30)
    }
    expect(await raw.until('taken')).toContain('HTTP/1.1 200')
    expect(ends).toEqual([{ code: 'ok', bytesIn: 5 }])
    raw.socket.destroy()
  })
})

test('what is not asked for stays with the client', async () => {
  const goOn = Promise.withResolvers<void>()
  handle = async (ctx) => {
    let seen = 0
    for await (const piece of streamedBody(ctx)) {
      if (seen === 0) await goOn.promise
      seen += piece.length
    }
    ctx.body = `${seen} bytes`
  }
  const raw = await RawConnection.open(url)
  const bytes = noise(48 * MiB)
  raw.send(head({ 'Content-Length': bytes.length }))
  raw.send(bytes)
  await sleep(200)
  // The kernel's buffers hold some; the rest waits in the client.
  expect(raw.socket.writableLength).toBeGreaterThan(0)
  goOn.resolve()
  expect(await raw.until('bytes')).toContain(`${bytes.length} bytes`)
  raw.socket.destroy()
})

test('an answer before the end of the body reaches a client that sends on, and ends the connection', async () => {
  handle = async (ctx) => {
    for await (const _ of streamedBody(ctx)) break
    ctx.status = 507
    ctx.body = 'no room'
  }
  const raw = await RawConnection.open(url)
  raw.send(head({ 'Content-Length': 8 * MiB }))
  raw.send(Buffer.alloc(MiB))
  const text = await raw.end()
  expect(text).toMatch(/^HTTP\/1\.1 507 /)
  expect(text.toLowerCase()).toContain('connection: close')
})
