/**
 * kill -9 of the real client while it backs up to other people's WebDAV servers, at moments all over a first
 * backup and over one on top of it: a rerun goes on, and what is restored is what was there.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { linkSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { davPrograms } from '../support/dav-servers.ts'
import { listing, seededBytes, temporaryFolder } from '../support/tree.ts'
import { backupsUrl } from '../support/webdav.ts'

const moments = 6
const bin = new URL('../../client/bin.ts', import.meta.url).pathname

/** 800 small files, two large ones, a symlink and a hard link. */
function makeTree(root: string): void {
  for (let i = 0; i < 20; i++) {
    mkdirSync(join(root, `d${i}`, 'sub'), { recursive: true })
    for (let j = 0; j < 40; j++) {
      writeFileSync(join(root, `d${i}`, j % 2 ? 'sub' : '', `f${j}`), seededBytes(`${i} ${j}`, 500 + j * 100))
    }
  }
  for (const name of ['a-large', 'zz-large']) writeFileSync(join(root, name), seededBytes(name, 30_000_000))
  symlinkSync('d1', join(root, 'link'))
  linkSync(join(root, 'd2', 'f0'), join(root, 'd3', 'f0-linked'))
}

/** A few files, in a few places, are others now. */
function change(root: string, round: number): void {
  for (let i = 0; i < 5; i++) writeFileSync(join(root, `d${i}`, 'f2'), `round ${round}, ${i}`)
  rmSync(join(root, 'd7', `f${round * 2}`))
  writeFileSync(join(root, 'a-large'), seededBytes(`round ${round}`, 20_000_000))
}

/** Ends with the exit code, or is killed after `killMs`. */
async function chunkdav(args: string[], stateHome: string, killMs?: number): Promise<number | null> {
  const env = { ...process.env, XDG_STATE_HOME: stateHome }
  const child = spawn(process.execPath, [bin, ...args], { env, stdio: 'ignore' })
  const closed = once(child, 'close')
  if (killMs !== undefined) {
    await Promise.race([closed, sleep(killMs)])
    child.kill('SIGKILL')
  }
  const [code] = await closed
  return code as number | null
}

for (const program of davPrograms) {
  describe.skipIf(program.missing !== undefined)(`${program.name}${program.missing ?? ''}`, () => {
    test('killed anywhere, gone on with, restored', async () => {
      await using server = await program.start()
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      makeTree(from)
      const url = backupsUrl(server)
      const state = join(folder.path, 'state')
      const backUp = (source: string, killMs?: number) =>
        chunkdav(['backup', from, url, '--source', source], state, killMs)
      const expectEqual = async (source: string): Promise<void> => {
        const to = join(folder.path, 'to')
        expect(await chunkdav(['restore', url, '--source', source, '--to', to], state)).toBe(0)
        expect(listing(to)).toEqual(listing(from))
        rmSync(to, { recursive: true })
      }
      const started = performance.now()
      expect(await backUp('whole')).toBe(0)
      const wholeMs = performance.now() - started
      for (let i = 0; i < moments; i++) {
        const killMs = Math.round(wholeMs * (0.3 + (0.7 * i) / moments))
        const source = `s${i}`
        for (const times of [1, 2, 3]) await backUp(source, killMs / times)
        expect(await backUp(source), `after ${killMs} ms`).toBe(0)
        await expectEqual(source)
        change(from, i)
        await backUp(source, killMs)
        expect(await backUp(source), `changed, after ${killMs} ms`).toBe(0)
        await expectEqual(source)
      }
    })
  })
}
