import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { reindexAll } from '../../server/upkeep/reindex.ts'
import { startReceiver } from '../support/receiver.ts'
import { chunk, put } from './requests.ts'

test('reindex leaves alone what is no vault', async () => {
  const server = await startReceiver({ keep: true })
  await put(server, 'chunks', chunk('in the vault'))
  await server.stop()
  const lost = join(server.dataDir, 'vaults', 'lost+found')
  await mkdir(lost)
  const reports: [string, number][] = []
  for await (const { vault, report } of reindexAll(server.dataDir)) reports.push([vault, report.chunks])
  expect(reports).toEqual([['home', 1]])
  expect(await readdir(lost)).toEqual([])
  await rm(server.dataDir, { recursive: true })
})
