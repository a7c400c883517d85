/** The grammar of `If`, and what it comes to: RFC 4918, section 10.4. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { holds, type IfHeader, parseIf } from '../../server/http/if-header.ts'

const token = 'urn:uuid:181d4fae-7d8c-11d0-a765-00a0c91e6bf2'

/** A header as text that shows its structure. */
function shown({ lists }: IfHeader): string {
  return lists
    .map(({ resource = '', conditions }) => {
      const texts = conditions.map((c) => `${c.negated ? '!' : ''}${'token' in c ? c.token : c.tag}`)
      return `${resource}(${texts.join(' ')})`
    })
    .join('')
}

test.each([
  ['(<a:1>)', '(a:1)'],
  ['(<a:1> ["x"])', '(a:1 "x")'],
  ['(["x"]) (["y"])', '("x")("y")'],
  ['(<a:1>["x"])(Not<b:2>)', '(a:1 "x")(!b:2)'],
  ['  ( Not <DAV:no-lock>\t[W/"w"] )  ', '(!DAV:no-lock W/"w")'],
  ['(not <a:1>)', '(!a:1)'],
  ['(NOT ["x"])', '(!"x")'],
  ['(["a ) ( b"])', '("a ) ( b")'],
  ['(["<urn:x>"])', '("<urn:x>")'],
  ['(["é"])', '("é")'],
  ['</a> (<a:1>)', '/a(a:1)'],
  ['</a> (<a:1>) (["x"]) <http://h/b> (<b:2>)', '/a(a:1)/a("x")http://h/b(b:2)'],
  [`(<${token}>)`, `(${token})`],
])('%s', (header, expected) => {
  expect(shown(parseIf(header))).toBe(expected)
})

test.each([
  [''],
  ['()'],
  ['(<a:1>'],
  ['<a:1>)'],
  ['<a:1>'],
  ['(a:1)'],
  ['(<relative>)'],
  ['(</path>)'],
  ['(<a 1>)'],
  ['(<>)'],
  ['("x")'],
  ['(["x])'],
  ['([x])'],
  ['([w"x"])'],
  ['(Not)'],
  ['(Not Not <a:1>)'],
  ['(Nothing <a:1>)'],
  ['(<a:1>) </b> (<b:2>)'],
  ['</a> </b> (<b:2>)'],
  ['</a> (<a:1>) </b>'],
  ['(<a:1>), (<b:2>)'],
  ['((<a:1>))'],
  ['(<a:1>) x'],
])('%s is malformed', (header) => {
  expect(() => parseIf(header)).toThrowError(expect.objectContaining({ code: 'invalid-request' }))
})

test('no text makes it throw anything else, or take long', () => {
  const pieces = fc.constantFrom('(', ')', '<', '>', '[', ']', '"', 'Not', ' ', 'a:1', 'W/', '/x', '\\', 'é')
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 60 }), (parts) => {
      try {
        parseIf(parts.join(''))
      } catch (error) {
        expect(error).toMatchObject({ code: 'invalid-request' })
      }
    }),
  )
  const long = '(<a:1>) '.repeat(8000)
  const started = performance.now()
  expect(parseIf(long).lists).toHaveLength(8000)
  expect(() => parseIf(`${' '.repeat(60_000)}x`)).toThrow()
  expect(performance.now() - started).toBeLessThan(1000)
})

describe('what it comes to', () => {
  const states: Record<string, { tag: string | undefined; tokens: Set<string> }> = {
    self: { tag: '"1"', tokens: new Set(['a:1']) },
    '/b': { tag: '"2"', tokens: new Set(['b:2', 'b:3']) },
    '/absent': { tag: undefined, tokens: new Set() },
  }
  test.each([
    ['(<a:1>)', true],
    ['(<b:2>)', false],
    ['(["1"])', true],
    ['(["2"])', false],
    ['([W/"1"])', false],
    ['(<a:1> ["1"])', true],
    ['(<a:1> ["2"])', false],
    ['(<a:1> ["2"]) (["1"])', true],
    ['(Not <b:2>)', true],
    ['(Not <a:1>)', false],
    ['(<DAV:no-lock>)', false],
    ['(Not <DAV:no-lock>)', true],
    ['(Not ["1"]) (Not <a:1>)', false],
    ['</b> (<b:2> <b:3>)', true],
    ['</b> (<a:1>)', false],
    ['</b> (<a:1>) <self> (<a:1>)', true],
    ['</absent> (["1"])', false],
    ['</absent> (Not ["1"])', true],
  ])('%s: %s', async (header, expected) => {
    const asked: (string | undefined)[] = []
    const result = await holds(parseIf(header), async (resource) => {
      asked.push(resource)
      return states[resource ?? 'self'] as (typeof states)[string]
    })
    expect(result).toBe(expected)
    expect(new Set(asked).size).toBe(asked.length)
  })
})

test('every state token counts as submitted, also in lists that do not hold, and behind Not', () => {
  expect([...parseIf('</a> (<a:1> ["x"]) (Not <b:2>) <c> (<c:3>)').tokens]).toEqual(['a:1', 'b:2', 'c:3'])
})
