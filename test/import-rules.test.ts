/** Who may import whom, read from the import lines of every source file. */
import { readdirSync, readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const folders = ['protocol', 'server', 'client']

interface Source {
  readonly path: string
  readonly text: string
  /** Paths of ours from the root; packages and node: modules as they are written. */
  readonly imports: readonly string[]
}

/** `import … from 'x'`, `export … from 'x'`, `import 'x'`, `import('x')`, `new URL('x.ts', import.meta.url)` of a worker. */
const importPattern =
  /(?:^\s*(?:import|export)\s[^'"]*?from\s*|^\s*import\s*|\bimport\(\s*|new URL\(\s*(?:import\.meta\.url\.endsWith\('\.ts'\)\s*\?\s*)?)'([^']+)'/gm

function read(path: string): Source {
  const text = readFileSync(`${root}/${path}`, 'utf8')
  const imports = [...text.matchAll(importPattern)].map(([, name = '']) =>
    name.startsWith('.') ? posix.join(posix.dirname(path), name) : name,
  )
  return { path, text, imports }
}

const sources = folders.flatMap((folder) =>
  readdirSync(`${root}/${folder}`, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => read(`${folder}/${name}`)),
)

/** `from` must not import what `to` matches, except in the files that are named. */
const rules: { from: RegExp; to: RegExp; except?: string[]; why: string }[] = [
  { from: /^protocol\//, to: /^(server|client|test|bench)\//, why: 'protocol/ imports nothing of ours' },
  {
    from: /^protocol\//,
    to: /^(koa|@koa\/router|undici|commander|level|pino)$/,
    why: 'protocol/ knows no HTTP framework',
  },
  { from: /^server\//, to: /^client\//, why: 'server/ and client/ never import each other' },
  {
    from: /^client\//,
    to: /^server\//,
    // The package has one command: bin.ts looks at its first word and hands over to the receiver or to the client.
    except: ['client/bin.ts'],
    why: 'server/ and client/ never import each other',
  },
  { from: /^(server|client)\//, to: /^(test|bench)\//, why: 'the product does not depend on its tests' },
  { from: /^server\/store\//, to: /^server\/(catalog|routes|upkeep)\//, why: 'the store knows bytes only' },
  { from: /^server\/catalog\//, to: /^server\/(routes|upkeep)\//, why: 'the catalogue knows no routes' },
  {
    from: /^server\/catalog\//,
    to: /^server\/store\/(?!chunk-store\.ts$)/,
    why: 'the catalogue sees the store through its interface alone',
  },
  {
    from: /^server\/(file-layer|direct-writes|buffer-list)\.ts$/,
    to: /^(protocol|server\/(?!(direct-writes|buffer-list)\.ts$))/,
    why: 'the file layer knows files only',
  },
  {
    from: /^server\/(store|catalog)\//,
    to: /^(node:)?fs(\/promises)?$/,
    // LevelDB's folders are its own.
    except: ['server/catalog/tree-database.ts', 'server/store/content-index.ts'],
    why: 'what must survive a crash goes through the file layer',
  },
  { from: /^server\/(store|catalog)\//, to: /^(koa|@koa\/router)$/, why: 'only routes know HTTP' },
  { from: /^client\/engine\//, to: /^client\/(cli|bin)\.ts$/, why: 'the engine is a library' },
]

test('the pattern finds every form of import', () => {
  const forms = [
    "import a from 'x1'",
    "import { a, type B } from 'x2'",
    "import type { A } from 'x3'",
    "import * as a from 'x4'",
    "import 'x5'",
    "export * from 'x6'",
    "export { a } from 'x7'",
    "  const a = await import('x8')",
    "import {\n  a,\n  b,\n} from 'x9'",
    "new Worker(new URL(import.meta.url.endsWith('.ts') ? 'x10' : 'y', import.meta.url))",
  ]
  const found = [...forms.join('\n').matchAll(importPattern)].map(([, name]) => name)
  expect(found).toEqual(forms.map((_, i) => `x${i + 1}`))
})

test('there are sources to look at', () => {
  for (const folder of folders) expect(sources.some(({ path }) => path.startsWith(folder))).toBe(true)
})

describe('nobody imports whom they must not', () => {
  test.each(rules)('$from → $to: $why', ({ from, to, except = [] }) => {
    const broken = sources
      .filter(({ path }) => from.test(path) && !except.includes(path))
      .flatMap(({ path, imports }) =>
        imports.filter((name) => to.test(name)).map((name) => `${path} → ${name}`),
      )
    expect(broken).toEqual([])
  })
})

describe('the environment and the arguments are read in the entry files only', () => {
  // bin.ts reads the first argument to tell `serve` from the rest, and the version of Node.
  const entries = ['server/main.ts', 'client/cli.ts', 'client/bin.ts']
  test.each([['process.env'], ['process.argv'], ['parseArgs(']])('%s', (what) => {
    const readers = sources.filter(({ path, text }) => text.includes(what) && !entries.includes(path))
    expect(readers.map(({ path }) => path)).toEqual([])
  })
})

test('imports of ours name the source file', () => {
  const bad = sources.flatMap(({ path, imports }) =>
    imports
      .filter((name) => folders.some((folder) => name.startsWith(`${folder}/`)))
      .filter((name) => !/\.(ts|js|yaml|json)$/.test(name) && !name.endsWith('/'))
      .map((name) => `${path} → ${name}`),
  )
  expect(bad).toEqual([])
})
