import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeName, encodeTarget, nameBytes, nameFault, targetBytes } from '../../protocol/objects.ts'

const odd: [string, Buffer, object][] = [
  ['text', Buffer.from('a'), { name: 'a' }],
  ['255 bytes', Buffer.alloc(255, 'x'), { name: 'x'.repeat(255) }],
  ['composed and decomposed stay apart', Buffer.from('u\u0308'), { name: 'u\u0308' }],
  ['an emoji', Buffer.from('💾'), { name: '💾' }],
  ['a byte order mark', Buffer.from('\ufeffa'), { name: '\ufeffa' }],
  ['the replacement character itself', Buffer.from('\ufffd'), { name: '\ufffd' }],
  ['a line feed', Buffer.from('\n'), { name: '\n' }],
  ['Latin-1', Buffer.from([0xe4]), { name64: '5A==' }],
  ['a cut sequence', Buffer.from([0x61, 0xf0, 0x9f, 0x92]), { name64: 'YfCfkg==' }],
  ['an overlong slash', Buffer.from([0xc0, 0xaf]), { name64: 'wK8=' }],
  ['a surrogate in UTF-8', Buffer.from([0xed, 0xa0, 0x80]), { name64: '7aCA' }],
  ['above U+10FFFF', Buffer.from([0xf4, 0x90, 0x80, 0x80]), { name64: '9JCAgA==' }],
]

test.each(odd)('%s', (_, bytes, fields) => {
  expect(encodeName(bytes)).toEqual(fields)
  expect(nameBytes(encodeName(bytes))).toEqual(bytes)
  expect(targetBytes(encodeTarget(bytes))).toEqual(bytes)
})

test('any bytes come back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 255 }), (array) => {
      const bytes = Buffer.from(array)
      // Through JSON, as they travel.
      expect(nameBytes(JSON.parse(JSON.stringify(encodeName(bytes))))).toEqual(bytes)
      expect(targetBytes(JSON.parse(JSON.stringify(encodeTarget(bytes))))).toEqual(bytes)
    }),
    { numRuns: 500 },
  )
})

describe('cannot be a name', () => {
  test.each(['', '.', '..', '/', 'a/b', '/a', 'a/', '\0', 'a\0b'])('%j', (text) => {
    expect(nameFault(Buffer.from(text))).toBeTypeOf('string')
  })
  test.each(['...', '.a', '..a', 'a.', ' ', '\\', '-', '~', '\n', 'con', 'a'.repeat(255)])(
    'but %j can',
    (text) => {
      expect(nameFault(Buffer.from(text))).toBeUndefined()
    },
  )
})
