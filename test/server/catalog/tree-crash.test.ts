/** What a stop between any two batches of the live tree leaves, found by opening copies of its folder. */
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import { LiveTree, type Names, type NewContent } from '../../../server/catalog/live-tree.ts'
import { keys } from '../../../server/catalog/tree-records.ts'

const day = 24 * 3600 * 1000
const chunks = { losses: 0, flush: async () => {} }
let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-tree-crash-'))
})

afterEach(async () => {
  vi.restoreAllMocks()
  await rm(folder, { recursive: true, force: true })
})

const open = (path: string): Promise<LiveTree> => LiveTree.open(path, chunks, { trashMs: day })

function at(path: string): Names {
  return path.split('/').map((name) => Buffer.from(name))
}

function content(text: string): NewContent {
  return { part: { id: hashId(Buffer.from(text)), size: text.length }, md5: '', sha1: '', since: 0 }
}

const put = (tree: LiveTree, path: string, text: string) =>
  tree.change((change) => change.putFile(at(path), content(text)))
const make = (tree: LiveTree, path: string) => tree.change((change) => change.makeCollection(at(path)))

async function listing(tree: LiveTree, path: string): Promise<string[]> {
  const record = await tree.find(at(path))
  if (record?.kind !== 'directory') return []
  const found: string[] = []
  for await (const { name, record: member } of tree.members(record)) {
    found.push(`${path}/${name}`)
    if (member.kind === 'directory') found.push(...(await listing(tree, `${path}/${name}`)))
  }
  return found
}

/** Copies the folder behind each batch: what a kill at that moment would leave. */
function copyingFolders(path: string): string[] {
  const copies: string[] = []
  const batch = Level.prototype.batch as (...given: unknown[]) => Promise<void>
  vi.spyOn(Level.prototype, 'batch').mockImplementation(async function (this: unknown, ...given: unknown[]) {
    await batch.apply(this, given)
    const copy = `${path}-${copies.length}`
    await cp(path, copy, { recursive: true })
    copies.push(copy)
  } as never)
  return copies
}

test('numbers of a copy that was never published are not given out again', async () => {
  const path = join(folder, 'tree')
  const tree = await open(path)
  await make(tree, 'tree/d')
  for (const name of ['e', 'f', 'g']) {
    await make(tree, `tree/d/${name}`)
    await put(tree, `tree/d/${name}/x`, name)
  }
  const copies = copyingFolders(path)
  await tree.copy(at('tree/d'), at('tree/c'), 'infinity', async () => {})
  await tree.close()
  vi.restoreAllMocks()
  expect(copies.length).toBeGreaterThan(4)
  for (const copy of copies) {
    const again = await open(copy)
    const before = await listing(again, 'tree')
    // At once, while what the stop left is being cleared away.
    const made: string[] = []
    const changes: Promise<unknown>[] = []
    for (let i = 0; i < 8; i++) {
      changes.push(make(again, `tree/new${i}`), put(again, `tree/new${i}/x`, 'x'))
      made.push(`tree/new${i}`, `tree/new${i}/x`)
    }
    await Promise.all(changes)
    await again.settled()
    expect((await listing(again, 'tree')).sort()).toEqual([...before, ...made].sort())
    await again.close()
    expect(await strays(copy)).toEqual([])
  }
})

test('a copy that fails twice tells why it failed first, and is cleared away at the next opening', async () => {
  const path = join(folder, 'tree')
  const faults: unknown[] = []
  const onFault = (error: unknown) => void faults.push(error)
  const tree = await LiveTree.open(path, chunks, { trashMs: day, onFault })
  await make(tree, 'tree/d')
  await put(tree, 'tree/d/x', 'x')
  let judged = 0
  const failing = tree.copy(at('tree/d'), at('tree/c'), 'infinity', async () => {
    if (judged++ === 0) return
    vi.spyOn(Level.prototype, 'batch').mockImplementation((async () => {
      throw new Error('IO error: Input/output error')
    }) as never)
    throw new RangeError('wanted')
  })
  await expect(failing).rejects.toThrow(RangeError)
  expect(faults.length).toBe(1)
  vi.restoreAllMocks()
  await tree.close()
  const again = await open(path)
  await again.settled()
  expect(await listing(again, 'tree')).toEqual(['tree/d', 'tree/d/x'])
  await again.close()
  expect(await strays(path)).toEqual([])
})

test('what the tree reaches includes what is just being written', async () => {
  const tree = await open(join(folder, 'tree'))
  const { promise: mayWrite, resolve: release } = Promise.withResolvers<void>()
  const { promise: isWriting, resolve: writes } = Promise.withResolvers<void>()
  const { batch } = Level.prototype as unknown as { batch: (...given: unknown[]) => Promise<void> }
  vi.spyOn(Level.prototype, 'batch').mockImplementation(async function (this: object, ...given: unknown[]) {
    writes()
    await mayWrite
    await batch.apply(this, given)
  } as never)
  const putting = put(tree, 'tree/x', 'x')
  await isWriting
  // Its content was judged to be here by now: who looks for what may go must not overlook it.
  const contents = Array.fromAsync(tree.contents())
  await new Promise((resolve) => setTimeout(resolve, 20))
  release()
  await putting
  expect(await contents).toHaveLength(1)
  vi.restoreAllMocks()
  await tree.close()
})

test('an item of the trash keeps its note: it cannot be moved itself', async () => {
  const tree = await open(join(folder, 'tree'))
  await put(tree, 'tree/x', 'x')
  await tree.change((change) => change.remove(at('tree/x')))
  const moving = tree.change((change) => change.move(at('trash/1'), at('tree/y')))
  await expect(moving).rejects.toMatchObject({ code: 'forbidden' })
  await tree.change((change) => change.move(at('trash/1/x'), at('tree/y')))
  await tree.close()
})

/** Keys of rows that belong to nothing that can be reached. */
async function strays(path: string): Promise<string[]> {
  const level = new Level<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
  await level.open()
  const rows = await level.iterator().all()
  const entries = new Map<number, number[]>()
  for (const [key, value] of rows) {
    if (key[0] !== keys.allEntries[0]) continue
    const directory = key.readUIntBE(1, 6)
    const { node } = JSON.parse(value.subarray(0, -4).toString()) as { node: number }
    entries.set(directory, [...(entries.get(directory) ?? []), node])
  }
  const reached = new Set([0])
  for (const node of reached) for (const below of entries.get(node) ?? []) reached.add(below)
  const found = rows
    .filter(([key]) => 'epcdf'.includes(String.fromCharCode(key[0] as number)))
    .filter(([key]) => !reached.has(key.readUIntBE(1, 6)))
  await level.close()
  return found.map(([key]) => key.toString('latin1'))
}
