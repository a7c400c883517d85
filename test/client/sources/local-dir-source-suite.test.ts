import { lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { LocalDirSource } from '../../../client/sources/local-dir-source.ts'
import { type SourceSubject, sourceSuite } from '../../conformance/source-suite.ts'
import { makeOddTree, seededBytes, type TemporaryFolder, temporaryFolder } from '../../support/tree.ts'

/** What stands below `root`, by path: contents of files, kinds of the rest. */
function contentsOf(root: string): { files: Map<string, Buffer>; others: Map<string, string> } {
  const files = new Map<string, Buffer>()
  const others = new Map<string, string>()
  const visit = (directory: Buffer, below: string): void => {
    for (const name of readdirSync(directory, 'latin1')) {
      const path = Buffer.concat([directory, Buffer.from(`/${name}`, 'latin1')])
      const shown = below === '' ? name : `${below}/${name}`
      const stat = lstatSync(path)
      if (stat.isFile()) files.set(shown, readFileSync(path))
      else if (stat.isDirectory()) others.set(shown, 'directory')
      else if (stat.isSymbolicLink()) others.set(shown, 'symlink')
      else others.set(shown, stat.isFIFO() ? 'fifo' : 'character-device')
      if (stat.isDirectory()) visit(path, shown)
    }
  }
  visit(Buffer.from(root), '')
  return { files, others }
}

let folder: TemporaryFolder
let oddTree: SourceSubject
let gathered: SourceSubject

// A source writes nothing: one tree serves all tests.
beforeAll(async () => {
  folder = await temporaryFolder()
  oddTree = makeTree(join(folder.path, 'tree'))
  gathered = makeSeveral(join(folder.path, 'several'))
})
afterAll(() => folder[Symbol.asyncDispose]())

function makeTree(root: string): SourceSubject {
  mkdirSync(root)
  makeOddTree(root)
  writeFileSync(join(root, 'larger-than-a-buffer'), seededBytes('larger', 9_000_000))
  return {
    ...contentsOf(root),
    open: () => LocalDirSource.open([root], { readers: 2 }),
    dispose: async () => {},
  }
}

function makeSeveral(root: string): SourceSubject {
  const at = (...names: string[]): string => join(root, ...names)
  mkdirSync(at('a', 'one', 'sub'), { recursive: true })
  mkdirSync(at('b', 'two'), { recursive: true })
  const [one, big, three] = [Buffer.from('one'), seededBytes('big', 3_000_000), Buffer.from('three')]
  writeFileSync(at('a', 'one', 'file'), one)
  writeFileSync(at('a', 'one', 'sub', 'big'), big)
  writeFileSync(at('b', 'three'), three)
  return {
    files: new Map([
      ['one/file', one],
      ['one/sub/big', big],
      ['three', three],
    ]),
    others: new Map([
      ['one', 'directory'],
      ['one/sub', 'directory'],
      ['two', 'directory'],
    ]),
    open: () => LocalDirSource.open([at('b', 'two'), at('a', 'one'), at('b', 'three')], { readers: 1 }),
    dispose: async () => {},
  }
}

describe('one directory', () => sourceSuite({ describe, it }, { create: async () => oddTree }))
describe('several paths, gathered', () => sourceSuite({ describe, it }, { create: async () => gathered }))
