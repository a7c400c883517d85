/** `/-/metrics`: what it says, that it is Prometheus' format, and that no client can make it grow. */
import { mkdir, utimes, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Family, parseExposition } from '../support/exposition.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { begin, chunk, noise, post, put, RawConnection, smallTree } from './requests.ts'

let server: TestReceiver
beforeEach(async () => {
  server = await startReceiver()
})
afterEach(() => server.stop())

async function scrape(): Promise<Map<string, Family>> {
  const answer = await fetch(`${server.url}/-/metrics`)
  expect(answer.status).toBe(200)
  expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  return parseExposition(await answer.text())
}

/** The value with these labels; undefined when it is not there. */
async function figure(name: string, labels: Record<string, string> = {}): Promise<number | undefined> {
  const family = (await scrape()).get(name.replace(/_(bucket|sum|count)$/, '')) ?? (await scrape()).get(name)
  const wanted = Object.entries(labels)
  return family?.samples.find(
    (sample) => sample.name === name && wanted.every(([label, value]) => sample.labels[label] === value),
  )?.value
}

test('requests are counted by method, route and status, and their bytes', async () => {
  const { a } = smallTree()
  await put(server, 'chunks', a)
  await (await fetch(`${server.vaultUrl}/chunks/${a.id}`)).arrayBuffer()
  await (await fetch(`${server.vaultUrl}/chunks/nonsense`)).arrayBuffer()
  const route = '/{vault}/chunks/{id}'
  const name = 'chunkdav_http_requests_total'
  await expect.poll(() => figure(name, { method: 'GET', route, status: '200' })).toBe(1)
  expect(await figure(name, { method: 'GET', route, status: '400' })).toBe(1)
  expect(await figure(name, { method: 'PUT', route, status: '201' })).toBe(1)
  expect(await figure('chunkdav_http_request_duration_seconds_count', { method: 'PUT', route })).toBe(1)
  expect(await figure('chunkdav_http_received_bytes_total', { route })).toBeGreaterThan(a.bytes.length)
  expect(await figure('chunkdav_http_sent_bytes_total', { route })).toBeGreaterThan(a.bytes.length)
  expect(await figure('chunkdav_http_requests_in_flight')).toBe(1)
  expect(await figure('chunkdav_http_connections')).toBeGreaterThan(0)
})

test('what a vault took, kept, and was spared', async () => {
  const [known, fresh] = [chunk(noise(5000, 1)), chunk(noise(7000, 2))]
  await put(server, 'chunks', known)
  await put(server, 'chunks', known)
  await post(server, 'chunks/missing', { ids: [known.id, fresh.id] })
  const of = (name: string) => figure(`chunkdav_vault_${name}_total`, { vault: 'home' })
  expect([await of('received_chunks'), await of('received_bytes')]).toEqual([1, 5000])
  expect([await of('stored_chunks'), await of('stored_bytes')]).toEqual([1, 5000])
  expect([await of('spared_chunks'), await of('spared_bytes')]).toEqual([2, 10_000])
  expect(await figure('chunkdav_vault_chunks', { vault: 'home' })).toBe(1)
  expect(await figure('chunkdav_vault_stored_bytes', { vault: 'home' })).toBeGreaterThan(4000)
})

test('sources: checkpoints, and when the last was committed', async () => {
  const { root, chunks, objects } = smallTree()
  for (const item of chunks) await put(server, 'chunks', item)
  await put(server, 'files', objects[0] as (typeof objects)[0])
  await put(server, 'dirs', objects[1] as (typeof objects)[0])
  await put(server, 'dirs', root)
  const name = 'chunkdav_source_last_checkpoint_timestamp_seconds'
  const path = await begin(server, 'laptop', 'dir')
  expect(await figure(name, { vault: 'home', source: 'laptop' })).toBeUndefined()
  expect(await figure('chunkdav_vault_open_checkpoints', { vault: 'home' })).toBe(1)
  const before = Date.now() / 1000
  expect((await post(server, `${path}/commit`, { root: root.id })).status).toBe(200)
  expect(await figure('chunkdav_vault_open_checkpoints', { vault: 'home' })).toBe(0)
  expect(await figure('chunkdav_source_checkpoints', { vault: 'home', source: 'laptop' })).toBe(1)
  const at = (await figure(name, { vault: 'home', source: 'laptop' })) as number
  expect(at).toBeGreaterThanOrEqual(before - 0.001)
  expect(at).toBeLessThanOrEqual(Date.now() / 1000)
  await fetch(`${server.vaultUrl}/${path}`, { method: 'DELETE' })
  expect(await figure(name, { vault: 'home', source: 'laptop' })).toBeUndefined()
})

test('a scrape opens no vault, and tells what the folder of a closed one tells', async () => {
  const folder = join(server.dataDir, 'vaults', 'closed')
  await mkdir(join(folder, 'packs'), { recursive: true })
  await mkdir(join(folder, 'checkpoints', 'nas'), { recursive: true })
  await mkdir(join(folder, 'upkeep'))
  await writeFile(join(folder, 'packs', '00000001.pack'), Buffer.alloc(1234))
  const state = { committedAt: '2026-11-20T00:00:00.000Z' }
  await writeFile(join(folder, 'checkpoints', 'nas', '7.json'), JSON.stringify(state))
  await writeFile(join(folder, 'checkpoints', 'nas', '8.open.json'), '{}')
  await utimes(join(folder, 'checkpoints', 'nas'), 1_700_000_000, 1_700_000_000)
  await writeFile(join(folder, 'settings.json'), JSON.stringify({ quotaBytes: 10 ** 12 }))
  const job = { startedAt: '2026-11-21T00:00:00Z', finishedAt: '2026-11-21T01:00:00Z', outcome: 'done' }
  await writeFile(
    join(folder, 'upkeep', 'collection.json'),
    JSON.stringify({ ...job, report: { garbageBytes: 99 } }),
  )
  await writeFile(
    join(folder, 'upkeep', 'scrub.json'),
    JSON.stringify({ ...job, outcome: 'failed', report: { lostChunks: 3, harm: { missingChunks: 2 } } }),
  )
  const vault = 'closed'
  const seconds = Date.parse('2026-11-21T01:00:00Z') / 1000
  for (let twice = 0; twice < 2; twice++) {
    expect(await figure('chunkdav_vaults_open')).toBe(0)
    expect(await figure('chunkdav_vault_stored_bytes', { vault })).toBe(1234)
    expect(await figure('chunkdav_vault_chunks', { vault })).toBeUndefined()
    expect(await figure('chunkdav_vault_open_checkpoints', { vault })).toBe(1)
    const source = { vault, source: 'nas' }
    const committed = Date.parse(state.committedAt) / 1000
    expect(await figure('chunkdav_source_last_checkpoint_timestamp_seconds', source)).toBe(committed)
    expect(await figure('chunkdav_vault_quota_bytes', { vault })).toBe(10 ** 12)
    expect(await figure('chunkdav_vault_garbage_bytes', { vault })).toBe(99)
    expect(await figure('chunkdav_vault_last_collection_timestamp_seconds', { vault })).toBe(seconds)
    expect(await figure('chunkdav_vault_last_collection_done', { vault })).toBe(1)
    expect(await figure('chunkdav_vault_last_scrub_done', { vault })).toBe(0)
    expect(await figure('chunkdav_vault_scrub_lost_chunks', { vault })).toBe(3)
    expect(await figure('chunkdav_vault_missing_chunks', { vault })).toBe(2)
  }
})

test('a thousand paths and methods make no more than one series each', async () => {
  const names = (families: Map<string, Family>): number =>
    [...families.values()].reduce((sum, { samples }) => sum + samples.length, 0)
  const ask = (method: string, path: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const asked = request(`${server.url}${path}`, { method, agent: false }, (answer) => {
        answer.resume().on('end', () => resolve(answer.statusCode as number))
      })
      asked.on('error', reject)
      asked.end()
    })
  const paths = [
    '',
    'home/',
    'home/tree/',
    'home/chunks/',
    'home/checkpoints/',
    'home/snapshots/',
    '-/',
    'v/',
  ]
  const methods = ['GET', 'PUT', 'SUBSCRIBE', 'M-SEARCH', 'PROPFIND', 'BIND']
  for (const path of paths) for (const method of methods) await ask(method, `/${path}x`)
  const before = names(await scrape())
  for (let i = 0; i < 1000; i++) {
    const path = `/${paths[i % paths.length]}${i.toString(36)}-${(i * 7919).toString(36)}`
    await ask(methods[(i >> 3) % methods.length] as string, path)
  }
  const after = names(await scrape())
  expect(after).toBeLessThan(before + 60)
  const routes = (await scrape())
    .get('chunkdav_http_requests_total')
    ?.samples.map(({ labels }) => labels.route)
  for (const route of new Set(routes)) expect(route).toMatch(/^(none|[a-z{}/-]+)$/)
  const seen = (await scrape()).get('chunkdav_http_requests_total')?.samples ?? []
  expect(new Set(seen.map(({ labels }) => labels.method))).not.toContain('M-SEARCH')
})

test('what is no HTTP, what is cut off, and what the process is', async () => {
  const raw = await RawConnection.open(server.url)
  raw.send('nonsense\r\n\r\n')
  await raw.end()
  expect(await figure('chunkdav_http_malformed_total')).toBe(1)
  const cut = await RawConnection.open(server.url)
  cut.send(`PUT /home/chunks/${chunk('x').id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n`)
  await expect.poll(() => figure('chunkdav_http_requests_in_flight')).toBe(2)
  cut.socket.destroy()
  await expect.poll(() => figure('chunkdav_http_requests_total', { status: 'cut' })).toBe(1)
  const families = await scrape()
  for (const name of [
    'process_resident_memory_bytes',
    'nodejs_eventloop_lag_p99_seconds',
    'process_open_fds',
  ]) {
    expect(families.get(name)?.samples.length).toBe(1)
  }
  for (const budget of ['uploads', 'decoding', 'streams', 'questions', 'downloads', 'listings']) {
    expect(await figure('chunkdav_memory_budget_held_bytes', { budget })).toBe(0)
  }
})

test('scrapes at the same time are one, and each has every sample once', async () => {
  await Promise.all(Array.from({ length: 20 }, () => scrape()))
})
