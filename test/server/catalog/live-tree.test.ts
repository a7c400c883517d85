/** The live tree as the catalogue keeps it, in a real LevelDB. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import { isProblem } from '../../../protocol/problem.ts'
import {
  LiveTree,
  type Names,
  type NewContent,
  type SyncToken,
  type TreeChange,
} from '../../../server/catalog/live-tree.ts'

const day = 24 * 3600 * 1000
let folder: string
let tree: LiveTree
const chunks = { losses: 0, flushes: 0, flush: async () => void chunks.flushes++ }

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-tree-'))
  tree = await open()
})

afterEach(async () => {
  await tree.close()
  await rm(folder, { recursive: true, force: true })
})

const open = (): Promise<LiveTree> => LiveTree.open(join(folder, 'tree'), chunks, { trashMs: day })

async function reopen(): Promise<void> {
  await tree.close()
  tree = await open()
}

function at(path: string): Names {
  return path.split('/').map((name) => Buffer.from(name))
}

function content(text: string): NewContent {
  const id = hashId(Buffer.from(text))
  return { part: { id, size: text.length }, md5: '', sha1: '', since: chunks.losses }
}

const put = (path: string, text: string) => tree.change((change) => change.putFile(at(path), content(text)))
const make = (path: string) => tree.change((change) => change.makeCollection(at(path)))
const remove = (path: string) => tree.change((change) => change.remove(at(path)))
const move = (from: string, to: string) => tree.change((change) => change.move(at(from), at(to)))
const copy = (from: string, to: string, depth: 0 | 'infinity' = 'infinity') =>
  tree.copy(at(from), at(to), depth, async () => {})

/** Paths below, with a slash behind collections, and `=size` behind files. */
async function listing(path = 'tree'): Promise<string[]> {
  const record = await tree.find(at(path))
  if (record?.kind !== 'directory') return []
  const found: string[] = []
  for await (const { name, record: member } of tree.members(record)) {
    if (member.kind === 'file') found.push(`${name}=${member.size}`)
    else found.push(`${name}/`, ...(await listing(`${path}/${name}`)).map((below) => `${name}/${below}`))
  }
  return found
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'done'
  } catch (error) {
    return isProblem(error) ? error.code : (error as Error).constructor.name
  }
}

async function trash(): Promise<string[]> {
  const items: string[] = []
  for await (const { path, reason, name, record } of tree.trashItems()) {
    items.push(`${reason} ${path} ${name} ${record.kind === 'file' ? record.size : 'collection'}`)
  }
  return items
}

describe('what was done is there, also after a reopening', () => {
  test('files and collections', async () => {
    await make('tree/a')
    await put('tree/a/x', 'one')
    await put('tree/b', 'three')
    const expected = ['a/', 'a/x=3', 'b=5']
    expect(await listing()).toEqual(expected)
    await reopen()
    expect(await listing()).toEqual(expected)
  })

  test('what a change wrote is undone when it throws', async () => {
    const failing = tree.change(async (change: TreeChange) => {
      await change.putFile(at('tree/x'), content('x'))
      await change.makeCollection(at('tree/d'))
      throw new TypeError('no')
    })
    expect(await codeOf(failing)).toBe('TypeError')
    expect(await listing()).toEqual([])
  })

  test('changes that wait together see each other, and share a batch', async () => {
    const before = chunks.flushes
    const outcomes = await Promise.allSettled([
      make('tree/d'),
      put('tree/d/x', '1'),
      make('tree/d'),
      put('tree/e/x', '1'),
      move('tree/d', 'tree/f'),
    ])
    expect(outcomes.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      'rejected',
      'rejected',
      'fulfilled',
    ])
    expect(await listing()).toEqual(['f/', 'f/x=1'])
    expect(chunks.flushes).toBe(before + 1)
  })

  test('content whose chunks cannot be made durable is not there', async () => {
    chunks.flush = async () => {
      throw new Error('EIO')
    }
    try {
      expect(await codeOf(put('tree/x', 'x'))).toBe('Error')
    } finally {
      chunks.flush = async () => void chunks.flushes++
    }
    expect(await listing()).toEqual([])
  })

  test('content whose chunks were lost since they were stored is not there', async () => {
    const stale = { ...content('x'), since: chunks.losses - 1 }
    expect(await codeOf(tree.change((change) => change.putFile(at('tree/x'), stale)))).toBe('unavailable')
    expect(await listing()).toEqual([])
  })
})

describe('what cannot be done', () => {
  beforeEach(async () => {
    await make('tree/d')
    await put('tree/f', 'file')
  })

  test.each<[string, () => Promise<unknown>, string]>([
    ['a file without a parent', () => put('tree/no/x', ''), 'conflict'],
    ['a file below a file', () => put('tree/f/x', ''), 'conflict'],
    ['a file over a collection', () => put('tree/d', ''), 'method-not-allowed'],
    ['a collection that is there', () => make('tree/d'), 'method-not-allowed'],
    ['a collection over a file', () => make('tree/f'), 'method-not-allowed'],
    ['the tree itself', () => remove('tree'), 'forbidden'],
    ['what is not there', () => remove('tree/no'), 'not-found'],
    ['a file in the trash', () => put('trash/x', ''), 'forbidden'],
    ['a move into itself', () => move('tree/d', 'tree/d/e'), 'forbidden'],
    ['a move without a parent', () => move('tree/d', 'tree/no/d'), 'conflict'],
    ['a move over something', () => move('tree/d', 'tree/f'), 'TypeError'],
    ['a name of 256 bytes', () => make(`tree/${'x'.repeat(256)}`), 'invalid-request'],
    ['a name ".."', () => make('tree/..'), 'invalid-request'],
    [
      'a path of more than 4096 bytes',
      () => make(`tree${`/${'x'.repeat(200)}`.repeat(21)}`),
      'invalid-request',
    ],
  ])('%s', async (_, work, code) => {
    const before = await listing()
    expect(await codeOf(work())).toBe(code)
    expect(await listing()).toEqual(before)
  })
})

describe('the trash', () => {
  test('keeps what was deleted and what was overwritten, until it expires', async () => {
    await make('tree/d')
    await put('tree/d/x', 'one')
    await put('tree/d/x', 'other')
    await remove('tree/d')
    expect(await trash()).toEqual(['overwritten d/x x 3', 'deleted d d collection'])
    expect(await tree.expire(new Date(Date.now() - day))).toBe(0)
    expect(await tree.expire(new Date(Date.now() + day))).toBe(2)
    expect(await trash()).toEqual([])
    await tree.settled()
    expect(await recordsLeft()).toEqual([])
  })

  test('gives back by a move; the item goes with its content', async () => {
    await put('tree/x', 'one')
    await remove('tree/x')
    await move('trash/1/x', 'tree/y')
    expect(await listing()).toEqual(['y=3'])
    expect(await trash()).toEqual([])
    expect(await listing('trash')).toEqual([])
  })

  test('does not take empty files, nor a file that is replaced by the same content', async () => {
    await put('tree/x', '')
    await put('tree/x', 'one')
    await put('tree/x', 'one')
    expect(await trash()).toEqual([])
  })

  test('a replaced file keeps its number and its dead properties, and so does what was replaced', async () => {
    const first = await put('tree/x', 'one')
    const property = { name: 'urn:x color', xml: '<x:color xmlns:x="urn:x">red</x:color>' }
    await tree.change((change) => change.setDeadProperties(at('tree/x'), [property], []))
    const second = await put('tree/x', 'other')
    expect([second.node, second.version > first.version]).toEqual([first.node, true])
    const old = await tree.find(at('trash/1/x'))
    for (const record of [second, old]) {
      expect(await tree.deadProperties(record as typeof second)).toEqual([property])
    }
  })
})

/** Entries that nothing leads to. */
async function recordsLeft(): Promise<unknown[]> {
  const left: unknown[] = []
  for await (const record of tree.contents()) left.push(record)
  return left
}

describe('copies', () => {
  beforeEach(async () => {
    await make('tree/d')
    await make('tree/d/e')
    await put('tree/d/e/x', 'one')
    await put('tree/d/y', 'other')
  })

  test('are whole, and apart from what they were made of', async () => {
    expect(await copy('tree/d', 'tree/c')).toBe('created')
    await put('tree/d/e/x', 'changed')
    expect(await listing('tree/c')).toEqual(['e/', 'e/x=3', 'y=5'])
  })

  test('replace what is there, which goes to the trash', async () => {
    await make('tree/c')
    await put('tree/c/old', 'old')
    expect(await copy('tree/d', 'tree/c')).toBe('replaced')
    expect(await listing('tree/c')).toEqual(['e/', 'e/x=3', 'y=5'])
    expect(await trash()).toEqual(['overwritten c c collection'])
  })

  test('of depth 0 are empty', async () => {
    await copy('tree/d', 'tree/c', 0)
    expect(await listing('tree/c')).toEqual([])
  })

  test('that are judged wrong at the end leave nothing', async () => {
    let judged = 0
    const failing = tree.copy(at('tree/d'), at('tree/c'), 'infinity', async () => {
      judged++
      if (judged === 2) throw new TypeError('locked meanwhile')
    })
    expect(await codeOf(failing)).toBe('TypeError')
    await tree.settled()
    expect(await listing('tree')).toEqual(['d/', 'd/e/', 'd/e/x=3', 'd/y=5'])
    expect((await recordsLeft()).length).toBe(2)
  })
})

describe('what changed since', () => {
  const namesOf = async (since?: SyncToken, limit = 100) => {
    const changes = await tree.changesIn(at('tree'), since, limit)
    return (
      changes && {
        changed: changes.changed.map(({ name }) => `${name}`),
        removed: changes.removed.map(String),
        token: changes.token,
        isCut: changes.isCut,
      }
    )
  }

  test('is told once for each name', async () => {
    await put('tree/a', '1')
    await put('tree/b', '1')
    const first = await namesOf()
    expect(first).toMatchObject({ changed: ['a', 'b'], removed: [], isCut: false })
    await put('tree/b', '2')
    await put('tree/c', '1')
    await put('tree/b', '3')
    await remove('tree/a')
    await move('tree/c', 'tree/d')
    expect(await namesOf(first?.token)).toMatchObject({ changed: ['b', 'd'], removed: ['a', 'c'] })
    await put('tree/a', 'again')
    expect(await namesOf(first?.token)).toMatchObject({ changed: ['b', 'd', 'a'], removed: ['c'] })
    expect(await namesOf((await namesOf())?.token)).toMatchObject({ changed: [], removed: [] })
  })

  test('comes in pieces where it is long, and what happens in between comes too', async () => {
    for (const name of ['a', 'b', 'c', 'd']) await put(`tree/${name}`, '1')
    await remove('tree/d')
    const first = await namesOf(undefined, 2)
    expect(first).toMatchObject({ changed: ['a', 'b'], removed: [], isCut: true })
    await remove('tree/a')
    await put('tree/e', '1')
    const second = await namesOf(first?.token, 2)
    expect(second).toMatchObject({ changed: ['c'], removed: ['a'], isCut: true })
    expect(await namesOf(second?.token, 2)).toMatchObject({ changed: ['e'], removed: [], isCut: false })
  })

  test('a token from the future is none', async () => {
    expect(await namesOf({ upTo: 1_000_000, begun: 1_000_000 })).toBeUndefined()
  })

  test('a token from before what was forgotten is none', async () => {
    await put('tree/a', '1')
    const first = await namesOf()
    await remove('tree/a')
    await tree.expire(new Date(0))
    await tree.expire(new Date(Date.now() + day))
    expect(await namesOf(first?.token)).toBeUndefined()
    expect(await namesOf()).toMatchObject({ changed: [], removed: [] })
  })
})

describe('freezing', () => {
  const frozen = { id: hashId(Buffer.from('object')), files: 0, directories: 0, bytes: 0 }

  test('remembers a directory until something below it changes', async () => {
    await make('tree/d')
    const before = await tree.freeze(at('tree'), async (view) => {
      view.remember(view.root.node, frozen)
      return await view.frozen(view.root.node)
    })
    expect(before).toBeUndefined()
    const look = () => tree.freeze(at('tree'), (view) => view.frozen(view.root.node))
    expect(await look()).toEqual(frozen)
    await put('tree/d/x', '1')
    expect(await look()).toBeUndefined()
  })

  test.each([
    ['while it is made', async () => void (await put('tree/x', '1')), undefined],
    ['in the change before', async () => {}, undefined],
  ])('a change %s is not forgotten', async (_, meanwhile) => {
    // Begun before the snapshot is taken, written after it.
    const early = put('tree/early', '1')
    await tree.freeze(at('tree'), async (view) => {
      await meanwhile()
      view.remember(view.root.node, frozen)
    })
    await early
    expect(await tree.freeze(at('tree'), (view) => view.frozen(view.root.node))).toBeUndefined()
  })

  test('shows one moment', async () => {
    await put('tree/a', '1')
    const names = await tree.freeze(at('tree'), async (view) => {
      await put('tree/b', '1')
      const found: string[] = []
      for await (const { name } of view.members(view.root.node)) found.push(`${name}`)
      return found
    })
    expect(names).toEqual(['a'])
  })
})

test('locks end with their time, and with what they are on', async () => {
  await make('tree/d')
  const lock = (path: string, seconds: number) => ({
    path: Buffer.from(path),
    token: `urn:uuid:${path}`,
    scope: 'exclusive' as const,
    depth: 'infinity' as const,
    owner: '',
    expiresAtMs: Date.now() + seconds * 1000,
    timeoutSeconds: seconds,
  })
  const paths = (locks: { path: Buffer }[]) => locks.map(({ path }) => `${path}`)
  await tree.change(async (change) => {
    for (const one of [lock('tree/d', 100), lock('tree/d/x', 100), lock('tree/e', -1)])
      await change.addLock(one)
  })
  await reopen()
  expect(paths(await tree.locksOn(at('tree/d/x')))).toEqual(['tree/d', 'tree/d/x'])
  expect(paths(await tree.locksOn(at('tree/e')))).toEqual([])
  expect(paths(await tree.change((change) => change.locksBelow(at('tree'))))).toEqual(['tree/d', 'tree/d/x'])
  await tree.expire(new Date(0))
  await remove('tree/d')
  expect(paths(await tree.change((change) => change.locksBelow(at('tree'))))).toEqual([])
})

test('a tree of any shape is cleared away whole', async () => {
  const shape = fc.array(
    fc.tuple(fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 4 }), fc.boolean()),
    { maxLength: 30 },
  )
  await fc.assert(
    fc.asyncProperty(shape, async (paths) => {
      await make('tree/top')
      for (const [names, isFile] of paths) {
        const path = `tree/top/${names.join('/')}`
        await codeOf(isFile ? put(path, 'x') : make(path))
      }
      await copy('tree/top', 'tree/copy')
      await remove('tree/top')
      await remove('tree/copy')
      await tree.expire(new Date(Date.now() + day))
      await tree.settled()
      expect(await recordsLeft()).toEqual([])
      expect(await listing('trash')).toEqual([])
    }),
    { numRuns: 20 },
  )
}, 60_000)
