import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Change, diffTrees, listPath } from '../../client/browse.ts'
import { parsePath, showPath } from '../../client/commands/report.ts'
import { ObjectReader } from '../../client/restore/object-reader.ts'
import type { Id } from '../../protocol/id.ts'
import type { Entry } from '../../protocol/schema.ts'
import { Fixture, plain } from './tree-fixture.ts'

let fixture: Fixture
let objects: ObjectReader
beforeAll(async () => {
  fixture = await Fixture.start()
  objects = new ObjectReader(fixture.client)
})
afterAll(() => fixture.stop())

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

describe('listing', () => {
  let root: Id
  beforeAll(async () => {
    root = await fixture.root([
      await fixture.directory('d', [
        await fixture.file('x', 'X'),
        await fixture.directory('e', [await fixture.file(Buffer.from([0xff]), 'odd')]),
      ]),
      await fixture.file('f', 'F'),
      { kind: 'symlink', name: 'l', ...plain, target: 'd' },
    ])
  })
  test.each([
    ['', ['d', 'f', 'l']],
    ['/', ['d', 'f', 'l']],
    ['d', ['d/e', 'd/x']],
    ['/d//e/', ['d/e/\\xff']],
    ['d/e/\\xff', ['d/e/\\xff']],
    ['f', ['f']],
    ['l', ['l']],
  ])('%j', async (path, expected) => {
    const found = await all(listPath(objects, root, parsePath(path)))
    expect(found.map((entry) => showPath(entry.path))).toEqual(expected)
  })
  test.each([
    ['none', 'not-found'],
    ['d/none', 'not-found'],
    ['f/below', 'not-found'],
    ['l/x', 'not-found'],
    ['../d', 'usage'],
  ])('%j: %s', async (path, code) => {
    await expect(all(listPath(objects, root, Buffer.from(path)))).rejects.toMatchObject({ code })
  })
})

describe('differences', () => {
  const differences = async (before: Entry[], after: Entry[]): Promise<string[]> => {
    const changes = await all(diffTrees(objects, await fixture.root(before), await fixture.root(after)))
    const sign = ({ change, path, before, after }: Change): string =>
      `${change} ${path} ${before?.kind ?? '-'} ${after?.kind ?? '-'}`
    return changes.map(sign)
  }

  test('none', async () => {
    const entries = [await fixture.file('a', 'A'), await fixture.directory('d', [])]
    expect(await differences(entries, entries)).toEqual([])
  })

  test('files and directories come, go and change', async () => {
    const same = await fixture.directory('same', [await fixture.file('deep', 'D')])
    const before = [
      same,
      await fixture.file('changed', '1'),
      await fixture.file('gone', 'G'),
      await fixture.file('mode', 'M'),
      await fixture.directory('kind', [await fixture.file('below', 'B')]),
      await fixture.directory('sub', [await fixture.file('a', '1'), await fixture.file('b', 'B')]),
    ]
    const after = [
      same,
      await fixture.file('changed', '2'),
      await fixture.file('mode', 'M', { mode: 0o600 }),
      await fixture.file('kind', 'K'),
      await fixture.directory('new', [await fixture.directory('inner', [await fixture.file('f', 'F')])]),
      await fixture.directory('sub', [await fixture.file('a', '2'), await fixture.file('b', 'B')], {
        mtimeNs: '3',
      }),
    ]
    expect(await differences(before, after)).toEqual([
      'changed changed file file',
      'removed gone file -',
      'removed kind directory -',
      'removed kind/below file -',
      'added kind - file',
      'changed mode file file',
      'added new - directory',
      'added new/inner - directory',
      'added new/inner/f - file',
      'changed sub directory directory',
      'changed sub/a file file',
    ])
  })

  test('symlinks and devices by what they are', async () => {
    const link = (target: string) => ({ kind: 'symlink', name: 'l', ...plain, target }) as const
    const device = (minor: number) =>
      ({ kind: 'block-device', name: 'b', ...plain, major: 1, minor }) as const
    expect(await differences([link('a'), device(1)], [link('b'), device(2)])).toHaveLength(2)
    expect(await differences([link('a'), device(1)], [link('a'), device(1)])).toEqual([])
  })

  test('equal directories are not read', async () => {
    const many = []
    for (let i = 0; i < 10; i++)
      many.push(await fixture.directory(`d${i}`, [await fixture.file(`f${i}`, `${i}`)]))
    const before = await fixture.root(many)
    const after = await fixture.root([...many, await fixture.file('z', 'Z')])
    const { requests } = fixture.client.counters
    const changes = await all(diffTrees(new ObjectReader(fixture.client), before, after))
    expect(changes).toHaveLength(1)
    expect(fixture.client.counters.requests - requests).toBeLessThanOrEqual(2)
  })
})

describe('paths for people', () => {
  test.each<[Buffer, string]>([
    [Buffer.from('plain/ü/日本'), 'plain/ü/日本'],
    [Buffer.from('a\\b'), 'a\\\\b'],
    [Buffer.from('a\nb\x1b[31m\x7f'), 'a\\x0ab\\x1b[31m\\x7f'],
    [Buffer.from([0x61, 0xff, 0xc3, 0x62]), 'a\\xff\\xc3b'],
    [Buffer.from('\u{1f600}\ufffd'), '\u{1f600}\ufffd'],
    [Buffer.from('\u0085'), '\\xc2\\x85'],
  ])('%j', (path, shown) => {
    expect(showPath(path)).toBe(shown)
    expect(parsePath(shown)).toEqual(path)
  })
})
