import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { limits } from '../../protocol/limits.ts'
import * as schema from '../../protocol/schema.ts'
import { compileChecks } from '../support/compiled-checks.ts'

const { check, parseJson, ajvOptions: _, ...schemas } = schema
const id = `blake3:${'0'.repeat(64)}`
const state = { source: 's', number: 1, kind: 'dir', state: 'open', openedAt: '2026-01-02T03:04:05.678Z' }
const attributes = { mode: 0o644, uid: 0, gid: 0, mtimeNs: '0' }
const capabilities = {
  product: 'x',
  version: '1',
  protocol: 1,
  compliance: [],
  hashAlgorithms: [],
  encodings: [],
  deltas: [],
  limits: {},
  freeBytes: 0,
  storedBytes: 0,
  chunks: 0,
}

type Name = keyof typeof schemas
const accepted: [Name, unknown][] = [
  ['MissingRequest', { ids: [] }],
  ['MissingRequest', { ids: [id, `sha256:${'f'.repeat(64)}`] }],
  ['FetchRequest', { ids: Array.from({ length: limits.maxFetchIds }, () => id) }],
  ['OpenRequest', { kind: 'dir' }],
  ['OpenRequest', { kind: 'chunks', about: { host: 'h', 'path 1': 'x'.repeat(4096), ['k'.repeat(64)]: '' } }],
  ['CommitRequest', {}],
  ['CommitRequest', { root: id, attributes, items: 3, totals: { files: 1, directories: 2, bytes: 3 } }],
  ['CheckpointState', state],
  ['CheckpointState', { ...state, openedAt: '2026-01-02T03:04:05Z', items: 0, itemBytes: 0, missing: [id] }],
  ['ItemsRequest', { first: 0, items: [{ id, size: 0 }] }],
  ['ItemsPage', { first: 0, total: 0, items: [] }],
  ['Capabilities', capabilities],
  ['Health', { status: 'ok', version: '1' }],
  ['Attributes', { ...attributes, mtimeNs: '-1' }],
  ['Attributes', { ...attributes, mtimeNs: '18446744073709551615' }],
]
const refused: [string, Name, unknown][] = [
  ['no object', 'MissingRequest', []],
  ['null', 'MissingRequest', null],
  ['a member too few', 'MissingRequest', {}],
  ['a member too many', 'MissingRequest', { ids: [], more: 1 }],
  ['a member that JavaScript treats apart', 'MissingRequest', JSON.parse('{"ids":[],"__proto__":{}}')],
  ['a malformed id', 'MissingRequest', { ids: ['blake3:00'] }],
  ['an id with a line feed', 'MissingRequest', { ids: [`${id}\n`] }],
  ['text for a list', 'MissingRequest', { ids: id }],
  ['nothing to fetch', 'FetchRequest', { ids: [] }],
  ['too much to fetch', 'FetchRequest', { ids: Array.from({ length: limits.maxFetchIds + 1 }, () => id) }],
  ['an unknown kind', 'OpenRequest', { kind: 'files' }],
  ['an about that is no text', 'OpenRequest', { kind: 'dir', about: { n: 1 } }],
  ['an about with a long value', 'OpenRequest', { kind: 'dir', about: { n: 'x'.repeat(4097) } }],
  ['an about with a long key', 'OpenRequest', { kind: 'dir', about: { ['k'.repeat(65)]: '' } }],
  [
    'an about with many keys',
    'OpenRequest',
    { kind: 'dir', about: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [i, ''])) },
  ],
  ['a number as text', 'CommitRequest', { items: '3' }],
  ['a fraction', 'CommitRequest', { items: 1.5 }],
  ['a negative number', 'CommitRequest', { items: -1 }],
  ['a number that JSON does not carry', 'CommitRequest', { items: 2 ** 53 }],
  ['a mode with the file type in it', 'Attributes', { ...attributes, mode: 0o100644 }],
  ['a time beyond 20 digits', 'Attributes', { ...attributes, mtimeNs: '1'.repeat(21) }],
  ['a local time', 'CheckpointState', { ...state, openedAt: '2026-01-02T03:04:05+01:00' }],
  ['checkpoint 0', 'CheckpointState', { ...state, number: 0 }],
  ['an empty page of items', 'ItemsRequest', { first: 0, items: [] }],
  ['another health', 'Health', { status: 'bad', version: '1' }],
]

describe('accepted as it is', () => {
  test.each(accepted)('%s %j', (name, value) => {
    expect(check(schemas[name] as never, value)).toBe(value)
  })
})

describe('refused', () => {
  test.each(refused)('%s: %s', (_, name, value) => {
    expect(() => check(schemas[name] as never, value)).toThrow(
      expect.objectContaining({ code: 'invalid-request' }),
    )
    expect(() => check(schemas[name] as never, value, 'invalid-object')).toThrow(
      expect.objectContaining({ code: 'invalid-object' }),
    )
  })
})

test('every document of the protocol is strict: no schema allows members that it does not know', () => {
  const open: string[] = []
  const visit = (value: unknown, place: string): void => {
    if (typeof value !== 'object' || value === null) return
    const node = value as Record<string, unknown>
    if (node.type === 'object' && node.additionalProperties !== false) open.push(place)
    for (const [key, inner] of Object.entries(node)) visit(inner, `${place}/${key}`)
  }
  for (const [name, value] of Object.entries(schemas)) visit(value, name)
  // The limits of a receiver are a map by their nature.
  expect(open).toEqual(['Capabilities/properties/limits'])
})

describe('parseJson', () => {
  test('gives the value', () => {
    expect(parseJson(schema.MissingRequest, '{"ids":[]}')).toEqual({ ids: [] })
  })
  test.each(['', '{', '{"ids":[],}', "{'ids':[]}", 'NaN', '\ufeff{"ids":[]}'])('refuses %j', (text) => {
    expect(() => parseJson(schema.MissingRequest, text)).toThrow(
      expect.objectContaining({ code: 'invalid-request' }),
    )
  })
  test('says where the fault is', () => {
    expect(() => parseJson(schema.ItemsRequest, '{"first":0,"items":[{"id":"x","size":1}]}')).toThrow(
      '/items/0/id',
    )
  })
})

test('the compiled checks are those of the schemas', () => {
  const text = readFileSync(new URL('../../protocol/compiled-checks.ts', import.meta.url), 'utf8')
  // Otherwise: node test/support/compiled-checks.ts
  expect(text).toBe(compileChecks())
})
