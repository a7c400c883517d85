import { hash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { cutLength, cutLengthBy, cutParameters, gear } from '../../protocol/cut.ts'
import { createSearchedMemory, gearSearchBytes, gearSearchIn } from '../../protocol/gear-search.ts'
import { gearSearchModule } from '../../protocol/gear-search-module.ts'
import { limits } from '../../protocol/limits.ts'
import { compileGearSearch } from '../support/gear-search-module.ts'
import { cutAll } from '../support/vectors/cuts.ts'
import { readVectors } from '../support/vectors/read.ts'
import { counterStream, makeInput, type Recipe } from '../support/vectors/stream.ts'

const { minChunkBytes, averageChunkBytes, maxChunkBytes, strictBits, looseBits } = cutParameters
const vectors = readVectors<{
  parameters: object
  gear: number[]
  cases: { name: string; input: Recipe; sha256: string; lengths: number[] }[]
}>('cuts.json')
const MiB = 1024 * 1024
const stream = counterStream('chunkdav', 16 * MiB)

/** The rule of cut.ts and docs/protocol.md word for word, slowly: the hash runs over the whole input. */
function cutPlainly(bytes: Buffer): number[] {
  const lengths: number[] = []
  let word = 0
  let length = 0
  for (const byte of bytes) {
    word = (word * 2 + (vectors.gear[byte] as number)) % 2 ** 32
    length++
    const bits = length <= averageChunkBytes ? strictBits : looseBits
    if ((length >= minChunkBytes && word < 2 ** (32 - bits)) || length === maxChunkBytes) {
      lengths.push(length)
      length = 0
    }
  }
  return length > 0 ? [...lengths, length] : lengths
}

describe('golden cuts', () => {
  test('parameters and gear', () => {
    expect(cutParameters).toEqual(vectors.parameters)
    expect(Array.from(gear, (word) => word >>> 0)).toEqual(vectors.gear)
  })

  test.each(vectors.cases)('$name', ({ input, sha256, lengths }) => {
    const bytes = makeInput(input)
    expect(hash('sha256', bytes)).toBe(sha256)
    expect(cutAll(bytes)).toEqual(lengths)
  })

  test('they exercise every rule', () => {
    const all = vectors.cases.flatMap(({ lengths }) => lengths)
    expect(all.some((length) => length > minChunkBytes && length <= averageChunkBytes)).toBe(true)
    expect(all.some((length) => length > averageChunkBytes && length < maxChunkBytes)).toBe(true)
    expect(all).toContain(maxChunkBytes)
  })

  test('are those of the rule', () => {
    expect(cutPlainly(stream.subarray(0, 8 * MiB))).toEqual(cutAll(stream.subarray(0, 8 * MiB)))
  })
})

/**
 * A chunk whose hash is zero behind byte `length`, and nowhere before: the 32 bytes that do it were
 * searched for by running the stream, so the cut lands where the test wants it.
 */
function inputWithCutAt(length: number, bits: number): Buffer | undefined {
  let word = 0
  for (const [i, byte] of stream.entries()) {
    word = (Math.imul(word, 2) + (vectors.gear[byte] as number)) | 0
    if (i >= 32 && word >>> (32 - bits) === 0) {
      const input = Buffer.alloc(length + 100)
      stream.copy(input, length - 32, i - 31, i + 1)
      return input
    }
  }
  return undefined
}

describe('bounds', () => {
  const at = (length: number, bits: number) => cutAll(inputWithCutAt(length, bits) as Buffer)[0]

  test('the least length is one that can be cut', () => {
    expect(at(minChunkBytes, strictBits)).toBe(minChunkBytes)
    expect(at(minChunkBytes + 1, strictBits)).toBe(minChunkBytes + 1)
  })
  test('below it nothing is cut', () => {
    expect(at(minChunkBytes - 1, strictBits)).toBe(minChunkBytes + 99)
  })
  test('the strict rule holds up to the average, the loose one behind it', () => {
    const between = inputWithLooseHit()
    expect(at(averageChunkBytes, strictBits)).toBe(averageChunkBytes)
    expect(cutAll(between(averageChunkBytes))[0]).toBe(averageChunkBytes + 100)
    expect(cutAll(between(averageChunkBytes + 1))[0]).toBe(averageChunkBytes + 1)
  })
  test('the most is never exceeded', () => {
    expect(at(maxChunkBytes, looseBits)).toBe(maxChunkBytes)
    expect(at(maxChunkBytes + 1, looseBits)).toBe(maxChunkBytes)
    expect(maxChunkBytes).toBeLessThanOrEqual(limits.maxChunkBytes)
  })

  /** 32 bytes that satisfy the loose rule and not the strict one. */
  function inputWithLooseHit(): (length: number) => Buffer {
    let word = 0
    for (const [i, byte] of stream.entries()) {
      word = (Math.imul(word, 2) + (vectors.gear[byte] as number)) | 0
      if (i >= 32 && word >>> (32 - looseBits) === 0 && word >>> (32 - strictBits) !== 0) {
        return (length) => {
          const input = Buffer.alloc(length + 100)
          stream.copy(input, length - 32, i - 31, i + 1)
          return input
        }
      }
    }
    throw new Error('the stream holds no such bytes')
  }
})

test('a cut is told as soon as its last byte is there', () => {
  const [first = 0] = cutAll(stream)
  expect(cutLength(stream, 0, first - 1, false)).toBe(0)
  for (const more of [0, 1, 1000]) expect(cutLength(stream, 0, first + more, false)).toBe(first)
})

// Steps are not tiny, because every call looks at the chunk's bytes from its beginning.
test('the cuts are the same however the bytes arrive', () => {
  const bytes = stream.subarray(0, 4 * MiB)
  const expected = cutAll(bytes)
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 100_000, max: 900_000 }), { minLength: 1, maxLength: 30 }),
      (steps) => {
        const lengths: number[] = []
        let start = 0
        let end = 0
        for (let i = 0; start < bytes.length; i++) {
          end = Math.min(bytes.length, end + (steps[i % steps.length] as number))
          for (;;) {
            const length = cutLength(bytes, start, end, end === bytes.length)
            if (length === 0) break
            lengths.push(length)
            start += length
          }
          if (end === bytes.length && start < end) throw new Error('the end was not told')
        }
        expect(lengths).toEqual(expected)
      },
    ),
    { numRuns: 15 },
  )
})

test('more bytes are asked for only while they could matter', () => {
  const zeros = Buffer.alloc(maxChunkBytes + 1)
  expect(cutLength(zeros, 0, maxChunkBytes - 1, false)).toBe(0)
  expect(cutLength(zeros, 0, maxChunkBytes, false)).toBe(maxChunkBytes)
  expect(cutLength(zeros, 1, maxChunkBytes + 1, false)).toBe(maxChunkBytes)
  expect(cutLength(zeros, 0, 0, true)).toBe(0)
  expect(cutLength(zeros, 0, 0, false)).toBe(0)
  expect(cutLength(zeros, 0, 1, true)).toBe(1)
})

test('a cut is decided by bytes before it alone', () => {
  const [first = 0] = cutAll(stream)
  const changed = Buffer.from(stream.subarray(0, first + 1000))
  changed.fill(0xff, first)
  expect(cutAll(changed)[0]).toBe(first)
})

describe('an edit', () => {
  /** Bytes of chunks that `after` has and `before` has not. */
  function newBytes(before: Buffer, after: Buffer): number {
    const digests = (bytes: Buffer) => {
      let start = 0
      return cutAll(bytes).map((length) => {
        start += length
        return { length, digest: hash('sha256', bytes.subarray(start - length, start)) }
      })
    }
    const known = new Set(digests(before).map(({ digest }) => digest))
    return digests(after).reduce((sum, { length, digest }) => sum + (known.has(digest) ? 0 : length), 0)
  }
  const middle = 8 * MiB

  test.each([
    ['a byte in front', Buffer.concat([Buffer.from('x'), stream])],
    ['a byte less in front', stream.subarray(1)],
    [
      'a kilobyte in the middle',
      Buffer.concat([stream.subarray(0, middle), Buffer.alloc(1024), stream.subarray(middle)]),
    ],
    [
      'a byte changed in the middle',
      Buffer.concat([
        stream.subarray(0, middle),
        Buffer.from([(stream[middle] as number) ^ 1]),
        stream.subarray(middle + 1),
      ]),
    ],
    ['a byte behind', Buffer.concat([stream, Buffer.from('x')])],
  ])('%s moves only the cuts near it', (_, after) => {
    expect(newBytes(stream, after)).toBeLessThanOrEqual(2 * maxChunkBytes)
  })
})

test('there are neither too many chunks nor too few', () => {
  const count = cutAll(stream).length
  expect(count).toBeLessThanOrEqual(Math.ceil(stream.length / minChunkBytes))
  expect(count).toBeGreaterThanOrEqual(Math.ceil(stream.length / maxChunkBytes))
  // On noise the mean is near the aim; a broken hash would cut at the bounds only.
  expect(stream.length / count).toBeGreaterThan(averageChunkBytes * 0.7)
  expect(stream.length / count).toBeLessThan(averageChunkBytes * 1.5)
})

describe('the search in WebAssembly', () => {
  const memory = createSearchedMemory(stream.length)
  const content = Buffer.from(memory.buffer, gearSearchBytes)
  stream.copy(content)
  const search = gearSearchIn(memory)

  test('is the text compiled', async () => {
    expect(await compileGearSearch()).toBe(gearSearchModule)
  })

  test('cuts as the rule says', () => {
    const lengths: number[] = []
    for (let start = 0; start < stream.length; ) {
      const end = gearSearchBytes + stream.length
      const length = cutLengthBy(search, gearSearchBytes + start, end, true)
      lengths.push(length)
      start += length
    }
    expect(lengths).toEqual(cutAll(stream))
  })

  // Masks of few bits give cuts in every stretch, at its edges, and several in one lap.
  test('finds the first place, wherever it is and whatever the range', () => {
    const words = vectors.gear
    const firstPlace = (from: number, to: number, mask: number): number => {
      let word = 0
      for (let at = from - 31; at < to; at++) {
        word = (Math.imul(word, 2) + (words[content[at] as number] as number)) | 0
        if (at >= from && (word & mask) === 0) return gearSearchBytes + at + 1
      }
      return 0
    }
    fc.assert(
      fc.property(
        fc.integer({ min: 31, max: MiB }),
        fc.integer({ min: 0, max: 70_000 }),
        fc.integer({ min: 1, max: 22 }),
        (from, length, bits) => {
          const mask = -1 << (32 - bits)
          const to = from + length
          expect(search(gearSearchBytes + from, gearSearchBytes + to, mask)).toBe(firstPlace(from, to, mask))
        },
      ),
      { numRuns: 300 },
    )
  })
})
