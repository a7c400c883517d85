/**
 * The conformance suite of Collectable: a chunk store that gives space back while it is in use. For any test framework
 * that has `describe` and `it`; the subject is that of the chunk store's own suite.
 */
import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import type { Id } from '../../protocol/id.ts'
import type { CollectableStore, Collection, Garbage, Pacing } from '../../server/store/collectable.ts'
import { type Sample, type SuiteRunner, sampleBlock, sampleChunk, sampleText } from './chunk-store-suite.ts'

export interface CollectableSubject {
  open(): Promise<CollectableStore>
  dispose(): Promise<void>
}

export interface CollectableSuiteOptions {
  /** A subject in a fresh, empty place. */
  create(): Promise<CollectableSubject>
}

const atOnce: Pacing = { step: async () => {} }

/** Gives back all that the collection does not keep. */
async function sweep(collection: Collection, pacing: Pacing = atOnce): Promise<number> {
  let freed = 0
  for (const { pack, garbageBytes } of await collection.survey(pacing)) {
    if (garbageBytes === 0) continue
    const { freedBytes, movedBytes } = await collection.compact(pack, pacing)
    freed += freedBytes - movedBytes
  }
  return freed
}

const garbageIn = (packs: readonly Garbage[]): number =>
  packs.reduce((sum, { garbageBytes }) => sum + garbageBytes, 0)

const idsOf = (samples: readonly Sample[]): Id[] => samples.map(({ id }) => id)

async function expectWhole(store: CollectableStore, samples: readonly Sample[]): Promise<void> {
  for (const { id, bytes } of samples) assert.deepEqual(await store.get(id), bytes)
  assert.deepEqual(
    await store.stat(idsOf(samples)),
    samples.map(({ bytes }) => bytes.length),
  )
}

async function expectAbsent(store: CollectableStore, samples: readonly Sample[]): Promise<void> {
  assert.deepEqual(
    await store.stat(idsOf(samples)),
    samples.map(() => undefined),
  )
  for (const { id } of samples) assert.equal(await store.get(id), undefined)
}

export function collectableSuite({ describe, it }: SuiteRunner, { create }: CollectableSuiteOptions): void {
  const test = (
    name: string,
    body: (store: CollectableStore, subject: CollectableSubject) => Promise<void>,
  ): void =>
    it(name, async () => {
      const subject = await create()
      const store = await subject.open()
      try {
        await body(store, subject)
      } finally {
        await store.close()
        await subject.dispose()
      }
    })

  /** Ten blocks of four chunks each. */
  const fill = async (store: CollectableStore, blocks = 10): Promise<Sample[][]> => {
    const filled: Sample[][] = []
    for (let i = 0; i < blocks; i++) {
      const samples = [sampleChunk(700), sampleText(900), sampleChunk(40), sampleText(1500)]
      await store.put(await sampleBlock(samples, i % 2 === 0 ? 'zstd' : 'identity'))
      filled.push(samples)
    }
    return filled
  }

  describe('Collectable', () => {
    test('a chunk that stands twice in a block is counted, and goes, once', async (store) => {
      const [twice, kept] = [sampleChunk(700), sampleChunk(500)]
      await store.put(await sampleBlock([twice, kept, twice]))
      await store.flush()
      assert.equal(store.usage.chunks, 2)
      const collection = store.collect()
      collection.keep([kept.id])
      await sweep(collection)
      collection.end()
      assert.equal(store.usage.chunks, 1)
      await expectWhole(store, [kept])
      await expectAbsent(store, [twice])
    })

    test('what is kept stays, everything else goes, and the space with it', async (store) => {
      const blocks = await fill(store)
      const kept = blocks.flatMap((samples, i) => (i < 3 ? samples : i < 6 ? samples.slice(1, 3) : []))
      const dead = blocks.flat().filter((sample) => !kept.includes(sample))
      const before = store.usage
      const collection = store.collect()
      collection.keep(idsOf(kept))
      assert.ok(garbageIn(await collection.survey(atOnce)) > 0)
      const freed = await sweep(collection)
      assert.ok(freed > before.storedBytes * 0.3)
      assert.equal(garbageIn(await collection.survey(atOnce)), 0)
      collection.end()
      assert.ok(store.usage.storedBytes < before.storedBytes * 0.7)
      assert.equal(store.usage.chunks, kept.length)
      await expectWhole(store, kept)
      await expectAbsent(store, dead)
    })

    test('nothing is so short that it stays as garbage: an empty chunk, one that stands twice', async (store) => {
      const [empty, twice, kept] = [sampleChunk(0), sampleChunk(30), sampleText(4000)] as const
      await store.put(await sampleBlock([empty, kept, kept, twice, twice]))
      const collection = store.collect()
      collection.keep([kept.id, twice.id])
      assert.ok(garbageIn(await collection.survey(atOnce)) > 0)
      await sweep(collection)
      assert.equal(garbageIn(await collection.survey(atOnce)), 0)
      collection.end()
      await expectWhole(store, [kept, twice])
      await expectAbsent(store, [empty])
    })

    test('nothing is garbage where all is kept', async (store) => {
      const blocks = await fill(store)
      const collection = store.collect()
      collection.keep(idsOf(blocks.flat()))
      assert.equal(garbageIn(await collection.survey(atOnce)), 0)
      collection.end()
    })

    test('what went can be stored again', async (store) => {
      const blocks = await fill(store)
      const collection = store.collect()
      await sweep(collection)
      collection.end()
      assert.equal(store.usage.chunks, 0)
      for (const samples of blocks) {
        const outcomes = await store.put(await sampleBlock(samples))
        assert.deepEqual(outcomes, ['stored', 'stored', 'stored', 'stored'])
      }
      await expectWhole(store, blocks.flat())
    })

    test('what a lease holds is kept, by a collection that began before it or after', async (store) => {
      const [first = [], second = [], third = []] = await fill(store, 3)
      const before = store.lease()
      for (const id of idsOf(first)) before.add(id)
      const collection = store.collect()
      const during = store.lease()
      for (const id of idsOf(second)) during.add(id)
      await sweep(collection)
      collection.end()
      await expectWhole(store, [...first, ...second])
      await expectAbsent(store, third)
      before.release()
      during.release()
      const next = store.collect()
      await sweep(next)
      next.end()
      assert.equal(store.usage.chunks, 0)
    })

    test('what anybody found present is kept', async (store) => {
      const [asked = [], put = [], read = [], fetched = [], dead = []] = await fill(store, 5)
      const collection = store.collect()
      await store.stat(idsOf(asked))
      await store.put(await sampleBlock(put))
      for (const id of idsOf(read)) await store.get(id)
      for await (const _ of store.blocks(idsOf(fetched)));
      const fresh = [sampleChunk(10)]
      await store.put(await sampleBlock(fresh))
      await sweep(collection)
      collection.end()
      await expectWhole(store, [...asked, ...put, ...read, ...fetched, ...fresh])
      await expectAbsent(store, dead)
    })

    test('what was concluded before it began is void', async (store) => {
      await fill(store, 1)
      const { losses, collections } = store
      const collection = store.collect()
      assert.deepEqual([store.losses, store.collections], [losses + 1, collections + 1])
      collection.end()
    })

    test('there is one at a time', async (store) => {
      const collection = store.collect()
      assert.throws(() => store.collect(), TypeError)
      collection.end()
      collection.end()
      store.collect().end()
    })

    test('whoever is told that a chunk is here finds it, whenever he asks', async (store) => {
      const blocks = await fill(store, 40)
      const all = blocks.flat()
      const collection = store.collect()
      collection.keep(idsOf(all.filter((_, i) => i % 7 === 0)))
      const promised = new Set<Sample>(all.filter((_, i) => i % 7 === 0))
      let done = false
      const asking = (async () => {
        for (let i = 0; !done; i++) {
          const sample = all[(i * 31) % all.length] as Sample
          const [length] = await store.stat([sample.id])
          if (length !== undefined) promised.add(sample)
          else assert.ok(!promised.has(sample))
          await turn()
        }
      })()
      await sweep(collection, { step: async () => void (await turn()) }).finally(() => {
        done = true
      })
      await asking
      collection.end()
      await expectWhole(store, [...promised])
    })

    test('readers are not disturbed', async (store) => {
      const blocks = await fill(store, 30)
      const kept = blocks.flatMap((samples) => samples.slice(0, 2))
      const collection = store.collect()
      collection.keep(idsOf(kept))
      let done = false
      const reading = (async () => {
        for (let i = 0; !done; i++) {
          const { id, bytes } = kept[i % kept.length] as Sample
          assert.deepEqual(await store.get(id), bytes)
          await turn()
        }
      })()
      const fetching = (async () => {
        const found = new Set<Id>()
        for await (const { header } of store.blocks(idsOf(kept))) {
          for (const { id } of header.rows) found.add(id)
          await turn()
        }
        for (const { id } of kept) assert.ok(found.has(id))
      })()
      await sweep(collection, { step: async () => void (await turn()) }).finally(() => {
        done = true
      })
      await Promise.all([reading, fetching])
      collection.end()
    })

    test('writers are not disturbed', async (store) => {
      await fill(store, 20)
      const collection = store.collect()
      const written: Sample[] = []
      let done = false
      const writing = (async () => {
        while (!done) {
          const samples = [sampleChunk(300), sampleText(300)]
          await store.put(await sampleBlock(samples))
          written.push(...samples)
          if (written.length % 10 === 0) await store.flush()
          await turn()
        }
      })()
      await sweep(collection, { step: async () => void (await turn()) }).finally(() => {
        done = true
      })
      await writing
      collection.end()
      await expectWhole(store, written)
      assert.equal(store.usage.chunks, written.length)
    })

    test('one that is interrupted anywhere has lost nothing, and the next goes on', async (store) => {
      const blocks = await fill(store, 12)
      const kept = blocks.flatMap((samples, i) => samples.slice(i % 3, 3))
      for (let steps = 0; steps < 30; steps++) {
        const collection = store.collect()
        collection.keep(idsOf(kept))
        let left = steps
        const step = async (): Promise<void> => {
          if (left-- === 0) throw new Error('stopped')
        }
        await sweep(collection, { step }).catch((error: Error) => assert.equal(error.message, 'stopped'))
        collection.end()
        await expectWhole(store, kept)
      }
      const collection = store.collect()
      collection.keep(idsOf(kept))
      await sweep(collection)
      collection.end()
      assert.equal(store.usage.chunks, kept.length)
    })

    test('after it was closed and opened again everything is as it was', async (store, subject) => {
      const blocks = await fill(store)
      const kept = blocks.flatMap((samples) => samples.slice(0, 1))
      const collection = store.collect()
      collection.keep(idsOf(kept))
      await sweep(collection)
      collection.end()
      const { usage } = store
      await store.close()
      const again = await subject.open()
      try {
        if (!again.capabilities.durable) return
        assert.deepEqual(again.usage, usage)
        await expectWhole(again, kept)
        await expectAbsent(
          again,
          blocks.flatMap((samples) => samples.slice(1)),
        )
      } finally {
        await again.close()
      }
    })
  })
}
