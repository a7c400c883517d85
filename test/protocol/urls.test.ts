import { describe, expect, test } from 'vitest'
import { hashId } from '../../protocol/hash.ts'
import {
  encodeSegment,
  formatCheckpointName,
  parseCheckpointName,
  parseCheckpointNumber,
  parseSourceName,
  parseVaultName,
  paths,
} from '../../protocol/url.ts'
import { listOperations } from '../support/openapi.ts'
import { readVectors } from '../support/vectors/read.ts'

const vectors = readVectors<{
  vaults: { valid: string[]; invalid: string[] }
  sources: { valid: string[]; invalid: string[] }
  checkpointHeader: { valid: { value: string; source: string; number: number }[]; invalid: string[] }
}>('names.json')

describe.each([
  ['vault', vectors.vaults, parseVaultName],
  ['source', vectors.sources, parseSourceName],
] as const)('%s names', (_, { valid, invalid }, parse) => {
  test.each(valid)('%j', (name) => {
    expect(parse(name)).toBe(name)
  })
  test.each(invalid)('refused: %j', (name) => {
    expect(() => parse(name)).toThrow(expect.objectContaining({ code: 'invalid-name' }))
  })
})

describe('Chunkdav-Checkpoint', () => {
  test.each(vectors.checkpointHeader.valid)('$value', ({ value, source, number }) => {
    expect(parseCheckpointName(value)).toEqual({ source, number })
    expect(formatCheckpointName({ source, number })).toBe(value)
  })
  test.each(vectors.checkpointHeader.invalid)('refused: %j', (value) => {
    expect(() => parseCheckpointName(value)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^invalid-(request|name)$/) }),
    )
  })
})

test.each([
  ['1', 1],
  ['2147483647', 2147483647],
  ['2147483648', undefined],
  ['0', undefined],
  ['01', undefined],
  ['', undefined],
  ['1\n', undefined],
  ['١', undefined],
])('checkpoint number %j', (text, number) => {
  expect(parseCheckpointNumber(text)).toBe(number)
})

test.each([
  ['a b', 'a%20b'],
  ['#&<%?', '%23%26%3C%25%3F'],
  ['né.txt', 'n%C3%A9.txt'],
  ['A-z_0.~', 'A-z_0.~'],
])('a name in a path: %j', (name, encoded) => {
  expect(encodeSegment(Buffer.from(name))).toBe(encoded)
  expect(paths.tree('v', [Buffer.from(name), Buffer.from([0xff])])).toBe(`/v/tree/${encoded}/%FF`)
})

test('every path that is built is one of the contract', () => {
  const id = hashId(Buffer.alloc(0))
  const checkpoint = { source: 'laptop', number: 3 }
  const built = [
    paths.vault('v'),
    paths.chunk('v', id),
    paths.chunks('v'),
    paths.missing('v'),
    paths.fetch('v'),
    paths.file('v', id),
    paths.directory('v', id),
    paths.sources('v'),
    paths.source('v', 'laptop'),
    paths.checkpoint('v', checkpoint),
    paths.items('v', checkpoint),
    paths.commit('v', checkpoint),
    paths.tree('v', [Buffer.from('a'), Buffer.from('b')]),
    paths.snapshotSources('v'),
    paths.snapshots('v', 'laptop'),
    paths.snapshot('v', 'laptop', 3, [Buffer.from('a'), Buffer.from('b')]),
    paths.trash('v'),
    paths.trashItem('v', 7, [Buffer.from('a'), Buffer.from('b')]),
  ]
  const templates = new Set(listOperations().map(({ template }) => template))
  const generalised = built.map((path) =>
    path
      .replace(/^\/v\//, '/{vault}/')
      .replace(id, '{id}')
      .replace('/laptop/', '/{source}/')
      .replace('/3', '/{number}')
      .replace('/7', '/{item}')
      .replace('/a/b', '/{path}'),
  )
  expect(generalised.filter((path) => !templates.has(path))).toEqual([])
  expect(new Set(generalised).size).toBe(built.length)
})
