import { describe, expect, it } from 'vitest'
import { allowed, type Budget, budgetsOf, deviations } from './budget.ts'
import { parseCalls } from './system-calls.ts'

const folders = { '/d': 'data', '/d/packs': 'packs', '/proc/self/fd': 'tree' }

describe('calls of a trace', () => {
  it.each([
    ['a path', '1 openat(AT_FDCWD</x>, "/d/a", O_RDONLY) = 3</d/a>', 'data', {}],
    ['a relative path', '1 openat(7</d/packs>, "a", O_RDONLY) = 3</d/packs/a>', 'packs', {}],
    ['the folder itself', '1 statx(AT_FDCWD</x>, "/d", 0, 0, {}) = 0', 'data', {}],
    ['a call without a descriptor', '1 rename("/d/a", "/d/b") = 0', 'data', {}],
    ['a read', '1 pread64(3</d/packs/1>, ""..., 99, 5) = 17', 'packs', { bytesRead: 17 }],
    [
      'a write',
      '1 writev(3</d/packs/1>, [{iov_base=""..., iov_len=9}], 1) = 9',
      'packs',
      { bytesWritten: 9 },
    ],
    ['a write that fails', '1 write(3</d/a>, ""..., 9) = -1 ENOSPC (No space left on device)', 'data', {}],
    ['a sync', '1 fdatasync(3</d/packs/1>) = 0', 'packs', { syncs: 1 }],
    ['a socket', '1 read(3<TCP:[127.0.0.1:1->127.0.0.1:2]>, ""..., 9) = 4', 'sockets', { bytesRead: 4 }],
    ['a step from a directory', '1 openat(AT_FDCWD</x>, "/proc/self/fd/9/a", O_PATH) = 3</y/a>', 'tree', {}],
    [
      'a call that another thread’s comes between',
      '1 read(3</d/a>,  <unfinished ...>\n2 futex(0x1) = 0\n1 <... read resumed>""..., 9) = 6',
      'data',
      { bytesRead: 6 },
    ],
  ])('%s', (_, trace, place, more) => {
    const calls = { calls: 1, syncs: 0, bytesRead: 0, bytesWritten: 0, ...more }
    expect([...parseCalls(trace, folders)]).toEqual([[place, calls]])
  })

  it.each([
    '1 openat(AT_FDCWD</x>, "/data/a", O_RDONLY) = 3</data/a>',
    '1 write(3<anon_inode:[eventfd]>, ""..., 8) = 8',
    '1 write(1<UNIX-STREAM:[1->2]>, ""..., 8) = 8',
    '1 +++ exited with 0 +++',
    '',
  ])('not counted: %s', (trace) => expect([...parseCalls(trace, folders)]).toEqual([]))
})

describe('budgets', () => {
  it.each<[string, Record<string, number>, Record<string, Budget>, number]>([
    ['what is in them', { a: 1, b: 5 }, { a: 1, b: [4, 6] }, 0],
    ['more than exactly so many', { a: 2 }, { a: 1 }, 1],
    ['fewer than exactly so many', { a: 0 }, { a: 1 }, 1],
    ['more and fewer than a range and its room', { a: 10, b: 0 }, { a: [4, 6], b: [4, 6] }, 2],
    ['what has none', { a: 1 }, {}, 1],
    ['what has none, where others have room', { 'x bytesRead': 1 }, {}, 1],
    ['what is not done any more', {}, { a: 1 }, 1],
  ])('%s', (_, counts, budget, lines) => expect(deviations(counts, budget)).toHaveLength(lines))

  it('are the least and the most of all runs', () => {
    expect(budgetsOf([{ a: 3, b: 90 }, { a: 3, b: 100 }, { a: 3 }])).toEqual({ a: 3, b: [0, 100] })
  })

  it.each<[string, string, Budget, readonly [number, number]]>([
    ['exact for what is always the same', 'x syncs', 3, [3, 3]],
    ['with room for what differs', 'x calls', [90, 100], [79, 111]],
    ['never below nothing', 'x calls', [0, 1], [0, 3]],
    ['with room for bytes', 'x bytesRead', 10_000, [9836, 10_164]],
  ])('%s', (_, name, budget, range) => expect(allowed(name, budget)).toEqual(range))
})
