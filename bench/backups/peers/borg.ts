import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Peer } from '../peer.ts'
import { type Command, outputOf, runTimed } from '../timed-program.ts'

export const borg: Peer = {
  name: 'borg',
  programs: { borg: 'borgbackup' },
  usage:
    '`borg create -C zstd,1` and `borg extract`, a local repository without encryption, so no server and no wire',
  keeps: 'everything',
  version: async () => /^borg (\S+)/.exec(await outputOf(['borg', '--version']))?.[1] ?? '',
  open: async ({ scratch }) => {
    const repository = join(scratch, 'repository')
    const out = join(scratch, 'restored')
    await mkdir(out, { recursive: true })
    const env = { BORG_BASE_DIR: join(scratch, 'home'), BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes' }
    const command = (...args: string[]): Command => ({ argv: ['borg', ...args], env })
    await runTimed(command('init', '--encryption', 'none', repository), scratch)
    let archive = 0
    return {
      backup: (source) => command('create', '-C', 'zstd,1', `${repository}::${++archive}`, source),
      restore: (source) => ({
        command: { ...command('extract', `${repository}::${archive}`), cwd: out },
        tree: join(out, source),
      }),
      kept: () => [repository],
      [Symbol.asyncDispose]: async () => {},
    }
  },
}
