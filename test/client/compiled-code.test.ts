/** What V8 compiles is kept, and believed at the next start, by every thread: else each start takes as long as the first. */
import { execFile } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { startReceiver } from '../support/receiver.ts'
import { seededBytes, temporaryFolder } from '../support/tree.ts'

const bin = fileURLToPath(new URL('../../client/bin.ts', import.meta.url))

test('what was run before compiles nothing again', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const at = (name: string): string => join(folder.path, name)
  const vault = `${receiver.url}/home`
  for (const name of ['home', 'from']) mkdirSync(at(name))
  const run = async (...args: string[]): Promise<string[]> => {
    const { stderr } = await promisify(execFile)(process.execPath, [bin, ...args], {
      env: { HOME: at('home'), NODE_DEBUG_NATIVE: 'COMPILE_CACHE' },
      maxBuffer: 16 * 1024 * 1024,
    })
    return stderr.split('\n')
  }
  const backup = (content: string): Promise<string[]> => {
    // One that is cut too: what is cut is hashed once more as it is restored.
    for (const [name, bytes] of [
      ['small', 1],
      ['large', 5_000_000],
    ] as const)
      writeFileSync(join(at('from'), name), seededBytes(content, bytes))
    return run('backup', at('from'), vault)
  }
  const restore = (to: string): Promise<string[]> => run('restore', vault, '--to', at(to))
  await backup('first')
  await restore('first')
  const modules = ['cli', 'scan-worker', 'fill-worker', 'encode-worker', 'write-worker', 'koffi/index.cjs']
  const lines = [...(await backup('second')), ...(await restore('second'))]
  expect(lines.filter((line) => /was (rejected|not initialized)/.test(line))).toEqual([])
  for (const module of modules) {
    expect(lines.some((line) => /was accepted/.test(line) && line.includes(`/${module}`))).toBe(true)
  }
})
