/** What V8 compiles is kept, and believed at the next start, by every thread: else each start takes as long as the first. */
import { execFile } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { startReceiver } from '../support/receiver.ts'
import { temporaryFolder } from '../support/tree.ts'

const bin = fileURLToPath(new URL('../../client/bin.ts', import.meta.url))

test('the second backup compiles nothing again', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const [home, from] = [join(folder.path, 'home'), join(folder.path, 'from')]
  for (const each of [home, from]) mkdirSync(each)
  const run = async (content: string): Promise<string[]> => {
    writeFileSync(join(from, 'file'), content)
    const env = { HOME: home, NODE_DEBUG_NATIVE: 'COMPILE_CACHE' }
    const { stderr } = await promisify(execFile)(
      process.execPath,
      [bin, 'backup', from, `${receiver.url}/home`],
      { env, maxBuffer: 16 * 1024 * 1024 },
    )
    return stderr.split('\n')
  }
  await run('first')
  const lines = await run('second')
  expect(lines.filter((line) => /was (rejected|not initialized)/.test(line))).toEqual([])
  for (const module of ['cli', 'scan-worker', 'fill-worker', 'encode-worker']) {
    expect(lines.some((line) => line.includes(`/${module}.ts was accepted`))).toBe(true)
  }
})
