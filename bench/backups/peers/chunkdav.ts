import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Peer, Place } from '../peer.ts'
import { openServed } from '../served-repository.ts'
import { type Command, runTimed } from '../timed-program.ts'

const root = new URL('../../../', import.meta.url).pathname
const bin = join(root, 'dist/client/bin.js')

export const chunkdav: Peer = {
  name: 'chunkdav',
  programs: {},
  usage:
    '`chunkdav backup` and `chunkdav restore` of the built package, with `chunkdav serve` as receiver, all defaults (zstd level 1); not encrypted. Both have backed up and restored one small file in the same home before',
  keeps: 'everything',
  version: async () => {
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
    return `${version} with Node.js ${process.versions.node}`
  },
  open: async (place) => {
    const out = join(place.scratch, 'restored')
    const served = await openServed(place, 'chunkdav', (port, folder) => {
      return [process.execPath, bin, 'serve', '--data', folder, '--listen', `127.0.0.1:${port}`]
    })
    const vault = `round-${place.round}`
    const url = `http://127.0.0.1:${served.port}/${vault}`
    const command = (...args: string[]): Command => ({ argv: [process.execPath, bin, ...args] })
    await useOnce(place, command, `http://127.0.0.1:${served.port}/before-${place.round}`)
    return {
      served,
      backup: (source) => command('backup', source, url),
      restore: () => ({ command: command('restore', url, '--to', out), tree: out }),
      kept: () => [join(served.folder, 'vaults', vault)],
      [Symbol.asyncDispose]: () => served[Symbol.asyncDispose](),
    }
  },
}

/** Node keeps what it has compiled: a home in which nothing was ever run is that of the first minute. */
async function useOnce(place: Place, command: (...args: string[]) => Command, url: string): Promise<void> {
  const [from, to] = [join(place.scratch, 'small'), join(place.scratch, 'small-restored')]
  await mkdir(from)
  await writeFile(join(from, 'file'), 'some words\n'.repeat(100))
  await runTimed(command('backup', from, url), place.scratch)
  await runTimed(command('restore', url, '--to', to), place.scratch)
}
