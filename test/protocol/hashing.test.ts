import { createRequire } from 'node:module'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createHasher, hashId, hashImplementations, hashInSlices } from '../../protocol/hash.ts'
import { idOfDigest } from '../../protocol/id.ts'
import { readVectors } from '../support/vectors/read.ts'
import { counterStream } from '../support/vectors/stream.ts'

const blake3 = readVectors<{ cases: { length: number; digest: string }[] }>('blake3.json')
const sha256 = readVectors<{ cases: { text: string; repeat: number; digest: string }[] }>('sha256.json')
const pattern = Buffer.from(Uint8Array.from({ length: 102_400 }, (_, i) => i % 251))

const published = {
  blake3: blake3.cases.map(({ length, digest }) => ({ bytes: pattern.subarray(0, length), digest })),
  sha256: sha256.cases.map(({ text, repeat, digest }) => ({
    bytes: Buffer.from(text.repeat(repeat)),
    digest,
  })),
}

test('the WASM implementation is always there, and Node has SHA-256', () => {
  const names = hashImplementations().map(({ name }) => name)
  expect(names).toContain('blake3 (WASM)')
  expect(names).toContain('sha256 (node:crypto)')
})

test('WASM is what the package ships, whatever its install script found to download', () => {
  // It is loaded when it is used.
  for (const implementation of hashImplementations()) implementation.hex(Buffer.alloc(1))
  const loaded = Object.keys(createRequire(import.meta.url).cache).filter((path) =>
    /node_modules\/blake3\//.test(path),
  )
  expect(loaded.some((path) => path.endsWith('/blake3/dist/node/index.js'))).toBe(true)
  expect(loaded.filter((path) => /blake3\/dist\/(index\.js|node-native|native)/.test(path))).toEqual([])
})

describe.each([...hashImplementations()])('$name', (implementation) => {
  test('gives the published digests', () => {
    for (const { bytes, digest } of published[implementation.algorithm]) {
      expect(implementation.hex(bytes)).toBe(digest)
      expect(implementation.hex(new Uint8Array(bytes))).toBe(digest)
    }
  })

  test('gives them whatever the splits', () => {
    const cases = published[implementation.algorithm]
    fc.assert(
      fc.property(
        fc.constantFrom(...cases),
        fc.array(fc.integer({ min: 0, max: 5000 }), { maxLength: 20 }),
        ({ bytes, digest }, steps) => {
          const hasher = implementation.create()
          let offset = 0
          for (const step of steps) {
            hasher.update(bytes.subarray(offset, offset + step))
            offset += step
          }
          hasher.update(bytes.subarray(offset))
          expect(hasher.digest().toString('hex')).toBe(digest)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('hashes a view, not the buffer behind it', () => {
    const view = new Uint8Array(pattern.buffer, pattern.byteOffset + 100, 1000)
    const copy = Uint8Array.from(view)
    expect(implementation.hex(view)).toBe(implementation.hex(copy))
  })

  test('a hasher can be thrown away, used or not', () => {
    const unused = implementation.create()
    unused.dispose()
    const used = implementation.create()
    used.update(pattern)
    used.digest()
    used.dispose()
  })

  test('two hashers do not disturb each other', () => {
    const [one, other] = [implementation.create(), implementation.create()]
    one.update(pattern.subarray(0, 10))
    other.update(pattern.subarray(0, 20))
    one.update(pattern.subarray(10, 20))
    expect(one.digest()).toEqual(other.digest())
  })
})

test('every implementation of an algorithm agrees on arbitrary bytes', () => {
  const implementations = hashImplementations().filter(({ algorithm }) => algorithm === 'blake3')
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 5000 }), (bytes) => {
      const digests = implementations.map((implementation) => implementation.hex(bytes))
      expect(new Set(digests).size).toBe(1)
    }),
    { numRuns: 200 },
  )
  const large = counterStream('large', 3 * 1024 * 1024 + 1)
  expect(new Set(implementations.map((implementation) => implementation.hex(large))).size).toBe(1)
})

describe('ids of bytes', () => {
  test.each(['blake3', 'sha256'] as const)('%s', async (algorithm) => {
    for (const { bytes, digest } of published[algorithm]) {
      expect(hashId(bytes, algorithm)).toBe(`${algorithm}:${digest}`)
    }
    const large = counterStream('slices', 2 * 1024 * 1024 + 7)
    const id = hashId(large, algorithm)
    expect(await hashInSlices(large, id)).toBe(id)
    const hasher = createHasher(algorithm)
    hasher.update(large)
    expect(idOfDigest(algorithm, hasher.digest())).toBe(id)
  })

  test('hashing in slices lets others have a turn', async () => {
    let turns = 0
    const timer = setInterval(() => turns++, 0)
    const large = Buffer.alloc(16 * 1024 * 1024)
    await hashInSlices(large, hashId(Buffer.alloc(0)))
    clearInterval(timer)
    expect(turns).toBeGreaterThan(0)
  })
})
