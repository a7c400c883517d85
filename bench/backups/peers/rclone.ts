import { join } from 'node:path'
import type { Peer } from '../peer.ts'
import { openServed } from '../served-repository.ts'
import { outputOf, runTimed } from '../timed-program.ts'

export const rclone: Peer = {
  name: 'rclone',
  programs: { rclone: 'rclone' },
  usage:
    '`rclone copy` to `rclone serve webdav`: plain files, no history, no modes, links or times. It compares sizes only, since this WebDAV has no times to set; ' +
    'the second version of the image has the size of the first, so that it is copied with `--ignore-times`',
  keeps: 'content',
  version: async () => /^rclone (\S+)/.exec(await outputOf(['rclone', 'version']))?.[1] ?? '',
  open: async (place) => {
    const out = join(place.scratch, 'restored')
    const served = await openServed(place, 'rclone', (port, folder) => {
      return ['rclone', 'serve', 'webdav', '--addr', `127.0.0.1:${port}`, folder]
    })
    const name = `round-${place.round}`
    const folder = join(served.folder, name)
    // By the server itself, which does not look again at what it has listed.
    const root = ['--webdav-url', `http://127.0.0.1:${served.port}/`]
    await runTimed({ argv: ['rclone', 'mkdir', ...root, `:webdav:${name}`] }, place.scratch)
    const url = ['--webdav-url', `http://127.0.0.1:${served.port}/${name}/`]
    return {
      served,
      backup: (source) => {
        const times = source.includes('/image/') ? ['--ignore-times'] : []
        return { argv: ['rclone', 'copy', ...times, ...url, source, ':webdav:'] }
      },
      restore: () => ({ command: { argv: ['rclone', 'copy', ...url, ':webdav:', out] }, tree: out }),
      kept: () => [folder],
      [Symbol.asyncDispose]: () => served[Symbol.asyncDispose](),
    }
  },
}
