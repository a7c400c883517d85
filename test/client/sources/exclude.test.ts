/** What a walk leaves out: patterns in gitignore's language, cache directories, other file systems. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeFifo } from '../../../client/posix.ts'
import { ExcludeRules } from '../../../client/sources/exclude-rules.ts'
import { type LocalDirOptions, LocalDirSource } from '../../../client/sources/local-dir-source.ts'
import { walkOf } from '../../conformance/source-suite.ts'
import { type TemporaryFolder, temporaryFolder } from '../../support/tree.ts'

let folder: TemporaryFolder
beforeAll(async () => {
  folder = await temporaryFolder()
})
afterAll(() => folder[Symbol.asyncDispose]())

function makeFiles(root: string, files: readonly string[]): void {
  for (const file of files) {
    mkdirSync(join(root, dirname(file)), { recursive: true })
    writeFileSync(join(root, file), '')
  }
}

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

function heapBytes(): number {
  collectGarbage()
  return process.memoryUsage().heapUsed
}

/** The paths that a walk of these tells of, files only unless `all`. */
async function walked(paths: readonly string[], options: LocalDirOptions, all = false): Promise<string[]> {
  const source = await LocalDirSource.open(paths, { ...options, readers: 1 })
  try {
    const walk = await walkOf(source)
    expect(walk.problems).toEqual([])
    return walk.entries
      .filter(({ kind }) => all || kind === 'file')
      .map(({ path }) => Buffer.from(path, 'latin1').toString())
      .sort()
  } finally {
    await source.close()
  }
}

const files = [
  '*.log',
  '.hidden',
  'a.log',
  'build/out',
  'build/sub/out',
  'sub/a.log',
  'sub/build',
  'sub/deep/a.log',
  'sub/deep/keep.log',
  'sub/doc.txt',
  'sub/größe.txt',
  'with space',
]
const cases: { patterns: string[]; excluded: string[] }[] = [
  { patterns: [], excluded: [] },
  { patterns: ['# a comment', '', 'nothing-here'], excluded: [] },
  {
    patterns: ['*.log'],
    excluded: ['*.log', 'a.log', 'sub/a.log', 'sub/deep/a.log', 'sub/deep/keep.log'],
  },
  { patterns: ['/*.log'], excluded: ['*.log', 'a.log'] },
  { patterns: ['\\*.log'], excluded: ['*.log'] },
  { patterns: ['a.log'], excluded: ['a.log', 'sub/a.log', 'sub/deep/a.log'] },
  { patterns: ['sub/*.log'], excluded: ['sub/a.log'] },
  { patterns: ['sub/**/*.log'], excluded: ['sub/a.log', 'sub/deep/a.log', 'sub/deep/keep.log'] },
  { patterns: ['**/deep'], excluded: ['sub/deep/a.log', 'sub/deep/keep.log'] },
  { patterns: ['sub/deep/**'], excluded: ['sub/deep/a.log', 'sub/deep/keep.log'] },
  { patterns: ['*.log', '!keep.log'], excluded: ['*.log', 'a.log', 'sub/a.log', 'sub/deep/a.log'] },
  // What is excluded with its directory cannot be taken back.
  { patterns: ['deep', '!keep.log'], excluded: ['sub/deep/a.log', 'sub/deep/keep.log'] },
  { patterns: ['deep/*', '!keep.log'], excluded: [] },
  { patterns: ['sub/deep/*', '!keep.log'], excluded: ['sub/deep/a.log'] },
  {
    patterns: ['!keep.log', '*.log'],
    excluded: ['*.log', 'a.log', 'sub/a.log', 'sub/deep/a.log', 'sub/deep/keep.log'],
  },
  // A trailing slash means directories only.
  { patterns: ['build/'], excluded: ['build/out', 'build/sub/out'] },
  { patterns: ['build'], excluded: ['build/out', 'build/sub/out', 'sub/build'] },
  { patterns: ['/build'], excluded: ['build/out', 'build/sub/out'] },
  { patterns: ['/sub/build'], excluded: ['sub/build'] },
  { patterns: ['größe.txt'], excluded: ['sub/größe.txt'] },
  { patterns: ['gr*e.txt'], excluded: ['sub/größe.txt'] },
  { patterns: ['*.[tx]xt'], excluded: ['sub/doc.txt', 'sub/größe.txt'] },
  { patterns: ['with space'], excluded: ['with space'] },
  { patterns: ['.*'], excluded: ['.hidden'] },
  { patterns: ['*', '!*/', '!*.txt'], excluded: files.filter((file) => !file.endsWith('.txt')) },
  { patterns: ['A.LOG', 'SUB'], excluded: [] },
]

describe('patterns', () => {
  let root: string
  beforeAll(() => {
    root = join(folder.path, 'patterns')
    makeFiles(root, files)
  })

  test.each(cases)('$patterns', async ({ patterns, excluded }) => {
    const kept = files.filter((file) => !excluded.includes(file))
    expect(await walked([root], { patterns })).toEqual(kept.sort())
  })

  const hasGit = spawnSync('git', ['--version']).status === 0
  test.skipIf(!hasGit).each(cases.slice(1))('git reads $patterns alike', ({ patterns, excluded }) => {
    execFileSync('git', ['init', '-q', root], { env: {} })
    // In the order of the table: what git lists is what is not ignored.
    const list = [
      '-c',
      'core.quotePath=false',
      'ls-files',
      '-o',
      ...patterns.map((pattern) => `--exclude=${pattern}`),
    ]
    const kept = execFileSync('git', list, { cwd: root, env: {}, encoding: 'utf8' }).trim().split('\n')
    expect(kept.sort()).toEqual(files.filter((file) => !excluded.includes(file)).sort())
  })

  test('names that are not UTF-8, and names that look like paths of other systems', () => {
    const rules = new ExcludeRules({ patterns: ['*.tmp', 'back\\\\slash'], caches: false })
    for (const [path, excluded] of [
      ['caf\xe9.tmp', true],
      ['\xff\xfe/x.tmp', true],
      ['\xff\xfe/x', false],
      ['back\\slash', true],
      ['..x/y.tmp', true],
      ['...', false],
      ['C:/x.tmp', true],
      ['line\nbreak.tmp', true],
      [' .tmp', true],
    ] as const) {
      expect([path, rules.matches(path, false)]).toEqual([path, excluded])
    }
  })

  test('many paths, far down, keep their meaning and little memory', () => {
    const rules = new ExcludeRules({ patterns: ['*.tmp', '/top/no'], caches: false })
    const deep = 'directory/'.repeat(100)
    const before = heapBytes()
    for (let i = 0; i < 55_000; i++) {
      const excluded = i % 1000 === 0
      expect(rules.matches(`${deep}${i}${excluded ? '.tmp' : ''}`, false)).toBe(excluded)
    }
    expect(rules.matches('top/no', false)).toBe(true)
    // 1,000 bytes each: all of them would be 55 MB and more.
    expect(heapBytes() - before).toBeLessThan(40e6)
  })

  test('gathered paths: patterns see the path with its root’s name', async () => {
    const paths = [join(root, 'sub'), join(root, 'build'), join(root, 'a.log')]
    expect(await walked(paths, { patterns: ['/sub/deep', '/a.log', 'build/sub/'] })).toEqual([
      'build/out',
      'sub/a.log',
      'sub/build',
      'sub/doc.txt',
      'sub/größe.txt',
    ])
  })
})

describe('cache directories', () => {
  const tag = 'Signature: 8a477f597d28d172789f06886806bc55'
  const cacheDirectories: { what: string; make: (directory: string) => void; excluded: boolean }[] = [
    { what: 'the signature', make: (at) => writeFileSync(join(at, 'CACHEDIR.TAG'), tag), excluded: true },
    {
      what: 'the signature and more',
      make: (at) => writeFileSync(join(at, 'CACHEDIR.TAG'), `${tag}\n# by hand\n`),
      excluded: true,
    },
    { what: 'other text', make: (at) => writeFileSync(join(at, 'CACHEDIR.TAG'), 'a tag'), excluded: false },
    {
      what: 'the signature behind a space',
      make: (at) => writeFileSync(join(at, 'CACHEDIR.TAG'), ` ${tag}`),
      excluded: false,
    },
    { what: 'nothing', make: (at) => writeFileSync(join(at, 'CACHEDIR.TAG'), ''), excluded: false },
    { what: 'a directory', make: (at) => mkdirSync(join(at, 'CACHEDIR.TAG')), excluded: false },
    { what: 'a fifo', make: (at) => makeFifo(Buffer.from(join(at, 'CACHEDIR.TAG')), 0o600), excluded: false },
    {
      what: 'a symlink to a tag',
      make: (at) => {
        writeFileSync(join(at, 'real'), tag)
        symlinkSync('real', join(at, 'CACHEDIR.TAG'))
      },
      excluded: false,
    },
    { what: 'another case', make: (at) => writeFileSync(join(at, 'cachedir.tag'), tag), excluded: false },
  ]

  test.each(cacheDirectories)('CACHEDIR.TAG holds $what', async ({ what, make, excluded }) => {
    const root = join(folder.path, `cache-${what}`)
    makeFiles(root, ['cache/file', 'cache/sub/file', 'file'])
    make(join(root, 'cache'))
    const kept = await walked([root], { caches: true }, true)
    expect(kept.includes('cache/file')).toBe(!excluded)
    expect(kept.includes('cache/sub/file')).toBe(!excluded)
    expect(kept).toContain('cache')
    expect(kept).toContain('file')
    expect(await walked([root], { caches: false }, true)).toContain('cache/sub/file')
  })
})

describe('other file systems', () => {
  test('are entered, or told as empty directories', async (context) => {
    const root = join(folder.path, 'mounts')
    makeFiles(root, ['own', 'a/mounted/covered', 'z/file'])
    const place = join(root, 'a', 'mounted')
    try {
      execFileSync('mount', ['-t', 'tmpfs', 'chunkdav-test', place], { stdio: 'pipe' })
    } catch (error) {
      return context.skip(`no tmpfs can be mounted here: ${(error as Error).message}`)
    }
    try {
      makeFiles(place, ['foreign', 'sub/foreign'])
      const around = ['a', 'a/mounted', 'own', 'z', 'z/file']
      expect(await walked([root], { oneFileSystem: true }, true)).toEqual(around)
      const inside = ['a/mounted/foreign', 'a/mounted/sub', 'a/mounted/sub/foreign']
      expect(await walked([root], {}, true)).toEqual([...around, ...inside].sort())
      // Each gathered root has its own file system.
      expect(await walked([place, join(root, 'z')], { oneFileSystem: true })).toEqual([
        'mounted/foreign',
        'mounted/sub/foreign',
        'z/file',
      ])
    } finally {
      execFileSync('umount', [place])
    }
  })
})
