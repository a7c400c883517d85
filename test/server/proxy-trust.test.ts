/** Whose word is taken on where a request came from, and what it may say. */
import type { IncomingMessage } from 'node:http'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Peer, plainAddress } from '../../server/http/peers.ts'
import { ProxyTrust } from '../../server/http/proxy-trust.ts'

function peer(address: string | undefined): Peer {
  return { address, listened: undefined, isEncrypted: false, certifiedName: undefined }
}

function request(headers: Record<string, string | string[]>): IncomingMessage {
  const headersDistinct = Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), [value].flat()]),
  )
  return { headersDistinct } as unknown as IncomingMessage
}

const from = (header: string | string[]): IncomingMessage => request({ 'X-Forwarded-For': header })

describe('who is believed', () => {
  const trust = new ProxyTrust(['10.0.0.0/8', '192.0.2.1', '2001:db8::/32', 'unix'])
  test.each([
    ['10.200.0.1', true],
    ['::ffff:10.200.0.1', true],
    ['192.0.2.1', true],
    ['192.0.2.2', false],
    ['11.0.0.1', false],
    ['2001:db8:1::9', true],
    ['2001:DB8:1::9', true],
    ['2001:db9::1', false],
    ['::1', false],
    ['', false],
    [undefined, true],
  ])('%s: %s', (address, expected) => {
    expect(trust.forwarded(peer(address), from('198.51.100.7')) !== undefined).toBe(expected)
  })

  test.each([[undefined], ['127.0.0.1'], ['']])('nobody by default: %s', (address) => {
    const headers = request({ 'X-Forwarded-For': '198.51.100.7', 'X-User': 'alice' })
    expect(new ProxyTrust([], 'X-User').forwarded(peer(address), headers)).toBeUndefined()
  })

  test('a Unix socket is trusted only when that is said', () => {
    expect(new ProxyTrust(['0.0.0.0/0', '::/0']).forwarded(peer(undefined), from('1.2.3.4'))).toBeUndefined()
  })

  test.each([
    ['10.0.0.0/33'],
    ['2001:db8::/129'],
    ['10.0.0'],
    ['proxy.example'],
    ['10.0.0.1/x'],
    ['fe80::1%eth0'],
    [''],
    ['Unix'],
  ])('"%s" names nobody', (name) => {
    expect(() => new ProxyTrust([name])).toThrow(expect.objectContaining({ code: 'usage' }))
  })
})

describe('the client behind proxies', () => {
  const trust = new ProxyTrust(['10.0.0.0/8', '127.0.0.1', '::1', 'unix'])
  test.each<[string, string | string[], string]>([
    ['nothing is said', '', '127.0.0.1'],
    ['one', '198.51.100.7', '198.51.100.7'],
    ['what the client made up stands to the left', '1.1.1.1, 198.51.100.7', '198.51.100.7'],
    ['made up to look like a proxy', '10.9.9.9, 198.51.100.7', '198.51.100.7'],
    ['two proxies', '198.51.100.7, 10.0.0.1', '198.51.100.7'],
    ['three, and a lie', '1.1.1.1, 198.51.100.7, 10.0.0.2, 10.0.0.1', '198.51.100.7'],
    ['a header for each', ['1.1.1.1', '198.51.100.7', '10.0.0.1'], '198.51.100.7'],
    ['all are ours', '10.0.0.3, 10.0.0.2', '10.0.0.3'],
    ['with a port', '198.51.100.7:4711', '198.51.100.7'],
    ['IPv6', '2001:DB8::7', '2001:db8::7'],
    ['IPv6 with a port', '[2001:db8::7]:4711', '2001:db8::7'],
    ['IPv4 in IPv6', '::ffff:198.51.100.7', '198.51.100.7'],
    ['no address', 'unknown', '127.0.0.1'],
    ['no address behind a proxy', '198.51.100.7, _hidden, 10.0.0.1', '10.0.0.1'],
    ['an address that is none', '1.2.3.4.5', '127.0.0.1'],
    ['a script', '<script>', '127.0.0.1'],
    ['an empty place', '198.51.100.7, , 10.0.0.1', '10.0.0.1'],
  ])('%s', (_, header, expected) => {
    expect(trust.forwarded(peer('127.0.0.1'), from(header))?.client).toBe(expected)
  })

  test('through a Unix socket, where nothing is said', () => {
    expect(trust.forwarded(peer(undefined), from('nobody'))?.client).toBe('local')
  })

  test('more proxies than anybody has: the search ends', () => {
    const many = Array.from({ length: 1000 }, (_, i) => `10.0.0.${i % 250}`)
    expect(trust.forwarded(peer('127.0.0.1'), from(`1.1.1.1, ${many.join(', ')}`))?.client).toMatch(/^10\./)
  })

  test('whatever is to the left of the first stranger changes nothing', () => {
    fc.assert(
      fc.property(fc.string(), fc.ipV4(), (lie, client) => {
        fc.pre(!trust.trusts(client))
        const said = trust.forwarded(peer('10.0.0.1'), from(`${lie}, ${client}, 10.1.1.1`))
        expect(said?.client).toBe(plainAddress(client))
      }),
    )
  })
})

describe('host and scheme', () => {
  const trust = new ProxyTrust(['127.0.0.1'])
  const said = (headers: Record<string, string>) => {
    const { client: _, ...rest } = trust.forwarded(peer('127.0.0.1'), request(headers)) ?? { client: '' }
    return rest
  }
  test.each<[Record<string, string>, object]>([
    [
      { 'X-Forwarded-Host': 'backup.example', 'X-Forwarded-Proto': 'https' },
      { host: 'backup.example', isEncrypted: true },
    ],
    [{ 'X-Forwarded-Host': 'backup.example:8443' }, { host: 'backup.example:8443' }],
    [{ 'X-Forwarded-Host': '[2001:db8::1]:443' }, { host: '[2001:db8::1]:443' }],
    [{ 'X-Forwarded-Host': 'evil.example, backup.example' }, { host: 'backup.example' }],
    [{ 'X-Forwarded-Proto': 'HTTP' }, { isEncrypted: false }],
    [{ 'X-Forwarded-Proto': 'https, http' }, { isEncrypted: false }],
    [{ 'X-Forwarded-Proto': 'gopher' }, {}],
    [{ 'X-Forwarded-Host': 'a b' }, {}],
    [{ 'X-Forwarded-Host': 'user@backup.example' }, {}],
    [{ 'X-Forwarded-Host': 'backup.example/path' }, {}],
    [{ 'X-Forwarded-Host': 'x'.repeat(300) }, {}],
    [{ 'X-Forwarded-Host': '' }, {}],
  ])('%j', (headers, expected) => {
    expect(said(headers)).toEqual(expected)
  })
})

describe("the user's header", () => {
  const trust = new ProxyTrust(['127.0.0.1'], 'X-Remote-User')
  const user = (value: string | string[], address = '127.0.0.1') =>
    trust.forwarded(peer(address), request({ 'x-remote-user': value }))?.user
  test.each<[string, string | string[], string | undefined]>([
    ['a name', 'alice', 'alice'],
    ['in UTF-8', Buffer.from('zoë').toString('latin1'), 'zoë'],
    ['none', '', undefined],
    ['two of them', ['mallory', 'alice'], undefined],
    ['a tab within', 'al\tice', undefined],
    ['no UTF-8', '\xff', undefined],
    ['too long', 'x'.repeat(300), undefined],
  ])('%s', (_, value, expected) => {
    expect(user(value)).toBe(expected)
  })

  test('of somebody else is nothing', () => {
    expect(user('alice', '127.0.0.2')).toBeUndefined()
  })
})
