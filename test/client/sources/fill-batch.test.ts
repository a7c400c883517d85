/** What a reading thread has found, as it travels. */
import { expect, test } from 'vitest'
import type { StatToPack } from '../../../client/engine/packed-stat.ts'
import { plainStat } from '../../../client/engine/plain-stat.ts'
import type { FillEvent } from '../../../client/engine/source.ts'
import { FillBatchWriter, fillEvents } from '../../../client/sources/fill-batch.ts'
import { hashId } from '../../../protocol/hash.ts'
import type { Problem } from '../../../protocol/problem.ts'

const stat: StatToPack = {
  size: 2 ** 40 + 1,
  mode: 0o4755,
  uid: 1000,
  gid: 2 ** 32 - 1,
  mtimeNs: -1n,
  ctimeNs: 1_795_413_415_182_119_092n,
  device: 66_306n,
  inode: 2n ** 63n + 5n,
  links: 1,
  major: 0,
  minor: 0,
  sparse: true,
}
const told = {
  ...stat,
  mtimeNs: '-1',
  ctimeNs: '1795413415182119092',
  inode: `66306:${2n ** 63n + 5n}`,
} as Record<string, unknown>
delete told.device

const one = hashId(Buffer.from('one'))
const two = hashId(Buffer.from('two'))
const bytesAt = (offset: number, length: number): Buffer => Buffer.alloc(length, offset & 0xff)

/** What comes out, with stats and problems as plain objects. */
function shown(batch: Uint8Array): object[] {
  return fillEvents(batch, bytesAt).map((event: FillEvent) => {
    if (event.type === 'done') return { ...event, stat: plainStat(event.stat) }
    if (event.type !== 'failed') return event
    const { code, message } = event.problem as Problem
    return { ...event, problem: { code, message } }
  })
}

test('all kinds of events come out as they went in', () => {
  const batch = new FillBatchWriter()
  expect(batch.isEmpty).toBe(true)
  batch.chunk(0, one, 3, 2)
  batch.done({ file: 0, digest: undefined, bytesRead: 2, stat, changed: false, uncertain: true })
  batch.chunk(1, one, 5, 1)
  batch.again(1)
  batch.chunk(1, two, 6, 0)
  batch.done({ file: 1, digest: one, bytesRead: 2 ** 41, stat, changed: true, uncertain: false })
  batch.failed(2 ** 32 - 1, 'source-unreadable', 'EACCES: ümlaut')
  expect(batch.isEmpty).toBe(false)
  expect(shown(batch.take())).toEqual([
    { type: 'chunk', file: 0, id: one, bytes: bytesAt(3, 2) },
    { type: 'done', file: 0, digest: one, bytesRead: 2, stat: told, changed: false, uncertain: true },
    { type: 'chunk', file: 1, id: one, bytes: bytesAt(5, 1) },
    { type: 'again', file: 1 },
    { type: 'chunk', file: 1, id: two, bytes: bytesAt(6, 0) },
    { type: 'done', file: 1, digest: one, bytesRead: 2 ** 41, stat: told, changed: true, uncertain: false },
    {
      type: 'failed',
      file: 2 ** 32 - 1,
      problem: { code: 'source-unreadable', message: 'EACCES: ümlaut' },
    },
  ])
})

test('a batch may be of any length, carries no memory but its own, and stays as it is', () => {
  const batch = new FillBatchWriter()
  const detail = 'x'.repeat(300_000)
  for (let file = 0; file < 5000; file++) batch.chunk(file, one, file, 1)
  batch.failed(5000, 'source-vanished', detail)
  const first = batch.take()
  expect(first.buffer.byteLength).toBe(first.length)
  expect(batch.isEmpty).toBe(true)
  batch.again(7)
  expect(shown(batch.take())).toEqual([{ type: 'again', file: 7 }])
  const events = shown(first)
  expect(events).toHaveLength(5001)
  expect(events[4999]).toEqual({ type: 'chunk', file: 4999, id: one, bytes: bytesAt(4999, 1) })
  expect(events[5000]).toEqual({
    type: 'failed',
    file: 5000,
    problem: { code: 'source-vanished', message: detail },
  })
})
