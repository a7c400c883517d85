import assert from 'node:assert/strict'
import { cp, readdir, readFile, rm, stat, truncate, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { afterEach, describe, it } from 'vitest'
import { assembleBlock, blockHeaderBytes, blockRowBytes } from '../../../protocol/block.ts'
import { hashId } from '../../../protocol/hash.ts'
import type { PackChunkStore } from '../../../server/store/pack-chunk-store.ts'
import { reindex, reindexAll } from '../../../server/upkeep/reindex.ts'
import {
  collect,
  expectAbsent,
  expectHeld,
  rejectsWith,
  type Sample,
  sampleBlock,
  sampleChunk,
  unverifiedBlock,
} from '../../conformance/chunk-store-suite.ts'
import { PackSubject } from './pack-subject.ts'

const subjects: PackSubject[] = []
afterEach(async () => {
  for (const subject of subjects.splice(0)) await subject.dispose()
})

async function newSubject(options?: Parameters<typeof PackSubject.create>[0]): Promise<PackSubject> {
  const subject = await PackSubject.create(options)
  subjects.push(subject)
  return subject
}

async function withStore(
  subject: PackSubject,
  body: (store: PackChunkStore) => Promise<void>,
): Promise<void> {
  const store = await subject.open()
  try {
    await body(store)
  } finally {
    await store.close()
  }
}

/** A closed store of three blocks of one chunk each; the index knows the first `flushed` of them. */
async function threeBlocks(flushed: 0 | 1 | 3): Promise<{ subject: PackSubject; blocks: Sample[][] }> {
  const original = await newSubject()
  const blocks = [4, 0, 7].map((length) => [sampleChunk(length)])
  const store = await original.open()
  for (const [n, chunks] of blocks.entries()) {
    await store.put(await sampleBlock(chunks))
    if (n + 1 === flushed) await store.flush()
  }
  const subject = await original.copy()
  subjects.push(subject)
  await store.close()
  return { subject, blocks }
}

describe('a pack that was cut short', () => {
  for (const { flushed, every, name } of [
    { flushed: 0, every: 13, name: 'nothing was flushed' },
    { flushed: 1, every: 1, name: 'the first block was flushed' },
    { flushed: 3, every: 13, name: 'everything was flushed, so that the index knows more than the pack' },
  ] as const) {
    it(`keeps exactly the whole blocks, wherever it is cut (every ${every} bytes), when ${name}`, {
      timeout: 120_000,
    }, async () => {
      const { subject, blocks } = await threeBlocks(flushed)
      const records = await subject.records(1)
      const pack = await readFile(subject.packPath(1))
      const index = join(subject.vaultDir, 'index')
      await cp(index, join(subject.vaultDir, 'index-before'), { recursive: true })
      assert.equal(records.length, 3)
      for (let cut = 0; cut <= pack.length; cut += every) {
        await writeFile(subject.packPath(1), pack.subarray(0, cut))
        await rm(index, { recursive: true })
        await cp(join(subject.vaultDir, 'index-before'), index, { recursive: true })
        const whole = records.filter(({ offset, bytes }) => offset + bytes <= cut).length
        await withStore(subject, async (store) => {
          assert.equal(store.usage.chunks, whole, `cut at ${cut}`)
          await expectHeld(store, blocks.slice(0, whole).flat())
          for (const [lost] of blocks.slice(whole)) await expectAbsent(store, lost as Sample)
          assert.equal(
            store.usage.storedBytes,
            (records[whole - 1]?.offset ?? 0) + (records[whole - 1]?.bytes ?? (cut < 16 ? 0 : 16)),
          )
        })
      }
      await withStore(subject, async (store) => {
        await store.put(await sampleBlock((blocks[1] as Sample[]).concat(blocks[2] as Sample[])))
      })
      await withStore(subject, (store) => expectHeld(store, blocks.flat()))
    })
  }

  it('cuts off zeros that the file system left behind the last block', async () => {
    const { subject, blocks } = await threeBlocks(1)
    const { length } = await readFile(subject.packPath(1))
    await truncate(subject.packPath(1), length + 100_000)
    await withStore(subject, async (store) => {
      assert.equal(store.usage.storedBytes, length)
      assert.equal((await stat(subject.packPath(1))).size, length)
      await expectHeld(store, blocks.flat())
    })
  })

  it('keeps later blocks when one before them never reached the disk', async () => {
    const { subject, blocks } = await threeBlocks(1)
    const pack = await readFile(subject.packPath(1))
    const { offset, bytes } = (await subject.records(1))[1] as { offset: number; bytes: number }
    await writeFile(subject.packPath(1), pack.fill(0, offset, offset + bytes))
    await withStore(subject, async (store) => {
      await expectHeld(store, [...(blocks[0] as Sample[]), ...(blocks[2] as Sample[])])
      await expectAbsent(store, blocks[1]?.[0] as Sample)
      assert.deepEqual(store.recovered?.damaged, [{ pack: 1, offset, bytes, damage: 'there is no record' }])
    })
  })
})

const table = blockHeaderBytes
const places = [
  { place: 'magic', at: 0 },
  { place: 'encoding', at: 4 },
  { place: 'reserved bytes', at: 6 },
  { place: 'chunk count', at: 8 },
  { place: 'plain length', at: 12 },
  { place: 'payload length', at: 16 },
  { place: 'payload checksum', at: 20 },
  { place: 'header checksum', at: 24 },
  { place: 'id of the first chunk', at: table + 5 },
  { place: 'length of the second chunk', at: table + blockRowBytes + 33 },
  { place: "first chunk's bytes", at: table + 2 * blockRowBytes },
  { place: 'last byte', at: -1 },
]

describe('one flipped bit in a record', () => {
  for (const { place, at } of places) {
    it(`in its ${place} is found, forgotten and healed`, async () => {
      const subject = await newSubject()
      const [before, a, b, after] = [sampleChunk(50), sampleChunk(1000), sampleChunk(2000), sampleChunk(50)]
      await withStore(subject, async (store) => {
        await store.put(await sampleBlock([before]))
        await store.put(await sampleBlock([a, b]))
        await store.put(await sampleBlock([after]))
      })
      const record = (await subject.records(1))[1] as { offset: number; bytes: number }
      await subject.flip(1, record.offset + (at < 0 ? record.bytes + at : at))
      const rebuilt = await subject.copy()
      subjects.push(rebuilt)
      await withStore(subject, async (store) => {
        const { losses } = store
        await assert.rejects(store.get(b.id), (error: { code?: string; extensions?: unknown }) => {
          assert.equal(error.code, 'chunk-corrupt')
          assert.deepEqual(error.extensions, { id: b.id, pack: 1, offset: record.offset })
          return true
        })
        assert.ok(store.losses > losses)
        assert.deepEqual(await store.stat([a.id, b.id]), [undefined, undefined])
      })
      await withStore(subject, async (store) => {
        await expectAbsent(store, a)
        assert.deepEqual(await store.put(await sampleBlock([a, b])), ['stored', 'stored'])
      })
      await subject.dropIndex()
      await withStore(subject, (store) => expectHeld(store, [before, a, b, after]))

      await rebuilt.dropIndex()
      await withStore(rebuilt, async (store) => {
        await expectHeld(store, [before, after])
        await expectAbsent(store, a)
        assert.equal(store.recovered?.damaged.length, 1)
      })
    })
  }

  it("in the pack's header costs nothing", async () => {
    for (const at of [0, 8, 12]) {
      const { subject, blocks } = await threeBlocks(3)
      await subject.flip(1, at)
      await subject.dropIndex()
      await withStore(subject, (store) => expectHeld(store, blocks.flat()))
    }
  })
})

describe('a search for records behind damage', () => {
  it('does not believe a record that a chunk made up, and believes a true one', async () => {
    const subject = await newSubject()
    const [made, real, last] = [sampleChunk(30), sampleChunk(40), sampleChunk(50)]
    const lie = await unverifiedBlock([{ id: made.id, bytes: real.bytes }])
    const bytes = Buffer.concat([
      Buffer.alloc(9),
      lie.bytes,
      (await sampleBlock([real])).bytes,
      Buffer.from('CDB1'),
    ])
    await withStore(subject, async (store) => {
      await store.put(await sampleBlock([{ id: hashId(bytes), bytes }]))
      await store.put(await sampleBlock([last]))
    })
    await subject.dropIndex()
    await withStore(subject, async (store) => {
      for (const inside of [made, real]) await expectAbsent(store, inside)
    })
    await subject.flip(1, 16)
    await subject.dropIndex()
    await withStore(subject, async (store) => {
      await expectAbsent(store, made)
      await expectHeld(store, [real, last])
    })
  })

  it('finds records farther away than one read', async () => {
    const subject = await newSubject()
    const [large, last] = [sampleChunk(9_000_000), sampleChunk(50)]
    await withStore(subject, async (store) => {
      await store.put(await sampleBlock([large]))
      await store.put(await sampleBlock([last]))
    })
    await subject.flip(1, 16)
    await subject.dropIndex()
    await withStore(subject, (store) => expectHeld(store, [last]))
  })
})

describe('the index', () => {
  it('is open in one process at a time', async () => {
    const subject = await newSubject()
    await withStore(subject, async () => {
      await rejectsWith('in-use', subject.open())
      await rejectsWith('in-use', reindex(subject.vaultDir))
    })
  })

  it('says what to do when LevelDB is damaged, and that helps', async () => {
    const { subject, blocks } = await threeBlocks(3)
    const index = join(subject.vaultDir, 'index')
    const manifest = (await readdir(index)).find((name) => name.startsWith('MANIFEST'))
    await writeFile(join(index, manifest ?? ''), 'nonsense'.repeat(100))
    await assert.rejects(subject.open(), /chunkdav reindex/)
    await rejectsWith('store-corrupt', subject.open())
    const report = await reindex(subject.vaultDir)
    assert.deepEqual(report, { packs: 1, blocks: 3, chunks: 3, damaged: [] })
    await withStore(subject, (store) => expectHeld(store, blocks.flat()))
  })

  it('ends where a pack was made and given up: one that was begun there again is gone on with', async () => {
    const subject = await newSubject()
    const chunks = [sampleChunk(100), sampleChunk(200)] as const
    await withStore(subject, async (store) => {
      await store.put(await sampleBlock([chunks[0]]))
    })
    await subject.dropIndex()
    await writeFile(subject.packPath(2), 'CDAV')
    // Removes the second pack, so that the mark is at its beginning.
    await withStore(subject, async () => {})
    await writeFile(subject.packPath(2), (await readFile(subject.packPath(1))).subarray(0, 16))
    await withStore(subject, async (store) => {
      await store.put(await sampleBlock([chunks[1]]))
    })
    await withStore(subject, (store) => expectHeld(store, chunks))
  })

  it('is none when its removal was cut short: what its log says alone is not believed', async () => {
    const subject = await newSubject()
    const chunks = [sampleChunk(100), sampleChunk(200)]
    for (const chunk of chunks) {
      await withStore(subject, async (store) => {
        await store.put(await sampleBlock([chunk]))
        await store.flush()
      })
    }
    await unlink(join(subject.vaultDir, 'index', 'CURRENT'))
    await withStore(subject, (store) => expectHeld(store, chunks))
  })

  it('is rebuilt in bounded steps, each of which lasts', async () => {
    const subject = await newSubject({ packBytes: 2000, flushRows: 10 })
    const chunks = Array.from({ length: 100 }, () => sampleChunk(100))
    await withStore(subject, async (store) => {
      for (let n = 0; n < 100; n += 5) await store.put(await sampleBlock(chunks.slice(n, n + 5)))
    })
    assert.ok((await subject.packs()).length > 5)
    await subject.dropIndex()
    await withStore(subject, async (store) => {
      assert.equal(store.usage.chunks, 100)
      assert.equal((await collect(store.list())).length, 100)
      await expectHeld(store, chunks)
    })
  })

  it('points at the latest record of a chunk after a rebuild', async () => {
    const subject = await newSubject({ flushRows: 1 })
    const [a, b] = [sampleChunk(100), sampleChunk(200)]
    await withStore(subject, async (store) => {
      // Checksums are right, the chunk is not: only its hash can tell.
      await store.put(assembleBlock([{ id: a.id, length: 200 }], 'identity', b.bytes) as never)
      await store.flush()
      await rejectsWith('chunk-corrupt', store.get(a.id))
      await store.put(await sampleBlock([a]))
    })
    await subject.dropIndex()
    await withStore(subject, (store) => expectHeld(store, [a]))
  })

  it('reports a later version of a pack instead of reading it', async () => {
    const { subject } = await threeBlocks(0)
    const pack = await readFile(subject.packPath(1))
    pack.writeUInt32LE(2, 8)
    pack.writeUInt32LE(crc32(pack.subarray(0, 12)), 12)
    await writeFile(subject.packPath(1), pack)
    await rejectsWith('store-corrupt', subject.open())
  })

  it('loses the rows of a pack that is gone when it is asked for, all at once', async () => {
    const subject = await newSubject({ packBytes: 1000 })
    const [a, b, c] = [sampleChunk(400), sampleChunk(300), sampleChunk(900)]
    await withStore(subject, async (store) => {
      for (const chunk of [a, b, c]) await store.put(await sampleBlock([chunk]))
    })
    assert.equal((await subject.packs()).length, 2)
    await unlink(subject.packPath(1))
    await withStore(subject, async (store) => {
      await rejectsWith('chunk-corrupt', store.get(a.id))
      await expectAbsent(store, b)
      await expectHeld(store, [c])
      await store.put(await sampleBlock([a, b]))
    })
    await withStore(subject, (store) => expectHeld(store, [a, b, c]))
  })
})

describe('reindex', () => {
  it('leaves out and reports what does not hash to its id', async () => {
    const subject = await newSubject()
    const [a, b, c] = [sampleChunk(100), sampleChunk(200), sampleChunk(300)]
    await withStore(subject, async (store) => {
      await store.put(await sampleBlock([a]))
      await store.put((await unverifiedBlock([{ id: c.id, bytes: b.bytes }])) as never)
      await store.put(await sampleBlock([b]))
    })
    const [, lie] = await subject.records(1)
    const report = await reindex(subject.vaultDir)
    assert.deepEqual([report.packs, report.blocks, report.chunks], [1, 2, 2])
    assert.deepEqual(
      report.damaged.map(({ pack, offset, bytes }) => ({ pack, offset, bytes })),
      [{ pack: 1, offset: lie?.offset, bytes: lie?.bytes }],
    )
    await withStore(subject, async (store) => {
      await expectHeld(store, [a, b])
      await expectAbsent(store, c)
    })
  })

  it('says so when it is pointed at no data directory', async () => {
    const { vaultDir } = await newSubject()
    await rejectsWith('vault-not-found', collect(reindexAll(vaultDir)))
  })

  it('goes through every vault of a data directory', async () => {
    const { subject } = await threeBlocks(3)
    const dataDir = await newSubject()
    for (const vault of ['beta', 'alpha']) {
      await cp(subject.vaultDir, join(dataDir.vaultDir, 'vaults', vault), { recursive: true })
    }
    const reports = await collect(reindexAll(dataDir.vaultDir))
    assert.deepEqual(
      reports.map(({ vault, report }) => [vault, report.chunks]),
      [
        ['alpha', 3],
        ['beta', 3],
      ],
    )
  })
})
