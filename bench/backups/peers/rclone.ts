import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { folderBytes } from '../folder-bytes.ts'
import type { Peer } from '../peer.ts'
import { openServed } from '../served-repository.ts'
import { outputOf } from '../timed-program.ts'

export const rclone: Peer = {
  name: 'rclone',
  programs: { rclone: 'rclone' },
  usage:
    '`rclone copy` to `rclone serve webdav`: plain files, no history, no modes, links or times. It compares sizes only, since this WebDAV has no times to set; ' +
    'the second version of the image has the size of the first, so that it is copied with `--ignore-times`',
  keeps: 'content',
  version: async () => /^rclone (\S+)/.exec(await outputOf(['rclone', 'version']))?.[1] ?? '',
  open: async (place) => {
    const folder = join(place.scratch, 'repository')
    const out = join(place.scratch, 'restored')
    await mkdir(folder)
    const served = await openServed(place, (port) => [
      'rclone',
      'serve',
      'webdav',
      '--addr',
      `127.0.0.1:${port}`,
      folder,
    ])
    const url = ['--webdav-url', `http://127.0.0.1:${served.port}/`]
    return {
      served,
      backup: (source) => {
        const times = source.includes('/image/') ? ['--ignore-times'] : []
        return { argv: ['rclone', 'copy', ...times, ...url, source, ':webdav:'] }
      },
      restore: () => ({ command: { argv: ['rclone', 'copy', ...url, ':webdav:', out] }, tree: out }),
      storedBytes: () => folderBytes(folder),
      [Symbol.asyncDispose]: () => served[Symbol.asyncDispose](),
    }
  },
}
