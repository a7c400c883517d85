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

test.runIf(process.getuid?.() === 0).each([
  ['lists what is there', ['checkpoints', 'http://127.0.0.1:9/home'], 1, /nothing answers/],
  [
    'is told where backups can be remembered',
    ['backup', '/etc', 'http://127.0.0.1:9/home'],
    2,
    /CHUNKDAV_STATE_DIR/,
  ],
])('one without any home folder %s', (_, words, code, says) => {
  const { status, stderr } = spawnSync(process.execPath, [bin, ...words], {
    ...{ cwd: '/', env: {}, uid: 54_321, gid: 54_321, encoding: 'utf8', timeout: 20_000 },
  })
  expect(status).toBe(code)
  expect(stderr).toMatch(says)
  expect(stderr.trim().split('\n')).toHaveLength(1)
})
