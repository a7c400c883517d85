/** The second backup: what is unchanged is not opened, what changed is found, what is gone is gone. */
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { FileToRead, Source } from '../../../client/engine/source.ts'
import { backUp, restoreTo, wrapSource } from '../../support/backup.ts'
import { startReceiver } from '../../support/receiver.ts'
import { listing, makeOddTree, seededBytes, temporaryFolder } from '../../support/tree.ts'

/** Tells every path that is read. */
function watched(source: Source, paths: string[]): Source {
  return wrapSource(source, {
    fill(files: readonly FileToRead[], signal: AbortSignal) {
      paths.push(...files.map((file) => file.path.toString('latin1')))
      return source.fill(files, signal)
    },
  })
}

/** Files younger than the kernel's clock tick are read again: let the tick pass. */
const settle = (): Promise<void> => sleep(60)

for (const as of ['dir', 'chunks'] as const) {
  test(`nothing changed: nothing is read and next to nothing sent (${as})`, async () => {
    await using receiver = await startReceiver()
    await using folder = await temporaryFolder()
    const from = join(folder.path, 'from')
    await mkdir(from)
    makeOddTree(from)
    await settle()
    const first = await backUp(from, { ...receiver, state: folder.path, as })
    const paths: string[] = []
    const second = await backUp(from, {
      ...receiver,
      state: folder.path,
      as,
      wrapSource: (source) => watched(source, paths),
    })
    expect(paths).toEqual([])
    expect(second).toMatchObject({ filesRead: 0, bytesRead: 0, chunksSent: 0, filesUnmodified: first.files })
    expect(second.bytesSent).toBeLessThan(1000)
    expect(second.checkpoint.root).toBe(first.checkpoint.root)
    expect(second.checkpoint.number).toBe(2)
  })
}

test('without the database the last checkpoint on the receiver serves, by size and mtime', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  await mkdir(from)
  makeOddTree(from)
  await settle()
  const first = await backUp(from, { ...receiver, state: join(folder.path, 'a') })
  writeFileSync(join(from, 'small'), 'HELLO\n')
  await settle()
  const paths: string[] = []
  const second = await backUp(from, {
    ...receiver,
    state: join(folder.path, 'b'),
    wrapSource: (source) => watched(source, paths),
  })
  expect(paths).toEqual(['small'])
  expect(second).toMatchObject({ filesRead: 1, filesChanged: 1, filesUnmodified: first.files - 1 })
  const third = await backUp(from, { ...receiver, state: join(folder.path, 'b') })
  expect(third).toMatchObject({ filesRead: 0 })
  expect(third.checkpoint.root).toBe(second.checkpoint.root)
})

test('same size and mtime, other content: told by ctime; --verify-content reads all the same', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  await mkdir(from)
  const file = join(from, 'file')
  writeFileSync(file, 'aaaa')
  utimesSync(file, 1000, 1000)
  await settle()
  await backUp(from, { ...receiver, state: folder.path })
  await settle()
  writeFileSync(file, 'bbbb')
  utimesSync(file, 1000, 1000)
  await settle()
  const second = await backUp(from, { ...receiver, state: folder.path })
  expect(second).toMatchObject({ filesRead: 1, filesChanged: 1, chunksSent: 2 })
  const third = await backUp(from, { ...receiver, state: folder.path, options: { verifyContent: true } })
  expect(third).toMatchObject({ filesRead: 1, filesChanged: 0, filesUnmodified: 1, chunksSent: 0 })
  expect(third.checkpoint.root).toBe(second.checkpoint.root)
})

test('a byte inserted at the front of a large file sends a few chunks', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  await mkdir(from)
  const content = seededBytes('large', 24_000_000)
  writeFileSync(join(from, 'file'), content)
  await backUp(from, { ...receiver, state: folder.path })
  writeFileSync(join(from, 'file'), Buffer.concat([Buffer.from('x'), content]))
  const second = await backUp(from, { ...receiver, state: folder.path })
  expect(second.bytesRead).toBe(content.length + 1)
  expect(second.bytesSent).toBeLessThan(5_000_000)
  await restoreTo(join(folder.path, 'to'), { ...receiver, number: 2 })
  expect(listing(join(folder.path, 'to'))).toEqual(listing(from))
})

test('a renamed and edited tree, checkpoint by checkpoint', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  await mkdir(from)
  makeOddTree(from)
  const at = (...names: string[]): string => join(from, ...names)
  const edits: (() => void)[] = [
    () => {},
    () => renameSync(at('sub'), at('moved')),
    () => rmSync(at('moved', 'deeper'), { recursive: true }),
    () => chmodSync(at('small'), 0o600),
    () => unlinkSync(at('linked-2')),
    () => {
      rmSync(at('moved'), { recursive: true })
      writeFileSync(at('moved'), 'a file where a directory was')
    },
    () => {
      unlinkSync(at('moved'))
      mkdirSync(at('moved'))
      writeFileSync(at('moved', 'inside'), 'a directory where a file was')
    },
    () => {
      unlinkSync(at('small'))
      symlinkSync('empty', at('small'))
    },
    () => appendFileSync(at('empty'), 'no longer'),
  ]
  const expected: string[][] = []
  for (const edit of edits) {
    edit()
    expected.push(listing(from))
    await backUp(from, { ...receiver, state: folder.path })
  }
  for (const [i, lines] of expected.entries()) {
    const to = join(folder.path, `to-${i}`)
    await restoreTo(to, { ...receiver, number: i + 1 })
    expect(listing(to)).toEqual(lines)
    await rm(to, { recursive: true })
  }
})

test('any sequence of edits gives the same root as a backup from nothing', async () => {
  await using receiver = await startReceiver()
  const name = fc.constantFrom('a', 'b', 'c', 'd', 'a/x', 'b/x', 'b/y/z', 'c/q')
  const edit = fc.oneof(
    fc.record({ do: fc.constant('write' as const), name, text: fc.string({ maxLength: 3 }) }),
    fc.record({ do: fc.constant('remove' as const), name }),
    fc.record({ do: fc.constant('backup' as const) }),
  )
  let run = 0
  await fc.assert(
    fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 12 }), async (edits) => {
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      await mkdir(from)
      const source = `run-${run++}`
      for (const step of edits) {
        if (step.do === 'backup') await backUp(from, { ...receiver, state: folder.path, source })
        else if (step.do === 'remove') rmSync(join(from, step.name), { recursive: true, force: true })
        else write(from, step.name, step.text)
      }
      const incremental = await backUp(from, { ...receiver, state: folder.path, source })
      const fresh = await backUp(from, { ...receiver, state: folder.path, source: `${source}-fresh` })
      expect(incremental.checkpoint.root).toBe(fresh.checkpoint.root)
    }),
    { numRuns: 6 },
  )
})

function write(root: string, name: string, text: string): void {
  const path = join(root, name)
  const parents = name.split('/').slice(0, -1)
  let parent = root
  for (const each of parents) {
    parent = join(parent, each)
    if (statSync(parent, { throwIfNoEntry: false })?.isFile()) rmSync(parent)
    mkdirSync(parent, { recursive: true })
  }
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) rmSync(path, { recursive: true })
  if (statSync(path, { throwIfNoEntry: false }) === undefined || readFileSync(path, 'utf8') !== text)
    writeFileSync(path, text)
}
