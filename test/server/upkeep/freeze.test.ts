/** Freezing the live tree: what is in the checkpoint, what it costs, and what happens when something is gone. */
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import { isProblem, type Problem } from '../../../protocol/problem.ts'
import type { CheckpointState } from '../../../protocol/schema.ts'
import type { FrozenView, Names } from '../../../server/catalog/live-tree.ts'
import { readTouched } from '../../../server/catalog/touched-log.ts'
import { nodeFiles } from '../../../server/file-layer.ts'
import {
  aboutFreeze,
  type FreezableVault,
  freeze,
  freezeIfChanged,
  freezeSource,
} from '../../../server/upkeep/freeze.ts'
import { at, TreeVault } from './tree-vault.ts'

let home: TreeVault
beforeEach(async () => {
  home = await TreeVault.open()
})
afterEach(async () => {
  await home[Symbol.asyncDispose]()
})

const options = { source: 'tree' }
const run = (path = 'tree', more = {}) => freeze(home.vault, at(path), { ...options, ...more })

async function problemOf(work: Promise<unknown>): Promise<Problem> {
  try {
    await work
  } catch (error) {
    if (isProblem(error)) return error
    throw error
  }
  throw new Error('it did not fail')
}

/** The vault, with what a freeze sees of its tree changed by `wrap`. */
function seeing(wrap: (view: FrozenView) => Partial<FrozenView>): FreezableVault {
  const { store, catalog, tree } = home.vault
  return {
    store,
    catalog,
    tree: {
      find: (names: Names) => tree.find(names),
      forgetFrozen: () => tree.forgetFrozen(),
      freeze: (names, use) => tree.freeze(names, (view) => use({ ...view, ...wrap(view) })),
    },
  }
}

/** As if nothing had ever been frozen. */
const remembersNothing = () => seeing(() => ({ frozen: async () => undefined, remember: () => {} }))

/** Directories that were read, by their numbers. */
function counting(read: number[]): FreezableVault {
  return seeing((view) => ({
    members: (directory) => {
      read.push(directory)
      return view.members(directory)
    },
  }))
}

async function checkpoints(): Promise<CheckpointState[]> {
  return await home.vault.catalog.checkpoints.list('tree')
}

describe('what a freeze makes', () => {
  test('is the tree as it was, whatever comes later', async () => {
    await home.make('tree/a')
    await home.make('tree/a/empty')
    await home.put('tree/a/x', 'one', '1700000000123456789')
    await home.put('tree/nothing', '')
    const before = await home.live()
    const state = await run()
    expect(state).toMatchObject({
      source: 'tree',
      number: 1,
      kind: 'dir',
      state: 'committed',
      totals: { files: 2, directories: 3, bytes: 3 },
      attributes: { mode: 0o755, uid: 0, gid: 0 },
    })
    await home.put('tree/a/x', 'other')
    await home.remove('tree/nothing')
    expect(await home.frozen(state.root)).toEqual(before)
    expect((await home.vault.catalog.checkpoints.latest('tree'))?.root).toBe(state.root)
  })

  test('has modes and times', async () => {
    await home.make('tree/a')
    await home.put('tree/a/x', 'one', '1700000000123456789')
    const directory = await home.vault.tree.find(at('tree/a'))
    const { root } = await run()
    const text = String(await home.vault.catalog.reader.get(root as never))
    expect(JSON.parse(text).entries).toMatchObject([
      { kind: 'directory', name: 'a', mode: 0o755, uid: 0, gid: 0, mtimeNs: directory?.mtimeNs },
    ])
    const below = String(await home.vault.catalog.reader.get(JSON.parse(text).entries[0].id))
    expect(JSON.parse(below).entries).toMatchObject([
      { kind: 'file', name: 'x', mode: 0o644, size: 3, mtimeNs: '1700000000123456789' },
    ])
  })

  test('can be a folder, or empty', async () => {
    await home.make('tree/a')
    await home.put('tree/a/x', 'one')
    await home.make('tree/b')
    expect(await home.frozen((await run('tree/a')).root)).toEqual(['x=one'])
    expect(await home.frozen((await run('tree/b')).root)).toEqual([])
  })

  test('takes names that are not UTF-8, in the order of their bytes', async () => {
    const odd = [Buffer.from('tree'), Buffer.from([0xff, 0xfe])]
    await home.vault.tree.change((change) => change.makeCollection(odd))
    await home.put('tree/é', 'e')
    await home.put('tree/z', 'z')
    expect(await home.frozen((await run()).root)).toEqual([
      'z=z',
      `${Buffer.from('é').toString('latin1')}=e`,
      '\xff\xfe/',
    ])
  })

  test('stores the empty chunk that an empty file needs', async () => {
    const id = hashId(Buffer.alloc(0))
    const content = { part: { id, size: 0 }, md5: '', sha1: '', since: home.store.losses }
    await home.vault.tree.change((change) => change.putFile(at('tree/x'), content))
    expect(await home.frozen((await run()).root)).toEqual(['x='])
  })

  test('has a directory of many parts', async () => {
    const content = { part: { id: await home.put('tree/x', 'x'), size: 1 }, md5: '', sha1: '' }
    await home.vault.tree.change(async (change) => {
      await change.makeCollection(at('tree/many'))
      for (let i = 0; i < 5000; i++) {
        await change.putFile(at(`tree/many/${i}`), { ...content, since: home.store.losses })
      }
    })
    const state = await run('tree/many')
    expect(state.totals).toEqual({ files: 5000, directories: 1, bytes: 5000 })
    expect((await home.frozen(state.root)).length).toBe(5000)
    await home.remove('tree/many/77')
    const stored = home.store.stored.length
    await run('tree/many')
    // The part, and the list of parts.
    expect(home.store.stored.length).toBe(stored + 2)
  })
})

describe('what a freeze costs', () => {
  beforeEach(async () => {
    for (const path of ['tree/a', 'tree/a/b', 'tree/a/b/c', 'tree/d', 'tree/d/e']) await home.make(path)
    await home.put('tree/a/b/c/x', 'one')
    await home.put('tree/d/e/y', 'two')
  })

  test('after a change is the directories on the way there', async () => {
    await run()
    await home.put('tree/d/e/y', 'other')
    const way = ['tree', 'tree/d', 'tree/d/e'].map(
      async (path) => (await home.vault.tree.find(at(path)))?.node,
    )
    const read: number[] = []
    const stored = home.store.stored.length
    await freeze(counting(read), at('tree'), options)
    expect(read).toEqual(await Promise.all(way))
    expect(home.store.stored.length).toBe(stored + 3)
  })

  test('without a change is nothing but a checkpoint; and freezeIfChanged makes none', async () => {
    const first = await run()
    const read: number[] = []
    const second = await freeze(counting(read), at('tree'), options)
    expect([second.number, second.root, second.totals]).toEqual([2, first.root, first.totals])
    expect(await freezeIfChanged(counting(read), at('tree'), options)).toBeUndefined()
    expect(read).toEqual([])
    expect((await checkpoints()).length).toBe(2)
    await home.put('tree/d/e/y', 'other')
    expect(await freezeIfChanged(home.vault, at('tree'), options)).toMatchObject({ state: 'committed' })
  })

  test('freezeIfChanged makes none for what was changed and changed back', async () => {
    await home.put('tree/x', 'x', '1')
    const first = await run()
    await home.put('tree/x', 'y', '2')
    await home.put('tree/x', 'x', '1')
    expect(await freezeIfChanged(home.vault, at('tree'), options)).toBeUndefined()
    expect(await checkpoints()).toEqual([first])
  })

  test('a moved directory is not read again', async () => {
    await run()
    await home.move('tree/a', 'tree/d/a')
    const read: number[] = []
    const state = await freeze(counting(read), at('tree'), options)
    expect(read.length).toBe(2)
    expect(await home.frozen(state.root)).toEqual(await home.live())
  })
})

describe('what comes while it runs', () => {
  test('a write is in it whole or not at all, and the next has it', async () => {
    for (const name of ['a', 'b', 'c']) {
      await home.make(`tree/${name}`)
      await home.put(`tree/${name}/x`, 'old')
    }
    const before = await home.live()
    let writes = 0
    const busy = seeing((view) => ({
      async *members(directory) {
        for await (const member of view.members(directory)) {
          await home.put(`tree/a/x`, `new ${writes}`)
          await home.put(`tree/c/y${writes++}`, 'new')
          yield member
        }
      },
    }))
    const first = await freeze(busy, at('tree'), options)
    expect(writes).toBeGreaterThan(3)
    expect(await home.frozen(first.root)).toEqual(before)
    const second = await run()
    expect(await home.frozen(second.root)).toEqual(await home.live())
  })

  test('another freeze of the same source commits its own', async () => {
    await home.make('tree/a')
    await home.put('tree/a/x', 'one')
    const states = await Promise.all([run(), run(), run()])
    expect(states.map(({ number }) => number).sort()).toEqual([1, 2, 3])
    expect(new Set(states.map(({ root }) => root)).size).toBe(1)
  })

  test('whoever deletes its checkpoint ends it', async () => {
    await home.put('tree/x', 'one')
    const robbed = seeing((view) => ({
      async *members(directory) {
        await home.vault.catalog.checkpoints.delete({ source: 'tree', number: 1 })
        yield* view.members(directory)
      },
    }))
    expect((await problemOf(freeze(robbed, at('tree'), options))).code).toBe('checkpoint-not-found')
    expect(await checkpoints()).toEqual([])
  })

  test.each(['before it begins', 'while it walks'])('whoever gives it up %s leaves nothing', async (when) => {
    await home.make('tree/a')
    await home.put('tree/a/x', 'one')
    const controller = new AbortController()
    if (when === 'before it begins') controller.abort()
    const watched = seeing((view) => ({
      members: (directory) => {
        if (directory !== view.root.node) controller.abort()
        return view.members(directory)
      },
    }))
    const given = freeze(watched, at('tree'), { ...options, signal: controller.signal })
    expect((await problemOf(given)).code).toBe('unavailable')
    expect(await checkpoints()).toEqual([])
  })
})

describe('what is gone', () => {
  let first: CheckpointState
  beforeEach(async () => {
    for (const path of ['tree/a', 'tree/a/b']) await home.make(path)
    await home.put('tree/a/b/x', 'one')
    await home.put('tree/a/y', 'two')
    await home.put('tree/z', 'two')
    first = await run()
  })

  async function objectOf(path: string): Promise<string> {
    return (await run(path, { source: 'other' })).root as string
  }

  test.each(['tree', 'tree/a', 'tree/a/b'])('the directory object of %s is made again', async (path) => {
    const id = await objectOf(path)
    home.store.lose(id as never)
    const second = await run()
    expect([second.number, second.root]).toEqual([2, first.root])
    expect(await home.frozen(second.root)).toEqual(await home.live())
    // All is remembered again.
    const read: number[] = []
    await freeze(counting(read), at('tree'), options)
    expect(read).toEqual([])
  })

  test('content that is gone is told with the paths that need it', async () => {
    home.store.lose(hashId(Buffer.from('two')))
    const problem = await problemOf(run())
    expect(problem.code).toBe('missing-chunks')
    expect(problem.extensions.paths).toEqual(['a/y', 'z'])
    expect(problem.message).toContain('"a/y"')
    expect(await checkpoints()).toEqual([first])
    await home.put('tree/z', 'two')
    expect((await run()).number).toBe(3)
  })

  test('a vault that cannot store leaves no checkpoint', async () => {
    await home.put('tree/new', 'new')
    const failing = Object.create(home.store, {
      put: { value: async () => Promise.reject(new Error('EIO')) },
      stat: { value: (ids: never[]) => home.store.stat(ids) },
    })
    await expect(
      freeze({ ...home.vault, tree: home.vault.tree, store: failing }, at('tree'), options),
    ).rejects.toThrow('EIO')
    expect(await checkpoints()).toEqual([first])
  })

  test('no collection is Problem not-found, and no number is given out for it', async () => {
    for (const path of ['tree/no', 'tree/z']) expect((await problemOf(run(path))).code).toBe('not-found')
    expect((await run()).number).toBe(2)
  })
})

test('a checkpoint that a killed process left open goes with the next freeze; a client’s stays', async () => {
  const { checkpoints: all } = home.vault.catalog
  await home.put('tree/x', 'one')
  await all.begin('tree', { kind: 'dir', about: { ...aboutFreeze(at('tree')), madeBy: 'freeze' } })
  await all.begin('tree', { kind: 'dir', about: { path: 'tree' } })
  const states = await Promise.all([run(), run()])
  expect(states.map(({ number }) => number)).toEqual([3, 4])
  expect((await checkpoints()).map(({ number, state }) => `${number} ${state}`)).toEqual([
    '2 open',
    '3 committed',
    '4 committed',
  ])
})

test('what is reached stands in the log of the checkpoint before it is stored', async () => {
  await home.make('tree/a')
  await home.make('tree/b')
  const one = await home.put('tree/a/x', 'one')
  const a = (await run('tree/a', { source: 'a' })).root
  await home.put('tree/b/x', 'two')
  const { checkpoints } = home.vault.catalog
  const touched: unknown[] = []
  const commit = checkpoints.commit.bind(checkpoints)
  checkpoints.commit = async (name, request) => {
    const log = `${home.folder}/vaults/home/checkpoints/${name.source}/${name.number}.touched`
    const logged = (await Array.fromAsync(readTouched(nodeFiles, log))).flat()
    touched.push(...logged.map(({ id }) => id), request.root)
    return await commit(name, request)
  }
  await run()
  expect(touched).toContain(a)
  expect(touched).toContain(hashId(Buffer.from('two')))
  expect(touched).not.toContain(one)
  expect(touched.slice(0, -1)).toContain(touched.at(-1))
})

test('what is remembered never differs from what is made from nothing', async () => {
  const path = fc
    .array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 })
    .map((names) => `tree/${names.join('/')}`)
  const step = fc.oneof(
    fc.record({ do: fc.constant('put' as const), path, text: fc.constantFrom('', 'one', 'two') }),
    fc.record({ do: fc.constant('make' as const), path }),
    fc.record({ do: fc.constant('make' as const), path }),
    fc.record({ do: fc.constant('remove' as const), path }),
    fc.record({ do: fc.constantFrom('move' as const, 'copy' as const), path, to: path }),
    fc.record({ do: fc.constant('freeze' as const), path: fc.constantFrom('tree', 'tree/a') }),
  )
  const refusals = ['conflict', 'forbidden', 'method-not-allowed', 'not-found']
  const first = home
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      await using other = await TreeVault.open()
      home = other
      const taken: { root: CheckpointState['root']; live: string[] }[] = []
      const frozen = async (path: string): Promise<void> => {
        const { root, totals } = await run(path)
        const scratch = await freeze(remembersNothing(), at(path), { source: 'scratch' })
        expect([root, totals]).toEqual([scratch.root, scratch.totals])
        taken.push({ root, live: await other.live(path) })
      }
      for (const one of steps) {
        try {
          if (one.do === 'put') await other.put(one.path, one.text)
          else if (one.do === 'make') await other.make(one.path)
          else if (one.do === 'remove') await other.remove(one.path)
          else if (one.do === 'move') await other.move(one.path, one.to)
          else if (one.do === 'copy') await other.copy(one.path, one.to)
          else await frozen(one.path)
        } catch (error) {
          // A move over something is misuse of the tree; the routes know.
          if (!(isProblem(error) && refusals.includes(error.code)) && !(error instanceof TypeError))
            throw error
        }
      }
      await frozen('tree')
      for (const { root, live } of taken) expect(await other.frozen(root)).toEqual(live)
    }),
    { numRuns: 25 },
  )
  home = first
}, 60_000)

test.each([
  ['tree', 'tree', 'tree'],
  ['tree/a/b', 'tree-a-b', 'tree/a/b'],
  ['tree/Größe 1', 'tree-Gr--e-1', 'tree/Größe 1'],
  ['tree/a..b/...', 'tree-a-.b---.', 'tree/a..b/...'],
  [`tree/${'x'.repeat(200)}`, `tree-${'x'.repeat(123)}`, `tree/${'x'.repeat(200)}`],
])('%s is filed under %s', (path, source, about) => {
  expect(freezeSource(at(path))).toBe(source)
  expect(aboutFreeze(at(path))).toEqual({ path: about })
})
