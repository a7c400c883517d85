import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { HardLinks } from '../../client/restore/hard-links.ts'
import { partName } from '../../client/restore/part-file.ts'
import type { RestoreSummary } from '../../client/restore/restore.ts'
import { RestoredDirectory } from '../../client/restore/restored-directory.ts'
import { hashId } from '../../protocol/hash.ts'
import { encodeFileObject } from '../../protocol/objects.ts'
import type { Entry } from '../../protocol/schema.ts'
import { Fixture, listing, plain, plainDirectory, randomBytes } from './tree-fixture.ts'

let fixture: Fixture
beforeEach(async () => {
  fixture = await Fixture.start()
  mkdirSync(fixture.at('out'))
  mkdirSync(fixture.at('outside'))
  writeFileSync(fixture.at('outside', 'precious'), 'mine')
})
afterEach(async () => {
  expect(await listing(fixture.at('outside'))).toEqual({ precious: 'mine' })
  await fixture.stop()
})

const told = ({ problemList }: RestoreSummary) => problemList.map(({ path, code }) => `${path}: ${code}`)

describe('hostile directory objects', () => {
  const entry = { kind: 'file', ...plain, id: hashId(Buffer.from('evil')), size: 4 } as const
  test.each<[string, unknown[]]>([
    ['..', [{ ...entry, name: '..' }]],
    ['.', [{ ...entry, name: '.' }]],
    ['a slash', [{ ...entry, name: '../outside/precious' }]],
    ['an absolute path', [{ ...entry, name: '/etc/passwd' }]],
    ['NUL', [{ ...entry, name: 'a\0b' }]],
    ['an empty name', [{ ...entry, name: '' }]],
    ['no name', [entry]],
    ['a slash in base64', [{ ...entry, name64: Buffer.from([0xff, 0x2f]).toString('base64') }]],
    [
      'a name twice',
      [
        { ...entry, name: 'a' },
        { ...entry, name: 'a' },
      ],
    ],
    [
      'a symlink and a directory of one name',
      [
        { kind: 'symlink', name: 'd', ...plain, target: '../outside' },
        { kind: 'directory', name: 'd', ...plainDirectory, id: entry.id },
      ],
    ],
    ['a mode beyond the bits', [{ ...entry, name: 'a', mode: 0o100644 }]],
    ['a negative size', [{ ...entry, name: 'a', size: -1 }]],
  ])('%s', async (_, entries) => {
    await fixture.put(Buffer.from('evil'))
    const hostile = await fixture.put(Buffer.from(JSON.stringify({ type: 'directory', entries })))
    const checkpoint = fixture.pretend(
      await fixture.root([
        { kind: 'directory', name: 'hostile', ...plainDirectory, id: hostile },
        await fixture.file('good', 'G'),
      ]),
    )
    expect(told(await fixture.restore(checkpoint))).toEqual(['hostile: invalid-object'])
    expect(await listing(fixture.at('out'))).toEqual({ good: 'G', hostile: 'directory' })
  })

  test('a directory that holds itself cannot exist; parts that nest without end are cut off', async () => {
    let id = await fixture.root([])
    for (let depth = 0; depth < 12; depth++) {
      id = await fixture.put(Buffer.from(JSON.stringify({ type: 'directory', parts: [{ id, entries: 0 }] })))
    }
    const checkpoint = fixture.pretend(
      await fixture.root([{ kind: 'directory', name: 'd', ...plainDirectory, id }]),
    )
    expect(told(await fixture.restore(checkpoint))).toEqual(['d: invalid-object'])
  })
})

describe('files that are not what the backup says', () => {
  const whole = randomBytes(1, 1000)
  const id = hashId(whole)
  const chunked = { kind: 'file', name: 'f', ...plain, chunked: true } as const
  test.each<[string, Entry, unknown, string]>([
    ['a size that lies', { kind: 'file', name: 'f', ...plain, id, size: 999 }, undefined, 'invalid-object'],
    ['empty, it says', { kind: 'file', name: 'f', ...plain, id, size: 0 }, undefined, 'invalid-object'],
    [
      'a false digest',
      { ...chunked, id, size: 2000 },
      { digest: id, parts: [1000, 1000] },
      'digest-mismatch',
    ],
    ['parts of false sizes', { ...chunked, id, size: 2000 }, { parts: [1500, 500] }, 'invalid-object'],
    ['a size unlike the list', { ...chunked, id, size: 5 }, { parts: [1000, 1000] }, 'invalid-object'],
    ['no list at all', { ...chunked, id, size: 1000 }, undefined, 'invalid-object'],
    [
      'a chunk larger than any',
      { kind: 'file', name: 'f', ...plain, id, size: 2 ** 40 },
      undefined,
      'invalid-object',
    ],
  ])('%s', async (_, entry, list, code) => {
    await fixture.put(whole)
    let file = entry
    if (list !== undefined) {
      const { digest, parts } = list as { digest?: typeof id; parts: number[] }
      const object = encodeFileObject(
        parts.map((size) => ({ id, size })),
        digest,
      )
      await fixture.put(object.bytes)
      file = { ...entry, id: object.id } as Entry
    }
    const checkpoint = fixture.pretend(await fixture.root([file, await fixture.file('good', 'G')]))
    expect(told(await fixture.restore(checkpoint))).toEqual([`f: ${code}`])
    expect(await listing(fixture.at('out'))).toEqual({ good: 'G' })
  })
})

describe('traps in the destination', () => {
  const tree = async (more: Entry[] = []) =>
    fixture.commit([
      await fixture.directory('d', [await fixture.file('precious', 'stolen')]),
      await fixture.file('f', 'F'),
      ...more,
    ])

  test.each([false, true])('a symlink where a directory must go (overwrite: %s)', async (overwrite) => {
    symlinkSync(fixture.at('outside'), fixture.at('out', 'd'))
    expect(told(await fixture.restore(await tree(), { overwrite }))).toEqual(['d: unsafe-path'])
    expect(readFileSync(fixture.at('out', 'f'), 'utf8')).toBe('F')
  })

  test('a file where a directory must go', async () => {
    writeFileSync(fixture.at('out', 'd'), 'D')
    expect(told(await fixture.restore(await tree()))).toEqual(['d: destination-exists'])
    expect(readFileSync(fixture.at('out', 'd'), 'utf8')).toBe('D')
  })

  test.each([false, true])('a directory where a file must go (overwrite: %s)', async (overwrite) => {
    mkdirSync(fixture.at('out', 'f'))
    expect(told(await fixture.restore(await tree(), { overwrite }))).toEqual(['f: destination-exists'])
    expect(statSync(fixture.at('out', 'f')).isDirectory()).toBe(true)
  })

  test('a symlink where a file must go is replaced itself, or left', async () => {
    symlinkSync(fixture.at('outside', 'precious'), fixture.at('out', 'f'))
    const checkpoint = await tree()
    expect(told(await fixture.restore(checkpoint))).toEqual(['f: destination-exists'])
    expect(told(await fixture.restore(checkpoint, { overwrite: true }))).toEqual([])
    expect(readFileSync(fixture.at('out', 'f'), 'utf8')).toBe('F')
  })

  test.each<[string, (path: string) => void]>([
    ['a symlink', (path) => symlinkSync(fixture.at('outside', 'precious'), path)],
    ['a dangling symlink', (path) => symlinkSync(fixture.at('outside', 'new'), path)],
    ['a hard link', (path) => linkSync(fixture.at('outside', 'precious'), path)],
  ])('%s of the temporary name is not written through', async (_, trap) => {
    const big = [randomBytes(1, 2000), randomBytes(2, 2000)]
    const entries = [await fixture.file('f', 'F'), await fixture.chunkedFile('g', big)]
    const checkpoint = await fixture.commit(entries)
    for (const entry of entries) {
      trap(join(fixture.at('out'), String(partName(Buffer.from(entry.name as string), entry.id))))
    }
    expect(told(await fixture.restore(checkpoint))).toEqual([])
    expect(await listing(fixture.at('out'))).toEqual({ f: 'F', g: hashId(Buffer.concat(big)) })
  })

  test('the destination itself may be a symlink', async () => {
    symlinkSync(fixture.at('out'), fixture.at('alias'))
    expect(told(await fixture.restore(await tree(), { to: fixture.at('alias') }))).toEqual([])
    expect(Object.keys(await listing(fixture.at('out')))).toEqual(['d', 'd/precious', 'f'])
  })

  test('a destination that cannot be', async () => {
    const to = fixture.at('outside', 'precious', 'below')
    await expect(fixture.restore(await tree(), { to })).rejects.toMatchObject({ code: 'destination-failed' })
  })
})

describe('what is there already', () => {
  const setTime = (path: string) => utimesSync(path, 1_600_000_000, 1_600_000_000)
  const time = { mtimeNs: '1600000000000000000' }

  test.each<[string, string, boolean, boolean]>([
    ['equal', 'same', true, true],
    ['other content of the same size and time', 'emas', true, false],
    ['another time', 'same', false, false],
    ['another size', 'longer', true, false],
  ])('%s', async (_, content, sameTime, kept) => {
    const path = fixture.at('out', 'f')
    writeFileSync(path, content)
    if (sameTime) setTime(path)
    const checkpoint = await fixture.commit([await fixture.file('f', 'same', time)])
    const summary = await fixture.restore(checkpoint)
    expect(told(summary)).toEqual(kept ? [] : ['f: destination-exists'])
    expect(summary).toMatchObject({ files: 0, filesKept: kept ? 1 : 0 })
    expect(readFileSync(path, 'utf8')).toBe(content)
    expect(told(await fixture.restore(checkpoint, { overwrite: true }))).toEqual([])
    expect(readFileSync(path, 'utf8')).toBe('same')
  })

  test('what nobody mentioned is left alone', async () => {
    writeFileSync(fixture.at('out', 'other'), 'other')
    await fixture.restore(await fixture.commit([await fixture.file('f', 'F')]))
    expect(await listing(fixture.at('out'))).toEqual({ f: 'F', other: 'other' })
  })

  test('a directory whose mode forbids writing', async () => {
    mkdirSync(fixture.at('out', 'd'))
    chmodSync(fixture.at('out', 'd'), 0o500)
    const entry = await fixture.directory('d', [await fixture.file('f', 'F')], { mode: 0o555 })
    expect(told(await fixture.restore(await fixture.commit([entry])))).toEqual([])
    expect(statSync(fixture.at('out', 'd')).mode & 0o7777).toBe(0o555)
  })

  test('another hard link, symlink or fifo of the name', async () => {
    const link = { link: 'l' }
    const checkpoint = await fixture.commit([
      await fixture.file('a', 'A', link),
      await fixture.file('b', 'A', link),
      { kind: 'symlink', name: 's', ...plain, target: 'right' },
      { kind: 'fifo', name: 'p', ...plain },
    ])
    for (const name of ['b', 'p']) writeFileSync(fixture.at('out', name), 'in the way')
    symlinkSync('wrong', fixture.at('out', 's'))
    const problems = ['b: destination-exists', 'p: destination-exists', 's: destination-exists']
    expect(told(await fixture.restore(checkpoint)).sort()).toEqual(problems)
    expect(told(await fixture.restore(checkpoint, { overwrite: true }))).toEqual([])
    expect(await listing(fixture.at('out'))).toEqual({ a: 'A', b: 'A', p: 'special', s: '-> right' })
    expect(statSync(fixture.at('out', 'a')).nlink).toBe(2)
  })
})

describe('groups of hard links', () => {
  const link = { link: 'l' }
  const inode = (...names: string[]) => names.map((name) => statSync(fixture.at('out', name)).ino)

  test('names that share a link, but not the content, are files of their own', async () => {
    const checkpoint = await fixture.commit([
      await fixture.file('a', 'one', link),
      await fixture.file('b', 'two', link),
      await fixture.file('c', 'one', link),
      { kind: 'symlink', name: 'd', ...plain, ...link, target: 'x' },
      { kind: 'symlink', name: 'e', ...plain, ...link, target: 'y' },
      { kind: 'fifo', name: 'f', ...plain, ...link },
    ])
    expect(told(await fixture.restore(checkpoint))).toEqual([])
    const expected = { a: 'one', b: 'two', c: 'one', d: '-> x', e: '-> y', f: 'special' }
    expect(await listing(fixture.at('out'))).toEqual(expected)
    expect(new Set(inode('a', 'c')).size).toBe(1)
  })

  const big = [randomBytes(1, 2000), randomBytes(2, 2000)]
  const tree = async () =>
    fixture.commit([
      await fixture.chunkedFile('a', big, link),
      await fixture.chunkedFile('b', big, link),
      await fixture.directory('d', [await fixture.chunkedFile('c', big, link)], { mtimeNs: '5' }),
    ])

  test('when something stands where the first must go, the next one leads', async () => {
    writeFileSync(fixture.at('out', 'a'), 'in the way')
    expect(told(await fixture.restore(await tree()))).toEqual(['a: destination-exists'])
    const content = hashId(Buffer.concat(big))
    const expected = { a: 'in the way', b: content, d: 'directory', 'd/c': content }
    expect(await listing(fixture.at('out'))).toEqual(expected)
    expect(new Set(inode('b', 'd/c')).size).toBe(1)
    expect(statSync(fixture.at('out', 'd'), { bigint: true }).mtimeNs).toBe(5n)
  })

  test('when the place of the first fails after others have waited for it', async () => {
    const checkpoint = await tree()
    const { id } = await fixture.chunkedFile('a', big)
    // A directory of the temporary name: the file cannot even be begun.
    mkdirSync(fixture.at('out', String(partName(Buffer.from('a'), id))))
    const summary = await fixture.restore(checkpoint)
    expect(told(summary)).toEqual(['a: destination-failed'])
    expect(summary).toMatchObject({ files: 1, hardLinks: 1 })
    expect(new Set(inode('b', 'd/c')).size).toBe(1)
    expect(readFileSync(fixture.at('out', 'd', 'c')).equals(Buffer.concat(big))).toBe(true)
    expect(statSync(fixture.at('out', 'd'), { bigint: true }).mtimeNs).toBe(5n)
  })

  test('where no link can be made, a name leads those behind it', async () => {
    const entry = await fixture.file('a', 'A', link)
    const directory = RestoredDirectory.root(Buffer.from(fixture.at('out')), undefined, () => {})
    const place = (name: string) => ({ directory, name: Buffer.from(name) })
    const linked: string[] = []
    // As if b lay in another file system than a, and c in that of b.
    const links = new HardLinks(({ name }, source) => {
      const words = `${name} ${source}`
      if (words === `b ${fixture.at('out', 'a')}`) return false
      linked.push(words)
      return true
    })
    expect(['a', 'b', 'c'].map((name) => links.claim(entry, place(name)))).toEqual([true, false, false])
    links.settle(entry)
    expect(String(links.nextHeir()?.place.name)).toBe('b')
    expect([links.nextHeir(), linked]).toEqual([undefined, []])
    links.settle(entry)
    expect(linked).toEqual([`c ${fixture.at('out', 'b')}`])
  })
})

test('a failing file leaves no temporary file behind', async () => {
  const lost = hashId(randomBytes(5, 10))
  const parts = [
    { id: await fixture.put(randomBytes(1, 1000)), size: 1000 },
    { id: lost, size: 10 },
  ]
  const object = encodeFileObject(parts, undefined)
  await fixture.put(object.bytes)
  const checkpoint = fixture.pretend(
    await fixture.root([
      { kind: 'file', name: 'f', ...plain, id: object.id, size: 1010, chunked: true, link: 'x' },
      { kind: 'file', name: 'g', ...plain, id: object.id, size: 1010, chunked: true, link: 'x' },
    ]),
  )
  const summary = await fixture.restore(checkpoint)
  expect(told(summary)).toEqual(['f: chunk-not-found', 'g: chunk-not-found'])
  expect(summary.problemList).toMatchObject([{ id: lost }, { id: lost }])
  expect(readdirSync(fixture.at('out'))).toEqual([])
  expect(existsSync(fixture.at('out', 'f'))).toBe(false)
})
