/** restic with rclone as its transport: two backups, forget and prune, check of all data, restore. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { seededBytes, temporaryFolder } from '../support/tree.ts'
import { differences, makeFiles, testWith } from './programs.ts'
import { type Ran, run } from './run-program.ts'
import { startTree } from './tree-server.ts'

testWith(['restic', 'rclone'], 'restic through rclone: backup twice, check, prune, restore', async () => {
  await using server = await startTree()
  await using folder = await temporaryFolder()
  const at = (name: string): string => join(folder.path, name)
  writeFileSync(at('rclone.conf'), '')
  const env = {
    HOME: folder.path,
    RCLONE_CONFIG: at('rclone.conf'),
    RCLONE_CONFIG_TREE_TYPE: 'webdav',
    RCLONE_CONFIG_TREE_URL: server.url,
    RCLONE_CONFIG_TREE_VENDOR: 'owncloud',
    RESTIC_REPOSITORY: 'rclone:tree:restic',
    RESTIC_PASSWORD: 'secret',
    RESTIC_CACHE_DIR: at('cache'),
  }
  const restic = (...args: string[]): Promise<Ran> => run('restic', args, { env, cwd: folder.path })

  makeFiles(at('source'), 300)
  await restic('init')
  await restic('backup', 'source')
  writeFileSync(join(at('source'), 'large.bin'), seededBytes('changed', 3_000_000))
  rmSync(join(at('source'), 'empty'))
  await restic('backup', 'source')
  await restic('forget', '--keep-last', '1', '--prune')
  await restic('check', '--read-data')
  await restic('restore', 'latest', '--target', at('restored'))
  expect(differences(join(at('restored'), 'source'), at('source'))).toEqual([])
})
