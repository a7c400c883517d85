/** What a policy keeps: tables of calendar edges, and properties that hold for every policy. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { RetentionPolicy } from '../../../protocol/schema.ts'
import { parseKeepWithin, type Retained, type Retention, retain } from '../../../server/upkeep/retention.ts'

const now = new Date('2026-11-23T12:00:00Z')

/** Checkpoints of these times, numbered from 1. */
function at(...times: string[]): Retained[] {
  return times.map((time, i) => ({
    number: i + 1,
    committedAt: time.length > 16 ? time : `${time.padEnd(16, '12:00')}:00Z`,
  }))
}
/** `2024-02-29` is noon of that day. */
const days = (...dates: string[]): Retained[] => at(...dates.map((date) => `${date}T12:00`))

function kept(checkpoints: readonly Retained[], policy: Retention, timeZone?: string, when = now): number[] {
  return retain(checkpoints, policy, when, timeZone).kept.map(({ checkpoint }) => checkpoint.number)
}

describe('the rules', () => {
  test.each<[string, Retained[], Retention, number[], string?]>([
    ['nothing of nothing', [], { keepLast: 3 }, []],
    ['without a policy all', days('2020-01-01', '2020-01-02'), 'keep-all', [1, 2]],
    ['the last two', days('2020-01-01', '2020-01-02', '2020-01-03'), { keepLast: 2 }, [2, 3]],
    ['fewer than there may be', days('2020-01-01'), { keepLast: 9 }, [1]],
    [
      'the newest of each hour',
      at('2026-01-01T10:00', '2026-01-01T10:59', '2026-01-01T11:00'),
      { keepHourly: 9 },
      [2, 3],
    ],
    [
      'the newest of each day',
      at('2026-01-01T00:00', '2026-01-01T23:59', '2026-01-02T00:00'),
      { keepDaily: 9 },
      [2, 3],
    ],
    [
      'days without one do not count',
      days('2020-01-01', '2022-06-01', '2026-01-01'),
      { keepDaily: 2 },
      [2, 3],
    ],
    ['a leap day is a day', days('2024-02-28', '2024-02-29', '2024-03-01'), { keepDaily: 3 }, [1, 2, 3]],
    [
      'a leap day belongs to February',
      days('2024-02-01', '2024-02-29', '2024-03-01'),
      { keepMonthly: 2 },
      [2, 3],
    ],
    // 2024-12-30 is a Monday of week 1 of 2025; 2021-01-03 a Sunday of week 53 of 2020.
    [
      'the last days of a year in week 1',
      days('2024-12-29', '2024-12-30', '2025-01-05'),
      { keepWeekly: 9 },
      [1, 3],
    ],
    [
      'the first days of a year in week 53',
      days('2020-12-31', '2021-01-03', '2021-01-04'),
      { keepWeekly: 9 },
      [2, 3],
    ],
    ['the same week number of two years', days('2024-01-03', '2025-01-01'), { keepWeekly: 9 }, [1, 2]],
    ['the end of a year', at('2025-12-31T23:59', '2026-01-01T00:00'), { keepYearly: 9 }, [1, 2]],
    ['one a year', days('2024-01-01', '2024-12-31', '2025-06-01', '2026-01-01'), { keepYearly: 2 }, [3, 4]],
    [
      'rules add up',
      days('2024-01-01', '2025-01-01', '2025-01-02', '2026-01-01'),
      { keepLast: 1, keepYearly: 2 },
      [3, 4],
    ],
    [
      'a day in another time zone',
      at('2026-01-01T22:30', '2026-01-01T23:30'),
      { keepDaily: 9 },
      [1, 2],
      'Europe/Vienna',
    ],
    ['the same two in UTC', at('2026-01-01T22:30', '2026-01-01T23:30'), { keepDaily: 9 }, [2]],
    // Clocks went back at 01:00 UTC: 02:30 came twice.
    [
      'the hour that came twice',
      at('2025-10-26T00:30', '2025-10-26T01:30'),
      { keepHourly: 9 },
      [1, 2],
      'Europe/Vienna',
    ],
    [
      'an hour of a zone with half hours',
      at('2026-01-01T00:15', '2026-01-01T00:45'),
      { keepHourly: 9 },
      [1, 2],
      'Asia/Kolkata',
    ],
  ])('%s', (_, checkpoints, policy, expected, timeZone) => {
    expect(kept(checkpoints, policy, timeZone)).toEqual(expected)
  })

  test.each([
    ['30d', '2026-10-24T12:00', '2026-10-24T11:59'],
    ['12h', '2026-11-23T00:00', '2026-11-22T23:59'],
    ['2w', '2026-11-09T12:00', '2026-11-09T11:59'],
    ['9mo', '2026-02-23T12:00', '2026-02-23T11:59'],
    ['1y', '2025-11-23T12:00', '2025-11-23T11:59'],
  ])('within %s', (keepWithin, inside, outside) => {
    const checkpoints = at(outside, inside, '2026-11-23T12:00')
    expect(kept(checkpoints, { keepWithin })).toEqual([2, 3])
  })

  test('within a month that has no such day: from its last', () => {
    const checkpoints = days('2024-02-28', '2024-02-29', '2024-03-31')
    expect(kept(checkpoints, { keepWithin: '1mo' })).toEqual([2, 3])
    expect(kept(days('2023-02-27', '2023-02-28', '2024-02-29'), { keepWithin: '1y' })).toEqual([2, 3])
  })

  test('where backups have stopped, nothing goes on vanishing', () => {
    const checkpoints = days('2020-01-01', '2020-01-20', '2020-01-31')
    expect(kept(checkpoints, { keepWithin: '14d' })).toEqual([2, 3])
  })

  test.each(['6m', '0d', '1', 'd', '-3d', '1.5h', '12345d', ''])('"%s" is no span', (text) => {
    expect(() => parseKeepWithin(text)).toThrow('is no span')
  })

  test('a time zone that is none', () => {
    expect(() => kept([], { keepLast: 1 }, 'Mars/Olympus')).toThrow('no time zone')
  })

  test('reasons are told, all of them', () => {
    const [first, , third] = days('2025-01-01', '2026-11-22', '2026-11-23') as [Retained, Retained, Retained]
    const { kept, removed } = retain(
      [{ ...first, pinned: true }, ...days('', '2026-11-22').slice(1), third],
      { keepLast: 1, keepDaily: 1 },
      now,
    )
    expect(kept.map(({ checkpoint, reasons }) => [checkpoint.number, reasons])).toEqual([
      [1, ['pinned']],
      [3, ['newest', 'last', 'daily']],
    ])
    expect(removed.map(({ number }) => number)).toEqual([2])
  })
})

describe('a clock that was wrong', () => {
  test('what is dated into the future stays, and takes no place of another', () => {
    const checkpoints = days('2026-11-20', '2031-01-01', '2031-01-02', '2026-11-21', '2026-11-22')
    expect(kept(checkpoints, { keepLast: 2 })).toEqual([2, 3, 4, 5])
    expect(kept(checkpoints, { keepDaily: 3 })).toEqual([1, 2, 3, 4, 5])
    expect(kept(checkpoints, { keepWithin: '1d' })).toEqual([2, 3, 4, 5])
  })

  test('what is dated into the past by mistake is still the newest', () => {
    const checkpoints = days('2026-11-20', '2026-11-21', '1970-01-01', '1970-01-02')
    expect(kept(checkpoints, { keepLast: 2 })).toEqual([3, 4])
    expect(kept(checkpoints, { keepDaily: 3 })).toEqual([2, 3, 4])
    // Nothing within the span of the real time goes either.
    expect(kept(checkpoints, { keepWithin: '3d' })).toEqual([1, 2, 4])
  })

  test('while it is in the past, only what it dated itself is judged', () => {
    const checkpoints = days('2026-11-20', '2026-11-21', '1970-01-01', '1970-01-02')
    expect(kept(checkpoints, { keepLast: 1 }, 'UTC', new Date('1970-01-03T00:00:00Z'))).toEqual([1, 2, 4])
  })
})

// -- properties --------------------------------------------------------------------------------------

const seed = Number(process.env.CHUNKDAV_SEED ?? Date.now() % 2 ** 31)
console.log(`seed ${seed}`)
const runs = { seed, numRuns: 300 }

const counts = ['keepLast', 'keepHourly', 'keepDaily', 'keepWeekly', 'keepMonthly', 'keepYearly'] as const
/** Dense enough that buckets are shared, and some of it in the future. */
const time = fc.oneof(
  fc.integer({ min: Date.parse('2026-11-20'), max: Date.parse('2026-11-24') }),
  fc.integer({ min: Date.parse('2023-12-01'), max: Date.parse('2027-02-01') }),
)
const checkpointsOf = fc
  .array(fc.record({ ms: time, pinned: fc.boolean(), step: fc.integer({ min: 1, max: 3 }) }), {
    maxLength: 40,
  })
  .map((drawn) => {
    let number = 0
    return drawn.map(({ ms, pinned, step }, i): Retained => {
      number += step
      return { number, committedAt: new Date(ms).toISOString(), pinned: pinned && i % 5 === 0 }
    })
  })
const policyOf: fc.Arbitrary<RetentionPolicy> = fc
  .tuple(
    fc.record(Object.fromEntries(counts.map((name) => [name, fc.integer({ min: 0, max: 8 })]))),
    fc.option(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.constantFrom('h', 'd', 'w', 'mo', 'y')), {
      nil: undefined,
    }),
  )
  .map(([numbers, within]) => ({
    ...Object.fromEntries(Object.entries(numbers).filter(([, count]) => (count as number) > 0)),
    ...(within && { keepWithin: within.join('') }),
  }))
const zone = fc.constantFrom('UTC', 'Europe/Vienna', 'America/St_Johns')

describe('for every policy', () => {
  test('nothing is lost: each is kept or removed, and what is kept has a reason', () => {
    fc.assert(
      fc.property(checkpointsOf, policyOf, zone, (checkpoints, policy, timeZone) => {
        const { kept, removed } = retain(checkpoints, policy, now, timeZone)
        expect(
          [...kept.map(({ checkpoint }) => checkpoint), ...removed].sort((a, b) => a.number - b.number),
        ).toEqual(checkpoints)
        expect(kept.every(({ reasons }) => reasons.length > 0)).toBe(true)
      }),
      runs,
    )
  })

  test('the newest stays, and what is pinned, and what is of the future', () => {
    fc.assert(
      fc.property(checkpointsOf, policyOf, zone, (checkpoints, policy, timeZone) => {
        const { removed } = retain(checkpoints, policy, now, timeZone)
        expect(removed).not.toContain(checkpoints.at(-1))
        expect(removed.some(({ pinned }) => pinned)).toBe(false)
        expect(removed.some(({ committedAt }) => Date.parse(committedAt) > now.getTime())).toBe(false)
      }),
      runs,
    )
  })

  test('nothing within the span is removed', () => {
    fc.assert(
      fc.property(checkpointsOf, policyOf, fc.integer({ min: 1, max: 500 }), (checkpoints, policy, span) => {
        const { removed } = retain(checkpoints, { ...policy, keepWithin: `${span}d` }, now)
        const since = now.getTime() - span * 24 * 3_600_000
        expect(removed.filter(({ committedAt }) => Date.parse(committedAt) >= since)).toEqual([])
      }),
      runs,
    )
  })

  test('one that keeps more keeps a superset', () => {
    const larger = (policy: RetentionPolicy, by: readonly number[]): RetentionPolicy => ({
      ...policy,
      ...Object.fromEntries(counts.map((name, i) => [name, (policy[name] ?? 0) + (by[i] ?? 0)])),
    })
    const steps = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 6, maxLength: 6 })
    fc.assert(
      fc.property(checkpointsOf, policyOf, steps, zone, (checkpoints, policy, by, timeZone) => {
        const few = kept(checkpoints, policy, timeZone)
        expect(kept(checkpoints, larger(policy, by), timeZone)).toEqual(expect.arrayContaining(few))
      }),
      runs,
    )
  })

  test('a longer span keeps a superset', () => {
    const span = fc.tuple(fc.integer({ min: 1, max: 40 }), fc.constantFrom('h', 'd', 'w', 'mo', 'y'))
    fc.assert(
      fc.property(checkpointsOf, span, fc.integer({ min: 0, max: 9 }), (checkpoints, [count, unit], more) => {
        const few = kept(checkpoints, { keepWithin: `${count}${unit}` })
        expect(kept(checkpoints, { keepWithin: `${count + more}${unit}` })).toEqual(
          expect.arrayContaining(few),
        )
      }),
      runs,
    )
  })

  test('twice is once', () => {
    fc.assert(
      fc.property(checkpointsOf, policyOf, zone, (checkpoints, policy, timeZone) => {
        const once = retain(checkpoints, policy, now, timeZone)
        const left = once.kept.map(({ checkpoint }) => checkpoint)
        expect(retain(left, policy, now, timeZone)).toEqual({ kept: once.kept, removed: [] })
      }),
      runs,
    )
  })

  test('the order in which they are given does not matter', () => {
    fc.assert(
      fc.property(checkpointsOf, policyOf, fc.infiniteStream(fc.nat()), (checkpoints, policy, weights) => {
        const weighed = checkpoints.map((checkpoint) => ({
          checkpoint,
          weight: weights.next().value as number,
        }))
        const shuffled = weighed.sort((a, b) => a.weight - b.weight).map(({ checkpoint }) => checkpoint)
        expect(retain(shuffled, policy, now)).toEqual(retain(checkpoints, policy, now))
      }),
      runs,
    )
  })

  test('a pin changes nothing for the others', () => {
    fc.assert(
      fc.property(checkpointsOf, policyOf, (checkpoints, policy) => {
        const unpinned = checkpoints.map((checkpoint) => ({ ...checkpoint, pinned: false }))
        const pins = checkpoints.filter(({ pinned }) => pinned).map(({ number }) => number)
        const without = kept(unpinned, policy)
        expect(kept(checkpoints, policy)).toEqual([...new Set([...without, ...pins])].sort((a, b) => a - b))
      }),
      runs,
    )
  })
})
