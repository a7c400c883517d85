import { expect, test } from 'vitest'
import { ratioOf } from '../../bench/backups/ratios.ts'

const timed = (...values: number[]) => values.map((value, index) => ({ round: index + 1, value }))

test('a ratio is the median of the pairs, not a ratio of medians', () => {
  // The machine was three times slower in the second round, for both.
  expect(ratioOf(timed(1, 3, 2), timed(2, 6, 8))).toEqual({ median: 0.5, min: 0.25, max: 0.5 })
})

test.each([
  ['two pairs: the middle of both', timed(1, 3), timed(2, 2), { median: 1, min: 0.5, max: 1.5 }],
  [
    'a round that one of them lacks does not count',
    timed(1, 5),
    timed(4),
    { median: 0.25, min: 0.25, max: 0.25 },
  ],
  ['no pairs', timed(1), [], undefined],
  ['nothing to divide by', timed(1), timed(0), undefined],
])('%s', (_, ours, theirs, expected) => {
  expect(ratioOf(ours, theirs)).toEqual(expected)
})
