/**
 * The conformance suite of Source, for any test framework that has `describe` and `it`:
 *
 *     import { describe, it } from 'vitest'
 *     import { sourceSuite } from 'chunkdav/conformance'
 *     sourceSuite({ describe, it }, {
 *       create: async () => ({ open: () => MySource.open('/some/place'), files: new Map([['name', bytes]]), dispose: async () => {} }),
 *     })
 *
 * The subject says what it holds; the suite holds every answer against that. What a subject cannot do is
 * data: a stream that can be read only once is not asked for more.
 */
import assert from 'node:assert/strict'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { cutLength } from '../../protocol/cut.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import type { SuiteRunner } from './chunk-store-suite.ts'
import {
  type FileToRead,
  type Filled,
  ReadingRecord,
  type Source,
  type WalkedEntry,
  WalkRecord,
} from './source-record.ts'

export interface SourceSubject {
  /** A source of the same things each time. */
  open(): Promise<Source>
  /**
   * Every regular file: its path below the root as a byte string (latin1), and its content. They stand
   * still. At least one; one of several MiB makes the tests worth more.
   */
  readonly files: ReadonlyMap<string, Buffer>
  /** Everything else in the tree but the root: path to kind. Not checked when absent. */
  readonly others?: ReadonlyMap<string, string>
  dispose(): Promise<void>
}

export interface SourceSuiteOptions {
  create(): Promise<SourceSubject>
  /** The content can be read only once, as that of a pipe: the source is not `rereadable`. */
  readonly once?: boolean
  /** The most content that may be lent at once. Default: 256 MiB. */
  readonly maxLentBytes?: number
}

/** Long enough for a busy machine; a source that takes longer hangs. */
const patienceMs = 15_000
/** Whoever has said nothing for so long stands still. */
const standstillMs = 700

type Body = (source: Source, subject: SourceSubject) => Promise<void>
type Test = (name: string, body: Body) => void

export function sourceSuite({ describe, it }: SuiteRunner, options: SourceSuiteOptions): void {
  /** One test: a fresh subject, a source of it, both gone afterwards. */
  const test: Test = (name, body) =>
    it(name, async () => {
      const subject = await options.create()
      try {
        const source = await subject.open()
        try {
          await body(source, subject)
        } finally {
          await within(source.close(), 'close')
        }
      } finally {
        await subject.dispose()
      }
    })
  /** A test that reads content more than once. */
  const again: Test = (name, body) => {
    if (options.once !== true) test(name, body)
  }

  describe('a source: the walk', () => walkTests(test))
  describe('a source: reading', () => readingTests(test, again))
  describe('a source: reading twice', () => readingTwiceTests(test, options.once === true))
  describe('a source: giving up', () => givingUpTests(test, again))
  const maxLentBytes = options.maxLentBytes ?? 256 * 1024 * 1024
  if (options.once !== true) describe('a source: what it lends', () => lendingTests(test, maxLentBytes))
  describe('a source: closing', () => closingTests(test))
}

/** `promise`, or a failure when it takes too long. */
export async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  const timer = new AbortController()
  const late = sleep(patienceMs, undefined, { signal: timer.signal }).then(() => assert.fail(`${what} hangs`))
  late.catch(() => {})
  try {
    return await Promise.race([promise, late])
  } finally {
    timer.abort()
  }
}

/** Walks the source to its end and checks the protocol on the way. */
export async function walkOf(
  source: Source,
  signal: AbortSignal = new AbortController().signal,
): Promise<WalkRecord> {
  const record = new WalkRecord()
  await within(
    (async () => {
      for await (const batch of source.scan(signal)) for (const event of batch) record.take(event)
    })(),
    'scan',
  )
  record.end()
  return record
}

/** What to ask `fill` for to get every file of the walk. */
export function filesOf(walk: WalkRecord): FileToRead[] {
  return walk.entries
    .filter(({ kind }) => kind === 'file')
    .map(({ path, stat }) => ({ path: Buffer.from(path, 'latin1'), stat }))
}

/** Reads these files, releasing each batch as soon as it is looked at, and checks the protocol on the way. */
export async function reading(
  source: Source,
  files: readonly FileToRead[],
  signal: AbortSignal = new AbortController().signal,
): Promise<ReadingRecord> {
  const record = new ReadingRecord(files)
  await within(
    (async () => {
      for await (const { events, release } of source.fill(files, signal)) {
        for (const event of events) record.take(event)
        release()
      }
    })(),
    'fill',
  )
  record.end()
  return record
}

const cut = new WeakMap<Buffer, Id[]>()

/** The ids of the chunks that `content` must be cut into. Remembered: contents stand still. */
export function chunkIdsOf(content: Buffer): Id[] {
  if (content.length === 0) return [hashId(content)]
  const known = cut.get(content)
  if (known !== undefined) return known
  const ids: Id[] = []
  cut.set(content, ids)
  for (let start = 0; start < content.length; ) {
    const length = cutLength(content, start, content.length, true)
    ids.push(hashId(content.subarray(start, start + length)))
    start += length
  }
  return ids
}

/** Asserts that the record holds the subject's content of all `files`. */
function expectContent(record: ReadingRecord, files: readonly FileToRead[], subject: SourceSubject): void {
  for (const [i, { path }] of files.entries()) {
    const shown = path.toString('latin1')
    const content = subject.files.get(shown) as Buffer
    const read = record.files[i] as ReadingRecord['files'][number]
    assert.equal(read.failure, undefined, `${shown} can be read`)
    assert.ok(Buffer.concat(read.pieces).equals(content), `${shown} has its content`)
    assert.deepEqual(read.ids, chunkIdsOf(content), `${shown} is cut as it should be`)
    assert.equal(read.done?.digest, hashId(content), `${shown} has the digest of its content`)
    assert.equal(read.done?.bytesRead, content.length)
    assert.equal(read.done?.stat.size, content.length)
    assert.equal(read.done?.changed, false)
    assert.equal(typeof read.done?.uncertain, 'boolean')
  }
}

const pathsOf = (entries: readonly WalkedEntry[]): string[] => entries.map(({ path }) => path)
const depthOf = ({ path }: FileToRead): number => path.filter((byte) => byte === 0x2f).length
const byBytes = (a: string, b: string): number => (a < b ? -1 : 1)
const never = (): AbortSignal => new AbortController().signal

function walkTests(test: Test): void {
  test('tells of everything once, in the order of the names, and nests', async (source, subject) => {
    const walk = await walkOf(source)
    assert.deepEqual(walk.problems, [])
    const files = walk.entries.filter(({ kind }) => kind === 'file')
    assert.deepEqual(pathsOf(files).sort(byBytes), [...subject.files.keys()].sort(byBytes))
    if (subject.others === undefined) return
    const others = walk.entries.filter(({ kind }) => kind !== 'file')
    const expected = [...subject.others].sort(([a], [b]) => byBytes(a, b))
    assert.deepEqual(
      others.map(({ path, kind }) => [path, kind]).sort(([a], [b]) => byBytes(a as string, b as string)),
      expected,
    )
  })

  test('tells what is asked of a stat', async (source) => {
    const walk = await walkOf(source)
    for (const { stat } of [...walk.entries, ...walk.entered]) {
      assert.ok(Number.isSafeInteger(stat.size) && stat.size >= 0)
      assert.ok(Number.isInteger(stat.mode) && stat.mode >= 0 && stat.mode <= 0o7777)
      for (const ns of [stat.mtimeNs, stat.ctimeNs]) assert.match(ns, /^-?\d+$/)
      assert.ok(stat.links >= 1)
    }
  })

  test('tells the same twice', async (source) => {
    assert.deepEqual(await walkOf(source), await walkOf(source))
  })

  test('says what it is', async (source) => {
    const { form } = source.capabilities
    assert.ok(form === 'dir' || form === 'chunks')
    for (const [key, value] of Object.entries(source.about)) {
      assert.equal(typeof value, 'string', key)
      assert.ok(value.length <= 4096, `about.${key} is no longer than a receiver takes`)
    }
    if (form === 'chunks') assert.equal(filesOf(await walkOf(source)).length, 1)
  })
}

/** The groups in which files are asked for: of a stream there is but one file. */
async function groupsOf(source: Source): Promise<FileToRead[][]> {
  const files = filesOf(await walkOf(source))
  return source.capabilities.form === 'chunks' ? files.map((file) => [file]) : [files]
}

function readingTests(test: Test, again: Test): void {
  test('reads every file: content, cuts, ids and digests', async (source, subject) => {
    for (const files of await groupsOf(source)) {
      expectContent(await reading(source, files), files, subject)
    }
  })

  again('reads each file alone as in company, in any order', async (source, subject) => {
    const files = filesOf(await walkOf(source))
    for (const file of files.slice(0, 20)) {
      expectContent(await reading(source, [file]), [file], subject)
    }
    if (source.capabilities.form === 'chunks') return
    const backwards = files.toReversed()
    expectContent(await reading(source, backwards), backwards, subject)
  })

  again('reads and walks at once', async (source, subject) => {
    const files = (await groupsOf(source))[0] as FileToRead[]
    const before = await walkOf(source)
    const [walk, record] = await Promise.all([walkOf(source), reading(source, files)])
    assert.deepEqual(walk, before)
    expectContent(record, files, subject)
  })

  again('reads several groups at once', async (source, subject) => {
    const files = (await groupsOf(source))[0] as FileToRead[]
    const groups = Array.from({ length: 6 }, () => files)
    const records = await Promise.all(groups.map((group) => reading(source, group)))
    for (const record of records) expectContent(record, files, subject)
  })

  again('tells of a file that is gone, and reads the others', async (source, subject) => {
    if (source.capabilities.form === 'chunks') return
    const files = filesOf(await walkOf(source))
    // Beside a file deep down: at the root of gathered paths there is nothing that could go.
    const near = files.reduce((deepest, file) => (depthOf(file) > depthOf(deepest) ? file : deepest))
    const gone = { path: Buffer.concat([near.path, Buffer.from('-gone')]), stat: near.stat }
    const record = await reading(source, [gone, ...files, gone])
    assert.equal(record.files[0]?.failure, 'source-vanished')
    assert.equal(record.files.at(-1)?.failure, 'source-vanished')
    const others = new ReadingRecord(files, record.files.slice(1, -1))
    expectContent(others, files, subject)
  })

  test('reads nothing when nothing is asked for', async (source) => {
    if (source.capabilities.form === 'chunks') return
    assert.equal((await reading(source, [])).files.length, 0)
  })
}

function readingTwiceTests(test: Test, once: boolean): void {
  test('says whether content can be had more than once', async (source) => {
    assert.equal(source.capabilities.rereadable, !once)
  })

  if (!once) return
  test('refuses to read a second time what can be read only once', async (source, subject) => {
    const files = (await groupsOf(source))[0] as FileToRead[]
    expectContent(await reading(source, files), files, subject)
    await assert.rejects(reading(source, files), { code: 'source-unreadable' })
  })

  test('refuses it also when the first reading was given up', async (source) => {
    const files = (await groupsOf(source))[0] as FileToRead[]
    const abort = new AbortController()
    await within(
      drained(source.fill(files, abort.signal), abort.signal, ({ release }) => {
        release()
        abort.abort()
      }),
      'an aborted fill',
    )
    await assert.rejects(reading(source, files), { code: 'source-unreadable' })
  })
}

/** Takes from `items` until they end, or fail as `signal` says. */
async function drained<T>(
  items: AsyncIterable<T>,
  signal: AbortSignal,
  each: (item: T) => void,
): Promise<void> {
  try {
    for await (const item of items) each(item)
  } catch (error) {
    if (!signal.aborted) throw error
    assert.ok(error === signal.reason || (error as { code?: unknown }).code === 'cancelled', String(error))
  }
}

function givingUpTests(test: Test, again: Test): void {
  test('ends a walk that is given up before it began', async (source, subject) => {
    const signal = AbortSignal.abort()
    await within(
      drained(source.scan(signal), signal, () => {}),
      'an aborted scan',
    )
    assert.equal(filesOf(await walkOf(source)).length, subject.files.size)
  })

  for (const delayMs of [0, 1, 5, 20]) {
    test(`ends a walk that is given up after ${delayMs} ms`, async (source, subject) => {
      const abort = new AbortController()
      const walk = drained(source.scan(abort.signal), abort.signal, () => {})
      await sleep(delayMs)
      abort.abort()
      await within(walk, 'an aborted scan')
      assert.equal(filesOf(await walkOf(source)).length, subject.files.size)
    })
  }

  test('ends a walk that is left early', async (source, subject) => {
    for await (const _ of source.scan(never())) break
    assert.equal(filesOf(await walkOf(source)).length, subject.files.size)
  })

  test('reads nothing when it is given up before it began', async (source, subject) => {
    const files = (await groupsOf(source))[0] as FileToRead[]
    const signal = AbortSignal.abort()
    await within(
      drained(source.fill(files, signal), signal, ({ release }) => release()),
      'an aborted fill',
    )
    expectContent(await reading(source, files), files, subject)
  })

  for (const delayMs of [0, 2, 10, 40]) {
    again(`ends reading that is given up after ${delayMs} ms`, async (source, subject) => {
      const files = (await groupsOf(source))[0] as FileToRead[]
      const abort = new AbortController()
      const fills = Array.from({ length: 5 }, () =>
        drained(source.fill(files, abort.signal), abort.signal, ({ release }) => release()),
      )
      await sleep(delayMs)
      abort.abort()
      await within(Promise.all(fills), 'an aborted fill')
      expectContent(await reading(source, files), files, subject)
    })
  }

  again('ends reading whose loop is left, whatever else is read', async (source, subject) => {
    const files = (await groupsOf(source))[0] as FileToRead[]
    const leave = async (): Promise<void> => {
      for await (const { release } of source.fill(files, never())) {
        release()
        break
      }
    }
    const stay = reading(source, files)
    await within(Promise.all(Array.from({ length: 5 }, leave)), 'leaving the loop')
    expectContent(await stay, files, subject)
    expectContent(await reading(source, files), files, subject)
  })

  again('ends a call that waits for its turn', async (source, subject) => {
    const files = (await groupsOf(source))[0] as FileToRead[]
    const abort = new AbortController()
    // None of these is taken any further, so that whatever comes behind them waits.
    const idle = Array.from({ length: 8 }, () => source.fill(files, never())[Symbol.asyncIterator]())
    const begun = idle.map((fill) => fill.next())
    const waiting = Array.from({ length: 8 }, () =>
      drained(source.fill(files, abort.signal), abort.signal, ({ release }) => release()),
    )
    await sleep(50)
    abort.abort()
    await within(Promise.all(waiting), 'an aborted fill that waits')
    await within(
      Promise.all(
        idle.map(async (fill, i) => {
          const { value, done } = (await begun[i]) as IteratorResult<Filled, undefined>
          if (done !== true) value.release()
          await fill.return?.()
        }),
      ),
      'leaving the loop',
    )
    expectContent(await reading(source, files), files, subject)
  })
}

/** Reads and keeps everything until nothing more is lent; returns what was lent and who stands still. */
async function borrowAll(source: Source, file: FileToRead, maxBytes: number) {
  const held: Filled[] = []
  const fill = async (): Promise<void> => {
    for await (const filled of source.fill([file], never())) held.push(filled)
  }
  const lentBytes = (): number =>
    held
      .flatMap(({ events }) => events)
      .reduce((sum, event) => sum + ('bytes' in event ? event.bytes.length : 0), 0)
  for (;;) {
    const standing = fill()
    for (;;) {
      const before = held.length
      const ended = await Promise.race([standing.then(() => true), sleep(standstillMs, false)])
      assert.ok(lentBytes() <= maxBytes, `no more than ${maxBytes} bytes are lent`)
      if (ended) break
      if (held.length === before) return { held, standing }
    }
  }
}

/** The chunks among what is held, to be looked at later. */
const chunksOf = (held: readonly Filled[]): { id: Id; bytes: Buffer }[] =>
  held.flatMap(({ events }) => events).flatMap((event) => (event.type === 'chunk' ? [event] : []))

function lendingTests(test: Test, maxLentBytes: number): void {
  /** The largest file, with something in it. */
  const largest = async (source: Source): Promise<FileToRead | undefined> =>
    filesOf(await walkOf(source))
      .filter(({ stat }) => stat.size > 0)
      .sort((a, b) => b.stat.size - a.stat.size)[0]

  test('lends a bounded number of bytes, and goes on when they are given back', async (source, subject) => {
    const file = await largest(source)
    if (file === undefined) return
    const { held, standing } = await borrowAll(source, file, maxLentBytes)
    for (const { id, bytes } of chunksOf(held)) assert.equal(hashId(bytes), id, 'lent bytes stay')
    // Released one by one, in the order of their coming, whatever else arrives meanwhile.
    const releasing = (async () => {
      for (const filled of held) {
        filled.release()
        await nextTurn()
      }
    })()
    await within(Promise.all([standing, releasing]), 'a fill whose bytes were given back')
    for (const { release } of held) release()
    expectContent(await reading(source, [file]), [file], subject)
  })

  test('gives up a call that stands still', async (source, subject) => {
    const file = await largest(source)
    if (file === undefined) return
    const { held, standing } = await borrowAll(source, file, maxLentBytes)
    const abort = new AbortController()
    const more = Array.from({ length: 3 }, () =>
      drained(source.fill([file], abort.signal), abort.signal, ({ release }) => release()),
    )
    await sleep(20)
    abort.abort()
    await within(Promise.all(more), 'an aborted fill that stands still')
    for (const { id, bytes } of chunksOf(held)) assert.equal(hashId(bytes), id, 'lent bytes stay')
    for (let i = 0; i < held.length; i++) held[i]?.release()
    const releasing = setInterval(() => {
      for (const { release } of held) release()
    }, 5)
    await within(standing, 'a fill whose bytes were given back').finally(() => clearInterval(releasing))
    expectContent(await reading(source, [file]), [file], subject)
  })

  test('takes a release once: a second one gives away nobody else’s bytes', async (source) => {
    const file = await largest(source)
    if (file === undefined) return
    const first: Filled[] = []
    for await (const filled of source.fill([file], never())) {
      filled.release()
      first.push(filled)
    }
    const second: Filled[] = []
    const third: Filled[] = []
    const more = (async () => {
      for await (const filled of source.fill([file], never())) {
        second.push(filled)
        for (const { release } of first) release()
        if (second.length === 2) break
      }
      for (const { release } of first) release()
      for await (const filled of source.fill([file], never())) {
        third.push(filled)
        if (third.length === 2) break
      }
    })()
    await within(more, 'fill')
    for (const { id, bytes } of chunksOf([...second, ...third])) assert.equal(hashId(bytes), id)
    for (const { release } of [...second, ...third]) release()
  })

  test('loses nothing to calls that were given up', async (source, subject) => {
    const file = await largest(source)
    if (file === undefined) return
    const rounds = 30
    for (let round = 0; round < rounds; round++) {
      const abort = new AbortController()
      const fill = drained(source.fill([file], abort.signal), abort.signal, ({ release }) => release())
      if (round % 3 !== 0) await sleep(round % 5)
      abort.abort()
      await within(fill, 'an aborted fill')
      for await (const { release } of source.fill([file], never())) {
        release()
        if (round % 2 === 0) break
      }
    }
    expectContent(await reading(source, [file]), [file], subject)
  })
}

function closingTests(test: Test): void {
  test('closes at once, twice, and twice at the same time', async (source) => {
    await within(Promise.all([source.close(), source.close()]), 'close')
    await within(source.close(), 'close')
  })

  test('reads nothing after it was closed', async (source) => {
    const files = (await groupsOf(source))[0] as FileToRead[]
    await source.close()
    const read = async (): Promise<void> => {
      for await (const { events } of source.fill(files, never())) {
        assert.deepEqual(
          events.filter(({ type }) => type === 'done'),
          [],
        )
      }
    }
    await assert.rejects(within(read(), 'fill after close'))
  })

  for (const delayMs of [0, 3, 15]) {
    test(`closes ${delayMs} ms after a scan and fills began; they end`, async (source) => {
      const files = (await groupsOf(source))[0] as FileToRead[]
      const ended = async (calls: AsyncIterable<unknown>): Promise<void> => {
        try {
          for await (const _ of calls) await nextTurn()
        } catch (error) {
          assert.ok(error instanceof Error)
        }
      }
      const calls = [source.scan(never()), source.fill(files, never()), source.fill(files, never())]
      const ends = Promise.all(calls.map(ended))
      await sleep(delayMs)
      await within(source.close(), 'close')
      await within(ends, 'a call whose source was closed')
    })
  }
}
