import { describe, expect, it } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import type { TouchedId } from '../../../server/catalog/checkpoint-roots.ts'
import { NotedIds } from '../../../server/catalog/noted-ids.ts'

const touched = (first: number, count: number, isContent = false): TouchedId[] =>
  Array.from({ length: count }, (_, i) => ({ id: hashId(Buffer.from(String(first + i))), isContent }))

describe('what is noted', () => {
  it('is fresh once for each log, and what is content once more as that', () => {
    const noted = new NotedIds()
    const ids = touched(0, 3)
    expect(noted.fresh('a', [...ids, ...ids], 0)).toEqual(ids)
    noted.note('a', ids)
    expect(noted.fresh('a', ids, 0)).toEqual([])
    expect(noted.fresh('b', ids, 0)).toEqual(ids)
    const content = touched(0, 3, true)
    expect(noted.fresh('a', [...ids, ...content], 0)).toEqual(content)
  })

  it('is forgotten when something was lost', () => {
    const noted = new NotedIds()
    noted.note('a', touched(0, 3))
    expect(noted.fresh('a', touched(0, 3), 1)).toHaveLength(3)
  })

  it('is bounded: what was noted in least lately goes first', () => {
    const noted = new NotedIds()
    noted.note('old', touched(0, 1000))
    noted.note('busy', touched(0, 1000))
    for (let first = 1000; first < 100_000; first += 9000) noted.note('busy', touched(first, 9000))
    expect(noted.fresh('old', touched(0, 1000), 0)).toHaveLength(1000)
    expect(noted.fresh('busy', touched(0, 100_000), 0)).toEqual([])
    noted.note('busy', touched(100_000, 10))
    expect(noted.fresh('busy', touched(0, 100_010), 0)).toEqual(touched(0, 10))
  })
})
