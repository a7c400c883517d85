/** The tree mounted as a file system by davfs2: copied into, copied out of, changed in place. */
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { temporaryFolder } from '../support/tree.ts'
import { differences, makeFiles, testWith } from './programs.ts'
import { run, runAnyhow } from './run-program.ts'
import { startTree } from './tree-server.ts'

const fuse = await runAnyhow('test', ['-c', '/dev/fuse', '-a', '-w', '/dev/fuse'])
const reason = fuse.code === 0 && process.getuid?.() === 0 ? undefined : 'only root can mount, with /dev/fuse'

const configuration = (base: string): string[] => [
  'ask_auth 0',
  `secrets ${base}/secrets`,
  `cache_dir ${base}/cache`,
  'use_locks 1',
  'delay_upload 0',
  // Newer kernels ask for more names at once than davfs2's 16 KiB hold, and it answers EINVAL (Linux 6.18).
  'buf_size 64',
  '',
]

/** Mounts `url` for as long as `work` takes. Taking it down waits until davfs2 has sent everything. */
async function mounted(url: string, parent: string, work: (at: string) => Promise<void>): Promise<void> {
  await using folder = await temporaryFolder()
  const base = folder.path
  const at = join(parent, 'mounted')
  mkdirSync(at)
  mkdirSync(join(base, 'cache'))
  // It becomes the user davfs2 once it has mounted.
  chmodSync(base, 0o755)
  chmodSync(join(base, 'cache'), 0o777)
  writeFileSync(join(base, 'secrets'), '', { mode: 0o600 })
  writeFileSync(join(base, 'conf'), configuration(base).join('\n'))
  await run('mount.davfs', [url, at, '-o', `conf=${base}/conf,uid=0,gid=0`])
  try {
    await work(at)
  } finally {
    await run('umount', [at])
    rmSync(at, { recursive: true })
  }
}

/**
 * What a user does to files that are there. In a process of its own, like everything that touches the mount:
 * the server runs in this one, and would wait for itself.
 */
const change = `
printf 'and more' >>large.bin
mv empty renamed
mv 'plain 0' 'moved folder'
rm 'moved folder/below/0 plain.txt'
`

testWith(
  ['mount.davfs', 'umount'],
  'davfs2: cp -a into the mount and out of it',
  async () => {
    await using server = await startTree()
    await using folder = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    makeFiles(at('source'), 100)
    // A mount of its own for each step: the next sees only what was really sent.
    await mounted(server.url, folder.path, async (mount) => {
      await run('cp', ['-a', at('source'), join(mount, 'in')])
    })
    await mounted(server.url, folder.path, async (mount) => {
      await run('cp', ['-a', join(mount, 'in'), at('out')])
    })
    expect(differences(at('source'), at('out'))).toEqual([])

    await run('sh', ['-ec', change], { cwd: at('source') })
    await mounted(server.url, folder.path, async (mount) => {
      await run('sh', ['-ec', `cd "$1"\n${change}`, '-', join(mount, 'in')])
    })
    await mounted(server.url, folder.path, async (mount) => {
      await run('cp', ['-a', join(mount, 'in'), at('changed')])
    })
    expect(differences(at('source'), at('changed'))).toEqual([])
  },
  reason,
)
