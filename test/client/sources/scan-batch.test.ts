/** What a walk tells arrives as it was told, in batches of any length. */
import { expect, test } from 'vitest'
import type { ScanEvent } from '../../../client/engine/source.ts'
import { ScanBatchWriter, scanEvents } from '../../../client/sources/scan-batch.ts'

const stat = {
  ...{ size: 7, mode: 0o644, uid: 1, gid: 2, links: 1, major: 0, minor: 0, sparse: false },
  ...{ mtimeNs: 5n, ctimeNs: 6n, device: 7n, inode: 8n },
}

function told(write: (writer: ScanBatchWriter) => void): { batches: number; events: ScanEvent[] } {
  const batches: Uint8Array[] = []
  const writer = new ScanBatchWriter((batch) => batches.push(batch))
  write(writer)
  writer.flush()
  return { batches: batches.length, events: batches.flatMap((batch) => scanEvents(batch)) }
}

test('every kind of message', () => {
  const { batches, events } = told((writer) => {
    writer.enter('', stat)
    writer.entry('\xff\x00 a', 'file', stat)
    writer.entry('link', 'symlink', stat, '')
    writer.listed()
    writer.problem('sub/\xe4', { code: 'source-unreadable', detail: 'EACCES – no' })
    writer.entry('b', 'fifo', stat)
    writer.leave()
  })
  expect(batches).toBe(1)
  expect(events.map((event) => event.type)).toEqual([
    ...['enter', 'entries', 'listed', 'problem', 'entries', 'leave'],
  ])
  const [, entries, , problem, others] = events
  expect(problem).toEqual({
    ...{ type: 'problem', path: Buffer.from('sub/\xe4', 'latin1') },
    ...{ code: 'source-unreadable', detail: 'EACCES – no' },
  })
  const names = [entries, others].flatMap((event) =>
    event?.type === 'entries'
      ? event.entries.map(({ name, kind, target }) => [name.toString('latin1'), kind, target?.length])
      : [],
  )
  expect(names).toEqual([
    ['\xff\x00 a', 'file', undefined],
    ['link', 'symlink', 0],
    ['b', 'fifo', undefined],
  ])
})

test.each([
  ['many', 1000, 3, 4],
  ['long ones', 100, 4000, 7],
  ['one that is longer than a batch', 1, 200_000, 1],
])('%s', (_, count, length, batches) => {
  const detail = 'x'.repeat(length)
  const found = told((writer) => {
    for (let i = 0; i < count; i++) writer.problem(`${i}`, { code: 'source-vanished', detail })
  })
  expect(found.batches).toBe(batches)
  expect(found.events.map((event) => event.type === 'problem' && event.path.toString())).toEqual(
    Array.from({ length: count }, (_, i) => `${i}`),
  )
  expect(found.events.every((event) => event.type === 'problem' && event.detail === detail)).toBe(true)
})
