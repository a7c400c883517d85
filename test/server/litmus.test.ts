/** litmus 0.13, the test suite that WebDAV servers are measured by: every test passes, without a warning. */
import { expect, test } from 'vitest'
import { litmusIsInstalled, litmusTable, parseLitmus, runLitmus, totalOf } from '../support/litmus.ts'
import { startReceiver } from '../support/receiver.ts'

const expected = { basic: 16, copymove: 13, props: 30, locks: 41, http: 4 }

const test104 = '104 of 104 on the live tree'

if (litmusIsInstalled) {
  test(test104, async () => {
    await using receiver = await startReceiver()
    const { suites, complaints } = await runLitmus(`${receiver.vaultUrl}/tree/`)
    console.log(litmusTable(suites))
    expect(complaints).toEqual([])
    expect(Object.fromEntries(suites.map(({ name, run }) => [name, run]))).toEqual(expected)
    expect(totalOf(suites)).toMatchObject({ run: 104, passed: 104, failed: 0, skipped: 0, warnings: 0 })
  })
} else test.skip(`${test104} (skipped: litmus is not installed)`, () => {})

test('what litmus prints is understood', () => {
  const printed = [
    "-> running `locks':",
    ' 0. init..................  \r 0. init.................. pass',
    '18. cond_put_corrupt_token \rWARNING: PUT failed with 400 not 423',
    '    ...................... pass (with 1 warning)',
    '19. complex_cond_put......\r19. complex_cond_put...... FAIL (PUT: 412)',
    '20. unlock................ \r20. unlock................ SKIPPED',
    "<- summary for `locks': of 3 tests run: 2 passed, 1 failed. 66.7%",
    '-> 1 test was skipped.',
    '-> 2 warnings were issued.',
    "<- summary for `http': of 4 tests run: 4 passed, 0 failed. 100.0%",
  ]
  expect(parseLitmus(printed.join('\n'))).toEqual({
    suites: [
      { name: 'locks', run: 3, passed: 2, failed: 1, skipped: 1, warnings: 2 },
      { name: 'http', run: 4, passed: 4, failed: 0, skipped: 0, warnings: 0 },
    ],
    complaints: [
      'WARNING: PUT failed with 400 not 423',
      '19. complex_cond_put...... FAIL (PUT: 412)',
      '20. unlock................ SKIPPED',
    ],
  })
})
