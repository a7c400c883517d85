/** The backup with curl alone, as docs/protocol.md has it. */
import { execFile, spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { startReceiver } from './support/receiver.ts'

const tools = ['curl', 'sha256sum', 'tar'].every((tool) => spawnSync(tool, ['--version']).status === 0)

test.skipIf(!tools)('the walk-through of docs/protocol.md works word for word', async () => {
  const text = await readFile(new URL('../docs/protocol.md', import.meta.url), 'utf8')
  const [, script = ''] =
    /<!-- walk-through: begin -->\n```sh\n(.*?)```\n<!-- walk-through: end -->/s.exec(text) ?? []
  expect(script).toContain('curl')
  const folder = await mkdtemp(join(tmpdir(), 'chunkdav-curl-'))
  await using receiver = await startReceiver()
  try {
    const env = { PATH: process.env.PATH, no_proxy: '*', CHUNKDAV_URL: receiver.url }
    const { stdout } = await promisify(execFile)('sh', ['-c', script], { cwd: folder, env })
    expect(stdout).toContain('"outcome":"stored"')
    expect(stdout).toContain('"outcome":"known"')
    expect(stdout).toContain('"state":"committed"')
    expect(stdout).toContain('restored.txt is hello.txt\n')
    expect(stdout.endsWith('greeting.txt is hello.txt\n')).toBe(true)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
