import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  assembleBlock,
  blockHeaderBytes,
  blockRowBytes,
  compressionPays,
  decodeBlock,
  encodeBlock,
  headerLength,
  parseHeader,
  payloadIsIntact,
  payloadOf,
  sliceRow,
  splitBatch,
  verifyBlock,
} from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { HashAlgorithm } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { decompress } from '../../protocol/zstd.ts'
import { readVectors } from '../support/vectors/read.ts'
import { counterStream } from '../support/vectors/stream.ts'

interface BlockVector {
  name: string
  hex: string
  encoding: string
  plainBytes: number
  payloadBytes: number
  payloadCrc: number
  payloadHex: string
  chunks: { id: string; start: number; length: number; text: string }[]
}
const vectors = readVectors<{
  blocks: BlockVector[]
  batch: { blocks: string[]; base64: string }
  damaged: { name: string; step: 'split' | 'verify'; fault: string; hex: string }[]
  delta: { baseText: string; base: string; frameHex: string; resultText: string; result: string }
}>('blocks.json')

function chunksOf(texts: readonly Uint8Array[], algorithm: HashAlgorithm = 'blake3') {
  return texts.map((bytes) => ({ id: hashId(bytes, algorithm), length: bytes.length }))
}

describe('vectors', () => {
  test.each(vectors.blocks)('$name', async (vector) => {
    const [block, ...more] = splitBatch(Buffer.from(vector.hex, 'hex'))
    expect(more).toEqual([])
    if (block === undefined) throw new Error('unreachable')
    const { encoding, plainBytes, payloadBytes, payloadCrc } = vector
    expect(block.header).toMatchObject({ encoding, plainBytes, payloadBytes, payloadCrc })
    expect(block.header.rows).toEqual(vector.chunks.map(({ id, start, length }) => ({ id, start, length })))
    expect(payloadOf(block).toString('hex')).toBe(vector.payloadHex)
    const plain = await verifyBlock(block)
    expect(block.header.rows.map((row) => sliceRow(plain, row).toString())).toEqual(
      vector.chunks.map(({ text }) => text),
    )
  })

  test('a batch is blocks one behind the other', () => {
    const blocks = splitBatch(Buffer.from(vectors.batch.base64, 'base64'))
    const named = vectors.batch.blocks.map(
      (name) => vectors.blocks.find((vector) => vector.name === name)?.hex,
    )
    expect(blocks.map(({ bytes }) => bytes.toString('hex'))).toEqual(named)
  })

  test.each(vectors.damaged)('refused: $name', async ({ step, fault, hex }) => {
    const bytes = Buffer.from(hex, 'hex')
    if (step === 'split') {
      expect(() => splitBatch(bytes)).toThrow(expect.objectContaining({ code: fault }))
      return
    }
    const [block] = splitBatch(bytes)
    if (block === undefined) throw new Error('unreachable')
    await expect(verifyBlock(block)).rejects.toMatchObject({ code: fault })
  })

  test('a delta is a frame with the base as dictionary', async () => {
    const { baseText, base, frameHex, resultText, result } = vectors.delta
    const dictionary = Buffer.from(baseText)
    expect(hashId(dictionary)).toBe(base)
    const plain = await decompress(Buffer.from(frameHex, 'hex'), {
      maxBytes: limits.maxChunkBytes,
      dictionary,
    })
    expect(plain.toString()).toBe(resultText)
    expect(hashId(plain)).toBe(result)
  })
})

test('what goes in comes out', async () => {
  const pieces = fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 12 })
  const blocks = fc.array(
    fc.record({
      pieces,
      zstd: fc.boolean(),
      algorithm: fc.constantFrom('blake3' as const, 'sha256' as const),
    }),
    { minLength: 1, maxLength: 4 },
  )
  await fc.assert(
    fc.asyncProperty(blocks, async (specs) => {
      const made = await Promise.all(
        specs.map(({ pieces, zstd, algorithm }) =>
          encodeBlock(chunksOf(pieces, algorithm), Buffer.concat(pieces), {
            encoding: zstd ? 'zstd' : 'identity',
          }),
        ),
      )
      const split = splitBatch(Buffer.concat(made.map(({ bytes }) => bytes)))
      expect(split.map(({ header }) => header)).toEqual(made.map(({ header }) => header))
      for (const [i, block] of split.entries()) {
        const plain = await verifyBlock(block)
        expect(block.header.rows.map((row) => sliceRow(plain, row))).toEqual(
          specs[i]?.pieces.map((p) => Buffer.from(p)),
        )
      }
    }),
    { numRuns: 60 },
  )
})

describe('damage', () => {
  const whole = Buffer.from(vectors.batch.base64, 'base64')
  const ends: number[] = []
  for (const block of splitBatch(whole)) ends.push((ends.at(-1) ?? 0) + block.bytes.length)

  test('every flipped bit of a batch is refused', () => {
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const bytes = Buffer.from(whole)
      bytes[bit >>> 3] = (bytes[bit >>> 3] as number) ^ (1 << (bit & 7))
      expect(() => splitBatch(bytes), `bit ${bit}`).toThrow(
        expect.objectContaining({ code: 'invalid-batch' }),
      )
    }
  })

  test('a batch cut at any byte is refused, but between blocks it is a shorter batch', () => {
    for (let length = 0; length < whole.length; length++) {
      const bytes = whole.subarray(0, length)
      if (ends.includes(length)) expect(splitBatch(bytes)).toHaveLength(ends.indexOf(length) + 1)
      else expect(() => splitBatch(bytes)).toThrow(expect.objectContaining({ code: 'invalid-batch' }))
    }
  })

  test('the problem tells where', () => {
    const bytes = Buffer.concat([whole, Buffer.from('more')])
    expect(() => splitBatch(bytes)).toThrow(
      expect.objectContaining({ code: 'invalid-batch', extensions: { offset: whole.length } }),
    )
  })

  test('a flipped bit of the payload, its checksum made right, does not hash to the id', async () => {
    const pieces = [Buffer.from('one'), Buffer.from('two')]
    const rows = chunksOf(pieces)
    for (let bit = 0; bit < 6 * 8; bit++) {
      const payload = Buffer.concat(pieces)
      payload[bit >>> 3] = (payload[bit >>> 3] as number) ^ (1 << (bit & 7))
      const block = assembleBlock(rows, 'identity', payload)
      expect(payloadIsIntact(block)).toBe(true)
      await expect(verifyBlock(block)).rejects.toMatchObject({
        code: 'digest-mismatch',
        extensions: { id: rows[bit < 24 ? 0 : 1]?.id },
      })
    }
  })

  test('a header that claims an endless payload is refused before the payload is there', () => {
    const [block] = splitBatch(
      Buffer.from(vectors.blocks.find(({ encoding }) => encoding === 'zstd')?.hex ?? '', 'hex'),
    )
    if (block === undefined) throw new Error('unreachable')
    const header = Buffer.from(block.bytes.subarray(0, headerLength(block.bytes)))
    const seal = (payloadBytes: number): void => {
      header.writeUInt32LE(payloadBytes, 16)
      header.writeUInt32LE(crc32(header.subarray(blockHeaderBytes), crc32(header.subarray(0, 24))), 24)
    }
    seal(limits.maxBatchBytes)
    expect(parseHeader(header)).toMatchObject({ payloadBytes: limits.maxBatchBytes })
    for (const length of [limits.maxBatchBytes + 1, 0xffffffff]) {
      seal(length)
      expect(parseHeader(header)).toBeUndefined()
    }
  })
})

describe('limits', () => {
  test.each([
    ['no chunks', [], Buffer.alloc(0)],
    ['lengths that do not add up', chunksOf([Buffer.alloc(3)]), Buffer.alloc(4)],
    [
      'too many chunks',
      chunksOf(Array.from({ length: limits.maxBlockChunks + 1 }, () => Buffer.alloc(0))),
      Buffer.alloc(0),
    ],
    [
      'too many bytes',
      [{ id: hashId(Buffer.alloc(0)), length: limits.maxBlockBytes + 1 }],
      Buffer.alloc(limits.maxBlockBytes + 1),
    ],
  ])('%s are misuse', async (_, chunks, plain) => {
    await expect(encodeBlock(chunks, plain)).rejects.toThrow(TypeError)
  })

  test('a full table fits', async () => {
    const rows = chunksOf(Array.from({ length: limits.maxBlockChunks }, () => Buffer.from('x')))
    const block = await encodeBlock(rows, Buffer.alloc(rows.length, 'x'), { encoding: 'zstd' })
    expect(block.header.totalBytes).toBe(
      blockHeaderBytes + rows.length * blockRowBytes + block.header.payloadBytes,
    )
    await verifyBlock(block)
  })

  test('many short chunks do not hold the event loop', async () => {
    const rows = chunksOf(Array.from({ length: limits.maxBlockChunks }, () => Buffer.from('x')))
    const block = await encodeBlock(rows, Buffer.alloc(rows.length, 'x'))
    let turns = 0
    let ended = false
    const turn = (): void => {
      turns++
      if (!ended) setImmediate(turn)
    }
    setImmediate(turn)
    await verifyBlock(block)
    ended = true
    expect(turns).toBeGreaterThan(10)
  })

  test('a largest chunk fits', async () => {
    const bytes = Buffer.alloc(limits.maxChunkBytes)
    const block = await encodeBlock(chunksOf([bytes]), bytes, { encoding: 'zstd' })
    expect((await verifyBlock(block)).equals(bytes)).toBe(true)
  })
})

describe('compression', () => {
  test.each([
    [96, 100, true],
    [97, 100, false],
    [100, 100, false],
    [0, 0, false],
    [31, 32, false],
    [30, 32, true],
  ])('%i of %i bytes pays: %s', (encoded, plain, pays) => {
    expect(compressionPays(encoded, plain)).toBe(pays)
  })

  test('noise stays as it is', async () => {
    const noise = counterStream('noise', 10_000)
    const block = await encodeBlock(chunksOf([noise]), noise, { encoding: 'zstd' })
    expect(block.header.encoding).toBe('identity')
    expect(await decodeBlock(block)).toEqual(noise)
  })

  test('text does not', async () => {
    const text = Buffer.alloc(10_000, 'say it again. ')
    const block = await encodeBlock(chunksOf([text]), text, { encoding: 'zstd', level: 9 })
    expect(block.header.encoding).toBe('zstd')
    expect(block.header.payloadBytes).toBeLessThan(200)
  })
})
