/** Threads end whenever they are asked to, also while they load native code: the process must survive that. */
import { execFile } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const threads = new URL('../../client/restore/writing-threads.ts', import.meta.url).href
const root = fileURLToPath(new URL('../..', import.meta.url))

test('a thread may be ended at any moment of its start', async () => {
  const script = `
    import { WritingThreads } from ${JSON.stringify(threads)}
    for (let i = 0; i < 30; i++) {
      const threads = new WritingThreads(4, 1)
      await new Promise((resolve) => setTimeout(resolve, 20 + 5 * i))
      await threads.close()
      await threads.close()
    }
    console.log('alive')`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
  expect(stdout).toBe('alive\n')
})

// The moment in which that harms is short.
test('nothing terminates a thread', () => {
  const files = globSync('{client,server}/**/*.ts', { cwd: root })
  expect(files.length).toBeGreaterThan(100)
  expect(files.filter((file) => readFileSync(join(root, file), 'utf8').includes('.terminate('))).toEqual([])
})
