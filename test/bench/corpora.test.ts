import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { makeDiskImages, showVersion } from '../../bench/backups/disk-image.ts'
import { filesBelow } from '../../bench/backups/files-below.ts'
import { makeRandomFile } from '../../bench/backups/random-file.ts'
import { makeSourceTree } from '../../bench/backups/source-tree.ts'
import { copySystemTree } from '../../bench/backups/system-tree.ts'

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'chunkdav-corpora-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return folder
}

function digestOf(folder: string): string {
  const hash = createHash('sha256')
  for (const path of filesBelow(folder)) {
    hash.update(path.slice(folder.length)).update(readFileSync(path))
  }
  return hash.digest('hex')
}

test('real files are taken in whole subtrees, within both bounds', async () => {
  const root = newFolder()
  for (let n = 0; n < 10; n++) {
    mkdirSync(join(root, `top/sub ${n}/deep`), { recursive: true })
    for (const name of ['a', 'deep/b', 'deep/c'])
      writeFileSync(join(root, `top/sub ${n}`, name), 'x'.repeat(10 * n))
  }
  const target = newFolder()
  const facts = await copySystemTree(target, { files: 14, bytes: 500 }, root)
  expect(facts.files).toBeLessThanOrEqual(14)
  expect(facts.bytes).toBeLessThanOrEqual(500)
  const taken = readdirSync(join(target, 'top'))
  expect(facts.files).toBe(3 * taken.length)
  for (const name of taken)
    expect(digestOf(join(target, 'top', name))).toBe(digestOf(join(root, 'top', name)))
})

test.each([
  ['a source tree', (folder: string) => makeSourceTree(folder, 200)],
  ['a random file', (folder: string) => makeRandomFile(folder, 3 * 1024 * 1024 + 5)],
  ['disk images', (folder: string) => makeDiskImages(folder, 8 * 1024 * 1024)],
])('%s is the same each time', async (_, make) => {
  const [one, other] = [newFolder(), newFolder()]
  expect(await make(one)).toEqual(await make(other))
  expect(digestOf(one)).toBe(digestOf(other))
})

test('the second image differs in a hundredth of its blocks', async () => {
  const folder = newFolder()
  const bytes = 32 * 1024 * 1024
  await makeDiskImages(folder, bytes)
  const read = (version: 1 | 2): Buffer => {
    showVersion(folder, version)
    return readFileSync(join(folder, 'now/disk.img'))
  }
  const [first, second] = [read(1), read(2)]
  expect([first.length, second.length]).toEqual([bytes, bytes])
  let changed = 0
  for (let at = 0; at < bytes; at += 4096) {
    if (!first.subarray(at, at + 4096).equals(second.subarray(at, at + 4096))) changed++
  }
  expect(changed / (bytes / 4096)).toBeGreaterThanOrEqual(0.01)
  expect(changed / (bytes / 4096)).toBeLessThan(0.015)
})
