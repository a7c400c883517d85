import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { folderBytes } from '../folder-bytes.ts'
import type { Peer } from '../peer.ts'
import { openServed } from '../served-repository.ts'
import type { Command } from '../timed-program.ts'

const root = new URL('../../../', import.meta.url).pathname
const bin = join(root, 'dist/client/bin.js')

export const chunkdav: Peer = {
  name: 'chunkdav',
  programs: {},
  usage:
    '`chunkdav backup` and `chunkdav restore` of the built package, with `chunkdav serve` as receiver, all defaults; not encrypted',
  keeps: 'everything',
  version: async () => {
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
    return `${version} with Node.js ${process.versions.node}`
  },
  open: async (place) => {
    const data = join(place.scratch, 'repository')
    const out = join(place.scratch, 'restored')
    const served = await openServed(place, (port) => [
      process.execPath,
      bin,
      'serve',
      '--data',
      data,
      '--listen',
      `127.0.0.1:${port}`,
    ])
    const url = `http://127.0.0.1:${served.port}/home`
    const command = (...args: string[]): Command => ({ argv: [process.execPath, bin, ...args] })
    return {
      served,
      backup: (source) => command('backup', source, url),
      restore: () => ({ command: command('restore', url, '--to', out), tree: out }),
      // The ballast is room kept for the day on which the disk is full, whatever is stored.
      storedBytes: async () => (await folderBytes(data)) - (await folderBytes(join(data, 'ballast'))),
      [Symbol.asyncDispose]: () => served[Symbol.asyncDispose](),
    }
  },
}
