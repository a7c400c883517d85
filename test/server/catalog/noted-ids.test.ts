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
    expect(noted.fresh('a', ids, 0)).toEqual([])
    expect(noted.fresh('b', ids, 0)).toEqual(ids)
    const content = touched(0, 3, true)
    expect(noted.fresh('a', [...ids, ...content], 0)).toEqual(content)
  })

  it('is forgotten when something was lost', () => {
    const noted = new NotedIds()
    noted.fresh('a', touched(0, 3), 0)
    expect(noted.fresh('a', touched(0, 3), 1)).toHaveLength(3)
  })

  it('is forgotten when it was not written, and of no other log', () => {
    const noted = new NotedIds()
    noted.fresh('a', touched(0, 3), 0)
    noted.fresh('b', touched(0, 3), 0)
    noted.forget('a')
    noted.forget('none')
    expect(noted.fresh('a', touched(0, 3), 0)).toHaveLength(3)
    expect(noted.fresh('b', touched(0, 3), 0)).toEqual([])
  })

  it('is bounded: what was noted in least lately goes first', () => {
    const noted = new NotedIds()
    noted.fresh('old', touched(0, 1000), 0)
    for (let first = 0; first < 100_000; first += 10_000) noted.fresh('busy', touched(first, 10_000), 0)
    expect(noted.fresh('busy', touched(0, 100_000), 0)).toEqual([])
    noted.fresh('busy', touched(100_000, 10), 0)
    expect(noted.fresh('busy', touched(10, 100_000), 0)).toEqual([])
    expect(noted.fresh('old', touched(0, 1000), 0)).toHaveLength(1000)
  })
})
