/** Walks over so many chunks that they are looked up while the walk goes on. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { beforeAll, describe, expect, it } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import type { Id } from '../../../protocol/id.ts'
import { type EncodedObject, encodeDirectoryObject, encodeFileObject } from '../../../protocol/objects.ts'
import type { ChunkReader } from '../../../server/catalog/chunk-reader.ts'
import { Closure } from '../../../server/catalog/closure.ts'
import { wantedRoot } from '../../../server/catalog/wanted.ts'
import { directoryEntry, fileEntry } from '../requests.ts'

const files = 40
const chunksOfFile = 1500
const chunkIds: Id[] = []
const objects = new Map<Id, Buffer>()
let root: EncodedObject

const keep = (object: EncodedObject): EncodedObject => {
  objects.set(object.id, object.bytes)
  return object
}
const nameOf = (number: number): string => String(number).padStart(4, '0')

beforeAll(() => {
  for (let i = 0; i < files * chunksOfFile; i++) chunkIds.push(hashId(Buffer.from(String(i))))
  const directories: EncodedObject[] = []
  for (let file = 0; file < files; file++) {
    const ids = chunkIds.slice(file * chunksOfFile, (file + 1) * chunksOfFile)
    const object = keep(
      encodeFileObject(
        ids.map((id) => ({ id, size: 1 })),
        undefined,
      ),
    )
    const entry = { ...fileEntry('x', object), chunked: true as const, size: ids.length }
    directories.push(keep(encodeDirectoryObject([entry])))
  }
  // Everything is in two directories, and each of these is in the root.
  const half = (name: string) => {
    const entries = directories.map((directory, i) => directoryEntry(`${nameOf(i)}${name}`, directory))
    return directoryEntry(name, keep(encodeDirectoryObject(entries)))
  }
  root = keep(encodeDirectoryObject([half('a'), half('b')]))
})

class SlowReader implements ChunkReader {
  losses = 0
  looked = 0
  readonly absent = new Set<Id>()
  private readonly turns: number

  constructor(turns: number) {
    this.turns = turns
  }

  async stat(ids: readonly Id[]): Promise<(number | undefined)[]> {
    this.looked += ids.length
    for (let turn = 0; turn < this.turns; turn++) await nextTurn()
    return ids.map((id) => (this.absent.has(id) ? undefined : 1))
  }

  async get(id: Id): Promise<Buffer | undefined> {
    return objects.get(id)
  }

  async flush(): Promise<void> {}
}

const missing = async (closure: Closure): Promise<Id[]> => {
  return (await closure.missing([[wantedRoot(root.id)]])).map(({ id }) => id)
}

const last = files * chunksOfFile - 1
describe.each([0, 3, 30, 200])('where a lookup takes %d turns', (turns) => {
  it.each([0, 16_383, 16_384, 20_000, 33_333, last])('chunk %d is missed each time', async (place) => {
    const reader = new SlowReader(turns)
    const closure = new Closure(reader)
    const gone = chunkIds[place] as Id
    reader.absent.add(gone)
    expect(await missing(closure)).toEqual([gone])
    expect(await missing(closure)).toEqual([gone])
    expect(closure.recall({ id: root.id, as: 'directory', within: root.id })).toBe(undefined)
    reader.absent.delete(gone)
    expect(await missing(closure)).toEqual([])
    expect(closure.recall({ id: root.id, as: 'directory', within: root.id })).toBeDefined()
  })

  it('each chunk is looked up once, and none again', async () => {
    const reader = new SlowReader(turns)
    const closure = new Closure(reader)
    expect(await missing(closure)).toEqual([])
    expect(reader.looked).toBe(chunkIds.length)
    expect(await missing(closure)).toEqual([])
    expect(reader.looked).toBe(chunkIds.length)
  })

  it('nothing is remembered of a walk under which something was lost', async () => {
    const reader = new SlowReader(turns)
    const closure = new Closure(reader)
    const walk = missing(closure)
    await nextTurn()
    reader.losses++
    expect(await walk).toEqual([])
    expect(closure.recall({ id: root.id, as: 'directory', within: root.id })).toBe(undefined)
  })
})
