/** duplicity over webdav://: a full backup, an incremental one, and a restore of each. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { seededBytes, temporaryFolder } from '../support/tree.ts'
import { contents, differences, makeFiles, testWith } from './programs.ts'
import { type Ran, run } from './run-program.ts'
import { startTree } from './tree-server.ts'

testWith(['duplicity'], 'duplicity: full, incremental, verify, restore of both', async () => {
  await using server = await startTree()
  await using folder = await temporaryFolder()
  const at = (name: string): string => join(folder.path, name)
  // It asks for a password when there is none, even of a server that wants none.
  const url = `webdav://user:none@${server.url.slice('http://'.length)}duplicity`
  const duplicity = (...args: string[]): Promise<Ran> =>
    run('duplicity', [...args, '--no-encryption', '--archive-dir', at('archive'), '--volsize', '1'], {
      env: { HOME: folder.path, TMPDIR: folder.path },
    })

  makeFiles(at('source'), 200)
  const first = contents(at('source'))
  await duplicity('full', at('source'), url)
  const afterFirst = new Date().toISOString().slice(0, 19)
  await new Promise((resolve) => setTimeout(resolve, 1100))

  writeFileSync(join(at('source'), 'large.bin'), seededBytes('changed', 3_000_000))
  writeFileSync(join(at('source'), 'new'), 'new')
  rmSync(join(at('source'), 'empty'))
  await duplicity('incremental', at('source'), url)
  await duplicity('verify', '--compare-data', url, at('source'))

  await duplicity('restore', url, at('restored'))
  expect(differences(at('restored'), at('source'))).toEqual([])
  // Without what it remembers: all that it needs is on the server.
  rmSync(at('archive'), { recursive: true })
  await duplicity('restore', '--time', `${afterFirst}Z`, url, at('restored-first'))
  expect(contents(at('restored-first'))).toEqual(first)
  await duplicity('remove-all-but-n-full', '1', '--force', url)
  const { stdout } = await duplicity('collection-status', url)
  expect(stdout.toString()).toContain('No orphaned or incomplete backup sets found.')
})
