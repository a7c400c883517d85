/** What the receiver turns out to lack at the commit is read and sent again. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Target } from '../../../client/engine/target.ts'
import type { Id } from '../../../protocol/id.ts'
import { MemoryChunkStore } from '../../../server/store/memory-chunk-store.ts'
import { backUp, restoreTo, wrapTarget } from '../../support/backup.ts'
import { startReceiver } from '../../support/receiver.ts'
import { listing, seededBytes, temporaryFolder } from '../../support/tree.ts'

/** A store that can be told to forget chunks, as damage would have it. */
async function forgetfulReceiver() {
  const memory = await MemoryChunkStore.open()
  const forgotten = new Set<Id>()
  let losses = 0
  const store = new Proxy(memory, {
    get(target, property) {
      if (property === 'losses') return target.losses + losses
      // The receiver closes a vault that it has only visited, and opens it again: this is all that there is of it.
      if (property === 'close') return async () => {}
      if (property === 'stat') {
        return async (ids: readonly Id[]) =>
          (await target.stat(ids)).map((length, i) => (forgotten.has(ids[i] as Id) ? undefined : length))
      }
      if (property === 'get') return async (id: Id) => (forgotten.has(id) ? undefined : target.get(id))
      if (property === 'put') {
        return async (block: Parameters<MemoryChunkStore['put']>[0]) => {
          const outcomes = await target.put(block)
          return outcomes.map((outcome, i) =>
            forgotten.delete(block.header.rows[i]?.id as Id) ? 'stored' : outcome,
          )
        }
      }
      const value: unknown = Reflect.get(target, property, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  const receiver = await startReceiver({ openStore: async () => store })
  return {
    receiver,
    forget(ids: Iterable<Id>): void {
      for (const id of ids) forgotten.add(id)
      losses++
    },
    forgotten,
    memory,
  }
}

for (const as of ['dir', 'chunks'] as const) {
  for (const what of ['one chunk of each kind', 'everything'] as const) {
    test(`the receiver lost ${what} (${as}): the next backup of unchanged files brings it back`, async () => {
      const { receiver, forget, forgotten, memory } = await forgetfulReceiver()
      await using _ = receiver
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      mkdirSync(join(from, 'sub'), { recursive: true })
      writeFileSync(join(from, 'large'), seededBytes('large', 6_000_000))
      writeFileSync(join(from, 'sub', 'small'), 'small')
      for (let i = 0; i < 1100; i++) writeFileSync(join(from, 'sub', `f${i}`), `file ${i}`)
      await sleep(60)
      await backUp(from, { ...receiver, state: folder.path, as })
      const stored: { id: Id; length: number }[] = []
      for await (const chunk of memory.list()) stored.push(chunk)
      const ids = stored.sort((a, b) => a.length - b.length).map(({ id }) => id)
      forget(what === 'everything' ? ids : [ids[0] as Id, ids[600] as Id, ids.at(-1) as Id, ids.at(-2) as Id])
      const second = await backUp(from, { ...receiver, state: folder.path, as })
      expect(second.checkpoint.state).toBe('committed')
      expect([...forgotten]).toEqual([])
      const { number } = second.checkpoint
      await restoreTo(join(folder.path, 'to'), { ...receiver, number })
      expect(listing(join(folder.path, 'to'))).toEqual(listing(from))
    })
  }
}

test('a receiver that loses everything again and again: the backup fails and says so', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  mkdirSync(join(folder.path, 'from'))
  writeFileSync(join(folder.path, 'from', 'file'), 'content')
  const denying = (target: Target): Target =>
    wrapTarget(target, {
      commit: async () => ({ missing: [{ id: `blake3:${'0'.repeat(64)}` }] }),
    })
  const lost = backUp(join(folder.path, 'from'), { ...receiver, state: folder.path, wrapTarget: denying })
  await expect(lost).rejects.toMatchObject({ code: 'missing-chunks' })
})

test('a receiver whose data directory was emptied: everything is sent once more', async () => {
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  mkdirSync(from)
  for (let i = 0; i < 20; i++) writeFileSync(join(from, `f${i}`), seededBytes(`${i}`, 30_000))
  await sleep(60)
  const dataDir = join(folder.path, 'data')
  const first = await startReceiver({ dataDir })
  await backUp(from, { ...first, state: folder.path })
  await first.stop()
  await rm(dataDir, { recursive: true })
  const port = Number(new URL(first.url).port)
  await using second = await startReceiver({ dataDir, port })
  const again = await backUp(from, { ...second, state: folder.path })
  expect(again).toMatchObject({ filesRead: 20, checkpoint: { number: 1, state: 'committed' } })
})
