/** Scrubs while packs are written, compacted and removed: nothing that is sound is ever told to be damaged, or lost. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { splitBatch } from '../../../protocol/block.ts'
import type { Id } from '../../../protocol/id.ts'
import { nodeFiles } from '../../../server/file-layer.ts'
import { PackChunkStore } from '../../../server/store/pack-chunk-store.ts'
import { verified } from '../../../server/store/receive.ts'
import { Scrub } from '../../../server/upkeep/scrub.ts'
import { Vaults } from '../../../server/vaults.ts'
import { flipPayload, recordsOf } from '../../support/damage.ts'
import { blockOf, chunk, noise } from '../requests.ts'

const KiB = 1024
const rounds = Number(process.env.SCRUB_ROUNDS ?? 12)

test('puts and collections beside scrubs', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-scrub-'))
  const vaults = await Vaults.open(dataDir, {
    openStore: (path) => PackChunkStore.open(path, { packBytes: 256 * KiB }),
    trashMs: 1000,
    scrubBytesPerSecond: 1024 ** 3,
  })
  await vaults.create('home')
  const { store, scrub } = await vaults.get('home')
  const packs = store as PackChunkStore
  const kept: Id[] = []
  let seed = 1
  const put = async (): Promise<Id[]> => {
    const chunks = [1, 2, 3, 4].map(() => chunk(noise(20 * KiB + (seed % 100), seed++)))
    for (const block of splitBatch(await blockOf(chunks, 'identity'))) await store.put(await verified(block))
    return chunks.map(({ id }) => id)
  }
  let isOver = false
  let scrubs = 0
  const scrubbing = (async () => {
    while (!isOver) {
      const { last } = await (await scrub.everything()).ended
      expect(last).toMatchObject({
        outcome: 'done',
        report: { complete: true, badRecords: 0, strayRows: 0, lostChunks: 0, found: [] },
      })
      scrubs++
    }
  })()
  let freed = 0
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < 8; i++) kept.push((await put())[i % 4] as Id)
    await store.flush()
    const collection = packs.collect()
    collection.keep(kept)
    const pacing = { step: async () => {} }
    for (const { pack, garbageBytes } of await collection.survey(pacing)) {
      if (garbageBytes > 0) freed += (await collection.compact(pack, pacing)).freedBytes
    }
    collection.end()
  }
  isOver = true
  await scrubbing
  expect(freed).toBeGreaterThan(0)
  expect(scrubs).toBeGreaterThan(1)
  for (const id of kept) expect(await store.get(id)).toBeDefined()
  await vaults.close()
  await rm(dataDir, { recursive: true })
})

test('a crash between what is forgotten and what is named leaves word', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-scrub-'))
  const vaultPath = join(dataDir, 'vaults/home')
  await nodeFiles.makeFolder(join(dataDir, 'vaults'))
  await nodeFiles.makeFolder(vaultPath)
  const store = await PackChunkStore.open(vaultPath)
  for (const block of splitBatch(await blockOf([chunk(noise(50 * KiB))], 'identity')))
    await store.put(await verified(block))
  await store.flush()
  await flipPayload((await recordsOf(dataDir))[0] as never)
  let harmLooks = 0
  const vault = {
    catalog: {
      reader: store,
      checkpoints: {
        listSources: async () => {
          harmLooks++
          if (harmLooks === 1) throw new Error('killed here')
          return []
        },
      },
    },
    tree: { find: async () => undefined },
  }
  const options = { vaultPath, store, vault: vault as never }
  const first = await Scrub.open(options)
  expect((await (await first.everything()).ended).last).toMatchObject({
    outcome: 'failed',
    report: { badRecords: 1, lostChunks: 1, complete: false },
  })
  await first.close()
  const second = await Scrub.open(options)
  await second.share(30 * 24 * 3_600_000)
  expect(harmLooks).toBe(2)
  expect(second.state.last).toMatchObject({
    outcome: 'done',
    report: { badRecords: 1, lostChunks: 1, complete: true, harm: { missingChunks: 0 } },
  })
  await second.close()
  await store.close()
  await rm(dataDir, { recursive: true })
})
