/**
 * rclone as a backup program: sync, check, copy, moveto, cat, and a restore of 2,000 files.
 *
 * rclone 1.60 sends this kind of server no more than 100 requests a second, and three for each file that it
 * puts: that is what the minutes are spent on. `CHUNKDAV_CLIENTS_FILES=200` is enough to see whether it works.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { temporaryFolder } from '../support/tree.ts'
import { differences, makeFiles, testWith } from './programs.ts'
import { type Ran, run } from './run-program.ts'
import { describeCounts, isOurs, startTree } from './tree-server.ts'

const fileCount = Number(process.env.CHUNKDAV_CLIENTS_FILES ?? 2000)

type Rclone = (...args: string[]) => Promise<Ran>

function rcloneFor(url: string, vendor: string, folder: string): Rclone {
  const env = {
    HOME: folder,
    RCLONE_CONFIG: join(folder, 'rclone.conf'),
    RCLONE_CONFIG_TREE_TYPE: 'webdav',
    RCLONE_CONFIG_TREE_URL: url,
    RCLONE_CONFIG_TREE_VENDOR: vendor,
  }
  writeFileSync(env.RCLONE_CONFIG, '')
  return (...args) => run('rclone', ['--use-json-log', '--stats-log-level', 'NOTICE', ...args], { env })
}

/** The figures at the end of a run. */
function statsOf({ stderr }: Ran): { transfers: number; deletes: number; errors: number; checks: number } {
  const lines = stderr.split('\n').filter((line) => line.includes('"stats":'))
  const { stats } = JSON.parse(lines.at(-1) ?? '{"stats":{}}') as { stats: Record<string, number> }
  const { transfers = -1, deletes = -1, errors = -1, checks = -1 } = stats
  return { transfers, deletes, errors, checks }
}

const vendors = [
  { vendor: 'owncloud', keepsTimes: true },
  { vendor: 'other', keepsTimes: false },
]

describe.concurrent.each(vendors)('rclone, vendor=$vendor', ({ vendor, keepsTimes }) => {
  testWith(['rclone'], `syncs, checks, moves and restores ${fileCount} files`, async () => {
    await using server = await startTree()
    await using folder = await temporaryFolder()
    const rclone = rcloneFor(server.url, vendor, folder.path)
    const source = join(folder.path, 'source')
    makeFiles(source, fileCount)
    const step = async (name: string): Promise<Record<string, number>> => {
      const counts = await server.countRequests()
      console.log(`rclone vendor=${vendor} ${name}: ${describeCounts(counts)}`)
      return counts
    }

    const first = statsOf(await rclone('sync', source, 'tree:sync'))
    expect(first).toMatchObject({ transfers: fileCount + 2, errors: 0 })
    await step('first sync')

    const second = statsOf(await rclone('sync', source, 'tree:sync'))
    expect(second).toMatchObject({ transfers: 0, deletes: 0, errors: 0 })
    const counts = await step('second sync')
    if (isOurs) expect(Object.keys(counts)).toEqual(['PROPFIND'])

    const check = await rclone('check', '-v', source, 'tree:sync')
    if (keepsTimes && isOurs) expect(check.stderr).not.toContain('could not be checked')
    expect(check.stderr).toContain('0 differences found')
    if (keepsTimes && isOurs) expect(Object.keys(await step('check'))).toEqual(['PROPFIND'])
    await rclone('check', '--download', source, 'tree:sync')
    await step('check --download')

    if (keepsTimes && isOurs) {
      const { stdout } = await rclone('lsjson', '--hash', 'tree:sync/large.bin')
      const [{ Hashes } = { Hashes: {} }] = JSON.parse(stdout.toString()) as { Hashes: object }[]
      expect(Object.keys(Hashes).sort()).toEqual(['md5', 'sha1'])
    }

    await rclone('copy', 'tree:sync', 'tree:copy')
    await rclone('moveto', 'tree:copy/large.bin', 'tree:copy/renamed large.bin')
    await step('copy and moveto on the server')
    const { stdout } = await rclone('cat', 'tree:copy/renamed large.bin')
    expect(stdout.equals(readFileSync(join(source, 'large.bin')))).toBe(true)
    await rclone('moveto', 'tree:copy/renamed large.bin', 'tree:copy/large.bin')
    await rclone('moveto', 'tree:copy', 'tree:moved')
    await step('cat, moveto')

    await rclone('copy', 'tree:moved', join(folder.path, 'restored'))
    await step('restore')
    expect(differences(join(folder.path, 'restored'), source)).toEqual([])

    writeFileSync(join(source, 'large.bin'), 'smaller now')
    const third = statsOf(await rclone('sync', source, 'tree:sync'))
    expect(third).toMatchObject({ transfers: 1, errors: 0 })
    await rclone('sync', 'tree:sync', join(folder.path, 'again'))
    expect(differences(join(folder.path, 'again'), source)).toEqual([])
    await step('one file changed, restored again')
  })
})
