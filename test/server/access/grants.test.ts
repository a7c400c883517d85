import { describe, expect, test } from 'vitest'
import {
  identityOf,
  narrower,
  parseGrant,
  parseGrantedVault,
  rightIn,
} from '../../../server/access/grants.ts'
import { allows, needs, type Right, rights } from '../../../server/access/identity.ts'
import { isUserName, parseUserName } from '../../../server/access/user-name.ts'

test.each([
  [{}, 'home', undefined],
  [{ home: 'read' }, 'home', 'read'],
  [{ home: 'read' }, 'other', undefined],
  [{ '*': 'write' }, 'home', 'write'],
  [{ '*': 'admin', home: 'read' }, 'home', 'read'],
  [{ '*': 'admin' }, 'constructor', 'admin'],
  [{}, 'constructor', undefined],
  [{}, '__proto__', undefined],
] as const)('%j on %s: %s', (grants, vault, right) => {
  expect(rightIn(grants, vault)).toBe(right)
})

describe('two rights together allow what both allow, and never more', () => {
  const pairs = rights.flatMap((left) => rights.map((right) => [left, right] as const))
  test.each(pairs)('%s and %s', (left, right) => {
    const both = narrower(left, right)
    for (const need of needs) {
      const isAllowed = both !== undefined && allows(both, need)
      const isAllowedByBoth = allows(left, need) && allows(right, need)
      // Of read and append-only nothing is left, not even to see the vault.
      if (both === undefined) expect([left, right].sort()).toEqual(['append-only', 'read'])
      else expect(isAllowed).toBe(isAllowedByBoth)
    }
  })
  test.each(rights)('%s and nothing', (right) => {
    expect([narrower(right, undefined), narrower(undefined, right)]).toEqual([undefined, undefined])
  })
})

describe('who is operator, and reads the metrics', () => {
  const admin = { grants: { '*': 'admin' as Right }, metrics: true }
  test.each([
    ['admin of all', admin, undefined, true, true],
    ['admin of one vault', { grants: { home: 'admin' as Right } }, undefined, false, false],
    ['a token that was not narrowed', admin, undefined, true, true],
    ['a token for one vault', admin, { grants: { home: 'admin' as Right } }, false, false],
    ['a token for less on all', admin, { grants: { '*': 'write' as Right } }, false, false],
    ['a token for metrics alone', admin, { grants: {}, metrics: true }, false, true],
    [
      'a token for more than its user has',
      { grants: { home: 'read' as Right } },
      { grants: { '*': 'admin' as Right }, metrics: true },
      false,
      false,
    ],
  ])('%s', (_, user, token, isOperator, mayReadMetrics) => {
    expect(identityOf('a', user, token)).toMatchObject({ name: 'a', isOperator, mayReadMetrics })
  })

  test('a token has the lesser right, vault by vault', () => {
    const who = identityOf(
      'a',
      { grants: { '*': 'write', photos: 'append-only', old: 'read' } },
      { grants: { '*': 'append+read', home: 'admin' } },
    )
    expect(['home', 'photos', 'old', 'else'].map((vault) => who.rightOn(vault))).toEqual([
      'write',
      'append-only',
      'read',
      'append+read',
    ])
  })
})

test.each([
  ['home=write', ['home', 'write']],
  ['*=admin', ['*', 'admin']],
  ['a.b-c_d=append+read', ['a.b-c_d', 'append+read']],
])('%s', (text, grant) => {
  expect(parseGrant(text)).toEqual(grant)
})

test.each([
  ['home'],
  ['=write'],
  ['home='],
  ['home=Write'],
  ['home=append'],
  ['Home=write'],
  ['../x=write'],
  ['a..b=write'],
  ['**=write'],
  ['home =write'],
  ['toString=toString'],
])('%s is no grant', (text) => {
  expect(() => parseGrant(text)).toThrow(expect.objectContaining({ code: 'usage' }))
})

test('a vault that was granted', () => {
  expect(['*', 'home'].map(parseGrantedVault)).toEqual(['*', 'home'])
  expect(() => parseGrantedVault('Home')).toThrow(expect.objectContaining({ code: 'usage' }))
})

test.each([['alice'], ['A'], ['jürgen'], ['алиса'], ['日本'], ['a.b+c@example.org'], ['0'], ['constructor']])(
  '%s may be the name of a user',
  (name) => {
    expect(isUserName(name)).toBe(true)
    expect(parseUserName(name.normalize('NFD'))).toBe(name)
  },
)

test.each([
  [''],
  ['anybody'],
  ['a:b'],
  ['a b'],
  ['a/b'],
  ['../a'],
  ['.a'],
  ['-a'],
  ['__proto__'],
  ['a\0'],
  ['a\n'],
  ['a\u202eb'],
  ['a\u200bb'],
  ['\u0308a'],
  ['"'],
  ['a'.repeat(65)],
  ['\ud800'],
])('%j may not', (name) => {
  expect(isUserName(name)).toBe(false)
  expect(() => parseUserName(name)).toThrow(expect.objectContaining({ code: 'usage' }))
})
