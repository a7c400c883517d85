import { describe, expect, test } from 'vitest'
import { hashId } from '../../protocol/hash.ts'
import {
  algorithmOf,
  idBytes,
  idOfDigest,
  idToBytes,
  isId,
  parseId,
  readId,
  writeId,
} from '../../protocol/id.ts'
import { readVectors } from '../support/vectors/read.ts'

const vectors = readVectors<{
  valid: { text: string; binaryHex: string }[]
  invalid: { text: string; reason: string }[]
  invalidBinaryHex: { binaryHex: string; reason: string }[]
}>('ids.json')

test.each(vectors.valid)('$text', ({ text, binaryHex }) => {
  const id = parseId(text)
  expect(id).toBe(text)
  expect(isId(text)).toBe(true)
  expect(algorithmOf(id)).toBe(text.split(':')[0])
  expect(idToBytes(id).toString('hex')).toBe(binaryHex)
  expect(readId(Buffer.from(binaryHex, 'hex'))).toBe(text)
})

test.each(vectors.invalid)('refused: $reason', ({ text }) => {
  expect(isId(text)).toBe(false)
  expect(() => parseId(text)).toThrow(expect.objectContaining({ code: 'invalid-id' }))
})

test('one character elsewhere: as the grammar has it', () => {
  const grammar = /^(blake3|sha256):[0-9a-f]{64}$/
  const id = hashId(Buffer.from('x'))
  for (let at = 0; at <= id.length; at++) {
    for (const other of ['', '0', 'g', 'F', ':', '/', '`', '\0', '\n', '\u0130', '\u{1f600}', 'ab']) {
      const text = id.slice(0, at) + other + id.slice(at + 1)
      expect(isId(text), text).toBe(grammar.test(text))
    }
  }
})

test.each([[undefined], [null], [7], [{}], [['blake3:']], [new String(`blake3:${'0'.repeat(64)}`)]])(
  'refused: %o is no text',
  (value) => {
    expect(isId(value)).toBe(false)
    expect(() => parseId(value)).toThrow(expect.objectContaining({ code: 'invalid-id' }))
  },
)

test.each(vectors.invalidBinaryHex)('no id in binary: $reason', ({ binaryHex }) => {
  expect(readId(Buffer.from(binaryHex, 'hex'))).toBeUndefined()
})

describe('binary form', () => {
  test('is written and read at an offset', () => {
    const id = hashId(Buffer.from('x'))
    const buffer = Buffer.alloc(5 + idBytes)
    expect(writeId(id, buffer, 5)).toBe(5 + idBytes)
    expect(readId(buffer, 5)).toBe(id)
    expect(readId(buffer, 6)).toBeUndefined()
    expect(readId(buffer, 1000)).toBeUndefined()
  })

  test.each([0, 31, 33])('a digest of %i bytes is misuse', (length) => {
    expect(() => idOfDigest('blake3', Buffer.alloc(length))).toThrow(TypeError)
  })
})
