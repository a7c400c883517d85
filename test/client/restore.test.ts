import { lstatSync, mkdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { open, readdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { RestoreProblem } from '../../client/restore/restore-log.ts'
import { restoreStream } from '../../client/restore/stream-restore.ts'
import { hashId } from '../../protocol/hash.ts'
import { encodeDirectoryParts, encodeFileObject, encodeName } from '../../protocol/objects.ts'
import type { Entry } from '../../protocol/schema.ts'
import { Fixture, listing, plain, plainDirectory, randomBytes } from './tree-fixture.ts'

let fixture: Fixture
beforeEach(async () => {
  fixture = await Fixture.start()
})
afterEach(() => fixture.stop())

const root = process.geteuid?.() === 0
const me = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }

function expectAttributes(path: string | Buffer, mode: number, mtimeNs: string): void {
  const stats = lstatSync(path, { bigint: true })
  expect([Number(stats.mode & 0o7777n).toString(8), String(stats.mtimeNs)]).toEqual([
    mode.toString(8),
    mtimeNs,
  ])
}

describe('what comes back', () => {
  test('contents, modes, times, links, special files', async () => {
    const big = [randomBytes(1, 3_000_000), randomBytes(2, 4_000_000), randomBytes(3, 5)]
    const node = { ...plain, ...me }
    const checkpoint = await fixture.commit(
      [
        await fixture.file('a.txt', 'hello', { mode: 0o4751, ...me }),
        await fixture.file('empty', ''),
        await fixture.file('old', 'x', { mtimeNs: '-1500000001' }),
        await fixture.chunkedFile('big', big, { mode: 0o400 }),
        await fixture.directory('shut', [await fixture.file('inside', 'i')], { mode: 0o1555, mtimeNs: '42' }),
        await fixture.directory('nothing', []),
        { kind: 'symlink', name: 'link', ...node, mode: 0o777, target: '../elsewhere' },
        {
          kind: 'symlink',
          name: 'odd',
          ...node,
          mode: 0o777,
          target64: Buffer.from([0xff, 0x2f]).toString('base64'),
        },
        { kind: 'fifo', name: 'fifo', ...node, mode: 0o622 },
        { kind: 'socket', name: 'socket', ...node },
      ],
      { ...plainDirectory, mode: 0o750, mtimeNs: '1234567890987654321' },
    )
    const summary = await fixture.restore(checkpoint)
    expect(summary).toMatchObject({
      files: 5,
      directories: 3,
      symlinks: 2,
      specials: 1,
      skipped: 1,
      problems: 0,
      bytes: 7_000_005 + 5 + 1 + 1,
    })
    const out = (name: string) => fixture.at('out', name)
    expectAttributes(fixture.at('out'), 0o750, '1234567890987654321')
    expectAttributes(out('a.txt'), 0o4751, plain.mtimeNs)
    expectAttributes(out('old'), 0o644, '-1500000001')
    expectAttributes(out('shut'), 0o1555, '42')
    expectAttributes(out('shut/inside'), 0o644, plain.mtimeNs)
    expectAttributes(out('fifo'), 0o622, plain.mtimeNs)
    expect(lstatSync(out('link'), { bigint: true }).mtimeNs).toBe(BigInt(plain.mtimeNs))
    expect(readlinkSync(out('link'))).toBe('../elsewhere')
    expect(readlinkSync(out('odd'), 'buffer')).toEqual(Buffer.from([0xff, 0x2f]))
    expect(lstatSync(out('fifo')).isFIFO()).toBe(true)
    expect(readFileSync(out('a.txt'), 'utf8')).toBe('hello')
    expect(readFileSync(out('big'))).toEqual(Buffer.concat(big))
    expect((await readdir(fixture.at('out'))).filter((name) => name.startsWith('.chunkdav'))).toEqual([])
  })

  test.runIf(root)('owners and devices, when root', async () => {
    const owned = { uid: 1234, gid: 4_000_000_000 }
    const checkpoint = await fixture.commit([
      await fixture.file('file', 'x', { ...owned, mode: 0o6755 }),
      await fixture.directory('directory', [], owned),
      { kind: 'symlink', name: 'link', ...plain, ...owned, target: 'x' },
      {
        kind: 'character-device',
        name: 'device',
        ...plain,
        ...owned,
        mode: 0o666,
        major: 300,
        minor: 70_000,
      },
    ])
    for (const specials of [1, 1]) {
      expect(await fixture.restore(checkpoint)).toMatchObject({ problems: 0, specials })
      for (const name of ['file', 'directory', 'link', 'device']) {
        expect(lstatSync(fixture.at('out', name))).toMatchObject(owned)
      }
    }
    expectAttributes(fixture.at('out', 'file'), 0o6755, plain.mtimeNs)
  })

  test('names of any bytes, and of 255 of them', async () => {
    const names = [
      Buffer.from([0xff, 0xfe, 0x0a]),
      Buffer.from(`${'ü'.repeat(127)}x`),
      Buffer.from(' -\\*\n"'),
    ]
    const entries: Entry[] = []
    for (const name of names) {
      entries.push(await fixture.directory(name, [await fixture.file(name, name), ...(await linked(name))]))
    }
    expect(await fixture.restore(await fixture.commit(entries))).toMatchObject({ problems: 0, hardLinks: 3 })
    for (const name of names) {
      const path = Buffer.concat([Buffer.from(`${fixture.at('out')}/`), name, Buffer.from('/'), name])
      expect(readFileSync(path)).toEqual(name)
    }
  })

  const linked = async (name: Buffer) => {
    const link = hashId(name)
    return [
      await fixture.file('one', 'shared', { link: link.slice(0, 60) }),
      await fixture.file('two', 'shared', { link: link.slice(0, 60) }),
    ]
  }

  test('hard links, across directories and of symlinks too', async () => {
    const symlink = { kind: 'symlink', ...plain, mode: 0o777, target: 't', link: 's' } as const
    const checkpoint = await fixture.commit([
      await fixture.file('a', randomBytes(1, 2_000_000), { link: 'x' }),
      await fixture.directory('d', [await fixture.file('b', randomBytes(1, 2_000_000), { link: 'x' })], {
        mtimeNs: '5',
      }),
      await fixture.file('z', randomBytes(1, 2_000_000), { link: 'x' }),
      { ...symlink, name: 's1' },
      { ...symlink, name: 's2' },
    ])
    for (const run of ['first', 'again']) {
      const counts = run === 'first' ? { files: 1, filesKept: 0 } : { files: 0, filesKept: 1 }
      expect(await fixture.restore(checkpoint)).toMatchObject({ ...counts, hardLinks: 3, problems: 0 })
      const inodes = ['a', 'd/b', 'z'].map((name) => statSync(fixture.at('out', name)).ino)
      expect(new Set(inodes).size).toBe(1)
      expect(statSync(fixture.at('out', 'a')).nlink).toBe(3)
      expect(lstatSync(fixture.at('out', 's1')).ino).toBe(lstatSync(fixture.at('out', 's2')).ino)
      expectAttributes(fixture.at('out', 'd'), 0o755, '5')
    }
  })

  test('holes, aligned or not', async () => {
    const zeros = Buffer.alloc(2_000_000)
    const chunks = [zeros, Buffer.from('data'), zeros, zeros]
    const sparse = await fixture.chunkedFile('sparse', chunks, { sparse: true })
    const whole = await fixture.chunkedFile('whole', chunks)
    expect(await fixture.restore(await fixture.commit([sparse, whole]))).toMatchObject({ problems: 0 })
    for (const name of ['sparse', 'whole']) {
      expect(readFileSync(fixture.at('out', name)).equals(Buffer.concat(chunks))).toBe(true)
    }
    expect(statSync(fixture.at('out', 'sparse')).blocks * 512).toBeLessThan(20_000)
  })

  test('trees deeper than PATH_MAX, with hard links at the far end', async () => {
    const name = 'n'.repeat(200)
    const far = { mtimeNs: '77', mode: 0o700 }
    const bottom: Entry[] = [
      await fixture.file('far', 'away', { link: 'l' }),
      await fixture.file('far2', 'away', { link: 'l' }),
    ]
    let inner = await fixture.directory(name, bottom, far)
    for (let depth = 0; depth < 60; depth++) inner = await fixture.directory(name, [inner], far)
    const checkpoint = await fixture.commit([inner])
    for (const files of [1, 0]) {
      expect(await fixture.restore(checkpoint)).toMatchObject({
        problems: 0,
        files,
        hardLinks: 1,
        directories: 62,
      })
    }
    let handle = await open(fixture.at('out'))
    const below = async (inside: string) => {
      const next = await open(`/proc/self/fd/${handle.fd}/${inside}`)
      await handle.close()
      handle = next
    }
    for (let depth = 0; depth < 61; depth++) {
      await below(name)
      expect((await handle.stat({ bigint: true })).mtimeNs).toBe(77n)
    }
    await below('far')
    expect(await handle.readFile('utf8')).toBe('away')
    expect((await handle.stat()).nlink).toBe(2)
    await handle.close()
  })

  test('directories and files in parts, and parts of parts', async () => {
    const entries = [] as Entry[]
    const { id } = await fixture.file('x', 'same')
    for (let i = 0; i < 300; i++) {
      entries.push({ kind: 'file', name: `f${String(i).padStart(4, '0')}`, ...plain, id, size: 4 })
    }
    const pages = []
    for (let i = 0; i < 300; i += 100) {
      pages.push({ id: await fixture.root(entries.slice(i, i + 100)), entries: 100 })
    }
    const inner = encodeDirectoryParts(pages.slice(1))
    await fixture.put(inner.bytes)
    const outer = encodeDirectoryParts([pages[0] as (typeof pages)[0], { id: inner.id, entries: 200 }])
    await fixture.put(outer.bytes)

    const bytes = [randomBytes(1, 100_000), randomBytes(2, 200_000), randomBytes(3, 300_000)]
    const parts = []
    for (const each of bytes) parts.push({ id: await fixture.put(each), size: each.length })
    const list = encodeFileObject(parts.slice(1), undefined)
    await fixture.put(list.bytes)
    const nested = encodeFileObject(
      [parts[0] as (typeof parts)[0], { id: list.id, size: 500_000, chunked: true }],
      hashId(Buffer.concat(bytes)),
    )
    await fixture.put(nested.bytes)
    const checkpoint = await fixture.commit([
      { kind: 'directory', name: 'many', ...plainDirectory, id: outer.id },
      { kind: 'file', name: 'nested', ...plain, id: nested.id, size: 600_000, chunked: true },
    ])
    expect(await fixture.restore(checkpoint)).toMatchObject({ files: 301, problems: 0 })
    expect(await readdir(fixture.at('out', 'many'))).toHaveLength(300)
    expect(readFileSync(fixture.at('out', 'nested'))).toEqual(Buffer.concat(bytes))
  })

  test('a chunk that many files hold is fetched once', async () => {
    const shared = randomBytes(9, 1_000_000)
    const entries = await Promise.all([1, 2, 3, 4, 5].map((i) => fixture.file(`f${i}`, shared)))
    const checkpoint = await fixture.commit(entries)
    const before = fixture.client.counters.bytesReceived
    expect(await fixture.restore(checkpoint)).toMatchObject({ files: 5, bytes: 5_000_000 })
    expect(fixture.client.counters.bytesReceived - before).toBeLessThan(1_100_000)
  })
})

describe('the destination itself', () => {
  test.each([{ include: [] }, { include: [Buffer.from('a')] }, { overwrite: true }])(
    'keeps its own mode and time when it is there, else gets those of the root: %j',
    async (options) => {
      const checkpoint = await fixture.commit([await fixture.file('a', 'A')])
      mkdirSync(fixture.at('theirs'), { mode: 0o711 })
      const { uid } = lstatSync(fixture.at('theirs'))
      await fixture.restore(checkpoint, { ...options, to: fixture.at('theirs') })
      expect(lstatSync(fixture.at('theirs'))).toMatchObject({ uid })
      expect(lstatSync(fixture.at('theirs')).mode & 0o7777).toBe(0o711)
      expect(Date.now() - lstatSync(fixture.at('theirs')).mtimeMs).toBeLessThan(60_000)
      await fixture.restore(checkpoint, { ...options, to: fixture.at('made', 'deep') })
      expectAttributes(fixture.at('made', 'deep'), plainDirectory.mode, plainDirectory.mtimeNs)
    },
  )

  test('gets no attributes that were made up for several sources', async () => {
    const madeUp = { ...plainDirectory, mode: 0o755, uid: 0, gid: 0, mtimeNs: '0' }
    await fixture.restore(await fixture.commit([await fixture.file('a', 'A')], madeUp))
    expect(Date.now() - lstatSync(fixture.at('out')).mtimeMs).toBeLessThan(60_000)
  })

  test.each([
    ['file/below', ['ENOTDIR']],
    ['file', ['EEXIST']],
    // Node's recursive mkdir never returned here.
    ['/proc/chunkdav/deep', ['ENOENT', 'EROFS', 'EACCES']],
  ])('that cannot be made: %s', async (to, codes) => {
    const checkpoint = await fixture.commit([await fixture.file('a', 'A')])
    writeFileSync(fixture.at('file'), '')
    const error = await fixture
      .restore(checkpoint, { to: resolve(fixture.at(), to) })
      .catch((thrown) => thrown)
    expect([error.code, codes.includes(error.cause.code)]).toEqual(['destination-failed', true])
  })
})

describe('--include', () => {
  const tree = async () =>
    fixture.commit([
      await fixture.directory('docs', [
        await fixture.file('a', 'A'),
        await fixture.directory('more', [await fixture.file('b', 'B')], { mtimeNs: '5' }),
      ]),
      await fixture.directory('video', [await fixture.file('large', randomBytes(1, 3_000_000))]),
      await fixture.file('top', 'T'),
    ])

  test.each([
    [['docs'], { docs: 'directory', 'docs/a': 'A', 'docs/more': 'directory', 'docs/more/b': 'B' }],
    [['/docs/more/'], { docs: 'directory', 'docs/more': 'directory', 'docs/more/b': 'B' }],
    [['./docs//a', 'top'], { docs: 'directory', 'docs/a': 'A', top: 'T' }],
    [['docs/a', 'docs'], { docs: 'directory', 'docs/a': 'A', 'docs/more': 'directory', 'docs/more/b': 'B' }],
  ])('%j', async (include, expected) => {
    const checkpoint = await tree()
    const before = fixture.client.counters.bytesReceived
    const summary = await fixture.restore(checkpoint, { include: include.map((path) => Buffer.from(path)) })
    expect(summary.problems).toBe(0)
    expect(await listing(fixture.at('out'))).toEqual(expected)
    expect(fixture.client.counters.bytesReceived - before).toBeLessThan(100_000)
  })

  test('what is not there is a problem, and the rest is restored', async () => {
    const include = ['docs/a', 'docs/none', 'top/below', 'none'].map((path) => Buffer.from(path))
    const { problemList } = await fixture.restore(await tree(), { include })
    expect(problemList.map(({ path, code }) => [String(path), code])).toEqual([
      ['docs/none', 'not-found'],
      ['top/below', 'not-found'],
      ['none', 'not-found'],
    ])
    expect(await listing(fixture.at('out'))).toEqual({ docs: 'directory', 'docs/a': 'A' })
  })

  test.each(['..', 'docs/../top', 'a\0b'])('%j is wrong usage', async (path) => {
    const checkpoint = await tree()
    await expect(fixture.restore(checkpoint, { include: [Buffer.from(path)] })).rejects.toMatchObject({
      code: 'usage',
    })
  })
})

describe('streams', () => {
  const commitStream = async (chunks: Buffer[]) => {
    const open = await fixture.client.openCheckpoint('pipe', { kind: 'chunks' })
    const items = []
    for (const bytes of chunks) items.push({ id: await fixture.put(bytes), size: bytes.length })
    await fixture.client.addItems(open, 0, items)
    return fixture.client.commitCheckpoint(open, { items: items.length })
  }
  const chunks = [
    randomBytes(1, 4_000_000),
    Buffer.alloc(0),
    randomBytes(2, 9_000_000),
    randomBytes(1, 4_000_000),
  ]

  test('to a file, or into a directory by the name of the source', async () => {
    const checkpoint = await commitStream(chunks)
    expect(await fixture.restore(checkpoint, { to: fixture.at('deep', 'file') })).toMatchObject({
      files: 1,
      problems: 0,
    })
    expect(readFileSync(fixture.at('deep', 'file')).equals(Buffer.concat(chunks))).toBe(true)
    expect(await fixture.restore(checkpoint, { to: fixture.at('deep') })).toMatchObject({
      files: 1,
      problems: 0,
    })
    expect(readFileSync(fixture.at('deep', 'pipe')).equals(Buffer.concat(chunks))).toBe(true)
    const again = await fixture.restore(checkpoint, { to: fixture.at('deep', 'file') })
    expect(again.problemList).toMatchObject([{ code: 'destination-exists' }])
    expect(
      await fixture.restore(checkpoint, { to: fixture.at('deep', 'file'), overwrite: true }),
    ).toMatchObject({
      problems: 0,
    })
  })

  test('to a slow pipe', async () => {
    const checkpoint = await commitStream(chunks)
    const output = new PassThrough({ highWaterMark: 1000 })
    const collected = collect(output)
    const bytes = await restoreStream({ client: fixture.client, checkpoint, output })
    output.end()
    expect(bytes).toBe(17_000_000)
    expect((await collected).equals(Buffer.concat(chunks))).toBe(true)
  })

  test('one file of a tree', async () => {
    const checkpoint = await fixture.commit([
      await fixture.directory('d', [await fixture.chunkedFile('f', chunks.slice(2))]),
      await fixture.file('g', 'G'),
    ])
    const include = [Buffer.from('d/f')]
    const output = new PassThrough()
    const collected = collect(output)
    await restoreStream({ client: fixture.client, checkpoint, include, output })
    output.end()
    expect((await collected).equals(Buffer.concat(chunks.slice(2)))).toBe(true)
    for (const wrong of [[], [Buffer.from('none')]]) {
      const attempt = restoreStream({ client: fixture.client, checkpoint, include: wrong, output })
      await expect(attempt).rejects.toMatchObject({ code: 'usage' })
    }
  })
})

async function collect(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of stream) pieces.push(piece)
  return Buffer.concat(pieces)
}

test('progress and problems are told as they happen', async () => {
  const lost = randomBytes(4, 10)
  const checkpoint = fixture.pretend(
    await fixture.root([
      await fixture.file('a', randomBytes(1, 1000)),
      { kind: 'file', ...encodeName(Buffer.from('lost')), ...plain, id: hashId(lost), size: 10 },
      await fixture.file('z', randomBytes(2, 500)),
    ]),
  )
  const told: RestoreProblem[] = []
  let done = 0
  const summary = await fixture.restore(checkpoint, {
    onProblem: (problem) => told.push(problem),
    onProgress: (_, bytesDone) => {
      expect(bytesDone).toBeGreaterThan(done)
      done = bytesDone
    },
  })
  expect(done).toBe(1500)
  expect(told).toEqual(summary.problemList)
  expect(told).toMatchObject([{ path: Buffer.from('lost'), code: 'chunk-not-found', id: hashId(lost) }])
  expect(Object.keys(await listing(join(fixture.at('out'))))).toEqual(['a', 'z'])
})
