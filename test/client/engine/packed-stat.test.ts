/** A stat as bytes: what goes in comes out, and any change of a thing shows in its fingerprint. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  fingerprintBytes,
  fingerprintOf,
  hasFingerprint,
  PackedStat,
  packedStatBytes,
  packStat,
} from '../../../client/engine/packed-stat.ts'
import type { SourceStat } from '../../../client/engine/source.ts'

const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
// ext4 has times up to the year 2446, others down to before 1970.
const time = fc.bigInt(-(2n ** 62n), 15_000_000_000n * 10n ** 9n)
const id = fc.bigInt(0n, 2n ** 64n - 1n)
const fields = fc.record({
  size: fc.maxSafeNat(),
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: uint32,
  gid: uint32,
  links: uint32,
  major: uint32,
  minor: uint32,
  sparse: fc.boolean(),
  mtimeNs: time,
  ctimeNs: time,
  device: id,
  inode: id,
})
const kinds = ['file', 'directory', 'symlink', 'fifo', 'socket', 'character-device', 'block-device'] as const

test('what goes in comes out, wherever it stands', () => {
  fc.assert(
    fc.property(fields, fc.constantFrom(...kinds), fc.nat(20), (stat, kind, at) => {
      const view = new DataView(new ArrayBuffer(at + packedStatBytes))
      packStat(view, at, kind, stat)
      const packed = new PackedStat(view, at)
      const told = plain(stat)
      for (const key of Object.keys(told) as (keyof SourceStat)[]) expect(packed[key]).toBe(told[key])
      expect(packed.kind).toBe(kind)
      const fingerprint = fingerprintOf(kind, told)
      expect(fingerprint).toEqual(packed.fingerprint())
      expect(fingerprint).toHaveLength(fingerprintBytes)
      const bytes = Buffer.concat([Buffer.alloc(3), fingerprint, Buffer.alloc(2)])
      for (const each of [packed, told]) expect(hasFingerprint(kind, each, bytes, 3)).toBe(true)
    }),
  )
})

const stat = {
  ...{ size: 1, mode: 0o644, uid: 2, gid: 3, links: 1, major: 0, minor: 0, sparse: false },
  ...{ mtimeNs: '5', ctimeNs: '6', inode: '7:8' },
}

test.each<[string, Partial<SourceStat>]>([
  ['size', { size: 2 }],
  ['mode', { mode: 0o600 }],
  ['uid', { uid: 0 }],
  ['gid', { gid: 0 }],
  ['links', { links: 2 }],
  ['a nanosecond', { mtimeNs: '6' }],
  ['ctime', { ctimeNs: '7' }],
  ['a time before 1970', { mtimeNs: '-5' }],
  ['a time after the year 2262', { mtimeNs: String(2n ** 64n - 5n) }],
  ['device', { inode: '8:8' }],
  ['inode', { inode: '7:7' }],
  ['no inode', { inode: '' }],
])('another %s is another fingerprint', (_, change) => {
  const other = { ...stat, ...change }
  expect(fingerprintOf('file', other).equals(fingerprintOf('file', stat))).toBe(false)
})

test('times whose last 64 bits are the same are told apart', () => {
  const [before, after] = ['-5', String(2n ** 64n - 5n)].map((mtimeNs) =>
    fingerprintOf('file', { ...stat, mtimeNs }),
  )
  expect(before).not.toEqual(after)
})

test('another kind is another fingerprint; what a file system allocates later is of no account', () => {
  expect(fingerprintOf('fifo', stat).equals(fingerprintOf('file', stat))).toBe(false)
  expect(fingerprintOf('file', { ...stat, sparse: true })).toEqual(fingerprintOf('file', stat))
})

test('what was read while it changed is never taken for what is there', () => {
  const read = fingerprintOf('file', { ...stat, ctimeNs: '' })
  expect(hasFingerprint('file', stat, Buffer.concat([read, Buffer.alloc(64)]), 0)).toBe(false)
  expect(read.length).not.toBe(fingerprintBytes)
})

type Fields = typeof fields extends fc.Arbitrary<infer T> ? T : never

function plain({ mtimeNs, ctimeNs, device, inode, ...numbers }: Fields): SourceStat {
  return {
    ...numbers,
    mtimeNs: String(mtimeNs),
    ctimeNs: String(ctimeNs),
    inode: `${device}:${inode}`,
  }
}
