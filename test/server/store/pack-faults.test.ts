import assert from 'node:assert/strict'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'vitest'
import type { Problem } from '../../../protocol/problem.ts'
import { NodeFile } from '../../../server/file-layer.ts'
import type { PackChunkStore } from '../../../server/store/pack-chunk-store.ts'
import {
  expectAbsent,
  expectHeld,
  rejectsWith,
  sampleBlock,
  sampleChunk,
} from '../../conformance/chunk-store-suite.ts'
import { FaultyFiles } from '../../support/faulty-files.ts'
import { PackSubject } from './pack-subject.ts'

let files: FaultyFiles
let subject: PackSubject
let store: PackChunkStore
let faults: Problem[]

beforeEach(async () => {
  files = new FaultyFiles()
  faults = []
  subject = await PackSubject.create({ files, packBytes: 10_000, onFault: (problem) => faults.push(problem) })
  store = await subject.open()
})

afterEach(async () => {
  await store.close()
  assert.equal(files.openFiles, 0, 'every file is closed')
  await subject.dispose()
})

async function reopen(): Promise<void> {
  await store.close()
  store = await subject.open()
}

describe('a defect in the writing', () => {
  it('keeps nobody waiting, leaves nothing behind, and the store goes on', async () => {
    const [a, b, c] = [sampleChunk(1000), sampleChunk(1001), sampleChunk(1002)] as const
    files.failByDefect('write')
    const puts = [store.put(await sampleBlock([a])), store.put(await sampleBlock([b]))]
    const ends = await Promise.allSettled(puts)
    assert.ok(ends.some((end) => end.status === 'rejected' && end.reason.code === 'internal-error'))
    assert.ok(faults.some(({ cause }) => cause instanceof RangeError))
    assert.deepEqual(await store.put(await sampleBlock([c])), ['stored'])
    await reopen()
    await expectHeld(store, [c])
  })
})

describe('flush', () => {
  it('syncs the bytes, then the names, and only then the index knows', async () => {
    const chunk = sampleChunk(1000)
    await store.put(await sampleBlock([chunk]))
    files.calls.length = 0
    const release = files.holdSyncs()
    const flushing = store.flush()
    await new Promise((resolve) => setTimeout(resolve, 20))
    const copy = await subject.copy()
    release()
    await flushing
    assert.deepEqual(files.calls, ['datasync 00000001.pack', 'syncFolder packs'])
    const before = await copy.open({ files })
    assert.equal(before.recovered?.blocks, 1, 'the block was found by scanning, not by the index')
    await before.close()
    await copy.dispose()
  })

  it('is shared by concurrent callers', async () => {
    await store.put(await sampleBlock([sampleChunk(1000)]))
    await Promise.all(Array.from({ length: 50 }, () => store.flush()))
    assert.ok(files.count('datasync') <= 2, `${files.count('datasync')} fsyncs`)
    await store.flush()
    assert.ok(files.count('datasync') <= 2, 'nothing new, nothing to sync')
  })

  it('covers every put that returned before it, also while another flush runs', async () => {
    const chunks = [sampleChunk(1000), sampleChunk(1001)] as const
    await store.put(await sampleBlock([chunks[0]]))
    const release = files.holdSyncs()
    const first = store.flush()
    await new Promise((resolve) => setTimeout(resolve, 10))
    await store.put(await sampleBlock([chunks[1]]))
    const second = store.flush()
    release()
    await Promise.all([first, second])
    assert.equal(files.count('datasync'), 2)
    const copy = await subject.copy()
    const again = await copy.open()
    assert.equal(again.recovered?.blocks, 0)
    await expectHeld(again, chunks)
    await again.close()
    await copy.dispose()
  })

  it('does not vouch for a write that it has not seen the end of', async () => {
    await store.put(await sampleBlock([sampleChunk(1000)]))
    const release = files.holdWrites()
    const putting = store.put(await sampleBlock([sampleChunk(2000)]))
    await new Promise((resolve) => setTimeout(resolve, 10))
    await store.flush()
    release()
    await putting
    await store.flush()
    assert.equal(files.count('datasync'), 2)
  })

  it('lets puts go on meanwhile', async () => {
    await store.put(await sampleBlock([sampleChunk(1000)]))
    const release = files.holdSyncs()
    const flushing = store.flush()
    assert.deepEqual(await store.put(await sampleBlock([sampleChunk(9990)])), ['stored'])
    assert.deepEqual(await store.put(await sampleBlock([sampleChunk(9990)])), ['stored'])
    release()
    await flushing
  })

  it('begins by itself when much is unsynced, and puts wait when it is too much', async () => {
    await store.close()
    store = await subject.open({ flushBytes: 5000 })
    const release = files.holdSyncs()
    const blocks = await Promise.all(Array.from({ length: 45 }, () => sampleBlock([sampleChunk(1000)])))
    await Promise.all(blocks.slice(0, 40).map((block) => store.put(block)))
    let done = 0
    const later = blocks.slice(40).map((block) => store.put(block).then(() => void done++))
    await new Promise((resolve) => setTimeout(resolve, 20))
    const doneBefore = done
    release()
    await Promise.all(later)
    assert.equal(doneBefore, 0, 'later puts wait')
  })
})

describe('a failed write', () => {
  for (const { call, code, expected } of [
    { call: 'write', code: 'ENOSPC', expected: 'insufficient-storage' },
    { call: 'write', code: 'EDQUOT', expected: 'insufficient-storage' },
    { call: 'write', code: 'EIO', expected: 'unavailable' },
    { call: 'create', code: 'ENOSPC', expected: 'insufficient-storage' },
    { call: 'create', code: 'EMFILE', expected: 'unavailable' },
  ] as const) {
    it(`by ${code} in ${call} is ${expected}, changes nothing, and is over when the cause is`, async () => {
      const [a, b, c] = [sampleChunk(4000), sampleChunk(4000), sampleChunk(4000)]
      await store.put(await sampleBlock([a]))
      await store.flush()
      await store.put(await sampleBlock([b]))
      const { usage, losses } = store
      files.fail(call, code)
      // It does not fit into the pack any more, so that both calls are needed.
      await rejectsWith(expected, store.put(await sampleBlock([c])))
      assert.deepEqual(store.usage, usage)
      assert.equal(store.losses, losses)
      await expectHeld(store, [a, b])
      await expectAbsent(store, c)
      assert.deepEqual(await subject.packs(), ['00000001.pack'])
      assert.deepEqual(await store.put(await sampleBlock([c])), ['stored'])
      await expectHeld(store, [a, b, c])
      await reopen()
      await expectHeld(store, [a, b, c])
      assert.deepEqual(
        faults.map((problem) => problem.code),
        [expected],
      )
    })
  }

  it('fails the puts of its group, and each can be put again', async () => {
    const chunks = Array.from({ length: 10 }, () => sampleChunk(3000))
    const blocks = await Promise.all(chunks.map((chunk) => sampleBlock([chunk])))
    files.fail('write', 'ENOSPC')
    const ends = await Promise.allSettled(blocks.map((block) => store.put(block)))
    for (const [i, end] of ends.entries()) {
      if (end.status === 'fulfilled') await expectHeld(store, chunks.slice(i, i + 1))
      else await expectAbsent(store, chunks[i] as (typeof chunks)[0])
    }
    assert.ok(ends.some(({ status }) => status === 'rejected'))
    await Promise.all(blocks.map((block) => store.put(block)))
    await reopen()
    await expectHeld(store, chunks)
    assert.equal(store.usage.chunks, 10)
  })

  it('shows in losses when the way back finds less than there was', async () => {
    const [a, b] = [sampleChunk(1000), sampleChunk(1000)]
    await store.put(await sampleBlock([a]))
    await subject.damage(a.id)
    files.fail('write', 'EIO')
    await rejectsWith('unavailable', store.put(await sampleBlock([b])))
    assert.deepEqual(await store.stat([a.id]), [undefined])
    assert.equal(store.losses, 1)
  })

  it('makes everything unavailable while the way back fails too, and nothing is lost', async () => {
    const [a, b] = [sampleChunk(1000), sampleChunk(1000)]
    await store.put(await sampleBlock([a]))
    files.fail('write', 'EIO')
    files.fail('truncate', 'EIO', 3)
    await rejectsWith('unavailable', store.put(await sampleBlock([b])))
    await rejectsWith('unavailable', store.stat([a.id]))
    await rejectsWith('unavailable', store.flush())
    await expectHeld(store, [a])
    await expectAbsent(store, b)
    assert.equal(store.losses, 0)
  })
})

describe('a failed fsync', () => {
  it('voids what was not durable, and the store goes on in a fresh pack', async () => {
    const [a, b, c] = [sampleChunk(1000), sampleChunk(2000), sampleChunk(3000)]
    await store.put(await sampleBlock([a]))
    await store.flush()
    await store.put(await sampleBlock([b]))
    const { losses } = store
    files.fail('datasync', 'EIO')
    const flushes = [store.flush(), store.flush()]
    for (const flush of flushes) await rejectsWith('unavailable', flush)
    assert.ok(store.losses > losses)
    await expectHeld(store, [a])
    await expectAbsent(store, b)
    assert.equal(store.usage.chunks, 1)
    assert.deepEqual(await store.put(await sampleBlock([b, c])), ['stored', 'stored'])
    await store.flush()
    assert.deepEqual(await subject.packs(), ['00000001.pack', '00000002.pack'])
    await reopen()
    await expectHeld(store, [a, b, c])
  })

  it('shows in losses at once, even while the way back fails', async () => {
    await store.put(await sampleBlock([sampleChunk(1000)]))
    files.fail('datasync', 'EIO')
    files.fail('unlink', 'EIO')
    await rejectsWith('unavailable', store.flush())
    assert.ok(store.losses > 0)
  })

  it('in the folder counts like one in a pack', async () => {
    const a = sampleChunk(1000)
    await store.put(await sampleBlock([a]))
    files.fail('syncFolder', 'EIO')
    await rejectsWith('unavailable', store.flush())
    await expectAbsent(store, a)
    await store.put(await sampleBlock([a]))
    await reopen()
    await expectHeld(store, [a])
  })

  it('voids also what was written while it ran, in later packs', async () => {
    const chunks = Array.from({ length: 6 }, () => sampleChunk(4000))
    await store.put(await sampleBlock([chunks[0] as (typeof chunks)[0]]))
    files.fail('datasync', 'ENOSPC')
    const release = files.holdSyncs()
    const flushing = store.flush()
    for (const chunk of chunks.slice(1)) await store.put(await sampleBlock([chunk]))
    assert.equal((await subject.packs()).length, 3)
    release()
    await rejectsWith('insufficient-storage', flushing)
    for (const chunk of chunks) await expectAbsent(store, chunk)
    for (const chunk of chunks) await store.put(await sampleBlock([chunk]))
    await reopen()
    await expectHeld(store, chunks)
  })

  it('of a flush that began by itself shows in losses', async () => {
    await store.close()
    store = await subject.open({ flushBytes: 500 })
    const a = sampleChunk(1000)
    files.fail('datasync', 'EIO')
    await store.put(await sampleBlock([a]))
    const { losses } = store
    while (store.losses === losses) await new Promise((resolve) => setTimeout(resolve, 1))
    await expectAbsent(store, a)
    await store.flush()
    assert.ok(faults.some((problem) => problem.code === 'unavailable'))
  })

  it('at opening fails the opening and cuts nothing off', async () => {
    const a = sampleChunk(1000)
    await store.put(await sampleBlock([a]))
    await store.close()
    await subject.dropIndex()
    files.fail('datasync', 'EIO')
    await rejectsWith('unavailable', subject.open())
    store = await subject.open()
    await expectHeld(store, [a])
  })
})

describe('a failed read', () => {
  it('of a bad sector is a damaged chunk', async () => {
    const a = sampleChunk(1000)
    await store.put(await sampleBlock([a]))
    await store.flush()
    files.fail('read', 'EIO')
    await rejectsWith('chunk-corrupt', store.get(a.id))
    await expectAbsent(store, a)
  })

  it('for want of file handles forgets nothing', async () => {
    const a = sampleChunk(1000)
    await store.put(await sampleBlock([a]))
    files.fail('open', 'EMFILE')
    await rejectsWith('unavailable', store.get(a.id))
    await expectHeld(store, [a])
  })
})

describe('a file', () => {
  it('goes on with short writes and short reads', async () => {
    await store.close()
    const path = join(subject.vaultDir, 'short')
    const handle = await open(path, 'w+')
    const short = {
      read: (target: Buffer, at: number, length: number, position: number) =>
        handle.read(target, at, Math.min(length, 3), position),
      writev: (parts: Buffer[], position: number) =>
        handle.writev([parts[0]?.subarray(0, 2) ?? Buffer.alloc(0)], position),
      close: () => handle.close(),
    } as unknown as FileHandle
    const file = new NodeFile(short)
    await file.write([Buffer.from('abc'), Buffer.alloc(0), Buffer.from('defgh')], 1)
    const target = Buffer.alloc(9)
    assert.equal(await file.read(target, 1), 8)
    assert.equal(target.toString('latin1', 0, 8), 'abcdefgh')
    const stuck = new NodeFile({
      ...short,
      writev: async () => ({ bytesWritten: 0 }),
    } as unknown as FileHandle)
    await assert.rejects(stuck.write([Buffer.from('abc')], 0), { code: 'EIO' })
    await file.close()
    store = await subject.open()
  })
})

describe('open files', () => {
  it('are bounded while many packs are read', async () => {
    await store.close()
    store = await subject.open({ openPacks: 2, packBytes: 100 })
    const chunks = Array.from({ length: 12 }, () => sampleChunk(200))
    for (const chunk of chunks) await store.put(await sampleBlock([chunk]))
    await store.flush()
    await Promise.all([expectHeld(store, chunks), expectHeld(store, chunks.toReversed())])
    assert.ok(files.openFiles <= 4, `${files.openFiles} files are open`)
  })
})
