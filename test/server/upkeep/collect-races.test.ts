/** A few of the races of `npm run proof:interleavings`, which has them all. */
import { expect, test } from 'vitest'
import { behaviours, race } from '../../proof/gc-race.ts'
import { seeded } from '../../proof/interleave.ts'

test.each(behaviours.flatMap((behaviour) => [1, 2, 3].map((seed) => [behaviour, seed] as const)))(
  'a client that %s meets a collection and loses nothing (seed %d)',
  async (behaviour, seed) => {
    const { order } = await race({ behaviour, choose: seeded(seed), fine: true })
    expect(new Set(order)).toEqual(new Set(['client', 'gc']))
  },
)
