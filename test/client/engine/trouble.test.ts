/** Files that cannot be had: each is reported, none is silently wrong, the rest is backed up. */

import { once } from 'node:events'
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { FileToRead, Filled, Source } from '../../../client/engine/source.ts'
import { ChunkSource } from '../../../client/sources/chunk-source.ts'
import { LocalDirSource } from '../../../client/sources/local-dir-source.ts'
import { backUp, restoreTo, wrapSource } from '../../support/backup.ts'
import { startReceiver } from '../../support/receiver.ts'
import { listing, seededBytes, temporaryFolder } from '../../support/tree.ts'

/** Does something to the tree between the scan and the reading, or while reading goes on. */
function meddled(source: Source, before: (paths: string[]) => void, during: () => void = () => {}): Source {
  return wrapSource(source, {
    async *fill(files: readonly FileToRead[], signal: AbortSignal): AsyncGenerator<Filled> {
      before(files.map((file) => file.path.toString('latin1')))
      for await (const filled of source.fill(files, signal)) {
        yield filled
        during()
      }
    },
  })
}

async function tree() {
  const folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  mkdirSync(join(from, 'sub'), { recursive: true })
  writeFileSync(join(from, 'good'), 'good')
  writeFileSync(join(from, 'sub', 'bad'), 'bad')
  linkSync(join(from, 'sub', 'bad'), join(from, 'sub', 'other-name'))
  return { folder, from, bad: join(from, 'sub', 'bad') }
}

test('a file that vanishes is reported; its other name is still backed up', async () => {
  await using receiver = await startReceiver()
  const { folder, from, bad } = await tree()
  await using _ = folder
  let done = false
  const meddling = (source: Source): Source =>
    meddled(source, () => {
      if (!done) unlinkSync(bad)
      done = true
    })
  const summary = await backUp(from, { ...receiver, state: folder.path, wrapSource: meddling })
  expect(summary.problems).toEqual([
    { path: Buffer.from('sub/bad'), code: 'source-vanished', detail: 'ENOENT' },
  ])
  await restoreTo(join(folder.path, 'to'), { ...receiver, number: 1 })
  expect(listing(join(folder.path, 'to')).map((line) => line.split(' ')[0])).toEqual([
    '.',
    './good',
    './sub',
    './sub/other-name',
  ])
})

test('a directory that takes the place of a file is reported, not read', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree()
  await using _ = folder
  const good = join(from, 'good')
  const meddling = (source: Source): Source =>
    meddled(source, () => {
      rmSync(good, { recursive: true, force: true })
      mkdirSync(good)
    })
  const { problems } = await backUp(from, { ...receiver, state: folder.path, wrapSource: meddling })
  expect(problems.map(({ path, code }) => [String(path), code])).toEqual([['good', 'source-vanished']])
})

test('a file that cannot be read is a failed event', async () => {
  await using folder = await temporaryFolder()
  const server = createServer().listen(join(folder.path, 'socket'))
  await once(server, 'listening')
  // Opening a socket fails for root too, unlike a file without permissions.
  const source = await LocalDirSource.open([folder.path])
  const events = []
  const file = { path: Buffer.from('socket'), stat: { size: 0 } as never }
  for await (const { events: batch, release } of source.fill([file], new AbortController().signal)) {
    events.push(...batch)
    release()
  }
  await source.close()
  server.close()
  expect(events).toMatchObject([{ type: 'failed', file: 0, problem: { code: 'source-unreadable' } }])
})

test('a file that grows while it is read is read again; if it never holds still it is reported as changed', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  mkdirSync(from)
  const log = join(from, 'log')
  writeFileSync(log, seededBytes('log', 30_000_000))
  const grow = (source: Source): Source =>
    meddled(
      source,
      () => {},
      () => appendFileSync(log, 'one more line\n'),
    )
  const first = await backUp(from, { ...receiver, state: folder.path, wrapSource: grow })
  expect(first.problems).toEqual([
    expect.objectContaining({ path: Buffer.from('log'), code: 'source-changed' }),
  ])
  expect(first.checkpoint.state).toBe('committed')
  // What is in the checkpoint is whole in itself, and the next run reads the file again.
  const restored = await restoreTo(join(folder.path, 'to'), { ...receiver, number: 1 })
  expect(restored.problems).toBe(0)
  const second = await backUp(from, { ...receiver, state: folder.path })
  expect(second).toMatchObject({ filesRead: 1, problems: [] })
  await restoreTo(join(folder.path, 'to2'), { ...receiver, number: 2 })
  expect(listing(join(folder.path, 'to2'))).toEqual(listing(from))
})

test('a change that keeps the size is noticed by the times', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  mkdirSync(from)
  const file = join(from, 'file')
  writeFileSync(file, seededBytes('file', 30_000_000))
  let touched = 0
  const touch = (source: Source): Source =>
    meddled(
      source,
      () => {},
      () => {
        if (touched++ === 0) utimesSync(file, 5000, 5000)
      },
    )
  const { problems, checkpoint } = await backUp(from, { ...receiver, state: folder.path, wrapSource: touch })
  expect(problems).toEqual([])
  await restoreTo(join(folder.path, 'to'), { ...receiver, number: checkpoint.number })
  expect(statSync(join(folder.path, 'to', 'file')).mtimeMs).toBe(5_000_000)
})

test('a root that cannot be listed is no empty source: there is no checkpoint', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree()
  await using _ = folder
  const unreadable = (source: Source): Source =>
    wrapSource(source, {
      async *scan() {
        const stat = { ...(await statOf(source)) }
        yield [
          { type: 'enter', name: Buffer.alloc(0), stat },
          { type: 'problem', path: Buffer.alloc(0), code: 'source-unreadable', detail: 'EACCES' },
          { type: 'listed' },
          { type: 'leave' },
        ]
      },
    })
  const refused = backUp(from, { ...receiver, state: folder.path, wrapSource: unreadable })
  await expect(refused).rejects.toMatchObject({ code: 'source-unreadable' })
})

async function statOf(source: Source) {
  for await (const [first] of source.scan(new AbortController().signal))
    if (first?.type === 'enter') return first.stat
  throw new Error('the source told of no root')
}

for (const as of ['dir', 'chunks'] as const) {
  test(`a stream that cannot be read is no empty backup (${as})`, async () => {
    await using receiver = await startReceiver()
    await using folder = await temporaryFolder()
    const path = join(folder.path, 'file')
    writeFileSync(path, 'content')
    const source = await ChunkSource.open(path)
    unlinkSync(path)
    const refused = backUp(source, { ...receiver, state: folder.path, as })
    await expect(refused).rejects.toMatchObject({ code: 'source-vanished' })
  })
}
