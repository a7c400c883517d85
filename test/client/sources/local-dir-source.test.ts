/** Directories as they come: names of any bytes, paths of any length, things that vanish or may not be read. */

import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { makeFifo } from '../../../client/posix.ts'
import { type LocalDirOptions, LocalDirSource } from '../../../client/sources/local-dir-source.ts'
import { type ReadingRecord, WalkRecord } from '../../conformance/source-record.ts'
import { filesOf, reading, walkOf } from '../../conformance/source-suite.ts'
import { temporaryFolder } from '../../support/tree.ts'

async function withSource(
  paths: readonly string[],
  body: (source: LocalDirSource, walk: WalkRecord) => Promise<void>,
  options: LocalDirOptions = {},
): Promise<void> {
  const source = await LocalDirSource.open(paths, { readers: 1, ...options })
  try {
    await body(source, await walkOf(source))
  } finally {
    await source.close()
  }
}

const pathsOf = (walk: WalkRecord): string[] => walk.entries.map(({ path }) => path)
/** Path to content, or to the code of what went wrong. */
function contentsOf(walk: WalkRecord, record: ReadingRecord): Record<string, string> {
  const contents = record.files.map(
    ({ pieces, failure }) => failure ?? Buffer.concat(pieces).toString('latin1'),
  )
  return Object.fromEntries(
    filesOf(walk).map(({ path }, i) => [path.toString('latin1'), contents[i] as string]),
  )
}

describe('names', () => {
  const names = [
    '\xff\xfe not UTF-8',
    'caf\xe9',
    'n'.repeat(255),
    '\xc3\xa9'.repeat(127),
    ' ',
    '-rf',
    '...',
    'back\\slash',
    'line\nbreak\r',
    '\x01\x7f',
    'a%2fb',
    '~',
  ]

  test('of any bytes are walked and read, of files, directories and links alike', async () => {
    await using folder = await temporaryFolder()
    const raw = (...parts: string[]): Buffer => Buffer.from([folder.path, ...parts].join('/'), 'latin1')
    const expected: Record<string, string> = {}
    for (const name of names) {
      mkdirSync(raw(name))
      writeFileSync(raw(name, name), name, 'latin1')
      symlinkSync(Buffer.from(name, 'latin1'), raw(name, 'link'))
      expected[`${name}/${name}`] = name
    }
    await withSource([folder.path], async (source, walk) => {
      expect(walk.problems).toEqual([])
      expect(contentsOf(walk, await reading(source, filesOf(walk)))).toEqual(expected)
      const links = walk.entries.filter(({ kind }) => kind === 'symlink')
      expect(links.map(({ target }) => target).sort()).toEqual([...names].sort())
    })
  })
})

describe('size', () => {
  test('paths longer than the kernel takes are walked and read', async () => {
    await using folder = await temporaryFolder()
    // 40 levels of 240 bytes, made step by step: each level through the descriptor of the one before.
    const names = Array.from({ length: 40 }, (_, i) => `${i}-`.padEnd(240, 'd'))
    let fd = openSync(folder.path, constants.O_RDONLY | constants.O_DIRECTORY)
    for (const [i, name] of names.entries()) {
      const here = `/proc/self/fd/${fd}`
      writeFileSync(`${here}/file`, `at ${i}`)
      symlinkSync(`to ${i}`, `${here}/link`)
      mkdirSync(`${here}/${name}`)
      const next = openSync(`${here}/${name}`, constants.O_RDONLY | constants.O_DIRECTORY)
      closeSync(fd)
      fd = next
    }
    closeSync(fd)
    await withSource([folder.path], async (source, walk) => {
      expect(walk.problems).toEqual([])
      const deepest = filesOf(walk).reduce((longest, { path }) => Math.max(longest, path.length), 0)
      expect(deepest).toBeGreaterThan(2 * 4096)
      const contents = contentsOf(walk, await reading(source, filesOf(walk)))
      const above = names.map((_, i) => [...names.slice(0, i), 'file'].join('/'))
      expect(contents).toEqual(Object.fromEntries(above.map((path, i) => [path, `at ${i}`])))
      const targets = walk.entries.filter(({ kind }) => kind === 'symlink').map(({ target }) => target)
      expect(targets.length).toBe(40)
    })
    execFileSync('rm', ['-rf', folder.path])
  })

  // Text made when it is read: the stat says 0 bytes (procfs), or more than there are (sysfs).
  const made = [
    '/proc/version',
    '/proc/filesystems',
    '/proc/sys/kernel/ostype',
    '/proc/kallsyms',
    '/sys/kernel/uevent_seqnum',
    '/sys/kernel/mm/transparent_hugepage/enabled',
  ].filter((path) => existsSync(path))

  test.skipIf(made.length === 0)(
    'files whose stat does not tell their size are read to their end',
    async () => {
      await withSource(made, async (source, walk) => {
        const files = filesOf(walk)
        const record = await reading(source, files)
        const contents = contentsOf(walk, record)
        for (const path of made) expect(contents[basename(path)], path).toBe(readFileSync(path, 'latin1'))
        for (const { done, pieces } of record.files) {
          const size = Buffer.concat(pieces).length
          expect(done).toMatchObject({ bytesRead: size, changed: false, stat: { size } })
        }
      })
    },
  )

  test('a tree of a thousand levels', async () => {
    await using folder = await temporaryFolder()
    const deep = Array.from({ length: 1000 }, (_, i) => String(i % 10)).join('/')
    mkdirSync(join(folder.path, deep), { recursive: true })
    writeFileSync(join(folder.path, deep, 'file'), 'deep down')
    for (const options of [{}, { patterns: ['*.log'], caches: true, oneFileSystem: true }]) {
      await withSource(
        [folder.path],
        async (source, walk) => {
          expect(walk.problems).toEqual([])
          expect(walk.entered.length).toBe(1001)
          expect(contentsOf(walk, await reading(source, filesOf(walk)))).toEqual({
            [`${deep}/file`]: 'deep down',
          })
        },
        options,
      )
    }
  })

  test('a directory of 20,000 files', async () => {
    await using folder = await temporaryFolder()
    for (let i = 0; i < 20_000; i++)
      writeFileSync(join(folder.path, `file-${i}`), i % 1000 === 0 ? `${i}` : '')
    await withSource([folder.path], async (source, walk) => {
      expect(walk.entries.length).toBe(20_000)
      const record = await reading(source, filesOf(walk))
      const contents = Object.entries(contentsOf(walk, record)).filter(([, content]) => content !== '')
      expect(contents.length).toBe(20)
      for (const [path, content] of contents) expect(path).toBe(`file-${content}`)
    })
  })
})

describe('trouble', () => {
  test('what vanishes or changes its kind between walk and reading has failed; the rest is read', async () => {
    await using folder = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    mkdirSync(at('dir'))
    for (const name of ['a', 'dir/b', 'c', 'd', 'e', 'f', 'z']) writeFileSync(at(name), name)
    await withSource([folder.path], async (source, walk) => {
      rmSync(at('a'))
      rmSync(at('dir'), { recursive: true })
      writeFileSync(at('dir'), 'a file by now')
      for (const name of ['c', 'd', 'e']) rmSync(at(name))
      makeFifo(Buffer.from(at('c')), 0o600)
      mkdirSync(at('d'))
      symlinkSync('z', at('e'))
      writeFileSync(at('f'), 'longer by now')
      expect(contentsOf(walk, await reading(source, filesOf(walk)))).toEqual({
        a: 'source-vanished',
        'dir/b': 'source-vanished',
        c: 'source-vanished',
        d: 'source-vanished',
        e: 'source-vanished',
        f: 'longer by now',
        z: 'z',
      })
    })
  })

  test('a root that vanishes: a problem where paths are gathered, an error where it is the tree', async () => {
    await using folder = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    for (const name of ['one', 'two']) {
      mkdirSync(at(name))
      writeFileSync(at(`${name}/file`), name)
    }
    const gathered = await LocalDirSource.open([at('one'), at('two')], { readers: 1 })
    const single = await LocalDirSource.open([at('one')], { readers: 1 })
    try {
      rmSync(at('one'), { recursive: true })
      const walk = await walkOf(gathered)
      expect(walk.problems).toEqual([{ path: 'one', code: 'source-vanished' }])
      expect(pathsOf(walk)).toEqual(['two', 'two/file'])
      await expect(walkOf(single)).rejects.toMatchObject({ code: 'source-vanished' })
    } finally {
      await Promise.all([gathered.close(), single.close()])
    }
  })

  test.each<[string, (b: string, outside: string) => void]>([
    ['vanishes', () => {}],
    ['becomes a link', (b, outside) => symlinkSync(outside, b)],
    ['becomes a link to itself', (b) => symlinkSync('b', b)],
    ['becomes a file', (b) => writeFileSync(b, '')],
    ['becomes another directory', (b, outside) => renameSync(join(outside, 'other'), b)],
  ])('a directory that %s while the walk is elsewhere is a problem', async (_, replace) => {
    await using folder = await temporaryFolder()
    await using outside = await temporaryFolder()
    writeFileSync(join(outside.path, 'secret'), 'secret')
    mkdirSync(join(outside.path, 'other/secret'), { recursive: true })
    const at = (name: string): string => join(folder.path, name)
    // Enough before it that the thread, which is a bounded number of entries ahead, is not there yet.
    mkdirSync(at('a'))
    for (let i = 0; i < 12_000; i++) writeFileSync(at(`a/${i}`), '')
    mkdirSync(at('b/sub'), { recursive: true })
    mkdirSync(at('c'))
    const source = await LocalDirSource.open([folder.path], { readers: 1 })
    const record = new WalkRecord()
    try {
      for await (const batch of source.scan(new AbortController().signal)) {
        if (record.entered.length === 0) {
          rmSync(at('b'), { recursive: true })
          replace(at('b'), outside.path)
        }
        for (const event of batch) record.take(event)
      }
      record.end()
    } finally {
      await source.close()
    }
    expect(record.problems).toEqual([{ path: 'b', code: 'source-vanished' }])
    expect(pathsOf(record).filter((path) => !path.startsWith('a/'))).toEqual(['a', 'b', 'c'])
  })

  test('no file is read through a link that has taken the place of a directory', async () => {
    await using folder = await temporaryFolder()
    await using outside = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    mkdirSync(join(outside.path, 'deep/er'), { recursive: true })
    for (const name of ['file', 'deep/file', 'deep/er/file']) {
      writeFileSync(join(outside.path, name), 'secret')
    }
    for (const name of ['near', 'far', 'stays']) mkdirSync(at(`${name}/deep/er`), { recursive: true })
    for (const name of ['near/file', 'far/deep/er/file', 'stays/deep/file', 'stays/file']) {
      writeFileSync(at(name), 'own')
    }
    await withSource([folder.path], async (source, walk) => {
      for (const name of ['near', 'far']) {
        renameSync(at(name), at(`${name}-away`))
        symlinkSync(outside.path, at(name))
      }
      expect(contentsOf(walk, await reading(source, filesOf(walk)))).toEqual({
        'near/file': 'source-vanished',
        'far/deep/er/file': 'source-vanished',
        'stays/deep/file': 'own',
        'stays/file': 'own',
      })
    })
  })

  test('a root that becomes a link after it was named is not followed', async () => {
    await using folder = await temporaryFolder()
    await using outside = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    writeFileSync(join(outside.path, 'secret'), 'secret')
    mkdirSync(at('above/root'), { recursive: true })
    const source = await LocalDirSource.open([at('above/root')], { readers: 1 })
    try {
      rmSync(at('above/root'), { recursive: true })
      symlinkSync(outside.path, at('above/root'))
      const walk = await walkOf(source)
      expect(walk.problems).toEqual([{ path: '', code: 'source-vanished' }])
      expect(walk.entries).toEqual([])
    } finally {
      await source.close()
    }
  })

  test('a directory and a file that may not be read are told, with what is around them', async (context) => {
    await using folder = await temporaryFolder()
    await using outside = await temporaryFolder()
    // Whoever backs up may pass through the folder above, and not list it.
    const root = join(folder.path, 'tree')
    const at = (name: string): string => join(root, name)
    mkdirSync(root)
    mkdirSync(at('closed'))
    writeFileSync(at('closed/inside'), 'secret')
    writeFileSync(at('file'), 'open')
    writeFileSync(at('private'), 'secret')
    chmodSync(at('private'), 0)
    chmodSync(at('closed'), 0)
    chmodSync(root, 0o755)
    chmodSync(folder.path, 0o711)
    // Root may read everything: ask as somebody else, in a process of its own.
    const program = `
      import { LocalDirSource } from ${JSON.stringify(join(import.meta.dirname, '../../../client/sources/local-dir-source.ts'))}
      if (process.getuid() === 0) { process.setgid(65534); process.setuid(65534) }
      const source = await LocalDirSource.open([${JSON.stringify(root)}], { readers: 1 })
      const { signal } = new AbortController()
      const told = [], files = []
      for await (const batch of source.scan(signal)) for (const event of batch) {
        if (event.type === 'problem') told.push([event.path.toString(), event.code, event.detail])
        if (event.type === 'entries') for (const { name, kind, stat } of event.entries) if (kind === 'file') files.push({ path: name, stat })
      }
      for await (const { events, release } of source.fill(files, signal)) {
        for (const event of events) if (event.type !== 'chunk') told.push([files[event.file].path.toString(), event.problem?.code ?? event.type])
        release()
      }
      console.log(JSON.stringify(told))
      await source.close()`
    let output: string
    try {
      writeFileSync(join(outside.path, 'program.mjs'), program)
      chmodSync(outside.path, 0o755)
      output = execFileSync(process.execPath, [join(outside.path, 'program.mjs')], {
        encoding: 'utf8',
        stdio: 'pipe',
      })
    } catch (error) {
      if (!/EACCES|ERR_MODULE_NOT_FOUND/.test(String((error as { stderr?: unknown }).stderr))) throw error
      return context.skip('this checkout may not be read by other users')
    } finally {
      chmodSync(at('closed'), 0o700)
    }
    expect(JSON.parse(output)).toEqual([
      ['closed', 'source-unreadable', 'EACCES'],
      ['file', 'done'],
      ['private', 'source-unreadable'],
    ])
  })
})

describe('what the user names', () => {
  test('a link to a directory is that directory; a link to a file is that file', async () => {
    await using folder = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    mkdirSync(at('real'))
    writeFileSync(at('real/file'), 'content')
    symlinkSync('real', at('link'))
    symlinkSync('real/file', at('file-link'))
    await withSource([at('link')], async (source, walk) => {
      expect(contentsOf(walk, await reading(source, filesOf(walk)))).toEqual({ file: 'content' })
    })
    await withSource([at('link'), at('file-link')], async (source, walk) => {
      expect(contentsOf(walk, await reading(source, filesOf(walk)))).toEqual({
        'file-link': 'content',
        'link/file': 'content',
      })
    })
  })

  test('many paths are told as far as a receiver takes it', async () => {
    await using folder = await temporaryFolder()
    const names = Array.from({ length: 30 }, (_, i) => join(folder.path, `${i}-`.padEnd(200, 'n')))
    for (const name of names) writeFileSync(name, '')
    const source = await LocalDirSource.open(names, { readers: 1 })
    try {
      expect(source.about.paths).toHaveLength(4096)
      expect(source.about.paths).toMatch(/…$/)
    } finally {
      await source.close()
    }
  })

  test('a link to a directory whose name is no UTF-8', async () => {
    await using folder = await temporaryFolder()
    const odd = Buffer.concat([Buffer.from(`${folder.path}/`), Buffer.of(0x64, 0xff, 0xfe)])
    mkdirSync(odd)
    writeFileSync(Buffer.concat([odd, Buffer.from('/file')]), 'content')
    symlinkSync(odd, join(folder.path, 'link'))
    await withSource([join(folder.path, 'link')], async (source, walk) => {
      expect(contentsOf(walk, await reading(source, filesOf(walk)))).toEqual({ file: 'content' })
    })
  })

  test('the root of the file system', async () => {
    const file = ['/etc/passwd', '/etc/hosts'].find((path) => existsSync(path)) as string
    const patterns = ['/*', '!/etc', '/etc/*', `!${file}`]
    await withSource(
      ['/'],
      async (source, walk) => {
        expect(walk.problems).toEqual([])
        expect(pathsOf(walk)).toEqual(['etc', file.slice(1)])
        const contents = contentsOf(walk, await reading(source, filesOf(walk)))
        expect(contents).toEqual({ [file.slice(1)]: readFileSync(file, 'latin1') })
      },
      { patterns, oneFileSystem: true },
    )
  })

  test('the root of the file system beside another path', async () => {
    await using folder = await temporaryFolder()
    mkdirSync(join(folder.path, 'other'))
    await withSource(
      ['/', join(folder.path, 'other')],
      async (_, walk) => {
        expect(walk.problems).toEqual([])
        expect(pathsOf(walk)).toEqual(['other', 'root', 'root/etc'])
      },
      { patterns: ['/root/*', '!/root/etc', '/root/etc/*'] },
    )
  })

  test.each([
    ['nothing', []],
    ['what is not there', ['absent']],
    ['a broken link', ['broken']],
    ['two of one name', ['a/same', 'b/same']],
    ['one twice', ['a', 'a']],
  ])('%s is refused: usage', async (_, names) => {
    await using folder = await temporaryFolder()
    for (const name of ['a/same', 'b/same']) mkdirSync(join(folder.path, name), { recursive: true })
    symlinkSync('nowhere', join(folder.path, 'broken'))
    const opening = LocalDirSource.open(names.map((name) => join(folder.path, name)))
    await expect(opening).rejects.toMatchObject({ code: 'usage' })
  })
})

describe('a scan that is begun ahead', () => {
  test('is the first that is told; a further one begins anew', async () => {
    await using folder = await temporaryFolder()
    writeFileSync(join(folder.path, 'first'), '')
    const source = await LocalDirSource.open([folder.path], { readers: 1 })
    try {
      source.scanAhead()
      expect(pathsOf(await walkOf(source))).toEqual(['first'])
      writeFileSync(join(folder.path, 'second'), '')
      expect(pathsOf(await walkOf(source))).toEqual(['first', 'second'])
    } finally {
      await source.close()
    }
  })

  test('ends with the signal, and another takes its place', async () => {
    await using folder = await temporaryFolder()
    writeFileSync(join(folder.path, 'first'), '')
    const source = await LocalDirSource.open([folder.path], { readers: 1 })
    try {
      source.scanAhead()
      const reason = new Error('enough')
      const scan = source.scan(AbortSignal.abort(reason))
      await expect(scan.next()).rejects.toBe(reason)
      expect(pathsOf(await walkOf(source))).toEqual(['first'])
    } finally {
      await source.close()
    }
  })

  test('ends with the source when nobody takes it', async () => {
    await using folder = await temporaryFolder()
    for (let i = 0; i < 12_000; i++) writeFileSync(join(folder.path, `${i}`), '')
    const source = await LocalDirSource.open([folder.path], { readers: 1 })
    source.scanAhead()
    await source.close()
    await expect(walkOf(source)).rejects.toMatchObject({ code: 'cancelled' })
  })
})

describe('a young file', () => {
  test('is uncertain when it was written just before it was read, and not when it has settled', async () => {
    await using folder = await temporaryFolder()
    for (const name of ['old', 'young']) writeFileSync(join(folder.path, name), name)
    await sleep(50)
    await withSource([folder.path], async (source, walk) => {
      // A busy machine may read too late: once more until it is soon enough.
      for (let attempt = 1; ; attempt++) {
        writeFileSync(join(folder.path, 'young'), 'again')
        const { files } = await reading(source, filesOf(walk))
        expect(files[0]?.done?.uncertain).toBe(false)
        if (files[1]?.done?.uncertain === true) break
        expect(attempt).toBeLessThan(50)
      }
    })
  })
})
