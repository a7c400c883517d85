import { expect, test } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import { IdFilter } from '../../../server/store/id-filter.ts'
import { Leases } from '../../../server/store/leases.ts'

const ids = Array.from({ length: 10_000 }, (_, i) =>
  hashId(Buffer.from(String(i)), i % 3 ? 'blake3' : 'sha256'),
)

test.each([0, 1, 4096, 4097, 10_000])(
  'a collection learns of all %i ids that are held, and of none given back',
  (count) => {
    const leases = new Leases()
    const [held, released] = [leases.begin(), leases.begin()]
    for (const id of ids.slice(0, count)) held.add(id)
    for (const id of ids.slice(count)) released.add(id)
    released.release()
    const filter = new IdFilter(100_000)
    leases.addTo(filter)
    expect(ids.slice(0, count).every((id) => filter.has(id))).toBe(true)
    expect(ids.slice(count).filter((id) => filter.has(id)).length).toBeLessThan(10)
  },
)

test('what is held while a collection is under way is told to it at once', () => {
  const leases = new Leases()
  leases.filter = new IdFilter(10_000)
  const held = leases.begin()
  for (const id of ids) held.add(id)
  expect(ids.every((id) => leases.filter?.has(id))).toBe(true)
})
