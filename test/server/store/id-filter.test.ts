import { describe, expect, it } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import type { Id } from '../../../protocol/id.ts'
import { IdFilter } from '../../../server/store/id-filter.ts'

const idsFrom = (first: number, count: number): Id[] =>
  Array.from({ length: count }, (_, i) => hashId(Buffer.from(String(first + i)), i % 2 ? 'sha256' : 'blake3'))

describe('a filter of ids', () => {
  const sizes = [0, 1, 1000, 50_000]
  it.each(sizes)('never denies one that was added, whatever it was made for (%d)', (expected) => {
    const filter = new IdFilter(expected)
    const ids = idsFrom(0, 20_000)
    for (const id of ids) filter.add(id)
    expect(ids.filter((id) => !filter.has(id))).toEqual([])
  })

  it('seldom takes another for one of them', () => {
    const filter = new IdFilter(20_000)
    for (const id of idsFrom(0, 20_000)) filter.add(id)
    const mistaken = idsFrom(20_000, 20_000).filter((id) => filter.has(id))
    expect(mistaken.length).toBeLessThan(60)
  })

  it('takes others in each collection', () => {
    const mistaken = [new IdFilter(0), new IdFilter(0)].map((filter) => {
      for (const id of idsFrom(0, 20_000)) filter.add(id)
      return new Set(idsFrom(20_000, 20_000).filter((id) => filter.has(id)))
    }) as [Set<Id>, Set<Id>]
    expect(mistaken[0].size).toBeGreaterThan(100)
    const both = [...mistaken[0]].filter((id) => mistaken[1].has(id))
    expect(both.length).toBeLessThan(mistaken[0].size)
  })
})
