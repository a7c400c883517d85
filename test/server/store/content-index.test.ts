/** The index by itself: what it remembers as absent, and lookups of many ids at once. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import { type Id, idToBytes } from '../../../protocol/id.ts'
import { ContentIndex, type NewRow } from '../../../server/store/content-index.ts'
import { IdFilter } from '../../../server/store/id-filter.ts'

let folder: string
let index: ContentIndex
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-index-'))
  index = await ContentIndex.open(folder)
})
afterEach(async () => {
  await index.close()
  await rm(folder, { recursive: true })
})

const idOf = (number: number): Id => hashId(Buffer.from(String(number)), number % 3 ? 'blake3' : 'sha256')
const idsFrom = (first: number, count: number): Id[] =>
  Array.from({ length: count }, (_, i) => idOf(first + i))
const rowOf = (id: Id, length: number): NewRow => {
  return { id, length, location: { pack: 1, offset: 16 * length, bytes: 100 }, added: true }
}
const put = (first: number, count: number): void => {
  for (let i = first; i < first + count; i++) index.add(rowOf(idOf(i), i))
}
const flush = async (): Promise<void> => {
  index.freeze()
  await index.commit({ pack: 1, offset: 1 })
}
const asked = async (): Promise<number | undefined> => (await index.lengths([idOf(7)]))[0]

describe('an id that was asked about and is absent', () => {
  const fates: Record<string, { run: () => Promise<unknown>; length: number | undefined }> = {
    'is put': { run: async () => put(7, 1), length: 7 },
    'is put and flushed': {
      run: async () => {
        put(7, 1)
        await flush()
      },
      length: 7,
    },
    'is put, and asked about while it is flushed': {
      run: async () => {
        put(7, 1)
        index.freeze()
        const committed = index.commit({ pack: 1, offset: 1 })
        expect(await Promise.all([asked(), asked()])).toEqual([7, 7])
        await committed
      },
      length: 7,
    },
    'is put, and what is in memory is dropped': {
      run: async () => {
        put(7, 1)
        index.dropUnsynced()
        await index.reopen()
      },
      length: undefined,
    },
    'is put and flushed, and the index is opened again': {
      run: async () => {
        put(7, 1)
        await flush()
        await index.reopen()
      },
      length: 7,
    },
    'is put, flushed and removed': {
      run: async () => {
        put(7, 1)
        await flush()
        expect(await asked()).toBe(7)
        expect(await index.removeRows(() => true, [idOf(7)])).toBe(1)
      },
      length: undefined,
    },
    'is put and flushed, not kept, and put again': {
      run: async () => {
        put(7, 1)
        await flush()
        index.keeper = new IdFilter(10)
        const removed = index.removeUnkept(1, [idOf(7)])
        await removed
        expect(await asked()).toBe(undefined)
        put(7, 1)
        await flush()
      },
      length: 7,
    },
    'is in an index that is emptied': {
      run: async () => {
        put(7, 1)
        await flush()
        await index.clear()
      },
      length: undefined,
    },
  }
  it.each(Object.entries(fates))('and then %s', async (_name, { run, length }) => {
    expect(await asked()).toBe(undefined)
    expect(await asked()).toBe(undefined)
    await run()
    expect(await asked()).toBe(length)
    expect(await asked()).toBe(length)
  })
})

describe('a lookup of many', () => {
  it('answers in the order of the question, from memory and from the disk', async () => {
    put(0, 30_000)
    await flush()
    put(30_000, 20_000)
    // More than are sorted at once; every third is absent, some are asked about twice.
    const numbers = Array.from({ length: 70_000 }, (_, i) => (i * 7919) % 75_000)
    const expected = numbers.map((number) => (number < 50_000 ? number : undefined))
    expect(await index.lengths(numbers.map(idOf))).toEqual(expected)
    const rows = await index.find(numbers.slice(0, 1000).map(idOf))
    expect(rows.map((row) => row?.location.offset)).toEqual(
      expected.slice(0, 1000).map((length) => length && 16 * length),
    )
  })

  it('keeps what it finds, and only that', async () => {
    put(0, 3000)
    await flush()
    put(3000, 1000)
    index.keeper = new IdFilter(10_000)
    await index.peek(idsFrom(0, 3000))
    expect(await index.removeUnkept(1, idsFrom(0, 10))).toBe(10)
    expect(await index.lengths(idsFrom(0, 1000))).toEqual(
      Array.from({ length: 1000 }, (_, i) => (i < 10 ? undefined : i)),
    )
    expect(await index.removeUnkept(1, idsFrom(0, 3000))).toBeGreaterThan(1900)
    expect(await index.lengths(idsFrom(10, 990))).not.toContain(undefined)
    expect(await index.lengths(idsFrom(3000, 1000))).not.toContain(undefined)
  })

  it('while rows go: each is kept, or absent', async () => {
    put(0, 20_000)
    await flush()
    index.keeper = new IdFilter(20_000)
    const ids = idsFrom(0, 20_000)
    const removals = (async () => {
      for (let first = 0; first < 20_000; first += 500)
        await index.removeUnkept(1, ids.slice(first, first + 500))
    })()
    const found = await index.lengths(ids)
    await removals
    const now = await index.peek(ids)
    expect(ids.filter((_, i) => found[i] !== undefined && now[i] === undefined)).toEqual([])
  })

  it('fails as a whole when a row is damaged', async () => {
    put(0, 2000)
    await flush()
    await index.close()
    const level = new Level<Buffer, Buffer>(folder, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    await level.put(idToBytes(idOf(1234)), Buffer.alloc(20))
    await level.close()
    index = await ContentIndex.open(folder)
    await expect(index.lengths(idsFrom(0, 2000))).rejects.toMatchObject({ code: 'store-corrupt' })
    expect(await index.lengths(idsFrom(0, 1000))).not.toContain(undefined)
  })
})
