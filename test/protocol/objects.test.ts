import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import {
  decodeDirectoryObject,
  decodeFileObject,
  encodeDirectoryObject,
  encodeFileObject,
  encodeName,
  encodeTarget,
  endsPart,
  listParameters,
  nameBytes,
  nameFault,
  referencesOfDirectory,
  referencesOfFile,
} from '../../protocol/objects.ts'
import type { Entry, Part } from '../../protocol/schema.ts'
import { cutList } from '../support/vectors/cuts.ts'
import { readVectors } from '../support/vectors/read.ts'

interface ObjectVector {
  name: string
  text: string
  blake3: string
  sha256: string
}
const vectors = readVectors<{
  files: ObjectVector[]
  directories: ObjectVector[]
  invalidFiles: { reason: string; text: string }[]
  invalidDirectories: { reason: string; text: string }[]
  notUtf8: { hex: string }
}>('objects.json')
const lists = readVectors<{
  cases: { name: string; count: number; lengths: number[] }[]
  sameKey: { key: string; count: number; lengths: number[] }
}>('lists.json')
const invalid = expect.objectContaining({ code: 'invalid-object' })

describe('file objects', () => {
  test.each(vectors.files)('$name', ({ text, blake3, sha256 }) => {
    const object = decodeFileObject(Buffer.from(text))
    expect(encodeFileObject(object.parts, object.digest)).toEqual({ id: blake3, bytes: Buffer.from(text) })
    expect(encodeFileObject(object.parts, object.digest, 'sha256').id).toBe(sha256)
  })
  test.each(vectors.invalidFiles)('refused: $reason', ({ text }) => {
    expect(() => decodeFileObject(Buffer.from(text))).toThrow(invalid)
  })
  test('are no directory objects', () => {
    for (const { text } of vectors.files)
      expect(() => decodeDirectoryObject(Buffer.from(text))).toThrow(invalid)
  })
})

describe('directory objects', () => {
  test.each(vectors.directories)('$name', ({ text, blake3, sha256 }) => {
    const object = decodeDirectoryObject(Buffer.from(text))
    expect(JSON.stringify(object)).toBe(text)
    expect(hashId(Buffer.from(text))).toBe(blake3)
    expect(hashId(Buffer.from(text), 'sha256')).toBe(sha256)
  })
  test.each(vectors.invalidDirectories)('refused: $reason', ({ text }) => {
    expect(() => decodeDirectoryObject(Buffer.from(text))).toThrow(invalid)
  })
  test('are no file objects', () => {
    for (const { text } of vectors.directories)
      expect(() => decodeFileObject(Buffer.from(text))).toThrow(invalid)
  })
  test('refused: bytes that are not UTF-8', () => {
    expect(() => decodeDirectoryObject(Buffer.from(vectors.notUtf8.hex, 'hex'))).toThrow(invalid)
  })
  test('refused: nested beyond measure', () => {
    const deep = `${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}`
    expect(() => decodeDirectoryObject(Buffer.from(deep))).toThrow(invalid)
  })
  test('white space, escapes and the order of members are free to others', () => {
    const text =
      '{ "entries": [{"mtimeNs":"0","gid":0,"uid":0,"mode":0,"name":"\\u0061","kind":"fifo"}],\n"type":"directory" }'
    expect(decodeDirectoryObject(Buffer.from(text))).toMatchObject({ entries: [{ name: 'a' }] })
  })
})

const anyId = fc
  .uint8Array({ minLength: 32, maxLength: 32 })
  .map((bytes) => `blake3:${Buffer.from(bytes).toString('hex')}` as Id)
const anySize = fc.integer({ min: 0, max: 2 ** 40 })
const anyAttributes = fc.record({
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.integer({ min: 0, max: 0xffffffff }),
  gid: fc.integer({ min: 0, max: 0xffffffff }),
  mtimeNs: fc.bigInt({ min: -(10n ** 19n), max: 10n ** 19n }).map(String),
})
const anyName = fc
  .uint8Array({ minLength: 1, maxLength: 20 })
  .map((bytes) => Buffer.from(bytes))
  .filter((bytes) => nameFault(bytes) === undefined)
const anyTarget = fc
  .uint8Array({ minLength: 1, maxLength: 20 })
  .map((bytes) => Buffer.from(bytes).map((byte) => byte || 1))
const anyRest = fc.oneof(
  fc.record({ kind: fc.constant('file' as const), id: anyId, size: anySize }),
  fc.record({ kind: fc.constant('directory' as const), id: anyId }),
  anyTarget.map((target) => ({ kind: 'symlink' as const, ...encodeTarget(Buffer.from(target)) })),
  fc.constantFrom({ kind: 'fifo' as const }, { kind: 'socket' as const }),
)

test('any directory comes back', () => {
  const entry = fc.tuple(anyName, anyAttributes, anyRest)
  fc.assert(
    fc.property(
      fc.uniqueArray(entry, { selector: ([name]) => name.toString('hex'), maxLength: 12 }),
      (tuples) => {
        const entries = tuples
          .sort(([a], [b]) => Buffer.compare(a, b))
          .map(([name, attributes, rest]) => ({ ...encodeName(name), ...attributes, ...rest }) as Entry)
        const object = decodeDirectoryObject(encodeDirectoryObject(entries).bytes)
        expect(object).toEqual({ type: 'directory', entries })
        expect(entries.map(nameBytes)).toEqual(tuples.map(([name]) => name))
      },
    ),
    { numRuns: 100 },
  )
})

test('any file comes back', () => {
  const part = fc.record(
    { id: anyId, size: anySize, chunked: fc.constant(true as const) },
    { requiredKeys: ['id', 'size'] },
  )
  fc.assert(
    fc.property(
      fc.array(part, { minLength: 1, maxLength: 12 }),
      fc.option(anyId, { nil: undefined }),
      (parts, digest) => {
        const object = decodeFileObject(encodeFileObject(parts as Part[], digest).bytes)
        expect(object.parts).toEqual(parts)
        expect(object.digest).toBe(digest)
        expect(object.size).toBe(parts.reduce((sum, { size }) => sum + size, 0))
      },
    ),
    { numRuns: 100 },
  )
})

test('what an object refers to', () => {
  const [, , lists] = vectors.files.map(({ text }) => referencesOfFile(decodeFileObject(Buffer.from(text))))
  expect(lists?.map(({ as, size }) => [as, size])).toEqual([
    ['file', 2],
    ['file', 2],
  ])
  const [empty, , every, parts] = vectors.directories.map(({ text }) =>
    referencesOfDirectory(decodeDirectoryObject(Buffer.from(text))),
  )
  expect(empty).toEqual([])
  expect(every?.map(({ as }) => as)).toEqual(['chunk', 'directory', 'file', 'chunk', 'chunk', 'chunk'])
  expect(parts?.map(({ as }) => as)).toEqual(['directory', 'directory'])
})

describe('long lists', () => {
  const { minPartItems, averagePartItems, maxPartItems } = listParameters
  const names = (count: number, first = 0) => Array.from({ length: count }, (_, i) => `entry-${i + first}`)

  test.each(lists.cases.filter(({ name }) => name === 'entry names'))(
    '$count entries',
    ({ count, lengths }) => {
      expect(cutList(names(count))).toEqual(lengths)
    },
  )

  test('bounds', () => {
    const { key, count, lengths } = lists.sameKey
    expect(cutList(Array.from({ length: count }, () => key))).toEqual(lengths)
    const ending = names(20_000).find((name) => endsPart(name, minPartItems)) as string
    expect(endsPart(ending, minPartItems - 1)).toBe(false)
    expect(endsPart(ending, minPartItems)).toBe(true)
    expect(endsPart(key, maxPartItems - 1)).toBe(false)
    expect(endsPart(key, maxPartItems)).toBe(true)
    const lengthsOfMany = cutList(names(100_000)).slice(0, -1)
    expect(Math.min(...lengthsOfMany)).toBeGreaterThanOrEqual(minPartItems)
    expect(Math.max(...lengthsOfMany)).toBeLessThanOrEqual(maxPartItems)
    expect(100_000 / lengthsOfMany.length).toBeGreaterThan(averagePartItems * 0.8)
    expect(100_000 / lengthsOfMany.length).toBeLessThan(averagePartItems * 1.6)
  })

  test('text and its bytes are one key', () => {
    for (const name of names(3000)) expect(endsPart(Buffer.from(name), 300)).toBe(endsPart(name, 300))
  })

  test('one item in front changes few parts', () => {
    const parts = (keys: string[]) => {
      let start = 0
      return cutList(keys).map((length) => {
        start += length
        return keys.slice(start - length, start).join()
      })
    }
    const before = new Set(parts(names(50_000)))
    expect(parts(['a', ...names(50_000)]).filter((part) => !before.has(part)).length).toBeLessThanOrEqual(2)
  })
})
