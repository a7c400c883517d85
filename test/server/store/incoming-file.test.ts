import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ReadingThreads } from '../../../client/sources/reading-threads.ts'
import { decodeBlock, discard } from '../../../protocol/block.ts'
import { cutLength, cutParameters, gear } from '../../../protocol/cut.ts'
import { hashId } from '../../../protocol/hash.ts'
import type { Id } from '../../../protocol/id.ts'
import { FileListBuilder } from '../../../protocol/list-builder.ts'
import { decodeFileObject } from '../../../protocol/objects.ts'
import { Problem } from '../../../protocol/problem.ts'
import type { Part } from '../../../protocol/schema.ts'
import { MemoryBudget } from '../../../server/http/memory-budget.ts'
import type { ChunkStore } from '../../../server/store/chunk-store.ts'
import { ContentCutter, type CutChunk } from '../../../server/store/content-cutter.ts'
import { type CutListener, type Cutting, CuttingThreads } from '../../../server/store/cutting-thread.ts'
import { createWindow, placeOf, ringBytes, windowBytes } from '../../../server/store/cutting-window.ts'
import {
  type IncomingFile,
  receiveFile,
  receiveSmallFile,
  smallFileBytes,
  uploadMemoryBytes,
} from '../../../server/store/incoming-file.ts'
import { MemoryChunkStore } from '../../../server/store/memory-chunk-store.ts'
import { FaultyFiles } from '../../support/faulty-files.ts'
import { MiB, noise } from '../requests.ts'
import { PackSubject } from './pack-subject.ts'

let store: MemoryChunkStore
let cutting: CuttingThreads
let memory: MemoryBudget
let workers: Worker[]
const onWorker = (worker: Worker): void => void workers.push(worker)

beforeEach(async () => {
  workers = []
  process.on('worker', onWorker)
  store = await MemoryChunkStore.open()
  cutting = new CuttingThreads({ threads: 2 })
  memory = new MemoryBudget(64 * MiB)
})
afterEach(async () => {
  await cutting.close()
  process.off('worker', onWorker)
  expect(memory.usage.heldBytes).toBe(0)
})

/** `bytes` in pieces of these sizes, over and over. One buffer for all: a piece is only borrowed. */
async function* inPieces(bytes: Buffer, sizes: readonly number[] = [65_536]): AsyncGenerator<Buffer> {
  const piece = Buffer.alloc(Math.max(...sizes))
  let offset = 0
  for (let i = 0; offset < bytes.length; i++) {
    const end = Math.min(bytes.length, offset + (sizes[i % sizes.length] as number))
    const length = bytes.copy(piece, 0, offset, end)
    yield piece.subarray(0, length)
    piece.fill(0xee)
    offset += length
  }
}

/** What the content is, cut in one go. */
function inOneGo(bytes: Buffer): IncomingFile & { ids: Id[] } {
  const list = new FileListBuilder()
  const parts: Part[] = []
  for (let start = 0; start < bytes.length || parts.length === 0; ) {
    const length = cutLength(bytes, start, bytes.length, true)
    parts.push({ id: hashId(bytes.subarray(start, start + length)), size: length })
    start += length
  }
  for (const part of parts) list.add(part)
  const md5 = createHash('md5').update(bytes).digest('hex')
  const sha1 = createHash('sha1').update(bytes).digest('hex')
  const whole = parts.length > 1 ? list.finish(hashId(bytes)).reference : (parts[0] as Part)
  return { part: whole, md5, sha1, ids: parts.map(({ id }) => id) }
}

/** Reads a file back through its lists. */
async function contentOf(from: ChunkStore, part: Part): Promise<Buffer> {
  const bytes = await from.get(part.id)
  if (bytes === undefined) throw new TypeError(`${part.id} is absent`)
  if (part.chunked !== true) return bytes
  const parts = decodeFileObject(bytes).parts
  return Buffer.concat(await Promise.all(parts.map((inner) => contentOf(from, inner))))
}

const receive = (body: AsyncIterable<Buffer>, options = {}): Promise<IncomingFile> =>
  receiveFile(store, body, cutting, { memory, ...options })

const { minChunkBytes, maxChunkBytes } = cutParameters
const random = noise(26 * MiB, 9)

describe('a content is what cutting it in one go makes of it', () => {
  test.each([
    ['nothing', Buffer.alloc(0)],
    ['one byte', Buffer.from('x')],
    ['as much as is always one chunk', random.subarray(0, minChunkBytes)],
    ['one byte more', random.subarray(0, minChunkBytes + 1)],
    ['a largest chunk without a cut', Buffer.alloc(maxChunkBytes)],
    ['one byte more', Buffer.alloc(maxChunkBytes + 1)],
    ['several laps of the window', random],
  ])('%s', async (_, bytes) => {
    const { ids, ...expected } = inOneGo(bytes)
    expect(await receive(inPieces(bytes))).toEqual(expected)
    expect((await contentOf(store, expected.part)).equals(bytes)).toBe(true)
    expect((await store.stat(ids)).includes(undefined)).toBe(false)
  })

  test('whatever the pieces and the sizes are, announced or not', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 14 * MiB }),
        fc.integer({ min: 0, max: 20 * MiB }),
        fc.array(fc.integer({ min: 1, max: 9 * MiB }), { minLength: 1, maxLength: 4 }),
        fc.boolean(),
        async (length, zeros, sizes, isAnnounced) => {
          const bytes = Buffer.concat([
            random.subarray(0, length),
            Buffer.alloc(zeros),
            random.subarray(0, 1),
          ])
          // Small ones among many: a step of a few bytes over megabytes takes long and tells no more.
          const pieces = sizes.map((size) => Math.max(size, bytes.length >>> 12))
          const { ids: _, ...expected } = inOneGo(bytes)
          const announcedBytes = isAnnounced ? bytes.length : undefined
          expect(await receive(inPieces(bytes, pieces), { announcedBytes })).toEqual(expected)
        },
      ),
      { numRuns: 12 },
    )
  })

  test('a client that reads the same file finds the same ids', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'chunkdav-incoming-'))
    const path = join(folder, 'file')
    const bytes = random.subarray(0, 9 * MiB)
    await writeFile(path, bytes)
    const reading = new ReadingThreads(1)
    try {
      const list = new FileListBuilder()
      let digest: Id | undefined
      const job = { files: [path], anyKind: false }
      for await (const { events, release } of reading.fill(job, AbortSignal.timeout(20_000))) {
        for (const event of events) {
          if (event.type === 'chunk') list.add({ id: event.id, size: event.bytes.length })
          if (event.type === 'done') digest = event.digest
        }
        release()
      }
      expect((await receive(inPieces(bytes))).part).toEqual(list.finish(digest).reference)
    } finally {
      await reading.close()
      await rm(folder, { recursive: true })
    }
  })

  test('golden ids', async () => {
    const content = Buffer.alloc(6 * MiB)
    for (let i = 0; i < content.length; i += 4) content.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i)
    expect(await receive(inPieces(content))).toEqual({
      part: {
        id: 'blake3:ff5fa712c1ebdbc1200588a0c5f9bbd76cac293b97a76d6b84493589c1369151',
        size: 6 * MiB,
        chunked: true,
      },
      md5: 'ffd173d28a0c16e751d2cfb83684588c',
      sha1: 'cca40f1838fc4517750f7902bf6efc76ab0eea4c',
    })
  })
})

describe('the window', () => {
  test('chunks found in small steps, over many laps, are those of one look', () => {
    const window = createWindow()
    const bytes = Buffer.concat([random, Buffer.alloc(9 * MiB), random.subarray(0, 5 * MiB)])
    const cutter = new ContentCutter(window)
    const ids: Id[] = []
    let position = 0
    for (let step = 1; position < bytes.length; step = (step * 7) % 1_000_003) {
      const { offset, room } = placeOf(position)
      const length = Math.min(step, room, bytes.length - position)
      bytes.copy(Buffer.from(window), offset, position, position + length)
      position += length
      for (const chunk of cutter.more(length)) {
        expect(hashId(Buffer.from(window, chunk.offset, chunk.length))).toBe(chunk.id)
        ids.push(chunk.id)
      }
    }
    ids.push(...cutter.finish().chunks.map(({ id }) => id))
    expect(ids).toEqual(inOneGo(bytes).ids)
  })

  test('a cut at the first place where one may be is found, wherever the search has stopped before', () => {
    let hash = 0
    let at = 0
    while (at < 32 || hash >>> (32 - cutParameters.strictBits) !== 0) {
      hash = ((hash << 1) + (gear[random[at++] as number] as number)) | 0
    }
    const bytes = Buffer.alloc(2 * minChunkBytes)
    random.copy(bytes, minChunkBytes - 32, at - 32, at)
    for (const searched of [0, 1, minChunkBytes - 1, minChunkBytes]) {
      expect(cutLength(bytes, 0, searched, false)).toBe(0)
      expect(cutLength(bytes, 0, bytes.length, false, searched)).toBe(minChunkBytes)
    }
  })

  test('is let go only when the thread has let go', async () => {
    const cuts: CutChunk[] = []
    const onCut = (chunks: readonly CutChunk[]): void => void cuts.push(...chunks)
    const upload = cutting.begin({ onCut, onFailure: () => {} })
    upload.more(ringBytes)
    await upload.close()
    expect(cuts).toHaveLength(ringBytes / maxChunkBytes)
    const next = cutting.begin({ onCut, onFailure: () => {} })
    expect(next.window).toBe(upload.window)
    await next.close()
  })

  test('a small content takes no thread, and no more memory than it needs', async () => {
    const bytes = random.subarray(0, smallFileBytes)
    const tight = new MemoryBudget(uploadMemoryBytes(bytes.length))
    await receiveFile(store, inPieces(bytes), cutting, { memory: tight, announcedBytes: bytes.length })
    expect(tight.usage).toMatchObject({ heldBytes: 0, peakBytes: 3 * smallFileBytes, waiting: 0 })
    expect(workers).toHaveLength(0)
    await expect(receiveSmallFile(store, Buffer.alloc(smallFileBytes + 1))).rejects.toThrow(TypeError)
  })
})

describe('the body is read no faster than chunks are stored', () => {
  test('a store that stands still stops the body within a window', async () => {
    const gate = Promise.withResolvers<void>()
    const put = store.put.bind(store)
    store.put = async (block) => {
      await gate.promise
      return put(block)
    }
    let asked = 0
    async function* counted(): AsyncGenerator<Buffer> {
      for await (const piece of inPieces(random)) {
        asked += piece.length
        yield piece
      }
    }
    const received = receive(counted())
    let before = -1
    while (asked !== before || asked === 0) {
      before = asked
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
    expect(asked).toBeLessThanOrEqual(windowBytes)
    gate.resolve()
    expect((await received).part).toEqual(inOneGo(random).part)
  })

  test('equal chunks are put once', async () => {
    let puts = 0
    const put = store.put.bind(store)
    store.put = (block) => {
      puts++
      return put(block)
    }
    await receive(inPieces(Buffer.alloc(64 * MiB)))
    // The chunk, and the file object.
    expect(puts).toBe(2)
  })

  test('nothing is asked for before the memory is there', async () => {
    const all = await memory.reserve(64 * MiB)
    let asked = false
    async function* body(): AsyncGenerator<Buffer> {
      asked = true
      yield Buffer.from('x')
    }
    const received = receive(body())
    const gone = new AbortController()
    const left = receive(body(), { signal: gone.signal })
    gone.abort()
    await expect(left).rejects.toMatchObject({ code: 'unavailable' })
    expect(asked).toBe(false)
    all.release()
    await received
    expect(asked).toBe(true)
  })

  test('many uploads at once share a small budget', async () => {
    const contents = Array.from({ length: 20 }, (_, i) => random.subarray(i * MiB, (i + 1 + (i % 7)) * MiB))
    const files = await Promise.all(contents.map((bytes) => receive(inPieces(bytes))))
    expect(files).toEqual(contents.map((bytes) => (({ ids: _, ...file }) => file)(inOneGo(bytes))))
    expect(memory.usage.peakBytes).toBeLessThanOrEqual(64 * MiB)
    expect(workers).toHaveLength(2)
  })
})

/** Ends after `bytes`, as an aborted request does. */
async function* breakingOff(bytes: Buffer): AsyncGenerator<Buffer> {
  yield* inPieces(bytes)
  throw new Problem('incomplete-body', 'the body ended before it was whole')
}

describe('what fails leaves no file and holds nothing', () => {
  async function expectNoObject(): Promise<void> {
    for await (const { id } of store.list()) {
      const bytes = await store.get(id)
      expect(bytes?.subarray(0, 8).toString()).not.toBe('{"type":')
    }
  }

  test.each([
    ['in the first piece', 0],
    ['in a small one', 1000],
    ['in the middle', 11 * MiB],
  ])('a body that breaks off %s', async (_, length) => {
    await expect(receive(breakingOff(random.subarray(0, length)))).rejects.toMatchObject({
      code: 'incomplete-body',
    })
    await expectNoObject()
    // The window is used again: by one that must not see what was in it.
    expect((await contentOf(store, (await receive(inPieces(random))).part)).equals(random)).toBe(true)
  })

  test('memory is given back when nothing is stored from it any more', async () => {
    const gate = Promise.withResolvers<void>()
    const began = Promise.withResolvers<void>()
    const put = store.put.bind(store)
    store.put = async (block) => {
      began.resolve()
      await gate.promise
      return put(block)
    }
    async function* body(): AsyncGenerator<Buffer> {
      yield* inPieces(random.subarray(0, 6 * MiB))
      await began.promise
      throw new Problem('incomplete-body', 'the body ended before it was whole')
    }
    let isOver = false
    const received = receive(body()).finally(() => {
      isOver = true
    })
    received.catch(() => {})
    await began.promise
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(isOver).toBe(false)
    expect(memory.usage.heldBytes).toBe(uploadMemoryBytes())
    gate.resolve()
    await expect(received).rejects.toMatchObject({ code: 'incomplete-body' })
  })

  test('a body that is longer than was announced', async () => {
    const body = inPieces(random.subarray(0, 2 * MiB))
    await expect(receive(body, { announcedBytes: 2 * MiB - 1 })).rejects.toThrow(TypeError)
    await expectNoObject()
  })

  test('an upload that is given up, and its body is told', async () => {
    const gone = new AbortController()
    let closed = false
    async function* body(): AsyncGenerator<Buffer> {
      try {
        for await (const piece of inPieces(random)) {
          yield piece
          if (piece.length > 0) gone.abort(new Problem('cancelled', 'enough'))
        }
      } finally {
        closed = true
      }
    }
    await expect(receive(body(), { signal: gone.signal })).rejects.toMatchObject({ code: 'cancelled' })
    expect(closed).toBe(true)
    await expectNoObject()
  })

  test('a disk that is full, at any of the writes; then it goes on', async () => {
    const files = new FaultyFiles()
    const subject = await PackSubject.create({ files })
    const packs = await subject.open()
    try {
      for (const before of [0, 3]) {
        const bytes = noise(9 * MiB, 100 + before)
        let pieces = 0
        async function* body(): AsyncGenerator<Buffer> {
          for await (const piece of inPieces(bytes, [MiB])) {
            if (pieces++ === before) files.fail('write', 'ENOSPC')
            yield piece
          }
        }
        const received = receiveFile(packs, body(), cutting, { memory })
        await expect(received).rejects.toMatchObject({ code: 'insufficient-storage' })
        expect(await packs.stat([inOneGo(bytes).part.id])).toEqual([undefined])
        const again = await receiveFile(packs, inPieces(bytes), cutting, { memory })
        expect((await contentOf(packs, again.part)).equals(bytes)).toBe(true)
      }
    } finally {
      await packs.close()
      await subject.dispose()
    }
  })

  /** A body that stops after 2 MiB until it is told to go on. */
  function halting(): { body: AsyncGenerator<Buffer>; halted: Promise<void>; goOn: () => void } {
    const halted = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    async function* body(): AsyncGenerator<Buffer> {
      yield* inPieces(random.subarray(0, 2 * MiB))
      await vi.waitFor(() => expect(workers).not.toHaveLength(0))
      halted.resolve()
      await goOn.promise
      yield* inPieces(random.subarray(2 * MiB))
    }
    return { body: body(), halted: halted.promise, goOn: goOn.resolve }
  }

  test('a thread that dies fails its own uploads, and the next one gets a new thread', async () => {
    const { body, halted, goOn } = halting()
    const dying = receive(body)
    await halted
    const other = receive(inPieces(random))
    await workers[0]?.terminate()
    goOn()
    await expect(dying).rejects.toMatchObject({ code: 'internal-error' })
    expect((await other).part).toEqual(inOneGo(random).part)
    const files = await Promise.all([receive(inPieces(random)), receive(inPieces(random))])
    expect(files.map(({ part }) => part)).toEqual([inOneGo(random).part, inOneGo(random).part])
    expect(workers).toHaveLength(3)
  })

  test('threads that are closed', async () => {
    const { body, halted, goOn } = halting()
    const received = receive(body)
    await halted
    await cutting.close()
    await cutting.close()
    goOn()
    await expect(received).rejects.toMatchObject({ code: 'unavailable' })
    await expect(receive(inPieces(random))).rejects.toMatchObject({ code: 'unavailable' })
  })
})

test('a list of many chunks is stored in parts, each behind what it refers to', async () => {
  // Chunks of 1 KiB: real ones would need gigabytes to fill a list.
  const begin = (listener: CutListener): Cutting => {
    const window = createWindow()
    let position = 0
    const more = (bytes: number): void => {
      const chunks: CutChunk[] = []
      for (const end = position + bytes; position < end; position += 1024) {
        const { offset } = placeOf(position)
        chunks.push({ id: hashId(Buffer.from(window, offset, 1024)), offset, length: 1024 })
      }
      setImmediate(() => listener.onCut(chunks, undefined))
    }
    const digests = { digest: hashId(random), md5: '', sha1: '' }
    const finish = (): void => void setImmediate(() => listener.onCut([], digests))
    return { window, more, finish, close: async () => {} }
  }
  const put = store.put.bind(store)
  let objects = 0
  store.put = async (block) => {
    const bytes = await decodeBlock(block)
    if (bytes.subarray(0, 8).toString() === '{"type":') {
      objects++
      const lengths = await store.stat(decodeFileObject(bytes).parts.map(({ id }) => id))
      expect(lengths.includes(undefined)).toBe(false)
    } else if (bytes.readUInt8(0) < 8) {
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    return put(block)
  }
  const bytes = noise(6 * MiB, 77)
  const { part } = await receiveFile(store, inPieces(bytes), { begin }, { memory })
  expect((await contentOf(store, part)).equals(bytes)).toBe(true)
  expect(objects).toBeGreaterThan(3)
})

test('only memory of its own is freed', () => {
  const [large, small, other] = [Buffer.allocUnsafe(MiB), Buffer.allocUnsafe(100), Buffer.allocUnsafe(100)]
  const shared = Buffer.from(createWindow())
  for (const bytes of [large, small, shared]) discard(bytes)
  expect([large, small, other, shared].map(({ length }) => length)).toEqual([0, 100, 100, windowBytes])
})
