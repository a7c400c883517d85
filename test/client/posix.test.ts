import { lstatSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makeDevice, makeFifo, posixAvailable, setModificationTime } from '../../client/posix.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-posix-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const at = (name: string) => Buffer.from(join(folder, name))
const codeOf = (action: () => unknown): string | undefined => {
  try {
    action()
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
  return undefined
}

test('koffi loads here', () => expect(posixAvailable()).toBe(true))

test.each([
  ['nanoseconds', 1_700_000_000_123_456_789n],
  ['1970', 0n],
  ['before 1970', -1n],
  ['long before 1970', -1_500_000_001n],
  ['behind 2038', 4_000_000_000_999_999_999n],
])('times: %s', (_, mtimeNs) => {
  writeFileSync(at('file'), '')
  const before = statSync(at('file'), { bigint: true })
  expect(setModificationTime(at('file'), mtimeNs)).toBe(true)
  const after = statSync(at('file'), { bigint: true })
  expect(after.mtimeNs).toBe(mtimeNs)
  expect(after.atimeNs).toBe(before.atimeNs)
})

test('a symlink has a time of its own, and its target keeps its own', () => {
  writeFileSync(at('target'), '')
  symlinkSync('target', at('link'))
  const before = statSync(at('target'), { bigint: true }).mtimeNs
  setModificationTime(at('link'), 123n)
  expect(lstatSync(at('link'), { bigint: true }).mtimeNs).toBe(123n)
  expect(statSync(at('target'), { bigint: true }).mtimeNs).toBe(before)
})

test('names that are not UTF-8', () => {
  const path = Buffer.concat([at(''), Buffer.from([0x2f, 0xff, 0xfe])])
  writeFileSync(path, '')
  setModificationTime(path, 7n)
  expect(statSync(path, { bigint: true }).mtimeNs).toBe(7n)
})

test('fifos and devices', () => {
  makeFifo(at('fifo'), 0o600)
  expect(lstatSync(at('fifo')).isFIFO()).toBe(true)
  expect(codeOf(() => makeFifo(at('fifo'), 0o600))).toBe('EEXIST')
  const code = codeOf(() => makeDevice(at('device'), 0o600, 'character-device', 300, 70_000))
  if (code === 'EPERM') return
  const stat = lstatSync(at('device'), { bigint: true })
  expect(stat.isCharacterDevice()).toBe(true)
  expect(stat.rdev).toBe(((300n & 0xfffn) << 8n) | (70_000n & 0xffn) | ((70_000n & ~0xffn) << 12n))
})

test.each([
  ['setModificationTime', () => setModificationTime(at('absent'), 0n)],
  ['makeFifo', () => makeFifo(at('absent/fifo'), 0o600)],
])('%s: what is absent is ENOENT', (_, action) => expect(codeOf(action)).toBe('ENOENT'))
