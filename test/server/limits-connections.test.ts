/** How many connections there may be, whose are closed for others', and how long each is waited for. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { afterEach, describe, expect, test } from 'vitest'
import { backUp } from '../support/backup.ts'
import { opensslIsInstalled, TestAuthority } from '../support/certificates.ts'
import { startReceiver, type TestReceiver, type TestReceiverOptions } from '../support/receiver.ts'
import { temporaryFolder } from '../support/tree.ts'
import { connectFrom, elsewhere, type RawClient, until } from './connect-from.ts'
import { chunk, noise, post } from './requests.ts'

let server: TestReceiver
const clients: RawClient[] = []
afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy()
  await server.stop()
})

const start = async (options: TestReceiverOptions): Promise<void> => {
  server = await startReceiver({ unobserved: true, ...options })
}
const open = async (from: string, text = ''): Promise<RawClient> => {
  const client = await connectFrom(from, server.url)
  clients.push(client)
  if (text !== '') client.socket.write(text)
  return client
}
const here = '127.0.0.1'
const health = 'GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n'
const { connections } = { connections: () => server.receiver.connections.usage }

describe('the head of a request that does not come', () => {
  test.each([
    ['nothing of it', '', ''],
    ['half of it', 'GET / HTTP/1.1\r\nHo', 'HTTP/1.1 408 '],
    ['half of it, behind a request', `${health}GET / HT`, 'HTTP/1.1 408 '],
  ])('%s', async (_, text, answer) => {
    await start({ clientLimits: { headersTimeoutMs: 300 } })
    const client = await open(here, text)
    await client.ended
    expect(
      client
        .text()
        .slice(client.text().lastIndexOf('HTTP/1.1'))
        .slice(0, answer.length || 1),
    ).toBe(answer)
    if (answer !== '') expect(client.text()).toContain('urn:chunkdav:problem:too-slow')
    await until(() => connections().open === 0)
  })

  test('byte by byte', async () => {
    await start({ clientLimits: { headersTimeoutMs: 300 } })
    const client = await open(here, 'GET / HTTP/1.1\r\nX: ')
    const drip = setInterval(() => client.socket.write('x'), 20)
    await client.ended
    clearInterval(drip)
    expect(client.text()).toMatch(/^HTTP\/1\.1 408 /)
  })
})

describe('a client with as many connections as it may have', () => {
  const clientLimits = { maxClientConnections: 4 }

  test('loses the one that has been idle for longest, of those that never asked first', async () => {
    await start({ clientLimits })
    const asked = await open(here, health)
    await until(() => asked.text().includes('}'))
    const silent = [await open(here), await open(here), await open(here, 'GET / HT')]
    await until(() => connections().open === 4)
    await open(here)
    await silent[0]?.ended
    const next = await open(here, health)
    await silent[1]?.ended
    await until(() => next.text().includes('200 OK'))
    // What has asked goes on.
    asked.socket.write(health)
    await until(() => asked.text().split('200 OK').length === 3)
    expect(connections()).toMatchObject({ open: 4, clients: 1, taken: 6, displaced: 2, refused: 0 })
  })

  test('is refused a further one while all of them have requests at work; others are not', async () => {
    await start({ clientLimits })
    const body = `PUT /home/chunks/${chunk('x').id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n`
    for (let i = 0; i < 4; i++) await open(here, body)
    await until(() => server.receiver.turns.usage.held === 4)
    const refused = await open(here, health)
    await refused.ended
    expect(refused.text()).toMatch(/^HTTP\/1\.1 503 [\s\S]*Retry-After: 1[\s\S]*problem:unavailable/)
    const other = await open(elsewhere, health)
    await until(() => other.text().includes('200 OK'))
    expect(connections()).toMatchObject({ open: 5, clients: 2, refused: 1, displaced: 0 })
  })
})

test('when there are as many as may be, whoever has most gives way', async () => {
  await start({ clientLimits: { maxConnections: 6 } })
  const greedy = []
  for (let i = 0; i < 5; i++) greedy.push(await open(elsewhere))
  const kept = await open(here, health)
  await until(() => connections().open === 6 && kept.text() !== '')
  const next = await open(here, health)
  await greedy[0]?.ended
  await until(() => next.text().includes('200 OK'))
  // The greedy one gets no more of others'.
  await open(elsewhere)
  await greedy[1]?.ended
  expect(connections()).toMatchObject({ open: 6, clients: 2, displaced: 2 })
  expect(kept.socket.destroyed).toBe(false)
})

test('a thousand half-open connections cost those who make them: a backup beside them goes on', async () => {
  await start({})
  const state = await mkdtemp(join(tmpdir(), 'chunkdav-half-open-'))
  const source = join(state, 'source')
  try {
    for (let i = 0; i < 1000; i++)
      await open(elsewhere, i % 2 === 0 ? '' : 'PUT /home/tree/x HTTP/1.1\r\nHos')
    await mkdir(source)
    for (let i = 0; i < 20; i++) await writeFile(join(source, `${i}`), noise(50_000, i))
    const summary = await backUp(source, { vaultUrl: server.vaultUrl, state })
    expect(summary).toMatchObject({ filesNew: 20 })
    const { refused, displaced } = connections()
    expect(refused).toBe(0)
    expect(displaced).toBeGreaterThanOrEqual(1000 - 256)
  } finally {
    await rm(state, { recursive: true, force: true })
  }
})

test.runIf(opensslIsInstalled)(
  'a client that does not finish its handshake counts, and gives way, like any other',
  async () => {
    await using folder = await temporaryFolder()
    const tls = await (await TestAuthority.create(folder.path)).issue('receiver')
    await start({ tls, clientLimits: { maxClientConnections: 3 } })
    const silent = []
    for (let i = 0; i < 3; i++) silent.push(await open(here, i === 1 ? '\x16\x03\x01\x02' : ''))
    await until(() => connections().open === 3)
    const { port } = server.receiver
    const secure = connectTls({ host: here, port, rejectUnauthorized: false })
    let text = ''
    secure.on('data', (bytes: Buffer) => {
      text += bytes.toString()
    })
    secure.write(health)
    await until(() => text.includes('200 OK'))
    await silent[0]?.ended
    expect(connections()).toMatchObject({ open: 3, clients: 1, displaced: 1, refused: 0 })
    // The one that has asked stays.
    await open(here)
    await silent[1]?.ended
    secure.write(health)
    await until(() => text.split('200 OK').length === 3)
    secure.destroy()
    await until(() => connections().open === 2)
  },
)

test('who does not take an answer is cut off, also when it is no stream', async () => {
  await start({ patience: { stallMs: 300 } })
  const ids = Array.from({ length: 10_000 }, (_, i) => chunk(`absent ${i}`).id)
  const body = JSON.stringify({ ids })
  const head = `POST /home/chunks/missing HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n`
  const client = await open(here)
  client.socket.pause()
  for (let i = 0; i < 30; i++) client.socket.write(head + body)
  await until(() => connections().stalled === 1)
  await until(() => connections().open === 0 && server.receiver.turns.usage.held === 0)
  // Whoever reads is served.
  expect((await post(server, 'chunks/missing', { ids })).status).toBe(200)
})
