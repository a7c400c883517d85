/** What `serve --scrub` and `--scrub-rate` take. */
import { expect, test } from 'vitest'
import { isProblem } from '../../../protocol/problem.ts'
import { parseByteRate, parseScrubPeriod } from '../../../server/upkeep/schedule-options.ts'

const MiB = 1024 * 1024

test.each([
  ['30d', 30 * 24 * 3_600_000],
  ['1h', 3_600_000],
  ['off', 'off'],
  ['30m', 'usage'],
  ['0', 'usage'],
  ['never', 'usage'],
])('--scrub %s', (text, expected) => {
  expect(outcomeOf(() => parseScrubPeriod(text))).toBe(expected)
})

test.each([
  ['32MiB', 32 * MiB],
  ['2GiB', 2048 * MiB],
  ['4096', 4096],
  ['0', 'usage'],
  ['32MB', 'usage'],
  ['-1MiB', 'usage'],
])('--scrub-rate %s', (text, expected) => {
  expect(outcomeOf(() => parseByteRate(text))).toBe(expected)
})

function outcomeOf(parse: () => unknown): unknown {
  try {
    return parse()
  } catch (error) {
    if (isProblem(error)) return error.code
    throw error
  }
}
