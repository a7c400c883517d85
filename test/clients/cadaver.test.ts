/** cadaver, the command-line client by the author of litmus: a whole script of its commands. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { seededBytes, temporaryFolder } from '../support/tree.ts'
import { testWith } from './programs.ts'
import { run } from './run-program.ts'
import { startTree } from './tree-server.ts'

/** Each of these prints that it succeeded. */
const script = `
mkcol folder
put first.bin
put second.bin folder/renamed.bin
copy first.bin folder/copied.bin
move folder/renamed.bin folder/moved.bin
copy folder/ folder-copy/
propset first.bin colour green
propget first.bin colour
lock first.bin
discover first.bin
put second.bin first.bin
unlock first.bin
lock folder/
put first.bin folder/while-locked.bin
discover folder/
delete folder/while-locked.bin
unlock folder/
ls folder/
get folder/copied.bin got-copied.bin
get folder/moved.bin got-moved.bin
get first.bin got-first.bin
get folder-copy/moved.bin got-again.bin
delete first.bin
rmcol folder
ls
quit
`

testWith(['cadaver'], 'cadaver puts, gets, makes, copies, moves, locks and sets properties', async () => {
  await using server = await startTree()
  await using folder = await temporaryFolder()
  const at = (name: string): string => join(folder.path, name)
  const [first, second] = [seededBytes('first', 300_000), seededBytes('second', 5000)]
  writeFileSync(at('first.bin'), first)
  writeFileSync(at('second.bin'), second)

  const options = { cwd: folder.path, env: { HOME: folder.path, TERM: 'dumb' }, input: script }
  const { output } = await run('cadaver', [server.url], options)
  const failed = output.split('\n').filter((line) => /failed|error|refused|could not/i.test(line))
  expect(failed, output).toEqual([])
  expect(output).toContain('green')
  // mkcol, put ×4, copy ×2, move, propset, propget, lock ×2, discover ×2, unlock ×2, ls ×2, get ×4, delete ×2, rmcol
  expect(output.match(/succeeded\./g)?.length, output).toBeGreaterThanOrEqual(20)

  expect(readFileSync(at('got-copied.bin')).equals(first)).toBe(true)
  expect(readFileSync(at('got-moved.bin')).equals(second)).toBe(true)
  expect(readFileSync(at('got-first.bin')).equals(second)).toBe(true)
  expect(readFileSync(at('got-again.bin')).equals(second)).toBe(true)
})
