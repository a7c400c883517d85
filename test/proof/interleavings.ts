/**
 * The proof that garbage collection and commits may meet in any order: `npm run proof:interleavings`.
 *
 * Every order of the client's requests and the collection's stages, for each behaviour of a client; then orders of their
 * single calls of the store, drawn from seeds.
 *
 *     CHUNKDAV_RACES   drawn orders for each behaviour, default 300
 *     CHUNKDAV_SEED    the seed of the first one; each next has the next number
 */
import { type Behaviour, behaviours, race } from './gc-race.ts'
import { type Choose, Exhaustive, seeded } from './interleave.ts'

const drawn = Number(process.env.CHUNKDAV_RACES ?? 300)
const firstSeed = Number(process.env.CHUNKDAV_SEED ?? Date.now() % 1_000_000_000)
const begun = performance.now()
let failures = 0

interface Count {
  orders: number
  steps: number
  conflicts: number
}

async function run(
  behaviour: Behaviour,
  choose: Choose,
  fine: boolean,
  count: Count,
  about: string,
): Promise<void> {
  try {
    const { order, conflicts } = await race({ behaviour, choose, fine })
    count.orders++
    count.steps += order.length
    count.conflicts += conflicts
  } catch (error) {
    failures++
    console.error(`failed: ${behaviour}, ${about}`, error)
  }
}

console.log(`drawn orders from seed ${firstSeed} on`)
for (const behaviour of behaviours) {
  const all: Count = { orders: 0, steps: 0, conflicts: 0 }
  const exhaustive = new Exhaustive()
  while (exhaustive.next()) await run(behaviour, exhaustive.choose, false, all, `order ${all.orders}`)
  const some: Count = { orders: 0, steps: 0, conflicts: 0 }
  for (let i = 0; i < drawn; i++)
    await run(behaviour, seeded(firstSeed + i), true, some, `seed ${firstSeed + i}`)
  console.log(
    `${behaviour}: all ${all.orders} orders of requests (${all.conflicts} conflicts), ${some.orders} orders of calls (${some.steps} steps, ${some.conflicts} conflicts)`,
  )
}
console.log(`${failures} holes or other failures, ${((performance.now() - begun) / 1000).toFixed(1)} s`)
process.exitCode = failures > 0 ? 1 : 0
