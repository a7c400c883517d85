/** LOCK and UNLOCK, and what locks keep others from. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, content, lock, lockBody, members, responses, tells, texts } from './dav-requests.ts'

let server: TestReceiver
let count = 0
/** A collection of the test's own: `f`, `c/`, `c/a`, `c/sub/`, `c/sub/b`. */
let at: string
beforeAll(async () => {
  server = await startReceiver()
})
afterAll(() => server.stop())
beforeEach(async () => {
  at = `t${count++}`
  for (const path of ['', '/c', '/c/sub']) await ask(server, 'MKCOL', at + path)
  for (const path of ['f', 'c/a', 'c/sub/b']) await ask(server, 'PUT', `${at}/${path}`, {}, path)
})

const href = (path: string): string => `/home/tree/${at}/${path}`
const to = (path: string): string => `${at}/${path}`
const unlock = (path: string, token: string): Promise<string> =>
  tells(server, 'UNLOCK', path, { 'Lock-Token': `<${token}>` })

test('tells the token, and the lock; so does lockdiscovery', async () => {
  const owner = '<D:owner><D:href>http://me/</D:href> &amp; <x:y xmlns:x="urn:x">z</x:y></D:owner>'
  const answer = await ask(
    server,
    'LOCK',
    to('f'),
    { Timeout: 'Second-300', Depth: '0' },
    lockBody('exclusive', owner),
  )
  const token = answer.headers['lock-token'] ?? ''
  expect([answer.status, answer.headers['content-type']]).toEqual([200, 'application/xml; charset=utf-8'])
  expect(token).toMatch(/^<urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}>$/)
  const found = await ask(server, 'PROPFIND', to('f'), { Depth: '0' })
  for (const text of [answer.text, found.text]) {
    expect(texts(text, 'depth')).toEqual(['0'])
    expect(texts(text, 'timeout')[0]).toMatch(/^Second-(300|299)$/)
    expect(texts(text, 'href')).toEqual(expect.arrayContaining([token.slice(1, -1), href('f'), 'http://me/']))
    expect(texts(text, 'owner')).toEqual([' & '])
    expect(texts(text, 'y')).toEqual(['z'])
    expect(text).toContain('<D:lockscope><D:exclusive/></D:lockscope>')
  }
})

test('tokens differ', async () => {
  const tokens = await Promise.all(['f', 'c/a', 'c/sub/b'].map((path) => lock(server, to(path))))
  expect(new Set(tokens).size).toBe(3)
})

test.each([
  ['nothing', {}, '600'],
  ['Second-60', { Timeout: 'Second-60' }, '60'],
  ['Infinite', { Timeout: 'Infinite' }, '604800'],
  ['more than a week', { Timeout: 'Second-4100000000' }, '604800'],
  ['several', { Timeout: 'Infinite, Second-4100000000' }, '604800'],
  ['one that is not known first', { Timeout: 'Extended-1, Second-60' }, '60'],
  ['nonsense', { Timeout: 'soon' }, '600'],
])('lasts as long as asked, within bounds: %s', async (_, headers, seconds) => {
  const { text } = await ask(server, 'LOCK', to('f'), headers as Record<string, string>, lockBody())
  const [, told = ''] = /^Second-(\d+)$/.exec(texts(text, 'timeout')[0] ?? '') ?? []
  expect(Number(seconds) - Number(told)).toBeLessThanOrEqual(1)
  expect(Number(told)).toBeLessThanOrEqual(Number(seconds))
})

test('ends by itself', async () => {
  await lock(server, to('f'), { Timeout: 'Second-1' })
  expect(await tells(server, 'PUT', to('f'), {}, 'x')).toBe('423 lock-token-submitted')
  await new Promise((resolve) => setTimeout(resolve, 1100))
  expect(await tells(server, 'PUT', to('f'), {}, 'x')).toBe('204')
  expect((await ask(server, 'PROPFIND', to('f'), { Depth: '0' })).text).not.toContain('activelock')
})

describe('what it keeps others from', () => {
  test.each([
    ['PUT', '', {}],
    ['DELETE', '', {}],
    ['PROPPATCH', '', {}],
    ['MOVE', '', { Destination: '/home/tree/elsewhere' }],
  ])(
    '%s of a locked file: 423 with the href, until the token is submitted',
    async (method, path, headers) => {
      const token = await lock(server, to('f'))
      const body =
        method === 'PUT'
          ? 'x'
          : method === 'PROPPATCH'
            ? '<D:propertyupdate xmlns:D="DAV:"><D:remove><D:prop><D:x/></D:prop></D:remove></D:propertyupdate>'
            : ''
      const answer = await ask(server, method, to(`f${path}`), headers as Record<string, string>, body)
      expect(answer.status).toBe(423)
      expect(answer.text).toContain(
        `<D:error xmlns:D="DAV:"><D:lock-token-submitted><D:href>${href('f')}</D:href>`,
      )
      const withToken = { ...headers, If: `(<${token}>)` } as Record<string, string>
      expect(await tells(server, method, to('f'), withToken, body)).toMatch(/^20[147]$/)
      await ask(server, 'DELETE', 'elsewhere')
    },
  )

  test('reading is for everybody', async () => {
    await lock(server, to('f'))
    expect(await content(server, to('f'))).toBe('f')
    expect(await tells(server, 'COPY', to('f'), { Destination: href('g') })).toBe('201')
  })

  test('depth 0: the names in a collection, not what its members hold', async () => {
    const token = await lock(server, to('c'), { Depth: '0' })
    const locked = '423 lock-token-submitted'
    expect(await tells(server, 'PUT', to('c/new'), {}, 'x')).toBe(locked)
    expect(await tells(server, 'MKCOL', to('c/new'))).toBe(locked)
    expect(await tells(server, 'DELETE', to('c/a'))).toBe(locked)
    expect(await tells(server, 'LOCK', to('c/new'), {}, lockBody())).toBe(locked)
    expect(await tells(server, 'PUT', to('c/a'), {}, 'x')).toBe('204')
    expect(await tells(server, 'PUT', to('c/sub/new'), {}, 'x')).toBe('201')
    expect(await tells(server, 'MKCOL', to('c/new'), { If: `<${href('c/')}> (<${token}>)` })).toBe('201')
  })

  test('depth infinity: everything below, also what comes later', async () => {
    const token = await lock(server, to('c'))
    const own = { If: `<${href('c')}> (<${token}>)` }
    for (const path of ['c/a', 'c/sub/b', 'c/new', 'c/sub/new']) {
      const answer = await ask(server, 'PUT', to(path), {}, 'x')
      expect(answer.text).toContain(`<D:href>${href('c/')}</D:href>`)
      expect(await tells(server, 'PUT', to(path), own, 'x')).toMatch(/^20[14]$/)
      // Also when the list speaks of the member itself.
      expect(await tells(server, 'PUT', to(path), { If: `(<${token}>)` }, 'x')).toBe('204')
    }
    expect(await unlock(to('c/sub/b'), token)).toBe('204')
    expect(await tells(server, 'PUT', to('c/a'), {}, 'x')).toBe('204')
  })

  test('a token of another lock is not enough', async () => {
    await lock(server, to('f'))
    const other = await lock(server, to('c/a'))
    expect(await tells(server, 'PUT', to('f'), { If: `<${href('c/a')}> (<${other}>)` }, 'x')).toBe(
      '423 lock-token-submitted',
    )
    expect(await tells(server, 'PUT', to('f'), { If: `(<${other}>)` }, 'x')).toBe('412 precondition-failed')
    expect(await tells(server, 'PUT', to('f'), { If: `(<${other}>) (Not <DAV:no-lock>)` }, 'x')).toBe(
      '423 lock-token-submitted',
    )
  })
})

describe('other locks', () => {
  test.each([
    ['exclusive', 'exclusive', '423 no-conflicting-lock'],
    ['exclusive', 'shared', '423 no-conflicting-lock'],
    ['shared', 'exclusive', '423 no-conflicting-lock'],
    ['shared', 'shared', '200'],
  ] as const)('%s, then %s', async (first, second, expected) => {
    await lock(server, to('f'), {}, first)
    expect(await tells(server, 'LOCK', to('f'), {}, lockBody(second))).toBe(expected)
  })

  test.each([
    ['exclusive', 'exclusive', 207],
    ['exclusive', 'shared', 207],
    ['shared', 'exclusive', 207],
    ['shared', 'shared', 200],
  ] as const)('%s below, then %s of the collection', async (below, above, status) => {
    await lock(server, to('c/sub/b'), {}, below)
    const answer = await ask(server, 'LOCK', to('c'), { Depth: 'infinity' }, lockBody(above))
    expect(answer.status).toBe(status)
    if (status === 200) return
    expect(responses(answer.text)).toEqual([
      { href: href('c/sub/b'), status: ['423'] },
      { href: href('c/'), status: ['424'] },
    ])
    expect(answer.headers['lock-token']).toBe(undefined)
    expect(await tells(server, 'PUT', to('c/a'), {}, 'x')).toBe('204')
    // What is below does not matter to depth 0.
    expect(await tells(server, 'LOCK', to('c'), { Depth: '0' }, lockBody(above))).toBe('200')
  })

  test('one of infinite depth is in the way below, and is named', async () => {
    await lock(server, to('c'))
    const answer = await ask(server, 'LOCK', to('c/sub/b'), {}, lockBody())
    expect(answer.status).toBe(423)
    expect(answer.text).toContain(`<D:no-conflicting-lock><D:href>${href('c/')}</D:href>`)
    expect(await tells(server, 'LOCK', to('c/new'), {}, lockBody())).toBe('423 lock-token-submitted')
  })

  test('of shared ones, the token of any is enough', async () => {
    const [first, second] = [
      await lock(server, to('f'), {}, 'shared'),
      await lock(server, to('f'), {}, 'shared'),
    ]
    for (const token of [first, second]) {
      expect(await tells(server, 'PUT', to('f'), { If: `(<${token}>)` }, 'x')).toBe('204')
    }
    expect(await unlock(to('f'), first)).toBe('204')
    expect(await tells(server, 'PUT', to('f'), {}, 'x')).toBe('423 lock-token-submitted')
    expect(await unlock(to('f'), second)).toBe('204')
    expect(await tells(server, 'PUT', to('f'), {}, 'x')).toBe('204')
  })
})

test('shared locks at several levels: the token of any is enough for what they all hold for', async () => {
  const above = await lock(server, to('c'), {}, 'shared')
  const below = await lock(server, to('c/sub/b'), {}, 'shared')
  for (const token of [above, below]) {
    expect(await tells(server, 'PUT', to('c/sub/b'), { If: `(<${token}>)` }, 'x')).toBe('204')
  }
  expect(await tells(server, 'PUT', to('c/a'), { If: `<${href('c/sub/b')}> (<${below}>)` }, 'x')).toBe(
    '423 lock-token-submitted',
  )
  expect(await tells(server, 'DELETE', to('c'), { If: `(<${above}>)` })).toBe('204')
})

describe('a name that is free', () => {
  test('becomes a locked empty file', async () => {
    const answer = await ask(server, 'LOCK', to('new'), {}, lockBody())
    expect(answer.status).toBe(201)
    expect(await content(server, to('new'))).toBe('')
    expect(await members(server, `${at}/`)).toContain('new')
    expect(await tells(server, 'PUT', to('new'), {}, 'x')).toBe('423 lock-token-submitted')
    const token = (answer.headers['lock-token'] ?? '').slice(1, -1)
    expect(await tells(server, 'PUT', to('new'), { If: `(<${token}>)` }, 'x')).toBe('204')
    expect(await unlock(to('new'), token)).toBe('204')
    expect(await content(server, to('new'))).toBe('x')
  })

  test.each([
    ['in no collection', 'none/new', {}, '409 conflict'],
    ['below a file', 'f/new', {}, '409 conflict'],
    ['with a slash', 'new/', {}, '409 conflict'],
    ['with If that does not hold', 'new', { If: '(<DAV:no-lock>)' }, '412 precondition-failed'],
    ['with If-Match', 'new', { 'If-Match': '*' }, '412 precondition-failed'],
  ])('%s is refused', async (_, path, headers, expected) => {
    expect(await tells(server, 'LOCK', to(path), headers as Record<string, string>, lockBody())).toBe(
      expected,
    )
    expect(await members(server, `${at}/`)).toEqual(['c/', 'f'])
  })
})

describe('refreshing', () => {
  test('starts the time again, and tells the lock but no Lock-Token', async () => {
    const token = await lock(server, to('f'), { Timeout: 'Second-100' })
    for (const [headers, expected] of [
      [{ Timeout: 'Second-5000' }, 5000],
      [{}, 5000],
    ] as const) {
      const answer = await ask(server, 'LOCK', to('f'), { ...headers, If: `(<${token}>)` })
      expect([answer.status, answer.headers['lock-token']]).toEqual([200, undefined])
      expect(Number(texts(answer.text, 'timeout')[0]?.slice(7))).toBeGreaterThan(expected - 2)
      expect(texts(answer.text, 'href')).toContain(token)
    }
  })

  test('whatever Depth says: section 9.10.2', async () => {
    const token = await lock(server, to('f'))
    expect(await tells(server, 'LOCK', to('f'), { Depth: '1', If: `(<${token}>)` })).toBe('200')
  })

  test('works from below too', async () => {
    const token = await lock(server, to('c'))
    const answer = await ask(server, 'LOCK', to('c/sub/b'), { If: `(<${token}>)` })
    expect(texts(answer.text, 'href')).toEqual([token, href('c/')])
  })

  test.each([
    ['without If', 'f', () => ({}), '400 invalid-request'],
    ['of no lock', 'f', () => ({ If: '(<urn:uuid:none>)' }), '412 precondition-failed'],
    [
      'of a lock elsewhere',
      'c/a',
      (token: string) => ({ If: `<${href('f')}> (<${token}>)` }),
      '412 lock-token-matches-request-uri',
    ],
    ['of nothing', 'none', (token: string) => ({ If: `<${href('f')}> (<${token}>)` }), '404 not-found'],
  ])('%s is refused', async (_, path, headers, expected) => {
    const token = await lock(server, to('f'))
    expect(await tells(server, 'LOCK', to(path), headers(token) as Record<string, string>)).toBe(expected)
  })
})

test.each([
  ['no XML', 'x', '400 invalid-request'],
  [
    'no scope',
    '<D:lockinfo xmlns:D="DAV:"><D:locktype><D:write/></D:locktype></D:lockinfo>',
    '400 invalid-request',
  ],
  [
    'no type',
    '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:shared/></D:lockscope></D:lockinfo>',
    '400 invalid-request',
  ],
  ['an unknown scope', lockBody('mine' as 'shared'), '400 invalid-request'],
  ['another type', lockBody().replaceAll('D:write', 'D:read'), '400 invalid-request'],
  ['another element', '<D:propfind xmlns:D="DAV:"/>', '400 invalid-request'],
  [
    'an owner that is a book',
    lockBody('shared', `<D:owner>${'x'.repeat(10_000)}</D:owner>`),
    '413 body-too-large',
  ],
])('a body with %s is refused', async (_, body, expected) => {
  expect(await tells(server, 'LOCK', to('f'), {}, body)).toBe(expected)
})

test('Depth: 1 is refused', async () => {
  expect(await tells(server, 'LOCK', to('c'), { Depth: '1' }, lockBody())).toBe('400 invalid-request')
})

describe('UNLOCK', () => {
  test.each([
    ['a token of another lock', 'c/a', (token: string) => `<${token}>`, '409 lock-token-matches-request-uri'],
    ['an unknown token', 'f', () => '<urn:uuid:none>', '409 lock-token-matches-request-uri'],
    ['what is not there', 'none', (token: string) => `<${token}>`, '409 lock-token-matches-request-uri'],
    ['no token', 'f', () => '', '400 invalid-request'],
    ['a token without brackets', 'f', (token: string) => token, '400 invalid-request'],
  ])('%s is refused', async (_, path, header, expected) => {
    const token = await lock(server, to('f'))
    expect(await tells(server, 'UNLOCK', to(path), { 'Lock-Token': header(token) })).toBe(expected)
    expect(await tells(server, 'PUT', to('f'), {}, 'x')).toBe('423 lock-token-submitted')
  })

  test('once', async () => {
    const token = await lock(server, to('f'))
    expect([await unlock(to('f'), token), await unlock(to('f'), token)]).toEqual([
      '204',
      '409 lock-token-matches-request-uri',
    ])
  })
})

test('the whole tree can be locked', async () => {
  await using own = await startReceiver()
  const token = await lock(own, '')
  expect(await tells(own, 'PUT', 'x', {}, 'x')).toBe('423 lock-token-submitted')
  expect(await tells(own, 'PUT', 'x', { If: `</home/tree/> (<${token}>)` }, 'x')).toBe('201')
})

test('locks outlive the receiver', async () => {
  const first = await startReceiver({ keep: true })
  await ask(first, 'PUT', 'x', {}, 'x')
  const token = await lock(first, 'x', { Timeout: 'Second-600' })
  await first.stop()
  await using second = await startReceiver({ dataDir: first.dataDir })
  expect(await tells(second, 'PUT', 'x', {}, 'y')).toBe('423 lock-token-submitted')
  expect(await tells(second, 'PUT', 'x', { If: `(<${token}>)` }, 'y')).toBe('204')
})
