/** Every source to every target and back: what comes out is what went in. */
import { readFileSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ChunkSource } from '../../../client/sources/chunk-source.ts'
import { LocalDirSource } from '../../../client/sources/local-dir-source.ts'
import { backUp, restoreTo } from '../../support/backup.ts'
import { startReceiver } from '../../support/receiver.ts'
import { listing, makeOddTree, seededBytes, temporaryFolder } from '../../support/tree.ts'

for (const as of ['dir', 'chunks'] as const) {
  test(`a directory as ${as}: content, modes, owners, times, links, odd names, holes`, async () => {
    await using receiver = await startReceiver()
    await using folder = await temporaryFolder()
    const from = join(folder.path, 'from')
    const to = join(folder.path, 'to')
    await mkdir(from)
    makeOddTree(from)
    const before = listing(from)
    const summary = await backUp(from, { ...receiver, state: folder.path, as })
    expect(summary.problems).toEqual([])
    expect(summary.checkpoint.kind).toBe(as)
    const restored = await restoreTo(to, { ...receiver, number: summary.checkpoint.number })
    expect(restored.problems).toBe(0)
    expect(listing(to)).toEqual(before)
    expect(listing(from)).toEqual(before)
  })

  test(`a stream as ${as}`, async () => {
    await using receiver = await startReceiver()
    await using folder = await temporaryFolder()
    const from = join(folder.path, 'image')
    const content = seededBytes('image', 9_000_001)
    writeFileSync(from, content)
    const source = await ChunkSource.open(from, { name: 'disk.img' })
    const { checkpoint, bytesRead } = await backUp(source, { ...receiver, state: folder.path, as })
    expect(bytesRead).toBe(content.length)
    const to = join(folder.path, 'to')
    await restoreTo(to, { ...receiver, number: checkpoint.number })
    expect(readFileSync(as === 'dir' ? join(to, 'disk.img') : to).equals(content)).toBe(true)
  })
}

test('several paths stand side by side under the root', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  await mkdir(join(folder.path, 'one', 'sub'), { recursive: true })
  await mkdir(join(folder.path, 'two'))
  writeFileSync(join(folder.path, 'one', 'sub', 'file'), 'one')
  writeFileSync(join(folder.path, 'two', 'file'), 'two')
  writeFileSync(join(folder.path, 'three'), 'three')
  const source = await LocalDirSource.open(['one', 'two', 'three'].map((name) => join(folder.path, name)))
  const { checkpoint } = await backUp(source, { ...receiver, state: folder.path })
  const to = join(folder.path, 'to')
  await restoreTo(to, { ...receiver, number: checkpoint.number })
  expect(readFileSync(join(to, 'one', 'sub', 'file'), 'utf8')).toBe('one')
  expect(readFileSync(join(to, 'two', 'file'), 'utf8')).toBe('two')
  expect(readFileSync(join(to, 'three'), 'utf8')).toBe('three')
})

test('an empty directory, and a directory of many entries that is cut into parts', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  await mkdir(join(from, 'empty'), { recursive: true })
  for (let i = 0; i < 6000; i++) writeFileSync(join(from, `file-${i}`), '')
  for (const as of ['dir', 'chunks'] as const) {
    const { checkpoint } = await backUp(from, { ...receiver, state: folder.path, as, source: as })
    const to = join(folder.path, `to-${as}`)
    await restoreTo(to, { ...receiver, source: as, number: checkpoint.number })
    expect(listing(to)).toEqual(listing(from))
  }
})
