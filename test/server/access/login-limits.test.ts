import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, test } from 'vitest'
import { addressKey, type Block, LoginLimits } from '../../../server/access/login-limits.ts'

interface Bench {
  readonly limits: LoginLimits
  readonly blocks: Block[]
  /** Lets time pass. */
  wait(seconds: number): void
  wrong(from: string, name: string, times?: number): void
  right(from: string, name: string): void
  /** Seconds to wait, 0 when it is let through. */
  retryAfter(from: string, name: string): number
}

function bench(): Bench {
  let now = 0
  const blocks: Block[] = []
  const limits = new LoginLimits({ now: () => now, onBlock: (block) => blocks.push(block) })
  return {
    limits,
    blocks,
    wait: (seconds) => {
      now += seconds * 1000
    },
    wrong: (from, name, times = 1) => {
      for (let i = 0; i < times; i++) limits.begin(from, name).wrong()
    },
    right: (from, name) => limits.begin(from, name).right(),
    retryAfter: (from, name) => {
      try {
        limits.begin(from, name).undecided()
        return 0
      } catch (error) {
        expect(error).toMatchObject({ code: 'too-many-requests' })
        return (error as { extensions: { retryAfter: number } }).extensions.retryAfter
      }
    },
  }
}

test('ten are free, then each costs twice the wait of the one before, up to 15 minutes', () => {
  const { blocks, wait, wrong, retryAfter } = bench()
  wrong('a', 'alice', 9)
  expect(retryAfter('a', 'alice')).toBe(0)
  const waits: number[] = []
  for (let i = 0; i < 13; i++) {
    wrong('a', 'alice')
    const seconds = retryAfter('a', 'alice')
    waits.push(seconds)
    wait(seconds)
  }
  expect(waits).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900])
  expect(blocks.map(({ seconds }) => seconds)).toEqual(waits)
  expect(blocks[0]).toEqual({ from: 'a', name: 'alice', seconds: 1 })
})

test('a block is for one address and one name; others go on', () => {
  const { wrong, retryAfter } = bench()
  wrong('a', 'alice', 10)
  expect(retryAfter('a', 'alice')).toBe(1)
  expect(retryAfter('a', 'bob')).toBe(0)
  expect(retryAfter('b', 'alice')).toBe(0)
})

test('an address that tries many names is blocked for all', () => {
  const { blocks, wrong, retryAfter } = bench()
  for (let i = 0; i < 50; i++) wrong('a', `name${i}`)
  expect(retryAfter('a', 'alice')).toBe(1)
  expect(retryAfter('b', 'alice')).toBe(0)
  expect(blocks).toEqual([{ from: 'a', seconds: 1 }])
})

test('who gets in has all tries again, but not for the address', () => {
  const { wrong, right, retryAfter } = bench()
  for (let i = 0; i < 5; i++) {
    wrong('a', 'mallory', 9)
    right('a', 'mallory')
  }
  wrong('a', 'mallory', 5)
  expect(retryAfter('a', 'mallory')).toBe(1)
})

test('an hour without a failure and all is forgotten', () => {
  const { wait, wrong, retryAfter } = bench()
  wrong('a', 'alice', 10)
  wait(3601)
  wrong('a', 'alice', 9)
  expect(retryAfter('a', 'alice')).toBe(0)
})

test('many at once are no way around', () => {
  const { limits, retryAfter } = bench()
  const tries = Array.from({ length: 10 }, () => limits.begin('a', 'alice'))
  expect(retryAfter('a', 'alice')).toBe(1)
  for (const attempt of tries) attempt.undecided()
  expect(retryAfter('a', 'alice')).toBe(0)
})

test('when its wait is over, one at a time is let through', () => {
  const { limits, wait, wrong, retryAfter } = bench()
  wrong('a', 'alice', 12 - 2)
  wait(1)
  const attempt = limits.begin('a', 'alice')
  expect(retryAfter('a', 'alice')).toBe(1)
  attempt.right()
  expect(retryAfter('a', 'alice')).toBe(0)
})

describe('a name that many addresses attack', () => {
  test('its owner gets in at once, from everywhere that is not blocked itself', () => {
    const { limits, wrong, retryAfter } = bench()
    for (let i = 0; i < 2000; i++) wrong(`attacker ${i}`, 'alice')
    limits.begin('a hotel', 'alice').right()
    expect(retryAfter('a hotel', 'alice')).toBe(0)
  })

  test('an address has one try, unless the name has logged in there before', () => {
    const { right, wrong, retryAfter } = bench()
    right('at home', 'alice')
    for (let i = 0; i < 50; i++) wrong(`attacker ${i}`, 'alice')
    wrong('the next', 'alice')
    expect(retryAfter('the next', 'alice')).toBe(1)
    expect(retryAfter('the next', 'bob')).toBe(0)
    wrong('at home', 'alice', 9)
    expect(retryAfter('at home', 'alice')).toBe(0)
  })
})

test.each([
  ['192.0.2.7', '192.0.2.7'],
  ['::ffff:192.0.2.7', '192.0.2.7'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8:1:2::', '2001:db8:1:2::/64'],
  ['2001:DB8:1::9', '2001:db8:1:0::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['', ''],
  ['unix', 'unix'],
])('%s counts as %s', (from, key) => {
  expect(addressKey(from)).toBe(key)
})

test('memory stays bounded', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const { blocks, wrong } = bench()
  collect()
  const before = process.memoryUsage().heapUsed
  for (let i = 0; i < 100_000; i++)
    wrong(`2001:db8:${(i >> 16).toString(16)}:${(i & 0xffff).toString(16)}::1`, `n${i}`)
  collect()
  expect(blocks).toEqual([])
  // 30,000 counts; without a bound it would be 300,000, some 80 MB.
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(20e6)
})
