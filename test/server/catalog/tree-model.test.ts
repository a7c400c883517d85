/** Random work on a live tree: what had content is never lost, sync tokens and remembered directories say no stale thing. */
import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import { isProblem } from '../../../protocol/problem.ts'
import {
  type FrozenView,
  LiveTree,
  type Names,
  type SyncToken,
  type TreeChange,
} from '../../../server/catalog/live-tree.ts'
import type { DirectoryRecord, FrozenDirectory, TreeRecord } from '../../../server/catalog/tree-records.ts'

const day = 24 * 3600 * 1000
const chunks = { losses: 0, flush: async () => {} }

function at(path: string): Names {
  return path.split('/').map((name) => Buffer.from(name))
}

// Shallow and narrow, so that things meet.
const path = fc
  .array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 })
  .map((names) => `tree/${names.join('/')}`)
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('put' as const), path }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('make' as const), path }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), path }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('move' as const), path, to: path }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('copy' as const), path, to: path, deep: fc.boolean() }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('restore' as const), nth: fc.nat(20), to: path }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('patch' as const), path }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('fail' as const), path, to: path }) },
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

class Scene {
  readonly folder: string
  tree: LiveTree
  puts = 0
  readonly stored: string[] = []

  private constructor(folder: string, tree: LiveTree) {
    this.folder = folder
    this.tree = tree
  }

  static async open(): Promise<Scene> {
    const folder = await mkdtemp(join(tmpdir(), 'chunkdav-tree-model-'))
    return new Scene(folder, await LiveTree.open(join(folder, 'tree'), chunks, { trashMs: day }))
  }

  async reopen(): Promise<void> {
    await this.tree.close()
    this.tree = await LiveTree.open(join(this.folder, 'tree'), chunks, { trashMs: day })
  }

  async close(): Promise<void> {
    await this.tree.close()
    await rm(this.folder, { recursive: true, force: true })
  }

  /** As WebDAV does it: what is at the destination goes first. Refusals are no matter. */
  async take(step: Step): Promise<void> {
    try {
      await this.#take(step)
    } catch (error) {
      if (!isProblem(error) && !(error instanceof RangeError)) throw error
    }
  }

  async #take(step: Step): Promise<void> {
    const { tree } = this
    if (step.kind === 'put') {
      const text = `content ${this.puts++}`
      await tree.change((change) => putIn(change, step.path, text))
      this.stored.push(hashId(Buffer.from(text)))
    } else if (step.kind === 'make') await tree.change((change) => change.makeCollection(at(step.path)))
    else if (step.kind === 'remove') await tree.change((change) => change.remove(at(step.path)))
    else if (step.kind === 'move') await this.#move(at(step.path), at(step.to))
    else if (step.kind === 'copy') {
      if (`${step.path}/`.startsWith(`${step.to}/`) || `${step.to}/`.startsWith(`${step.path}/`)) return
      await tree.copy(at(step.path), at(step.to), step.deep ? 'infinity' : 0, async () => {})
    } else if (step.kind === 'restore') {
      const paths = await pathsBelow(tree, at('trash'))
      const from = paths.filter((names) => names.length > 2)[step.nth]
      if (from !== undefined) await this.#move(from, at(step.to))
    } else if (step.kind === 'patch') {
      const property = { name: 'urn:x p', xml: `<p xmlns="urn:x">${this.puts}</p>` }
      await tree.change((change) => change.setDeadProperties(at(step.path), [property], []))
    } else {
      await tree.change(async (change) => {
        await change.remove(at(step.path))
        await putIn(change, step.to, 'never')
        throw new RangeError('wanted')
      })
    }
  }

  async #move(from: Names, to: Names): Promise<void> {
    const [source, target] = [from.join('/'), to.join('/')]
    if (`${source}/`.startsWith(`${target}/`) || `${target}/`.startsWith(`${source}/`)) return
    await this.tree.change(async (change) => {
      if ((await change.find(from)) === undefined) return
      if ((await change.find(to)) !== undefined) await change.remove(to, 'overwritten')
      await change.move(from, to)
    })
  }
}

async function putIn(change: TreeChange, where: string, text: string): Promise<void> {
  const part = { id: hashId(Buffer.from(text)), size: text.length }
  await change.putFile(at(where), { part, md5: '', sha1: '', since: 0 })
}

async function pathsBelow(tree: LiveTree, names: Names): Promise<Names[]> {
  const record = await tree.find(names)
  if (record?.kind !== 'directory') return []
  const paths: Names[] = []
  for await (const { name } of tree.members(record)) {
    paths.push([...names, name], ...(await pathsBelow(tree, [...names, name])))
  }
  return paths
}

async function recordsAt(tree: LiveTree, area: string): Promise<[Names, TreeRecord][]> {
  const paths = await pathsBelow(tree, at(area))
  return (await Promise.all(
    paths.map(async (names) => [names, (await tree.find(names)) as TreeRecord] as const),
  )) as [Names, TreeRecord][]
}

async function run(runs: number, scenario: (scene: Scene, groups: Step[][]) => Promise<void>): Promise<void> {
  const groups = fc.array(fc.array(step, { minLength: 1, maxLength: 4 }), {
    maxLength: 20,
    size: 'max',
  })
  await fc.assert(
    fc.asyncProperty(groups, async (given) => {
      const scene = await Scene.open()
      try {
        for (const place of ['tree/a', 'tree/b', 'tree/a/a', 'tree/b/a']) {
          await scene.tree.change((change) => change.makeCollection(at(place)))
          await scene.take({ kind: 'put', path: `${place}/c` })
        }
        await scenario(scene, given)
      } finally {
        await scene.close()
      }
    }),
    { numRuns: runs },
  )
}

test('what had content is in the tree or in the trash, and each item of the trash has a note', async () => {
  await run(60, async (scene, groups) => {
    for (const group of groups) await Promise.all(group.map((one) => scene.take(one)))
    const check = async (): Promise<void> => {
      const inTree = await recordsAt(scene.tree, 'tree')
      const inTrash = await recordsAt(scene.tree, 'trash')
      const ids = [...inTree, ...inTrash].flatMap(([, record]) => (record.kind === 'file' ? [record.id] : []))
      expect(scene.stored.filter((id) => !ids.includes(id as never))).toEqual([])
      const items = inTrash.filter(([names]) => names.length === 2).map(([names]) => `${names[1]}`)
      const told: string[] = []
      for await (const { item } of scene.tree.trashItems()) told.push(`${item}`)
      expect(told.sort()).toEqual(items.sort())
      const numbers = [...inTree, ...inTrash].map(([, { node }]) => node)
      expect(new Set(numbers).size).toBe(numbers.length)
    }
    await check()
    await scene.reopen()
    await check()
    await scene.tree.expire(new Date(Date.now() + day))
    await scene.tree.settled()
    let files = 0
    for await (const _ of scene.tree.contents()) files++
    expect(files).toBe((await recordsAt(scene.tree, 'tree')).filter(([, { kind }]) => kind === 'file').length)
  })
}, 90_000)

test('a client that asks what changed knows what is there', async () => {
  await run(80, async (scene, groups) => {
    const clients: Clients = new Map()
    const places = ['tree', 'tree/a', 'tree/b', 'tree/a/a', 'tree/a/b', 'tree/b/a']
    for (const [i, group] of groups.entries()) {
      await Promise.all(group.map((one) => scene.take(one)))
      // Not all of them each time.
      for (const place of places) if ((i + place.length) % 3 !== 0) await sync(scene.tree, clients, place)
    }
    for (const place of places) while (await sync(scene.tree, clients, place)) {}
  })
}, 90_000)

/** What stands under a name: another file, or another collection, is something else. */
function standing(record: TreeRecord): string {
  return `${record.kind} ${record.node} ${record.version}`
}

type Clients = Map<string, { token: SyncToken | undefined; known: Map<string, string> }>

/** Asks once, for a few changes; returns whether there are more. */
async function sync(tree: LiveTree, clients: Clients, place: string): Promise<boolean> {
  const limit = 3
  const client = clients.get(place) ?? { token: undefined, known: new Map() }
  let changes = await tree.changesIn(at(place), client.token, limit)
  if (changes === undefined) {
    client.known.clear()
    changes = await tree.changesIn(at(place), undefined, limit)
  }
  for (const { name, record: member } of changes?.changed ?? []) client.known.set(`${name}`, standing(member))
  for (const name of changes?.removed ?? []) client.known.delete(`${name}`)
  client.token = changes?.token
  clients.set(place, client)
  const record = await tree.find(at(place))
  if (changes === undefined || changes.isCut || record?.kind !== 'directory') return changes?.isCut === true
  const there: [string, string][] = []
  for await (const { name, record: member } of tree.members(record)) there.push([`${name}`, standing(member)])
  expect([place, ...[...client.known].sort()]).toEqual([place, ...there.sort()])
  return false
}

/** A directory object, as far as this test goes: all that it says of what is below. */
async function objectOf(
  view: Pick<FrozenView, 'members' | 'frozen' | 'remember'>,
  { node }: Pick<DirectoryRecord, 'node'>,
  pause: () => Promise<void>,
): Promise<FrozenDirectory> {
  const known = await view.frozen(node)
  if (known !== undefined) return known
  const hash = createHash('sha256')
  for await (const { name, record } of view.members(node)) {
    await pause()
    const id = record.kind === 'file' ? record.id : (await objectOf(view, record, pause)).id
    hash.update(JSON.stringify([`${name}`, record.kind, record.mtimeNs, id]))
  }
  const frozen = { id: `sha256:${hash.digest('hex')}` as const, files: 0, directories: 0, bytes: 0 }
  view.remember(node, frozen as FrozenDirectory)
  return frozen as FrozenDirectory
}

test('a directory that is remembered is as it was when it was remembered', async () => {
  await run(80, async (scene, groups) => {
    let turns = 0
    // Of different lengths, so that freezes end at different moments of the changes.
    const pause = async (): Promise<void> => {
      turns = (turns * 7 + 3) % 11
      for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
    }
    for (const group of groups) {
      const freezes = ['tree', 'tree/a'].map(async (place) => {
        await pause()
        try {
          await scene.tree.freeze(at(place), (view) => objectOf(view, view.root, pause))
        } catch (error) {
          if (!isProblem(error, 'not-found')) throw error
        }
      })
      await Promise.all([...group.map((one) => scene.take(one)), ...freezes])
      await scene.tree.freeze(at('tree'), async (view) => {
        const fresh = { members: view.members, frozen: async () => undefined, remember: () => {} }
        const check = async (directory: Pick<DirectoryRecord, 'node'>): Promise<void> => {
          const remembered = await view.frozen(directory.node)
          const now = await objectOf(fresh, directory, async () => {})
          if (remembered !== undefined) expect(remembered.id).toBe(now.id)
          for await (const { record } of view.members(directory.node)) {
            if (record.kind === 'directory') await check(record)
          }
        }
        await check(view.root)
        await check({ node: 2 })
      })
    }
  })
}, 90_000)
