/** What the program says on a Node.js that is too old for it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const bin = fileURLToPath(new URL('../../client/bin.ts', import.meta.url))

/** As far as the program can see. */
const older = `Object.defineProperties(process, {
  version: { value: 'v20.1.0' },
  versions: { value: { ...process.versions, node: '20.1.0' } },
})`

test('an old Node is told where there is a new one', async () => {
  const words = ['--import', `data:text/javascript,${encodeURIComponent(older)}`, bin, 'ls']
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'pipe'] })
  const [told, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')])
  expect(code).toBe(1)
  expect(told).toMatch(/^chunkdav: Node\.js 24 or newer is needed, this is v20\.1\.0; [^\n]+\n$/)
  expect(told).toContain('npm run -s chunkdav --')
  expect(told).not.toContain('npx')
})
