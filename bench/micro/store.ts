/** The pack store: appending blocks, making them durable. */

import type { VerifiedBlock } from '../../server/store/chunk-store.ts'
import { PackChunkStore } from '../../server/store/pack-chunk-store.ts'
import type { Rate } from './figures.ts'
import type { MachineLimits } from './machine.ts'
import { MiB, verifiedBlock } from './material.ts'
import { timingOf } from './timing.ts'

const putsAtOnce = 4

/** Puts blocks that were verified before, four at a time, then flushes; so often. */
export async function measureStore(
  folder: string,
  { cachedWrite, syncedWrite }: MachineLimits,
  rounds: number,
): Promise<Rate[]> {
  const rates: Rate[] = []
  for (const [kind, chunks] of Object.entries({ '256 chunks of 4 KiB': 256, 'one chunk': 1 })) {
    const store = await PackChunkStore.open(`${folder}/store-${chunks}`)
    const [puts, flushes]: [number[], number[]] = [[], []]
    for (let round = 0; round < rounds; round++) {
      // Below what makes a flush begin by itself.
      const blocks = await Promise.all(
        Array.from({ length: 48 }, (_, i) => verifiedBlock(`${chunks} ${round} ${i}`, chunks, MiB / chunks)),
      )
      const began = performance.now()
      await putAll(store, blocks)
      const written = performance.now()
      await store.flush()
      puts.push(written - began)
      flushes.push(performance.now() - began)
    }
    await store.close()
    const bytes = 48 * MiB
    rates.push(
      { name: `append: blocks of 1 MiB, ${kind}`, bytes, timing: timingOf(puts), limit: cachedWrite },
      { name: `append and flush: the same`, bytes, timing: timingOf(flushes), limit: syncedWrite },
    )
  }
  return rates
}

async function putAll(store: PackChunkStore, blocks: readonly VerifiedBlock[]): Promise<void> {
  const queue = blocks.values()
  const lane = async (): Promise<void> => {
    for (const block of queue) await store.put(block)
  }
  await Promise.all(Array.from({ length: putsAtOnce }, lane))
}
