/** Reading what nobody verified: objects can be put as chunks, so what they announce may be false. */
import { describe, expect, test } from 'vitest'
import type { Id } from '../../../protocol/id.ts'
import {
  type EncodedObject,
  encodeDirectoryObject,
  encodeDirectoryParts,
  encodeFileObject,
} from '../../../protocol/objects.ts'
import type { DirectoryPart } from '../../../protocol/schema.ts'
import type { ChunkReader } from '../../../server/catalog/chunk-reader.ts'
import { readContent } from '../../../server/catalog/content.ts'
import { entriesOf, resolvePath } from '../../../server/catalog/directory.ts'
import { findEntry } from '../../../server/catalog/find-entry.ts'
import { chunk, fileEntry } from '../requests.ts'

class CountingReader implements ChunkReader {
  readonly losses = 0
  readonly chunks = new Map<Id, Buffer>()
  gets = 0
  onGet: () => void = () => {}

  keep<T extends EncodedObject>(item: T): T {
    this.chunks.set(item.id, item.bytes)
    return item
  }

  async stat(ids: readonly Id[]): Promise<(number | undefined)[]> {
    return ids.map((id) => this.chunks.get(id)?.length)
  }

  async get(id: Id): Promise<Buffer | undefined> {
    this.gets++
    this.onGet()
    return this.chunks.get(id)
  }

  async flush(): Promise<void> {}
}

/** Levels of parts, each `width` times the one below, that announce what `entriesAt` says. */
function bomb(
  reader: CountingReader,
  leaf: EncodedObject,
  width: number,
  entriesAt: (level: number) => number,
) {
  let top = leaf
  for (let level = 0; level < 8; level++) {
    const part = { id: top.id, entries: entriesAt(level) }
    top = reader.keep(encodeDirectoryParts(Array.from({ length: width }, () => part)))
  }
  return top
}

const x = Buffer.from('x')

describe('a directory of parts of parts, each of them many times', () => {
  test('of nothing: it is not entered', async () => {
    const reader = new CountingReader()
    const top = bomb(reader, reader.keep(encodeDirectoryObject([])), 4000, () => 0)
    await expect(resolvePath(reader, top.id, [x])).rejects.toMatchObject({ code: 'not-found' })
    expect(reader.gets).toBe(1)
  })

  test.each([
    ['one entry each', 1, (_: number) => 1],
    ['as many as would be', 1, (level: number) => 10 ** level],
    ['none at all in truth', 0, (_: number) => 1],
  ])('said to hold %s: refused where it turns out false', async (_, entries, entriesAt) => {
    const reader = new CountingReader()
    const leaf = encodeDirectoryObject(entries === 0 ? [] : [fileEntry('a', chunk('a'))])
    const top = bomb(reader, reader.keep(leaf), 10, entriesAt)
    await expect(resolvePath(reader, top.id, [x])).rejects.toMatchObject({ code: 'invalid-object' })
    expect(reader.gets).toBeLessThan(20)
  })
})

test('nobody waits any more: reading a directory ends', async () => {
  const reader = new CountingReader()
  const leaves = Array.from({ length: 50 }, (_, i) =>
    reader.keep(encodeDirectoryObject([fileEntry(`f${100 + i}`, chunk('a'))])),
  )
  const top = reader.keep(encodeDirectoryParts(leaves.map(({ id }) => ({ id, entries: 1 }))))
  const gone = new AbortController()
  reader.onGet = () => {
    if (reader.gets === 10) gone.abort()
  }
  const read = async (): Promise<void> => {
    for await (const _ of entriesOf(reader, top.id, gone.signal));
  }
  await expect(read()).rejects.toMatchObject({ code: 'unavailable' })
  expect(reader.gets).toBe(10)
  reader.onGet = () => {}
  let count = 0
  for await (const _ of entriesOf(reader, top.id)) count++
  expect(count).toBe(50)
})

test('reading lets the event loop turn', async () => {
  const reader = new CountingReader()
  const leaf = reader.keep(encodeDirectoryObject([fileEntry('a', chunk('a'))]))
  const top = reader.keep(encodeDirectoryParts([{ id: leaf.id, entries: 1 }]))
  let turned = false
  setImmediate(() => {
    turned = true
  })
  for await (const _ of entriesOf(reader, top.id)) expect(turned).toBe(true)
})

test('parts of a file that have no bytes are not entered', async () => {
  const reader = new CountingReader()
  const [a, none] = [reader.keep(chunk('a')), reader.keep(chunk(''))]
  let empty = encodeFileObject([{ id: none.id, size: 0 }], undefined)
  for (let level = 0; level < 6; level++) {
    const part = { id: reader.keep(empty).id, size: 0, chunked: true } as const
    empty = encodeFileObject(
      Array.from({ length: 100 }, () => part),
      undefined,
    )
  }
  const nothing = { id: reader.keep(empty).id, size: 0, chunked: true } as const
  const one = { id: a.id, size: 1 }
  const file = reader.keep(encodeFileObject([one, nothing, one], undefined))
  const pieces: Buffer[] = []
  for await (const piece of readContent(reader, { id: file.id, size: 2, chunked: true })) pieces.push(piece)
  expect(Buffer.concat(pieces).toString()).toBe('aa')
  expect(reader.gets).toBe(3)
})

describe('a name in a directory of parts of parts', () => {
  const names = Array.from({ length: 4096 }, (_, i) => `f${String(i * 2).padStart(6, '0')}`)

  /** Levels of `width` parts each, with some of nothing between them. */
  function largeDirectory(reader: CountingReader, width: number): EncodedObject {
    const nothing = { id: reader.keep(encodeDirectoryObject([])).id, entries: 0 }
    let parts: DirectoryPart[] = []
    for (let first = 0; first < names.length; first += width) {
      const entries = names.slice(first, first + width).map((name) => fileEntry(name, chunk('')))
      parts.push({ id: reader.keep(encodeDirectoryObject(entries)).id, entries: entries.length }, nothing)
    }
    for (;;) {
      const above: DirectoryPart[] = []
      for (let first = 0; first < parts.length; first += width) {
        const some = parts.slice(first, first + width)
        const entries = some.reduce((sum, part) => sum + part.entries, 0)
        const object = reader.keep(encodeDirectoryParts(some))
        if (some.length === parts.length) return object
        above.push({ id: object.id, entries })
      }
      parts = above
    }
  }

  test.each([8, 64, 5000])(
    'parts of %i: every name is found, nothing else is, and little is read',
    async (width) => {
      const reader = new CountingReader()
      const { id } = largeDirectory(reader, width)
      for (const [i, name] of names.entries()) {
        if (i % 13 > 0) continue
        expect(await findEntry(reader, id, Buffer.from(name))).toMatchObject({ name })
        for (const other of [`${name}0`, `f${String(i * 2 + 1).padStart(6, '0')}`]) {
          expect(await findEntry(reader, id, Buffer.from(other))).toBe(undefined)
        }
      }
      for (const outside of ['e', 'f', 'g'])
        expect(await findEntry(reader, id, Buffer.from(outside))).toBe(undefined)
      const fresh = new CountingReader()
      for (const [key, bytes] of reader.chunks) fresh.chunks.set(key, bytes)
      await findEntry(fresh, id, Buffer.from('f003333'))
      expect(fresh.gets).toBeLessThan(40)
      const once = fresh.gets
      await findEntry(fresh, id, Buffer.from('f003334'))
      expect(fresh.gets).toBe(once)
    },
  )
})
