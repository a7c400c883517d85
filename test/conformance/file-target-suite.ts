/**
 * The conformance suite of FileTarget, for any test framework that has `describe` and `it`:
 *
 *     import { describe, it } from 'vitest'
 *     import { fileTargetSuite } from 'chunkdav/conformance'
 *     fileTargetSuite({ describe, it }, { create: async () => ({ open, read, dispose }) })
 */
import assert from 'node:assert/strict'
import type { FileTarget, MemberCounts, TreeEntry } from '../../client/engine/file-target.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import type { CommitRequest, Entry } from '../../protocol/schema.ts'
import { collect, rejectsWith, type SuiteRunner } from './chunk-store-suite.ts'
import { within } from './source-suite.ts'

/** One place, and one source's checkpoints in it. */
export interface FileTargetSubject {
  /** A target of this place and source. Targets are opened one after the other, or side by side. */
  open(): Promise<FileTarget>
  /** A file of a committed checkpoint, by the target's own layout; undefined when it is not there. */
  read(checkpoint: number, path: string): Promise<Buffer | undefined>
  dispose(): Promise<void>
}

export interface FileTargetSuiteOptions {
  /** A subject in a fresh, empty place. */
  create(): Promise<FileTargetSubject>
}

type Body = (target: FileTarget, subject: FileTargetSubject) => Promise<void>
type Test = (name: string, body: Body) => void
/** What a test's tree holds: a string is a file's content; `link` names share one inode. */
type Files = { readonly [name: string]: string | Files | { readonly link: string; readonly content: string } }

export function fileTargetSuite({ describe, it }: SuiteRunner, options: FileTargetSuiteOptions): void {
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
  describe('a target of files: beginning', () => beginTests(test))
  describe('a target of files: putting', () => putTests(test))
  describe('a target of files: committing', () => commitTests(test))
}

const never = new AbortController().signal
const attributes = { mode: 0o644, uid: 0, gid: 0, mtimeNs: '1' }

interface Planned {
  readonly path: string
  readonly entry: Entry
  readonly content: string | undefined
}

/** The entries of a tree in order, the root first. */
function plan(files: Files): Planned[] {
  const visit = (path: string, name: string, inner: Files): { id: Id; planned: Planned[] } => {
    const planned: Planned[] = []
    const names = Object.keys(inner).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    for (const each of names) {
      const value = inner[each] as Files[string]
      const below = path === '' ? each : `${path}/${each}`
      if (typeof value === 'object' && !('link' in value && 'content' in value)) {
        planned.push(...visit(below, each, value).planned)
        continue
      }
      const { link, content } =
        typeof value === 'string'
          ? { link: undefined, content: value }
          : (value as { link: string; content: string })
      const id = hashId(Buffer.from(content))
      const size = Buffer.byteLength(content)
      const linked = link === undefined ? {} : { link }
      planned.push({
        path: below,
        entry: { kind: 'file', name: each, ...attributes, ...linked, id, size },
        content,
      })
    }
    const direct = planned.map(({ path: at, entry }) => [at, 'id' in entry ? entry.id : ''])
    const id = hashId(Buffer.from(JSON.stringify(direct)))
    const named = name === '' ? {} : { name }
    return {
      id,
      planned: [
        { path, entry: { kind: 'directory', ...named, ...attributes, id }, content: undefined },
        ...planned,
      ],
    }
  }
  return visit('', '', files).planned
}

interface Commit {
  readonly request: CommitRequest
  readonly tree: AsyncIterable<TreeEntry>
  readonly lost: string[]
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')))
}

/** A commit of `files`, of which `sent` were put in the name of the checkpoint. */
function commitOf(files: Files, sent: readonly string[]): Commit {
  const lost: string[] = []
  const planned = plan(files)
  const [{ entry }] = planned as [Planned]
  async function* tree(): AsyncIterable<TreeEntry> {
    for (const { path, entry: each } of planned) {
      const isSent = async (): Promise<boolean> =>
        sent.some((one) => one === path || path === '' || one.startsWith(`${path}/`))
      const members = async (): Promise<MemberCounts> => {
        const below = planned.filter((one) => one.path !== '' && parentOf(one.path) === path)
        const files = below.filter((one) => one.entry.kind === 'file')
        const put = files.filter((one) => sent.includes(one.path)).length
        const directories = below.filter((one) => one.entry.kind === 'directory').length
        return each.kind === 'directory'
          ? { kept: files.length - put, sent: put, directories }
          : { kept: 0, sent: 0, directories: 0 }
      }
      yield { path: Buffer.from(path), entry: each, isSent, members, lose: () => lost.push(path) }
    }
  }
  const count = planned.filter((one) => one.content !== undefined).length
  const totals = { files: count, directories: planned.length - count, bytes: 0 }
  return { request: { root: (entry as { id: Id }).id, attributes, totals }, tree: tree(), lost }
}

async function put(target: FileTarget, path: string, content: string): Promise<void> {
  await target.put(Buffer.from(path), { pieces: [Buffer.from(content)] }, never)
}

/** Puts these files of `files`, and commits; returns what was lost. */
async function backUp(target: FileTarget, files: Files, sent: readonly string[]): Promise<string[]> {
  for (const { path, content } of plan(files)) {
    if (content !== undefined && sent.includes(path)) await put(target, path, content)
  }
  const { request, tree, lost } = commitOf(files, sent)
  const outcome = await target.commit(request, tree, never)
  if ('committed' in outcome) assert.deepEqual([outcome.committed.root, lost], [request.root, []])
  else assert.equal(outcome.lost, lost.length)
  return lost.sort()
}

async function withAnother(
  subject: FileTargetSubject,
  body: (target: FileTarget) => Promise<void>,
): Promise<void> {
  const target = await subject.open()
  try {
    await body(target)
  } finally {
    await target.close()
  }
}

async function* streamOf(...pieces: string[]): AsyncIterable<Buffer> {
  for (const piece of pieces) yield Buffer.from(piece)
}

const text = async (subject: FileTargetSubject, number: number, path: string): Promise<string | undefined> =>
  (await subject.read(number, path))?.toString()

function beginTests(test: Test): void {
  test('opens a first checkpoint in a place that may not be there yet', async (target) => {
    const { number, resumed, base } = await target.begin(undefined, { host: 'here' })
    assert.ok(Number.isInteger(number) && number >= 1)
    assert.deepEqual([resumed, base], [false, undefined])
  })

  test('goes on with the one that is open', async (target, subject) => {
    const { number } = await target.begin(undefined, {})
    await put(target, 'a/b', 'sent before')
    await target.close()
    await withAnother(subject, async (next) => {
      assert.deepEqual(await next.begin(number, {}), { number, resumed: true, base: undefined })
      assert.deepEqual(await backUp(next, { a: { b: 'sent before' } }, []), ['a/b'])
      const { request, tree } = commitOf({ a: { b: 'sent before' } }, ['a/b'])
      assert.ok('committed' in (await next.commit(request, tree, never)))
    })
    assert.equal(await text(subject, number, 'a/b'), 'sent before')
  })

  test('opens a new one instead of one that never was, or is committed', async (target, subject) => {
    const first = await target.begin(12_345, {})
    assert.equal(first.resumed, false)
    await backUp(target, { a: '1' }, ['a'])
    await withAnother(subject, async (next) => {
      const second = await next.begin(first.number, {})
      assert.equal(second.resumed, false)
      assert.ok(second.number > first.number)
      assert.deepEqual([second.base?.number, second.base?.state], [first.number, 'committed'])
    })
  })

  test('tells what it was committed with', async (target, subject) => {
    await target.begin(undefined, { host: 'here' })
    const files = { a: '1', b: { c: '2' } }
    await backUp(target, files, ['a', 'b/c'])
    await withAnother(subject, async (next) => {
      const { base } = await next.begin(undefined, {})
      const { root, attributes: told, totals, about } = base ?? {}
      const { request } = commitOf(files, [])
      assert.deepEqual({ root, attributes: told, totals }, request)
      assert.deepEqual(about, { host: 'here' })
      const tree = await collect(next.readBase(never))
      assert.deepEqual(
        tree.map(({ path, entry }) => [String(path), entry]),
        plan(files).map(({ path, entry }) => [path, entry]),
      )
    })
  })

  test('takes nothing before it has begun', async (target) => {
    await assert.rejects(put(target, 'a', '1'), TypeError)
    const { request, tree } = commitOf({}, [])
    await assert.rejects(target.commit(request, tree, never), TypeError)
  })
}

function putTests(test: Test): void {
  test('takes files of any size, from memory and as a stream, and replaces them', async (target, subject) => {
    const { number } = await target.begin(undefined, {})
    const big = 'x'.repeat(3_000_000)
    const stream = streamOf(
      ...Array.from({ length: 30 }, (_, i) => big.slice(i * 100_000, (i + 1) * 100_000)),
    )
    await target.put(Buffer.from('big'), { stream, size: big.length }, never)
    await target.put(Buffer.from('unsized'), { stream: streamOf('one', 'two'), size: undefined }, never)
    await target.put(Buffer.from('empty'), { pieces: [Buffer.alloc(0)] }, never)
    await put(target, 'again', 'first')
    await put(target, 'again', 'second')
    const { request, tree } = commitOf({ big, unsized: 'onetwo', empty: '', again: 'second' }, [
      ...['big', 'unsized', 'empty', 'again'],
    ])
    assert.ok('committed' in (await target.commit(request, tree, never)))
    assert.equal(await text(subject, number, 'big'), big)
    assert.equal(await text(subject, number, 'unsized'), 'onetwo')
    assert.equal(await text(subject, number, 'empty'), '')
    assert.equal(await text(subject, number, 'again'), 'second')
    assert.ok(target.counters.bytesSent >= big.length)
  })

  test('takes many at once, also in directories that are new', async (target, subject) => {
    const { number } = await target.begin(undefined, {})
    const files = Object.fromEntries(
      Array.from({ length: 8 }, (_, i) => [`d${i}`, { e: { f: `${i}`, g: `${i}${i}` } }]),
    )
    const planned = plan(files).filter(({ content }) => content !== undefined)
    await Promise.all(planned.map(({ path, content }) => put(target, path, content as string)))
    const { request, tree } = commitOf(
      files,
      planned.map(({ path }) => path),
    )
    assert.ok('committed' in (await target.commit(request, tree, never)))
    for (const { path, content } of planned) assert.equal(await text(subject, number, path), content)
  })

  for (const [what, pieces] of [
    ['longer', ['12345', '6789']],
    ['shorter', ['12']],
  ] as const) {
    test(`refuses a stream that is ${what} than it should be, and leaves nothing behind`, async (target, subject) => {
      const { number } = await target.begin(undefined, {})
      const content = { stream: streamOf(...pieces), size: 5 }
      await rejectsWith('source-changed', target.put(Buffer.from('a'), content, never))
      await backUp(target, { b: '1' }, ['b'])
      assert.equal(await text(subject, number, 'a'), undefined)
    })
  }

  test('may be given up in the middle, and leaves nothing behind', async (target, subject) => {
    const { number } = await target.begin(undefined, {})
    const abort = new AbortController()
    async function* endless(): AsyncIterable<Buffer> {
      yield Buffer.from('begun')
      abort.abort(new Error('given up'))
      await new Promise(() => {})
    }
    const putting = target.put(Buffer.from('a'), { stream: endless(), size: 1_000_000 }, abort.signal)
    await assert.rejects(within(putting, 'an aborted put'))
    await backUp(target, { b: '1' }, ['b'])
    assert.equal(await text(subject, number, 'a'), undefined)
  })
}

function commitTests(test: Test): void {
  const files: Files = {
    a: 'a',
    same: { x: 'x', y: { z: 'z' } },
    some: { kept: 'kept', changed: 'before', gone: 'gone' },
  }
  const paths = ['a', 'same/x', 'same/y/z', 'some/kept', 'some/changed', 'some/gone']

  test('an empty tree', async (target) => {
    await target.begin(undefined, {})
    assert.deepEqual(await backUp(target, {}, []), [])
  })

  test('takes over what did not change, and nothing else', async (target, subject) => {
    const { number } = await target.begin(undefined, {})
    assert.deepEqual(await backUp(target, files, paths), [])
    const later: Files = { ...files, some: { kept: 'kept', changed: 'after', new: 'new' } }
    await withAnother(subject, async (next) => {
      const second = await next.begin(undefined, {})
      const { bytesSent } = next.counters
      assert.deepEqual(await backUp(next, later, ['some/changed', 'some/new']), [])
      assert.ok(next.counters.bytesSent - bytesSent < 20_000)
      for (const path of ['a', 'same/x', 'same/y/z', 'some/kept']) {
        assert.equal(await text(subject, second.number, path), path.split('/').at(-1))
      }
      assert.equal(await text(subject, second.number, 'some/changed'), 'after')
      assert.equal(await text(subject, second.number, 'some/gone'), undefined)
      // What is committed stays as it is.
      assert.equal(await text(subject, number, 'some/changed'), 'before')
    })
  })

  test('says what it does not have, and has it when it was put', async (target, subject) => {
    await target.begin(undefined, {})
    assert.deepEqual(await backUp(target, files, paths.slice(0, 4)), ['some/changed', 'some/gone'])
    assert.deepEqual(await backUp(target, files, paths), [])
    await withAnother(subject, async (next) => {
      const { number } = await next.begin(undefined, {})
      const moved: Files = { same: files.same as Files, elsewhere: files.some as Files, a: 'other' }
      const lost = ['a', 'elsewhere/changed', 'elsewhere/gone', 'elsewhere/kept']
      assert.deepEqual(await backUp(next, moved, []), lost)
      assert.deepEqual(await backUp(next, moved, lost), [])
      assert.equal(await text(subject, number, 'elsewhere/kept'), 'kept')
      assert.equal(await text(subject, number, 'same/y/z'), 'z')
    })
  })

  test('what was put replaces what the base has, in a tree that did not change', async (target, subject) => {
    await target.begin(undefined, {})
    await backUp(target, files, paths)
    await withAnother(subject, async (next) => {
      const { number } = await next.begin(undefined, {})
      assert.deepEqual(await backUp(next, files, ['same/y/z']), [])
      for (const path of paths) assert.ok((await text(subject, number, path)) !== undefined, path)
    })
  })

  test('a name of an inode of which another was put', async (target, subject) => {
    const { number } = await target.begin(undefined, {})
    const linked = { link: '1:2', content: 'linked' }
    const tree: Files = {
      a: { first: linked },
      b: linked,
      c: { d: linked },
      other: { link: '1:3', content: 'linked' },
    }
    assert.deepEqual(await backUp(target, tree, ['b']), ['other'])
    assert.deepEqual(await backUp(target, tree, ['b', 'other']), [])
    for (const path of ['a/first', 'b', 'c/d', 'other'])
      assert.equal(await text(subject, number, path), 'linked')
  })

  test('a file where a directory was, and the other way round', async (target, subject) => {
    await target.begin(undefined, {})
    await backUp(target, { a: { b: '1' }, c: '2' }, ['a/b', 'c'])
    await withAnother(subject, async (next) => {
      const { number } = await next.begin(undefined, {})
      assert.deepEqual(await backUp(next, { a: 'file', c: { d: '3' } }, ['a', 'c/d']), [])
      assert.equal(await text(subject, number, 'a'), 'file')
      assert.equal(await text(subject, number, 'c/d'), '3')
    })
  })

  test('what an unfinished run has left and the tree does not name is gone', async (target, subject) => {
    const { number } = await target.begin(undefined, {})
    for (const path of ['a', 'b/c', 'd/e/f', 'g/h']) await put(target, path, path)
    await target.close()
    await withAnother(subject, async (next) => {
      assert.equal((await next.begin(number, {})).resumed, true)
      // A file has become a directory, a directory a file.
      const tree: Files = { a: { b: 'new' }, b: { c: 'b/c' }, d: 'file' }
      assert.deepEqual(await backUp(next, tree, ['b/c']), ['a/b', 'd'])
      assert.deepEqual(await backUp(next, tree, ['b/c', 'a/b', 'd']), [])
    })
    assert.equal(await text(subject, number, 'a/b'), 'new')
    assert.equal(await text(subject, number, 'd'), 'file')
    for (const path of ['g/h', 'd/e/f']) assert.equal(await text(subject, number, path), undefined)
  })

  test('may be given up', async (target) => {
    await target.begin(undefined, {})
    const { request, tree } = commitOf(files, paths)
    const abort = new AbortController()
    abort.abort(new Error('given up'))
    await assert.rejects(target.commit(request, tree, abort.signal))
  })
}
