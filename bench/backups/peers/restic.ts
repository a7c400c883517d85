import { join } from 'node:path'
import type { Peer } from '../peer.ts'
import { openServed } from '../served-repository.ts'
import { type Command, outputOf, runTimed } from '../timed-program.ts'

export const restic: Peer = {
  name: 'restic',
  programs: { restic: 'restic', rclone: 'rclone' },
  usage:
    '`restic backup` and `restic restore latest` through `rclone serve restic`; compressed by its default (zstd), and encrypted, as it always is',
  keeps: 'everything',
  version: async () =>
    `${/^restic (\S+)/.exec(await outputOf(['restic', 'version']))?.[1]} with rclone ${/^rclone (\S+)/.exec(await outputOf(['rclone', 'version']))?.[1]}`,
  open: async (place) => {
    const out = join(place.scratch, 'restored')
    const served = await openServed(place, 'restic', (port, folder) => {
      return ['rclone', 'serve', 'restic', '--addr', `127.0.0.1:${port}`, folder]
    })
    const name = `round-${place.round}`
    const repository = join(served.folder, name)
    const url = `rest:http://127.0.0.1:${served.port}/${name}/`
    const env = { RESTIC_PASSWORD: 'benchmark', RESTIC_REPOSITORY: url }
    const command = (...args: string[]): Command => ({ argv: ['restic', '--quiet', ...args], env })
    await runTimed(command('init'), place.scratch)
    return {
      served,
      backup: (source) => command('backup', source),
      restore: (source) => ({
        command: command('restore', 'latest', '--target', out),
        tree: join(out, source),
      }),
      kept: () => [repository],
      [Symbol.asyncDispose]: () => served[Symbol.asyncDispose](),
    }
  },
}
