import { join } from 'node:path'
import type { Peer } from '../peer.ts'
import { outputOf } from '../timed-program.ts'

export const casync: Peer = {
  name: 'casync',
  programs: { casync: 'casync' },
  usage:
    '`casync make` and `casync extract`, a local store, compressed by its default (zstd); it reads everything each time',
  keeps: 'everything',
  version: async () => /^casync (\S+)/.exec(await outputOf(['casync', '--version']))?.[1] ?? '',
  open: async ({ scratch }) => {
    const store = join(scratch, 'store.castr')
    const out = join(scratch, 'restored')
    const index = (version: number): string => join(scratch, `${version}.caidx`)
    let version = 0
    return {
      backup: (source) => ({ argv: ['casync', 'make', `--store=${store}`, index(++version), source] }),
      restore: () => ({
        command: { argv: ['casync', 'extract', `--store=${store}`, index(version), out] },
        tree: out,
      }),
      kept: () => [store, index(version)],
      [Symbol.asyncDispose]: async () => {},
    }
  },
}
