/** Where a Destination may point to, and how it may be written. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { ask, content, tells } from './dav-requests.ts'

let server: TestReceiver
beforeAll(async () => {
  server = await startReceiver()
})
afterAll(() => server.stop())
beforeEach(async () => {
  await ask(server, 'DELETE', 'to')
  await ask(server, 'PUT', 'from', {}, 'from')
})

const host = (): string => new URL(server.url).host

test.each([
  ['an absolute path', () => '/home/tree/to', '201'],
  ['a URI', () => `http://${host()}/home/tree/to`, '201'],
  ['https, as behind a proxy that ends TLS', () => `https://${host()}/home/tree/to`, '201'],
  ['with a user', () => `http://me@${host()}/home/tree/to`, '201'],
  ['percent-encoded', () => `/%68ome/%74ree/t%6F`, '201'],
  ['another host', () => 'http://elsewhere.example/home/tree/to', '502 bad-gateway'],
  ['another port', () => 'http://127.0.0.1:1/home/tree/to', '502 bad-gateway'],
  ['no port', () => 'http://127.0.0.1/home/tree/to', '502 bad-gateway'],
  ['another vault', () => '/other/tree/to', '403 forbidden'],
  ['a snapshot', () => '/home/snapshots/s/1/to', '403 forbidden'],
  ['the trash', () => '/home/trash/1/to', '403 forbidden'],
  ['chunks', () => '/home/chunks/x', '403 forbidden'],
  ['the vault', () => '/home/', '403 forbidden'],
  ['the root', () => '/', '403 forbidden'],
  ['a relative path', () => 'to', '400 invalid-request'],
  ['no scheme', () => `//${host()}/home/tree/to`, '400 invalid-request'],
  ['another scheme', () => `ftp://${host()}/home/tree/to`, '400 invalid-request'],
  ['a query', () => '/home/tree/to?x', '400 invalid-request'],
  ['a fragment', () => '/home/tree/to#x', '400 invalid-request'],
  ['dot segments', () => '/home/tree/x/../to', '400 invalid-request'],
  ['encoded dot segments', () => '/home/tree/x/%2E%2e/to', '400 invalid-request'],
  ['no percent-encoding', () => '/home/tree/to%2', '400 invalid-request'],
  ['a name of 256 bytes', () => `/home/tree/${'n'.repeat(256)}`, '400 invalid-request'],
])('%s', async (_, destination, expected) => {
  expect(await tells(server, 'COPY', 'from', { Destination: destination() })).toBe(expected)
  expect(await content(server, 'to')).toBe(expected === '201' ? 'from' : '404')
})

/** Host and Destination as a proxy passes them on. The receiver listens beyond this machine, so any name is its own. */
test.each([
  ['backup.example', 'https://backup.example/home/tree/to', '201'],
  ['backup.example', 'https://BACKUP.example:443/home/tree/to', '201'],
  ['backup.example:443', 'https://backup.example/home/tree/to', '201'],
  ['backup.example:80', 'http://backup.example/home/tree/to', '201'],
  ['backup.example', 'http://backup.example:8080/home/tree/to', '502 bad-gateway'],
  ['backup.example:8443', 'https://backup.example/home/tree/to', '502 bad-gateway'],
  ['backup.example', 'https://backup.example.evil/home/tree/to', '502 bad-gateway'],
])('Host %s, Destination %s', async (name, destination, expected) => {
  await using proxied = await startReceiver({ host: '0.0.0.0' })
  const url = `http://127.0.0.1:${proxied.receiver.port}`
  await ask({ ...proxied, url }, 'PUT', 'from', {}, 'from')
  expect(await tells({ ...proxied, url }, 'COPY', 'from', { Host: name, Destination: destination })).toBe(
    expected,
  )
})
