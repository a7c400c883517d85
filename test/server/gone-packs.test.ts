/** A pack that is gone when the receiver starts: it is told of, and nothing is pruned until all is whole again. */
import { mkdtemp, readdir, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { check, Health } from '../../protocol/schema.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { put, smallTree } from './requests.ts'

const tree = smallTree()

async function sendAll(server: TestReceiver): Promise<void> {
  for (const item of tree.chunks) await put(server, 'chunks', item)
  for (const item of tree.objects) await put(server, item === tree.big ? 'files' : 'dirs', item)
}

async function backUp(server: TestReceiver): Promise<void> {
  await sendAll(server)
  const opened = await fetch(`${server.vaultUrl}/checkpoints/s/`, { method: 'POST', body: '{"kind":"dir"}' })
  const { number } = (await opened.json()) as { number: number }
  const commit = { method: 'POST', body: JSON.stringify({ root: tree.root.id }) }
  expect((await fetch(`${server.vaultUrl}/checkpoints/s/${number}/commit`, commit)).status).toBe(200)
}

async function health(server: TestReceiver): Promise<unknown> {
  const { status, vaultsHarmed } = check(Health, await (await fetch(`${server.url}/-/health`)).json())
  return { status, vaultsHarmed }
}

const well = { status: 'ok', vaultsHarmed: [] }
const harmed = { status: 'degraded', vaultsHarmed: ['home'] }

test.each([['gone'], ['shorter']])('a pack is %s', async (how) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-receiver-'))
  const first = await startReceiver({ dataDir })
  await backUp(first)
  await backUp(first)
  const { settings } = await first.receiver.vaults.get('home')
  await settings.replace({ retention: { keepLast: 1 } }, () => {})
  expect(await health(first)).toEqual(well)
  await first.stop()
  const packs = join(dataDir, 'vaults/home/packs')
  for (const name of await readdir(packs)) {
    if (how === 'gone') await rm(join(packs, name))
    else await truncate(join(packs, name), 40)
  }

  const lines: { level: number; msg: string; pack?: string }[] = []
  const stream = new Writable({
    write(line: Buffer, _encoding, done) {
      lines.push(JSON.parse(String(line)))
      done()
    },
  })
  const second = await startReceiver({ dataDir, log: pino(stream) })
  const { receiver } = second
  await receiver.schedule.prune()
  const told = lines.filter(({ level, msg }) => level === 50 && msg.includes('chunkdav check'))
  expect(told).toHaveLength(1)
  expect(told[0]?.msg).toContain('00000001.pack')
  expect(lines.filter(({ level, msg }) => level === 40 && msg.includes('not pruned'))).not.toEqual([])
  expect(await health(second)).toEqual(harmed)
  await second.stop()

  // The index is a new one by now: what was found is known all the same.
  const third = await startReceiver({ dataDir })
  const { catalog, scrub } = await third.receiver.vaults.get('home')
  expect(await health(third)).toEqual(harmed)
  await (await scrub.everything()).ended
  await third.receiver.schedule.prune()
  expect(await catalog.checkpoints.list('s')).toHaveLength(2)
  expect(await health(third)).toEqual(harmed)
  await sendAll(third)
  await scrub.share(3_600_000_000)
  expect(await health(third)).toEqual(well)
  await third.receiver.schedule.prune()
  expect(await catalog.checkpoints.list('s')).toHaveLength(1)
  await third.stop()
  await rm(dataDir, { recursive: true })
})
