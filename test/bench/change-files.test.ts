import { lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { changeFiles, putBack } from '../../bench/backups/change-files.ts'
import { differences } from '../../bench/backups/compare-trees.ts'
import { filesBelow } from '../../bench/backups/files-below.ts'
import { storedBytes } from '../../bench/backups/stored-bytes.ts'

function makeTree(): { tree: string; aside: string } {
  const folder = mkdtempSync(join(tmpdir(), 'chunkdav-change-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const tree = join(folder, 'tree')
  mkdirSync(join(tree, 'below'), { recursive: true })
  for (let n = 0; n < 200; n++) writeFileSync(join(tree, n % 2 ? 'below' : '', `file ${n}`), `content ${n}`)
  return { tree, aside: join(folder, 'aside') }
}

function stateOf(tree: string): string[] {
  return Array.from({ length: 200 }, (_, n) => {
    const path = join(tree, n % 2 ? 'below' : '', `file ${n}`)
    const { ino, mtimeNs, mode } = lstatSync(path, { bigint: true })
    return `${ino} ${mtimeNs} ${mode} ${readFileSync(path, 'utf8')}`
  })
}

test('one file in a hundred changes, by the seed, and is put back as it was', () => {
  const { tree, aside } = makeTree()
  const before = stateOf(tree)
  expect(changeFiles(tree, aside, 7)).toBe(2)
  const changed = stateOf(tree)
  expect(changed.filter((state, n) => state !== before[n])).toHaveLength(2)
  putBack(tree, aside)
  expect(stateOf(tree)).toEqual(before)
  putBack(tree, aside)
  changeFiles(tree, aside, 7)
  const texts = (states: string[]) => states.map((state) => state.split(' ').slice(3).join(' '))
  expect(texts(stateOf(tree))).toEqual(texts(changed))
})

test('links are not followed, also one that leads to where it stands', () => {
  const { tree } = makeTree()
  for (const [to, name] of [
    ['.', 'here'],
    ['below', 'other'],
    ['file 0', 'file'],
  ] as const)
    symlinkSync(to, join(tree, name))
  expect(filesBelow(tree)).toHaveLength(200)
  const bytes = Array.from({ length: 200 }, (_, n) => `content ${n}`.length)
  expect(storedBytes([tree])).toBe(bytes.reduce((sum, each) => sum + each, 0))
})

test('a comparison finds what differs', () => {
  const [one, other] = [makeTree().tree, makeTree().tree]
  expect(differences(one, other, 'content')).toEqual([])
  writeFileSync(join(other, 'below/file 3'), 'content x')
  rmSync(join(other, 'file 4'))
  expect(differences(one, other, 'content')).toEqual(['below/file 3 has other content', 'file 4 is missing'])
  // Both trees were made one after the other.
  expect(differences(one, other, 'everything')[0]).toMatch(/has another mtime$/)
})
