import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'

const main = fileURLToPath(new URL('../../bench/main.ts', import.meta.url))

function bench(...more: string[]) {
  const folder = mkdtempSync(join(tmpdir(), 'chunkdav-bench-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const report = join(folder, 'benchmarks.md')
  writeFileSync(report, 'measured elsewhere')
  const places = ['--work', join(folder, 'work'), '--out', folder]
  const { status, stderr } = spawnSync(process.execPath, [main, ...places, ...more], { encoding: 'utf8' })
  expect([readdirSync(folder), readFileSync(report, 'utf8')]).toEqual([
    ['benchmarks.md'],
    'measured elsewhere',
  ])
  return { status, stderr: stderr.replace(report, 'REPORT') }
}

test.each([
  ['--only', 'none', 'there is no part none: backups, requests, micro, growth'],
  [
    '--only',
    'micro',
    'REPORT would lose backups, requests, growth, of which there are no results here; measure these too, or name another folder with --out',
  ],
])('what cannot be done is told before anything is measured: %s %s', (option, value, message) => {
  expect(bench(option, value)).toEqual({ status: 1, stderr: `bench: ${message}\n` })
})
