/** openapi.yaml and protocol/schema.ts state the same schemas: they are compared after normalising both. */
import { describe, expect, test } from 'vitest'
import * as schema from '../protocol/schema.ts'
import { contract, type Json } from './support/openapi.ts'

const components = (contract.components as Json).schemas as Record<string, Json>

/** Schemas of the contract that are no exported document of protocol/schema.ts: named for the readers. */
const namedForReaders = [
  'Id',
  'Count',
  'Uint32',
  'Nanoseconds',
  'Base64',
  'Timestamp',
  'About',
  'Totals',
  'Entry',
  'Problem',
]

/** One spelling for what says the same: references followed, notes dropped, literals as enums, keys sorted. */
function normalise(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normalise)
  if (typeof value !== 'object' || value === null) return value
  const object = value as Record<string, unknown>
  if (typeof object.$ref === 'string') {
    return normalise(components[object.$ref.replace('#/components/schemas/', '')])
  }
  const choices = object.anyOf as Record<string, unknown>[] | undefined
  if (choices?.every((choice) => choice.const !== undefined)) {
    return { type: 'string', enum: choices.map((choice) => choice.const) }
  }
  const pairs = Object.entries(object)
    .filter(([key, inner]) => !(key === 'description' && typeof inner === 'string'))
    .map(([key, inner]) => [key, key === 'required' ? [...(inner as string[])].sort() : normalise(inner)])
  return Object.fromEntries(pairs.sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)))
}

const { ajvOptions: _, ...exported } = schema
const documents = Object.entries<unknown>(exported).filter(([, value]) => typeof value === 'object')

describe('openapi.yaml says what protocol/schema.ts says', () => {
  test.each(documents)('%s', (name, own) => {
    expect(normalise(components[name])).toEqual(normalise(JSON.parse(JSON.stringify(own))))
  })

  test('and nothing else', () => {
    const names = documents.map(([name]) => name)
    expect(
      Object.keys(components)
        .filter((name) => !names.includes(name))
        .sort(),
    ).toEqual([...namedForReaders].sort())
  })
})
