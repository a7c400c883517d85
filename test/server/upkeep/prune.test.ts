/** Prunes beside whoever deletes, pins and commits at the same time. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { encodeDirectoryObject } from '../../../protocol/objects.ts'
import { isProblem } from '../../../protocol/problem.ts'
import { MemoryChunkStore } from '../../../server/store/memory-chunk-store.ts'
import { storeHashed } from '../../../server/store/receive.ts'
import { prune } from '../../../server/upkeep/prune.ts'
import { type Vault, Vaults } from '../../../server/vaults.ts'

const root = encodeDirectoryObject([])
let folder: string
let vaults: Vaults
let vault: Vault
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-prune-'))
  vaults = await Vaults.open(folder, { openStore: async () => new MemoryChunkStore(), trashMs: 1 })
  await vaults.create('home')
  vault = await vaults.get('home')
  await storeHashed(vault.store, root.id, root.bytes)
  await vault.settings.replace({ retention: { keepLast: 1 } }, () => {})
})
afterEach(async () => {
  await vaults.close()
  await rm(folder, { recursive: true, force: true })
})

async function commit(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const opened = await vault.catalog.checkpoints.begin('s', { kind: 'dir' })
    await vault.catalog.checkpoints.commit(opened, { root: root.id })
  }
}
const numbers = async (): Promise<number[]> =>
  (await vault.catalog.checkpoints.list('s')).map(({ number }) => number)

test('what was the newest when it was judged may be gone: the last that is left stays', async () => {
  const { checkpoints } = vault.catalog
  await commit(5)
  // As if the newest went between judgement and deletion.
  const list = checkpoints.list.bind(checkpoints)
  checkpoints.list = async (source) => {
    const listed = await list(source)
    await checkpoints.delete({ source, number: 5 })
    return listed
  }
  const answer = await prune(vault)
  checkpoints.list = list
  expect(await numbers()).toEqual([4])
  const [source] = answer.sources
  expect(source?.removed.map(({ number }) => number)).toEqual([1, 2, 3])
  expect(source?.kept.map(({ number, reasons }) => [number, reasons])).toEqual([
    [4, ['unjudged']],
    [5, ['newest', 'last']],
  ])
})

test('what is pinned after it was judged stays; what is deleted by others meanwhile is not told as removed', async () => {
  const { checkpoints } = vault.catalog
  await commit(5)
  const list = checkpoints.list.bind(checkpoints)
  checkpoints.list = async (source) => {
    const listed = await list(source)
    await checkpoints.pin({ source, number: 2 })
    await checkpoints.delete({ source, number: 3 })
    return listed
  }
  const answer = await prune(vault)
  checkpoints.list = list
  expect(answer.sources[0]?.removed.map(({ number }) => number)).toEqual([1, 4])
  expect(await numbers()).toEqual([2, 5])
})

test('beside backups, pins, deletions and other prunes: the last stays, and so do pins', async () => {
  const { checkpoints } = vault.catalog
  await commit(20)
  const quietly = (work: Promise<unknown>): Promise<unknown> =>
    work.catch((error: unknown) => {
      if (!isProblem(error)) throw error
    })
  await Promise.all([
    prune(vault),
    commit(10),
    ...[3, 7, 11].map((number) => quietly(checkpoints.pin({ source: 's', number }))),
    ...[4, 8, 20].map((number) => quietly(checkpoints.delete({ source: 's', number }))),
    prune(vault),
  ])
  const pinned = (await checkpoints.list('s')).filter((state) => state.pinned).map(({ number }) => number)
  const { kept } = await prune(vault)
  expect(await numbers()).toEqual([...pinned, 30])
  expect(kept).toBe(pinned.length + 1)
})

test('a signal ends it; what it did is told', async () => {
  await commit(3)
  const answer = await prune(vault, { signal: AbortSignal.abort() })
  expect([answer.removed, await numbers()]).toEqual([0, [1, 2, 3]])
})
