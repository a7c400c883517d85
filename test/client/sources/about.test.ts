import { expect, test } from 'vitest'
import { about } from '../../../client/sources/about.ts'

test.each([
  ['short', 'short'],
  ['x'.repeat(4096), 'x'.repeat(4096)],
  ['x'.repeat(4097), `${'x'.repeat(4095)}…`],
  // A pair of code units across the cut goes as a whole.
  [`${'x'.repeat(4094)}😀😀`, `${'x'.repeat(4094)}…`],
  [`${'x'.repeat(4094)}😀`, `${'x'.repeat(4094)}😀`],
])('what a source tells of itself is as long as a receiver takes', (paths, expected) => {
  expect(about({ paths }).paths).toBe(expected)
})
