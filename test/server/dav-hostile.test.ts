/** What no well-meaning client of the tree sends: nothing is lost or taken for something else, and nobody else has to wait. */
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, content, lockBody, members, tells } from './dav-requests.ts'
import { MiB, noise, RawConnection } from './requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver({ unobserved: true })
  await ask(server, 'PUT', 'f', {}, 'f')
})
afterAll(async () => {
  const { uploads, downloads, listings } = server.receiver
  expect([uploads, downloads, listings].map(({ usage }) => [usage.heldBytes, usage.waiting])).toEqual([
    [0, 0],
    [0, 0],
    [0, 0],
  ])
  await server.stop()
})

/** Statuses of all that comes back for what is sent, until the connection ends. */
async function statuses(text: string | Buffer): Promise<string[]> {
  const raw = await RawConnection.open(server.url)
  raw.send(text)
  return [...(await raw.end()).matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, status = '']) => status)
}

const next = 'GET /home/tree/f HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'

describe('the body of what was refused before it came is never taken for the next request', () => {
  const hidden = 'DELETE /home/tree/f HTTP/1.1\r\nHost: localhost\r\n\r\n'
  const refused: [string, string][] = [
    ['PUT /home/tree/none/f', '409'],
    ['PUT /home/tree/f HTTP/1.1\r\nIf-None-Match: *', '412'],
    ['PUT /home/tree/f HTTP/1.1\r\nContent-Range: bytes 0-1/2', '400'],
    ['PUT /home/tree/f HTTP/1.1\r\nContent-Encoding: gzip', '415'],
    ['PUT /none/tree/f', '404'],
    ['PUT /home/snapshots/f', '403'],
    ['MKCOL /home/tree/new', '415'],
    ['MOVE /home/tree/none HTTP/1.1\r\nDestination: /home/tree/x', '404'],
    ['PROPFIND /home/tree/', '403'],
    ['GET /home/tree/f', '200'],
  ]
  const lengths = [hidden.length, 100_000].map((length) => hidden.repeat(Math.ceil(length / hidden.length)))
  const framed = lengths.flatMap((body) => [
    `Content-Length: ${body.length}\r\n\r\n${body}`,
    `Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
    `Expect: 100-continue\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  ])

  test.each(refused)('%s', async (head, status) => {
    const start = head.includes(' HTTP/1.1') ? head : `${head} HTTP/1.1`
    for (const body of framed) {
      const [first, ...more] = await statuses(`${start}\r\nHost: localhost\r\n${body}${next}`)
      expect(first).toBe(status)
      // The connection may have been closed behind the first answer.
      expect([[], ['200']]).toContainEqual(more)
    }
    expect(await content(server, 'f')).toBe('f')
  })
})

test.each([
  ['both a length and chunks', 'Content-Length: 5\r\nTransfer-Encoding: chunked', '400'],
  ['two lengths', 'Content-Length: 5\r\nContent-Length: 6', '400'],
  ['a coding that is not undone', 'Transfer-Encoding: gzip, chunked', '415'],
])('a PUT with %s is refused', async (_, headers, status) => {
  const put = `PUT /home/tree/framed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${headers}\r\n\r\n`
  expect(await statuses(`${put}2\r\nab\r\n0\r\n\r\n`)).toEqual([status])
  expect(await content(server, 'framed')).toBe('404')
})

describe('a long header takes no time', () => {
  test.each([
    ['PUT', 'OC-Checksum', 'x'.repeat(60_000)],
    ['PUT', 'OC-Checksum', 'a:'.repeat(30_000)],
    ['PUT', 'If', '(<a:b>)'.repeat(8000)],
    ['PUT', 'If', '('.repeat(60_000)],
    ['PUT', 'If-Match', '"'.repeat(60_000)],
    ['GET', 'Range', `bytes=${'1-2,'.repeat(14_000)}`],
    ['GET', 'If-Modified-Since', `Mon, ${'1 '.repeat(29_000)}`],
    ['COPY', 'Destination', `http://${'a@'.repeat(29_000)}`],
    ['LOCK', 'Timeout', `${','.repeat(60_000)}Second-1`],
  ])('%s with %s', async (method, name, value) => {
    const body = method === 'LOCK' ? lockBody() : ''
    const started = performance.now()
    const { status } = await ask(server, method, 'long', { [name]: value }, body)
    expect(performance.now() - started).toBeLessThan(1000)
    expect(status).toBeLessThan(500)
    await ask(server, 'DELETE', 'long')
  })
})

test.each([
  'GET',
  'PUT',
  'DELETE',
  'MKCOL',
  'COPY',
  'MOVE',
  'PROPFIND',
  'PROPPATCH',
  'LOCK',
  'UNLOCK',
  'REPORT',
  'POST',
])('a web page cannot %s', async (method) => {
  const headers = { Origin: 'http://elsewhere.example', Destination: '/home/tree/to', Depth: '0' }
  expect(await tells(server, method, 'f', headers)).toBe('400 invalid-request')
  expect(await tells(server, method, 'f', { ...headers, Host: 'evil.example' })).toBe('400 invalid-request')
  expect(await content(server, 'f')).toBe('f')
  expect(await content(server, 'to')).toBe('404')
})

test('what is stored and what it is called cannot act in a browser', async () => {
  const name = '<img src=x onerror=alert(1)>".html'
  const path = encodeURIComponent(name)
  await ask(server, 'MKCOL', 'pages')
  await ask(server, 'PUT', `pages/${path}`, {}, '<script>alert(1)</script>')
  for (const one of ['pages/', `pages/${path}`]) {
    const { headers, text } = await ask(server, 'GET', one)
    expect(headers['content-security-policy']).toMatch(/^sandbox; default-src 'none'/)
    expect(headers['x-content-type-options']).toBe('nosniff')
    if (one === 'pages/') expect(text).not.toContain('<img')
  }
  await ask(server, 'DELETE', 'pages')
})

describe('who holds all the memory that there is', () => {
  test('for content that is read hides no listing', async () => {
    const { downloads } = server.receiver
    const all = await downloads.reserve(downloads.totalBytes)
    expect(await tells(server, 'PROPFIND', '', { Depth: '1' })).toBe('207')
    expect(await tells(server, 'GET', '')).toBe('200')
    all.release()
  })

  test('for uploads keeps nobody from saving something short', async () => {
    const { uploads } = server.receiver
    const all = await uploads.reserve(uploads.totalBytes)
    expect(await tells(server, 'PUT', 'note', {}, 'short')).toBe('201')
    all.release()
    await ask(server, 'DELETE', 'note')
  })
})

test('what a client asks for or breaks off is no fault in the log', async () => {
  const faults: unknown[] = []
  const write = (line: string): void => {
    const { level, msg, status } = JSON.parse(line) as { level: number; msg: string; status?: number }
    if (level >= 50 && status === undefined) faults.push(msg)
  }
  await using own = await startReceiver({ unobserved: true, log: pino({}, { write }) })
  const Destination = 'http://elsewhere.example/home/tree/to'
  await ask(own, 'PUT', 'big', {}, noise(4 * MiB))
  expect(await tells(own, 'COPY', 'big', { Destination })).toBe('502 bad-gateway')
  for (let i = 0; i < 20; i++) {
    const raw = await RawConnection.open(own.url)
    raw.send('GET /home/tree/big HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(3))
    if (i % 2 === 0) await new Promise((resolve) => setTimeout(resolve, i))
    raw.socket.resetAndDestroy()
  }
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(faults).toEqual([])
})

describe('requests that do not wait for answers', () => {
  const put = 'PUT /home/tree/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc'

  test('some are answered, each in its turn', async () => {
    const raw = await RawConnection.open(server.url)
    raw.send(put.repeat(100) + next)
    const answered = [...(await raw.end()).matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, status]) => status)
    expect(answered).toEqual(['201', ...Array<string>(99).fill('204'), '200'])
    await ask(server, 'DELETE', 'p')
  })

  test('each finds what those before it have done', async () => {
    const raw = await RawConnection.open(server.url)
    const get = 'GET /home/tree/p HTTP/1.1\r\nHost: localhost\r\n\r\n'
    const remove = 'DELETE /home/tree/p HTTP/1.1\r\nHost: localhost\r\n\r\n'
    raw.send((put + get + remove + get).repeat(20) + next)
    const answered = [...(await raw.end()).matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => status)
    expect(answered).toEqual([
      ...Array.from({ length: 20 }, () => ['201', '200', '204', '404']).flat(),
      '200',
    ])
  })

  test('very many end the connection, and nobody else has to wait', async () => {
    const raw = await RawConnection.open(server.url)
    raw.send(put.repeat(20_000))
    const started = performance.now()
    await raw.end()
    expect(await tells(server, 'GET', '')).toBe('200')
    expect(performance.now() - started).toBeLessThan(5000)
    await ask(server, 'DELETE', 'p')
  })
})

describe('at the same time', () => {
  test('readers see the old or the new file, never a mixture', async () => {
    const bodies = [1, 2, 3].map((digit) => String(digit).repeat(MiB))
    await ask(server, 'PUT', 'mixed', {}, bodies[0])
    let writing = true
    const write = async (body: string): Promise<void> => {
      for (let i = 0; i < 5; i++) expect(await tells(server, 'PUT', 'mixed', {}, body)).toBe('204')
    }
    const read = async (): Promise<void> => {
      while (writing) {
        const { headers, text } = await ask(server, 'GET', 'mixed')
        expect(headers['content-length']).toBe(String(MiB))
        expect(bodies.includes(text)).toBe(true)
      }
    }
    const readers = [read(), read()]
    await Promise.all(bodies.map(write))
    writing = false
    await Promise.all(readers)
    await ask(server, 'DELETE', 'mixed')
  })

  test('of many LOCKs one is given; a PUT without its token does not get past it', async () => {
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => ask(server, 'LOCK', 'raced', {}, lockBody())),
    )
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array<number>(7).fill(423)])
    expect(await tells(server, 'PUT', 'raced', {}, 'x')).toBe('423 lock-token-submitted')
    const token = answers.find(({ status }) => status === 201)?.headers['lock-token'] ?? ''
    expect(await tells(server, 'DELETE', 'raced', { If: `(${token})` })).toBe('204')
  })

  test.each(['DELETE', 'MOVE'])(
    'a PUT and %s of its collection: it is refused, or goes along',
    async (method) => {
      for (let round = 0; round < 5; round++) {
        await ask(server, 'MKCOL', 'going')
        const puts = Array.from({ length: 8 }, async (_, i) => {
          const body = noise(i % 2 === 0 ? 10 : 300_000, i)
          return [i, (await ask(server, 'PUT', `going/${i}`, {}, body)).status] as const
        })
        const gone = ask(server, method, 'going', { Destination: `/home/tree/gone${round}` })
        const done = await Promise.all(puts)
        expect((await gone).status).toBeLessThan(300)
        expect([201, 409]).toEqual(expect.arrayContaining([...new Set(done.map(([, status]) => status))]))
        if (method === 'DELETE') continue
        const taken = done.filter(([, status]) => status === 201).map(([i]) => String(i))
        expect(await members(server, `gone${round}/`)).toEqual(taken)
      }
    },
  )
})
