/**
 * The conformance suite of Target, for any test framework that has `describe` and `it`:
 *
 *     import { describe, it } from 'vitest'
 *     import { targetSuite } from 'chunkdav/conformance'
 *     targetSuite({ describe, it }, {
 *       create: async () => ({ open: async () => new MyTarget('/some/fresh/place'), dispose: async () => {} }),
 *     })
 *
 * The form of its checkpoints is data (`capabilities.form`): what concerns the other form is left out.
 */
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Target } from '../../client/engine/target.ts'
import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import type { CommitRequest, FileEntry } from '../../protocol/schema.ts'
import {
  collect,
  rejectsWith,
  type Sample,
  type SuiteRunner,
  sampleChunk,
  sampleText,
} from './chunk-store-suite.ts'
import { within } from './source-suite.ts'

/** One vault, and one source's checkpoints in it. */
export interface TargetSubject {
  /** A target of this vault and source. Targets are opened one after the other, or side by side. */
  open(): Promise<Target>
  dispose(): Promise<void>
}

export interface TargetSuiteOptions {
  /** A subject in a fresh, empty place. */
  create(): Promise<TargetSubject>
}

type Body = (target: Target, subject: TargetSubject) => Promise<void>
type Test = (name: string, body: Body) => void

export function targetSuite({ describe, it }: SuiteRunner, options: TargetSuiteOptions): void {
  /** One test: a fresh place, a target of it, both gone afterwards. */
  const test: Test = (name, body) =>
    it(name, async () => {
      const subject = await options.create()
      try {
        const target = await subject.open()
        try {
          await body(target, subject)
        } finally {
          await within(target.close(), 'close')
        }
      } finally {
        await subject.dispose()
      }
    })
  /** The same behind a `begin`. */
  const begun: Test = (name, body) =>
    test(name, async (target, subject) => {
      await target.begin(undefined, {})
      await body(target, subject)
    })

  describe('a target: beginning', () => beginTests(test))
  describe('a target: putting', () => putTests(begun))
  describe('a target: refusing', () => refusalTests(begun))
  describe('a target: reading', () => readTests(begun))
  describe('a target: items', () => itemTests(begun))
  describe('a target: committing', () => commitTests(begun))
  describe('a target: closing', () => closingTests(test, begun))
}

/** Runs `body` with one more target of the subject. */
async function withAnother(subject: TargetSubject, body: (target: Target) => Promise<void>): Promise<void> {
  const target = await subject.open()
  try {
    await body(target)
  } finally {
    await target.close()
  }
}

const idsOf = (chunks: readonly Sample[]): Id[] => chunks.map(({ id }) => id)

/** Asserts that these read back, in this order. */
async function expectRead(target: Target, chunks: readonly Sample[]): Promise<void> {
  const read = await within(collect(target.read(idsOf(chunks))), 'read')
  assert.deepEqual(
    read.map(({ id }) => id),
    idsOf(chunks),
  )
  assert.ok(
    read.every(({ bytes }, i) => bytes.equals((chunks[i] as Sample).bytes)),
    'every chunk has its bytes',
  )
}

/** A commit of a backup that holds exactly these chunks; brings what it takes but the chunks themselves. */
async function requestOf(target: Target, chunks: readonly Sample[]): Promise<CommitRequest> {
  if (target.capabilities.form === 'chunks') {
    await target.addItems(
      0,
      chunks.map(({ id, bytes }) => ({ id, size: bytes.length })),
    )
    return { items: chunks.length }
  }
  const entries = chunks.map(({ id, bytes }, i): FileEntry => {
    const attributes = { mode: 0o644, uid: 0, gid: 0, mtimeNs: '0' }
    return { kind: 'file', name: `f${String(i).padStart(6, '0')}`, ...attributes, size: bytes.length, id }
  })
  const root = encodeDirectoryObject(entries)
  await target.put([root])
  return { root: root.id }
}

/** Puts and commits a backup of one new chunk; returns its number. */
async function commitOne(target: Target): Promise<number> {
  const chunk = sampleChunk(100)
  await target.put([chunk])
  const outcome = await target.commit(await requestOf(target, [chunk]))
  assert.ok('committed' in outcome)
  return outcome.committed.number
}

function beginTests(test: Test): void {
  test('opens a first checkpoint, in a vault that may not be there yet', async (target) => {
    const { number, resumed, base } = await target.begin(undefined, { host: 'here' })
    assert.ok(Number.isInteger(number) && number >= 1)
    assert.deepEqual([resumed, base], [false, undefined])
  })

  test('goes on with the one that is open', async (target, subject) => {
    const { number } = await target.begin(undefined, {})
    const chunk = sampleChunk(1000)
    await target.put([chunk])
    await target.close()
    await withAnother(subject, async (next) => {
      assert.deepEqual(await next.begin(number, {}), { number, resumed: true, base: undefined })
      assert.deepEqual(await next.put([chunk]), { sentChunks: 0, reusedChunks: 1 })
    })
  })

  test('opens a new one instead of one that never was', async (target) => {
    const { number, resumed } = await target.begin(12_345, {})
    assert.equal(resumed, false)
    assert.notEqual(number, 12_345)
  })

  test('opens a new one, on top of the committed one, when that is to be resumed', async (target, subject) => {
    const first = await target.begin(undefined, {})
    assert.equal(await commitOne(target), first.number)
    await withAnother(subject, async (next) => {
      const second = await next.begin(first.number, {})
      assert.equal(second.resumed, false)
      assert.ok(second.number > first.number)
      assert.equal(second.base?.number, first.number)
      assert.equal(second.base?.state, 'committed')
    })
  })

  test('tells the last committed checkpoint, whatever else is open', async (target, subject) => {
    await target.begin(undefined, {})
    await commitOne(target)
    let last = 0
    await withAnother(subject, async (next) => {
      last = (await next.begin(undefined, {})).number
      await commitOne(next)
    })
    await withAnother(subject, async (next) => {
      assert.equal((await next.begin(undefined, {})).base?.number, last)
    })
    await withAnother(subject, async (next) => {
      assert.equal((await next.begin(undefined, {})).base?.number, last)
    })
  })

  test('begins anew when the open one has items already', async (target, subject) => {
    if (target.capabilities.form !== 'chunks') return
    const { number } = await target.begin(undefined, {})
    const chunk = sampleChunk(10)
    await target.put([chunk])
    await target.addItems(0, [{ id: chunk.id, size: 10 }])
    await withAnother(subject, async (next) => {
      const second = await next.begin(number, {})
      assert.equal(second.resumed, false)
      assert.notEqual(second.number, number)
      await next.addItems(0, [{ id: chunk.id, size: 10 }])
      assert.ok('committed' in (await next.commit({ items: 1 })))
    })
    // The old one is dropped.
    await assert.rejects(target.commit({ items: 1 }))
  })

  test('takes nothing before it has begun', async (target) => {
    const chunk = sampleChunk(1)
    await assert.rejects(target.put([chunk]), TypeError)
    await assert.rejects(target.commit({ items: 0 }), TypeError)
  })
}

function putTests(test: Test): void {
  test('takes nothing at all', async (target) => {
    assert.deepEqual(await target.put([]), { sentChunks: 0, reusedChunks: 0 })
  })

  test('tells what it sent from what was there', async (target, subject) => {
    const [a, b, c] = [sampleChunk(10), sampleText(100_000), sampleChunk(2000, 'sha256')]
    assert.deepEqual(await target.put([a, b]), { sentChunks: 2, reusedChunks: 0 })
    assert.deepEqual(await target.put([a, b]), { sentChunks: 0, reusedChunks: 2 })
    assert.deepEqual(await target.put([b, c]), { sentChunks: 1, reusedChunks: 1 })
    await expectRead(target, [a, b, c])
    await withAnother(subject, async (next) => {
      await next.begin(undefined, {})
      assert.deepEqual(await next.put([c, a]), { sentChunks: 0, reusedChunks: 2 })
    })
  })

  test('sends a chunk once that stands several times in one call', async (target) => {
    const [a, b] = [sampleChunk(1000), sampleChunk(1000)]
    assert.deepEqual(await target.put([a, b, a, a]), { sentChunks: 2, reusedChunks: 2 })
    await expectRead(target, [a, b])
  })

  test('sends a chunk once that many calls bring at the same time', async (target) => {
    const [shared, bytesBefore] = [sampleChunk(300_000), target.counters.bytesSent]
    const others = Array.from({ length: 20 }, () => sampleChunk(50))
    const counts = await Promise.all(others.map((other) => target.put([other, shared])))
    assert.equal(
      counts.reduce((sum, { sentChunks }) => sum + sentChunks, 0),
      21,
    )
    assert.equal(
      counts.reduce((sum, { reusedChunks }) => sum + reusedChunks, 0),
      19,
    )
    assert.ok(target.counters.bytesSent - bytesBefore < 2 * 300_000)
    await expectRead(target, [shared, ...others])
  })

  test('takes an empty chunk', async (target) => {
    const empty = sampleChunk(0)
    assert.deepEqual(await target.put([empty]), { sentChunks: 1, reusedChunks: 0 })
    await expectRead(target, [empty])
  })

  test('takes the largest chunk, among small ones', async (target) => {
    const chunks = [sampleChunk(3), sampleChunk(target.capabilities.maxChunkBytes), sampleChunk(5)]
    assert.deepEqual(await target.put(chunks), { sentChunks: 3, reusedChunks: 0 })
    await expectRead(target, chunks)
  })

  test('takes thousands of tiny chunks, in one call and in many', async (target) => {
    const chunks = Array.from({ length: 5000 }, () => sampleChunk(12))
    assert.deepEqual(await target.put(chunks.slice(0, 3000)), { sentChunks: 3000, reusedChunks: 0 })
    const { requests } = target.counters
    const calls = Array.from({ length: 200 }, (_, i) => chunks.slice(2000 + 15 * i, 2015 + 15 * i))
    const counts = await Promise.all(calls.map((call) => target.put(call)))
    assert.equal(
      counts.reduce((sum, { sentChunks }) => sum + sentChunks, 0),
      2000,
    )
    assert.ok(target.counters.requests - requests < 100, 'calls are gathered')
    await expectRead(target, chunks)
  })

  test('needs the bytes no longer when it is through', async (target) => {
    const chunks = [sampleChunk(1000), sampleText(700_000)]
    const copies = chunks.map(({ id, bytes }) => ({ id, bytes: Buffer.from(bytes) }))
    await target.put(copies)
    for (const { bytes } of copies) bytes.fill(0)
    await expectRead(target, chunks)
  })

  test('counts requests and bytes, and what is kept of them', async (target) => {
    const before = { ...target.counters }
    const chunk = sampleText(400_000)
    await target.put([chunk])
    const after = { ...target.counters }
    assert.ok(after.requests > before.requests)
    assert.ok(after.bytesSent > before.bytesSent)
    assert.ok(after.bytesStored > before.bytesStored)
    assert.ok(after.bytesStored - before.bytesStored < 100_000, 'text is compressed')
    await target.put([chunk])
    assert.ok(target.counters.requests >= after.requests)
    assert.equal(target.counters.bytesStored, after.bytesStored)
  })
}

function refusalTests(test: Test): void {
  /** A chunk whose id is another's. */
  const lie = (): Sample => ({ id: sampleChunk(20).id, bytes: sampleChunk(20).bytes })

  test('refuses a false chunk, alone', async (target) => {
    const wrong = lie()
    await rejectsWith('digest-mismatch', target.put([wrong]))
    await rejectsWith('chunk-not-found', collect(target.read([wrong.id])))
  })

  test('refuses a false chunk and takes the others of other calls', async (target) => {
    const chunks = Array.from({ length: 10 }, () => sampleChunk(500))
    const good = chunks.map((chunk) => target.put([chunk]))
    const bad = target.put([lie()])
    await Promise.all([rejectsWith('digest-mismatch', bad), ...good])
    await expectRead(target, chunks)
  })

  test('refuses a false chunk when nothing else of the call is under way any more', async (target) => {
    const others = [sampleChunk(10), sampleChunk(9_000_000), sampleChunk(20), sampleChunk(8_000_000)]
    await rejectsWith('digest-mismatch', target.put([lie(), ...others]))
    for (const { bytes } of others) bytes.fill(0)
    const read = await collect(target.read(idsOf(others)))
    assert.deepEqual(
      read.map(({ id }) => id),
      idsOf(others),
    )
  })

  test('takes the true bytes of an id under which false ones were refused', async (target) => {
    const chunk = sampleChunk(20)
    await rejectsWith('digest-mismatch', target.put([{ id: chunk.id, bytes: sampleChunk(20).bytes }]))
    assert.deepEqual(await target.put([chunk]), { sentChunks: 1, reusedChunks: 0 })
    await expectRead(target, [chunk])
  })
}

function readTests(test: Test): void {
  test('gives chunks in the order asked, as often as asked', async (target) => {
    const [a, b, c] = [sampleChunk(10), sampleText(600_000), sampleChunk(0)]
    await target.put([a, b, c])
    await expectRead(target, [])
    await expectRead(target, [c, a, b, a, a, c])
  })

  test('says which chunk is not there', async (target) => {
    const [a, absent] = [sampleChunk(10), sampleChunk(20)]
    await target.put([a])
    const reading = target.read([a.id, absent.id])[Symbol.asyncIterator]()
    assert.equal((await reading.next()).value?.id, a.id)
    await rejectsWith('chunk-not-found', reading.next() as Promise<unknown>)
    await expectRead(target, [a])
  })

  test('may be left early, and given up', async (target) => {
    const chunks = Array.from({ length: 40 }, () => sampleChunk(200_000))
    await target.put(chunks)
    for await (const _ of target.read(idsOf(chunks))) break
    const abort = new AbortController()
    const reading = collect(target.read(idsOf(chunks), abort.signal))
    abort.abort()
    await assert.rejects(within(reading, 'an aborted read'))
    await expectRead(target, chunks)
  })

  test('reads several times at once, and while it puts', async (target) => {
    const chunks = Array.from({ length: 100 }, () => sampleChunk(5000))
    await target.put(chunks)
    const more = Array.from({ length: 100 }, () => sampleChunk(5000))
    await Promise.all([expectRead(target, chunks), target.put(more), expectRead(target, chunks.toReversed())])
    await expectRead(target, more)
  })
}

function itemTests(test: Test): void {
  test('has items in one form and not in the other', async (target) => {
    const chunk = sampleChunk(1)
    if (target.capabilities.form === 'dir') {
      await assert.rejects(target.addItems(0, [{ id: chunk.id, size: 1 }]), TypeError)
    } else {
      await target.addItems(0, [])
    }
  })

  test('takes items at the end of the list, and those that are there already', async (target) => {
    if (target.capabilities.form !== 'chunks') return
    const chunks = [sampleChunk(1), sampleChunk(2), sampleChunk(3)]
    await target.put(chunks)
    const items = chunks.map(({ id, bytes }) => ({ id, size: bytes.length }))
    await target.addItems(0, items.slice(0, 2))
    await target.addItems(0, items.slice(0, 2))
    await target.addItems(2, items.slice(2))
    await rejectsWith('items-conflict', target.addItems(5, items))
    await rejectsWith('items-conflict', target.addItems(0, items.toReversed()))
    const outcome = await target.commit({ items: 3 })
    assert.ok('committed' in outcome)
    assert.equal(outcome.committed.items, 3)
  })

  test('takes more items than one request holds', async (target) => {
    if (target.capabilities.form !== 'chunks') return
    const chunk = sampleChunk(7)
    await target.put([chunk])
    const count = 2 * limits.maxPageItems + 1
    await target.addItems(0, new Array(count).fill({ id: chunk.id, size: 7 }))
    const outcome = await target.commit({ items: count })
    assert.ok('committed' in outcome)
    assert.equal(outcome.committed.items, count)
  })
}

function commitTests(test: Test): void {
  test('commits a backup', async (target, subject) => {
    const chunks = [sampleChunk(10), sampleChunk(0), sampleText(300_000)]
    await target.put(chunks)
    const request = await requestOf(target, chunks)
    const totals = { files: 3, directories: 1, bytes: 300_010 }
    const outcome = await target.commit({ ...request, totals })
    assert.ok('committed' in outcome)
    const { committed } = outcome
    assert.deepEqual([committed.state, committed.kind], ['committed', target.capabilities.form])
    assert.deepEqual([committed.root, committed.items], [request.root, request.items])
    await withAnother(subject, async (next) => {
      assert.deepEqual((await next.begin(undefined, {})).base, committed)
      await expectRead(next, chunks)
    })
  })

  test('tells what is missing, and commits when it has come', async (target) => {
    const [here, gone, goneToo] = [sampleChunk(10), sampleChunk(20), sampleChunk(30)]
    await target.put([here])
    const request = await requestOf(target, [here, gone, goneToo])
    const missing = async (): Promise<Id[]> => {
      const outcome = await target.commit(request)
      assert.ok('missing' in outcome)
      return outcome.missing.map(({ id }) => id).sort()
    }
    assert.deepEqual(await missing(), [gone.id, goneToo.id].sort())
    await target.put([gone])
    assert.deepEqual(await missing(), [goneToo.id])
    await target.put([goneToo])
    assert.ok('committed' in (await target.commit(request)))
  })

  test('commits the same twice, and nothing else', async (target) => {
    const [a, b] = [sampleChunk(10), sampleChunk(20)]
    await target.put([a, b])
    const request = await requestOf(target, [a])
    const first = await target.commit(request)
    assert.ok('committed' in first)
    assert.deepEqual(await target.commit(request), first)
    const other = target.capabilities.form === 'dir' ? { root: encodeDirectoryObject([]).id } : { items: 12 }
    await rejectsWith('checkpoint-committed', target.commit(other))
  })

  test('commits an empty backup', async (target) => {
    if (target.capabilities.form === 'chunks') {
      assert.ok('committed' in (await target.commit({ items: 0 })))
      return
    }
    assert.ok('committed' in (await target.commit(await requestOf(target, []))))
  })
}

function closingTests(test: Test, begun: Test): void {
  test('closes at once, twice, and twice at the same time', async (target) => {
    await within(Promise.all([target.close(), target.close()]), 'close')
    await within(target.close(), 'close')
  })

  begun('rejects calls after it was closed', async (target) => {
    const chunk = sampleChunk(10)
    await target.put([chunk])
    await target.close()
    const calls: Record<string, () => Promise<unknown>> = {
      begin: () => target.begin(undefined, {}),
      put: () => target.put([sampleChunk(10)]),
      read: () => collect(target.read([chunk.id])),
      addItems: () => target.addItems(0, [{ id: chunk.id, size: 10 }]),
      commit: () => target.commit({ items: 0 }),
    }
    for (const [name, call] of Object.entries(calls)) {
      await assert.rejects(within(call(), `${name} after close`), Error, name)
    }
  })

  for (const delayMs of [0, 5, 30]) {
    begun(`ends what is under way when it is closed after ${delayMs} ms`, async (target) => {
      const puts = Array.from({ length: 20 }, () => target.put([sampleChunk(400_000)]))
      const ends = Promise.allSettled(puts)
      await sleep(delayMs)
      await within(target.close(), 'close')
      await within(ends, 'a put whose target was closed')
    })
  }
}
