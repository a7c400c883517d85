/** The program starts the thread that scans before it knows whether anything will be scanned. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const bin = fileURLToPath(new URL('../../client/bin.ts', import.meta.url))

test.each<[string, string[], number]>([
  ['help', ['--help'], 0],
  ['wrong usage', ['--no-such-option'], 2],
  ['a path that is not there', ['/no/such/path', 'http://127.0.0.1:1/home'], 2],
  ['a stream to where nobody is', ['-', 'http://127.0.0.1:1/home'], 1],
])('a backup that scans nothing ends: %s', (_, words, status) => {
  const run = spawnSync(process.execPath, [bin, 'backup', ...words], { input: '', timeout: 25_000 })
  expect(run.status).toBe(status)
})
