/** What a crash may leave in a source's folder, and what is made of it. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { CheckpointState, Part } from '../../../protocol/schema.ts'
import { CheckpointFolder } from '../../../server/catalog/checkpoint-folder.ts'
import type { TouchedId } from '../../../server/catalog/checkpoint-roots.ts'
import {
  appendItems,
  decodeItems,
  encodeItems,
  itemBytes,
  itemPages,
  readItems,
  recoverItems,
} from '../../../server/catalog/item-list.ts'
import { appendTouched, readTouched } from '../../../server/catalog/touched-log.ts'
import { nodeFiles } from '../../../server/file-layer.ts'
import { chunk } from '../requests.ts'

let path: string
let folder: CheckpointFolder
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'chunkdav-folder-'))
  folder = new CheckpointFolder(path)
})
afterEach(() => rm(path, { recursive: true }))

const ids = ['a', 'b', 'c'].map((text) => chunk(text).id)
const asTouched = (some: typeof ids): TouchedId[] => some.map((id, i) => ({ id, isContent: i % 2 === 0 }))
const opened = (number: number): CheckpointState => ({
  source: 's',
  number,
  kind: 'chunks',
  state: 'open',
  openedAt: '2024-01-01T00:00:00.000Z',
})
const committed = (number: number): CheckpointState => ({ ...opened(number), state: 'committed', items: 0 })

describe('recovery', () => {
  test('an open checkpoint is found with its items', async () => {
    await folder.begin(opened(1))
    await appendItems(nodeFiles, folder.itemsPath(1), 0, [{ id: ids[0] as never, size: 5 }])
    expect(await folder.recover()).toEqual([{ state: opened(1), items: 1, itemBytes: 5 }])
  })

  test('committed, but the crash came before the open one was tidied away: committed', async () => {
    await folder.begin(opened(1))
    await writeFile(join(path, '1.json'), JSON.stringify(committed(1)))
    expect(await folder.recover()).toEqual([])
    expect((await readdir(path)).sort()).toEqual(['1.items', '1.json'])
    expect(await folder.readCommitted(1)).toEqual(committed(1))
  })

  test('the crash came while the committed state was written: still open', async () => {
    await folder.begin(opened(1))
    await writeFile(join(path, '1.json.tmp'), '{"sour')
    expect(await folder.recover()).toMatchObject([{ state: { number: 1, state: 'open' } }])
    expect(await readdir(path)).not.toContain('1.json.tmp')
  })

  test('the crash came before the open state was written: never there, but its number is gone', async () => {
    expect(await folder.nextNumber()).toBe(1)
    await writeFile(folder.itemsPath(1), '')
    await writeFile(folder.touchedPath(1), '')
    expect(await folder.recover()).toEqual([])
    expect(await readdir(path)).toEqual(['last'])
    expect(await folder.nextNumber()).toBe(2)
  })

  test('numbers are not given again when the note of the last one is lost', async () => {
    await folder.begin(opened(7))
    expect(await folder.nextNumber()).toBe(8)
    expect(await readFile(join(path, 'last'), 'utf8')).toBe('8\n')
  })

  test('a deletion that was cut short leaves no open checkpoint behind', async () => {
    await folder.begin(opened(1))
    await rm(join(path, '1.open.json'))
    expect(await folder.recover()).toEqual([])
    expect(await readdir(path)).toEqual([])
  })

  test('torn ends of items and touched ids are cut off', async () => {
    await folder.begin(opened(1))
    await appendItems(nodeFiles, folder.itemsPath(1), 0, [{ id: ids[0] as never, size: 5 }])
    await appendTouched(nodeFiles, folder.touchedPath(1), asTouched(ids))
    await writeFile(folder.itemsPath(1), Buffer.alloc(20, 1), { flag: 'a' })
    await writeFile(folder.touchedPath(1), Buffer.alloc(20, 1), { flag: 'a' })
    expect(await folder.recover()).toMatchObject([{ items: 1 }])
    await appendTouched(nodeFiles, folder.touchedPath(1), asTouched(ids.slice(0, 1)))
    const touched: string[] = []
    for await (const page of readTouched(nodeFiles, folder.touchedPath(1)))
      touched.push(...page.map(({ id }) => id))
    expect(touched).toEqual([...ids, ids[0]])
  })

  test.each([
    ['a damaged state', () => writeFile(join(path, '1.open.json'), '{}')],
    ['an empty one', () => writeFile(join(path, '1.open.json'), '')],
    ['that of another number', () => writeFile(join(path, '1.open.json'), JSON.stringify(opened(2)))],
    ['a state without its items', () => rm(folder.itemsPath(1))],
  ])('%s counts as absent, and its number is not given again', async (_, harm) => {
    const damage: string[] = []
    folder = new CheckpointFolder(path, ({ code }) => damage.push(code))
    for (const number of [1, 2]) await folder.begin(opened(number))
    await harm()
    expect(await folder.recover()).toMatchObject([{ state: { number: 2 } }])
    expect(damage).toEqual(['store-corrupt'])
    expect(await readdir(path)).toContain('1.open.json')
    expect(await folder.nextNumber()).toBe(3)
    expect(await folder.remove(1)).toBe(true)
    await folder.recover()
    expect(damage).toHaveLength(1)
  })

  test('a damaged committed state is in no list, and its number is not given again', async () => {
    for (const number of [1, 2, 3]) {
      await writeFile(join(path, `${number}.json`), JSON.stringify(committed(number)))
    }
    await writeFile(join(path, '3.json'), '{"sour')
    expect((await folder.listCommitted()).map(({ number }) => number)).toEqual([1, 2])
    await expect(folder.readCommitted(3)).rejects.toMatchObject({ code: 'store-corrupt' })
    expect(await folder.nextNumber()).toBe(4)
    expect(await folder.remove(3)).toBe(true)
  })
})

test('a touched id that comes after the end finds no log', async () => {
  expect(await appendTouched(nodeFiles, folder.touchedPath(1), asTouched(ids))).toBe(false)
  expect(await readdir(path)).toEqual([])
})

describe('the item list', () => {
  const part: fc.Arbitrary<Part> = fc
    .tuple(fc.constantFrom(...ids), fc.maxSafeNat(), fc.boolean())
    .map(([id, size, chunked]) => (chunked ? { id, size, chunked: true } : { id, size }))

  test('comes back as it was written', () => {
    fc.assert(
      fc.property(fc.array(part), (items) => {
        expect(decodeItems(encodeItems(items))).toEqual(items)
      }),
    )
  })

  test('wherever it is cut or changed, what stands before that is kept', async () => {
    const list = join(path, 'list')
    await fc.assert(
      fc.asyncProperty(
        fc.array(part, { minLength: 1, maxLength: 20 }),
        fc.nat(),
        fc.boolean(),
        async (items, place, cut) => {
          const bytes = encodeItems(items)
          const at = place % bytes.length
          if (!cut) bytes[at] = (bytes[at] as number) ^ 0x40
          await writeFile(list, cut ? bytes.subarray(0, at) : bytes)
          const all = Array.fromAsync(itemPages(nodeFiles, list, items.length))
          await expect(all).rejects.toMatchObject({ code: 'store-corrupt' })
          await expect(readItems(nodeFiles, list, 0, items.length)).rejects.toMatchObject({
            code: 'store-corrupt',
          })
          const whole = Math.floor(at / itemBytes)
          expect((await recoverItems(nodeFiles, list)).count).toBe(whole)
          expect(await readItems(nodeFiles, list, 0, whole)).toEqual(items.slice(0, whole))
        },
      ),
      { numRuns: 50 },
    )
  })
})
