import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compress, decompress } from '../../protocol/zstd.ts'
import { counterStream } from '../support/vectors/stream.ts'

const invalid = { code: 'invalid-encoding' }
const tooLarge = { code: 'body-too-large' }
const MiB = 1024 * 1024
const text = Buffer.from('what is said twice, what is said twice, what is said twice; and then not again')

/** A skippable frame (RFC 8878, section 3.1.2) of three bytes. */
const skippable = Buffer.from('502a4d1803000000616263', 'hex')

test('what goes in comes out, at every level and size', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 4000 }),
      fc.integer({ min: 1, max: 19 }),
      async (bytes, level) => {
        const encoded = await compress(bytes, { level })
        expect(await decompress(encoded, { maxBytes: bytes.length })).toEqual(Buffer.from(bytes))
      },
    ),
    { numRuns: 50 },
  )
})

describe('is no frame', () => {
  test.each([
    ['nothing', Buffer.alloc(0)],
    ['text', text],
    ['the magic alone', Buffer.from('28b52ffd', 'hex')],
    ['a gzip header', Buffer.from('1f8b0800000000000003', 'hex')],
    ['a skippable frame alone', skippable],
  ])('%s', async (_, bytes) => {
    await expect(decompress(bytes, { maxBytes: 1000 })).rejects.toMatchObject(invalid)
  })

  test('a frame cut short at any byte', async () => {
    const encoded = await compress(text)
    for (let length = 0; length < encoded.length; length++) {
      await expect(decompress(encoded.subarray(0, length), { maxBytes: 1000 })).rejects.toMatchObject(invalid)
    }
  })
})

describe('is more than one frame', () => {
  test.each([
    ['a byte behind', (frame: Buffer) => [frame, Buffer.alloc(1)]],
    ['text behind', (frame: Buffer) => [frame, text]],
    ['the same frame behind', (frame: Buffer) => [frame, frame]],
    ['an empty frame behind', (frame: Buffer, empty: Buffer) => [frame, empty]],
    ['an empty frame in front', (frame: Buffer, empty: Buffer) => [empty, frame]],
    ['a skippable frame behind', (frame: Buffer) => [frame, skippable]],
    ['a skippable frame in front', (frame: Buffer) => [skippable, frame]],
  ])('%s', async (_, join) => {
    const bytes = Buffer.concat(join(await compress(text), await compress(Buffer.alloc(0))))
    await expect(decompress(bytes, { maxBytes: 1000 })).rejects.toMatchObject(invalid)
  })
})

describe('bounds', () => {
  test.each([0, 1, 2, 131_071, 131_072, 131_073, 300_000])('%i bytes are not one more', async (length) => {
    const plain = counterStream('bounds', length)
    const encoded = await compress(plain)
    expect(await decompress(encoded, { maxBytes: length })).toEqual(plain)
    if (length > 0)
      await expect(decompress(encoded, { maxBytes: length - 1 })).rejects.toMatchObject(tooLarge)
  })

  test('a bomb is refused without being unpacked', async () => {
    const bomb = await compress(Buffer.alloc(256 * MiB))
    expect(bomb.length).toBeLessThan(MiB)
    const before = process.memoryUsage.rss()
    await expect(decompress(bomb, { maxBytes: 16 * MiB })).rejects.toMatchObject(tooLarge)
    expect(process.memoryUsage.rss() - before).toBeLessThan(96 * MiB)
  })
})

describe('with a dictionary', () => {
  const base = counterStream('base', MiB)
  const next = Buffer.concat([Buffer.from('inserted'), base.subarray(0, 500_000), base.subarray(500_100)])

  test('only the difference travels', async () => {
    const delta = await compress(next, { dictionary: base })
    expect(delta.length).toBeLessThan(1000)
    expect(await decompress(delta, { maxBytes: next.length, dictionary: base })).toEqual(next)
  })

  test('another dictionary, or none, never gives the same bytes', async () => {
    const delta = await compress(next, { dictionary: base })
    for (const dictionary of [counterStream('other', MiB), base.subarray(1), undefined]) {
      const options = { maxBytes: next.length, ...(dictionary === undefined ? {} : { dictionary }) }
      const outcome = await decompress(delta, options).catch((error) => error as Error)
      if (outcome instanceof Error) expect(outcome).toMatchObject(invalid)
      else expect(outcome.equals(next)).toBe(false)
    }
  })

  test('all of a large base is found again', async () => {
    const large = counterStream('large base', 8 * MiB)
    const delta = await compress(Buffer.concat([Buffer.from('x'), large]), { dictionary: large })
    expect(delta.length).toBeLessThan(2000)
  })
})
