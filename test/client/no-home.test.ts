/** The program where there is no home folder to keep anything in. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const bin = fileURLToPath(new URL('../../client/bin.ts', import.meta.url))

test('an empty HOME does not mean the working folder', () => {
  const folder = mkdtempSync(join(tmpdir(), 'chunkdav-home-'))
  const { status } = spawnSync(process.execPath, [bin, 'serve', '--help'], { cwd: folder, env: { HOME: '' } })
  expect(status).toBe(0)
  expect(readdirSync(folder)).toEqual([])
  rmSync(folder, { recursive: true })
})

// Containers run so, with any number that nobody has given a name.
test.runIf(process.getuid?.() === 0)('a user whom the system does not know', () => {
  const { status, stderr } = spawnSync(process.execPath, [bin, 'serve', '--help'], {
    ...{ cwd: '/', env: { XDG_DATA_HOME: '/srv' }, uid: 54_321, gid: 54_321, encoding: 'utf8' },
  })
  expect([status, stderr]).toEqual([0, ''])
})
