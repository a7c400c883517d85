/** Lists in parts: what does not fit together is refused, in whatever order it came and however much is remembered. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Id } from '../../../protocol/id.ts'
import {
  type EncodedObject,
  encodeDirectoryObject,
  encodeDirectoryParts,
  encodeFileObject,
} from '../../../protocol/objects.ts'
import { type Catalog, openCatalog } from '../../../server/catalog/catalog.ts'
import type { ChunkReader } from '../../../server/catalog/chunk-reader.ts'
import { decodeObject, type ObjectKind } from '../../../server/catalog/objects.ts'
import { attributes, chunk, directoryEntry, fileEntry } from '../requests.ts'

const chunks = new Map<Id, Buffer>()
const reader: ChunkReader = {
  losses: 0,
  stat: async (ids) => ids.map((id) => chunks.get(id)?.length),
  get: async (id) => chunks.get(id),
  flush: async () => {},
}

function keep<T extends EncodedObject>(item: T): T {
  chunks.set(item.id, item.bytes)
  return item
}

let path: string
let catalog: Catalog
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'chunkdav-parts-'))
  chunks.clear()
  keep(content)
  catalog = await openCatalog(path, reader)
})
afterEach(() => rm(path, { recursive: true }))

const content = chunk('deep')
const size = content.bytes.length

async function commit(root: EncodedObject): Promise<string> {
  const { number } = await catalog.checkpoints.begin('s', { kind: 'dir' })
  try {
    return (await catalog.checkpoints.commit({ source: 's', number }, { root: root.id })).state
  } catch (error) {
    return (error as { code: string }).code
  }
}

/** As a PUT of each, from the leaves up: each is remembered when it is whole. */
async function putAll(kind: ObjectKind, items: readonly EncodedObject[]): Promise<string> {
  for (const { id, bytes } of items) {
    try {
      await catalog.closure.lacking({ id, as: kind, within: id }, decodeObject(kind, bytes))
    } catch (error) {
      return (error as { code: string }).code
    }
  }
  return 'whole'
}

/** File objects in one another, the innermost first. */
function nestedFiles(levels: number): EncodedObject[] {
  const files: EncodedObject[] = []
  for (let level = 0; level < levels; level++) {
    const below = files.at(-1)
    files.push(
      keep(
        encodeFileObject(
          [below ? { id: below.id, size, chunked: true } : { id: content.id, size }],
          undefined,
        ),
      ),
    )
  }
  return files
}

const leaf = (...names: string[]): EncodedObject =>
  keep(encodeDirectoryObject(names.map((name) => fileEntry(name, content))))
const inParts = (...parts: [EncodedObject, number][]): EncodedObject =>
  keep(encodeDirectoryParts(parts.map(([{ id }, entries]) => ({ id, entries }))))

function nestedDirectories(levels: number): EncodedObject[] {
  const directories = [leaf('x')]
  while (directories.length < levels) directories.push(inParts([directories.at(-1) as EncodedObject, 1]))
  return directories
}

const rootOf = (file: EncodedObject): EncodedObject =>
  keep(encodeDirectoryObject([{ kind: 'file', name: 'f', ...attributes, id: file.id, size, chunked: true }]))

describe('parts that nest', () => {
  test.each([
    ['file', 8, 'whole', 'committed'],
    ['file', 9, 'invalid-object', 'invalid-object'],
    ['file', 12, 'invalid-object', 'invalid-object'],
    ['directory', 9, 'whole', 'committed'],
    ['directory', 10, 'invalid-object', 'invalid-object'],
  ] as const)('%s objects, %i of them', async (kind, levels, put, committed) => {
    const items = kind === 'file' ? nestedFiles(levels) : nestedDirectories(levels)
    const top = items.at(-1) as EncodedObject
    const root = kind === 'file' ? rootOf(top) : top
    expect(await commit(root), 'nothing is remembered').toBe(committed)
    expect(await putAll(kind, items), 'bottom-up').toBe(put)
    expect(await commit(root), 'the lower ones are remembered').toBe(committed)
  })

  test('are no deeper for being a part in one place and a directory of its own in another', async () => {
    const [own, ...more] = nestedDirectories(9) as [EncodedObject, ...EncodedObject[]]
    const top = more.at(-1) as EncodedObject
    const both = keep(encodeDirectoryObject([directoryEntry('a', own), directoryEntry('b', top)]))
    expect(await commit(both)).toBe('committed')
  })
})

describe('the parts of a directory', () => {
  const cases: [string, () => EncodedObject, string][] = [
    ['in order', () => inParts([leaf('a', 'b'), 2], [leaf('c'), 1]), 'committed'],
    ['with an empty one between', () => inParts([leaf('a'), 1], [leaf(), 0], [leaf('b'), 1]), 'committed'],
    ['with the empty one twice', () => inParts([leaf(), 0], [leaf(), 0]), 'committed'],
    ['out of order', () => inParts([leaf('b'), 1], [leaf('a'), 1]), 'invalid-object'],
    ['one of them twice', () => inParts([leaf('a'), 1], [leaf('a'), 1]), 'invalid-object'],
    ['that overlap', () => inParts([leaf('a', 'c'), 2], [leaf('b', 'd'), 2]), 'invalid-object'],
    ['that share a name', () => inParts([leaf('a', 'b'), 2], [leaf('b', 'c'), 2]), 'invalid-object'],
    [
      'out of order with an empty one between',
      () => inParts([leaf('b'), 1], [leaf(), 0], [leaf('a'), 1]),
      'invalid-object',
    ],
    ['of more entries than stated', () => inParts([leaf('a', 'b'), 1]), 'invalid-object'],
    ['of fewer entries than stated', () => inParts([leaf('a'), 77]), 'invalid-object'],
    ['none of which was counted', () => inParts([leaf('a'), 0]), 'invalid-object'],
    [
      'out of order two levels down',
      () => inParts([inParts([leaf('c'), 1]), 1], [inParts([leaf('a'), 1], [leaf('b'), 1]), 2]),
      'invalid-object',
    ],
    [
      'ordered as bytes, not as UTF-16',
      () => inParts([leaf('\uffee'), 1], [leaf('\u{1f600}'), 1]),
      'committed',
    ],
    [
      'one of which waits in a directory further down',
      () => {
        const shared = leaf('b')
        const bad = inParts([leaf('c'), 1], [shared, 1])
        const ten = Array.from({ length: 10 }, (_, i) => leaf(`x${i}`))
        // `shared` and `bad` stand in different groups of one frame.
        const middle = ten.map((directory, i) => directoryEntry(`m${i}`, directory))
        const entries = [directoryEntry('a', shared), directoryEntry('b', bad), ...middle]
        return keep(encodeDirectoryObject([...entries, directoryEntry('z', shared)]))
      },
      'invalid-object',
    ],
    [
      'one of which waits further up',
      () => {
        const shared = leaf('b')
        const bad = inParts([leaf('c'), 1], [shared, 1])
        const ten = Array.from({ length: 10 }, (_, i) => directoryEntry(`m${i}`, leaf(`x${i}`)))
        return keep(encodeDirectoryObject([directoryEntry('a', bad), ...ten, directoryEntry('z', shared)]))
      },
      'invalid-object',
    ],
  ]

  test.each(cases)('%s', async (_, make, expected) => {
    const root = make()
    expect(await commit(root)).toBe(expected)
    const above = keep(encodeDirectoryObject([directoryEntry('sub', root)]))
    expect(await commit(above), 'below another').toBe(expected)
  })

  test('that are remembered are checked when what has them comes', async () => {
    const [a, b] = [leaf('a'), leaf('b')]
    const wrong = inParts([b, 1], [a, 1])
    expect(await putAll('directory', [a, b, wrong])).toBe('invalid-object')
    expect(await putAll('directory', [a, b, inParts([a, 1], [b, 1])])).toBe('whole')
  })
})

test('one file under two sizes is refused also when both stand in one directory', async () => {
  const file = keep(encodeFileObject([{ id: content.id, size }], undefined))
  const entry = { kind: 'file', ...attributes, id: file.id, chunked: true } as const
  const root = keep(
    encodeDirectoryObject([
      { ...entry, name: 'a', size },
      { ...entry, name: 'b', size: size + 1 },
    ]),
  )
  expect(await commit(root)).toBe('invalid-object')
})
