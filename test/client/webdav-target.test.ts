/** Backups to other people's WebDAV servers: what comes back is what went in, and how much it took. */
import { linkSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { ChunkSource } from '../../client/sources/chunk-source.ts'
import { Problem } from '../../protocol/problem.ts'
import { DavProxy } from '../support/dav-proxy.ts'
import { listing, makeOddTree, seededBytes, temporaryFolder } from '../support/tree.ts'
import {
  allDavPrograms,
  backUpToWebDav,
  backupsUrl,
  restoreFromWebDav,
  wrapFileTarget,
} from '../support/webdav.ts'

/** 12 folders of 10 files, and one of three levels that stays as it is. */
function makeTree(root: string): void {
  for (let i = 0; i < 12; i++) {
    mkdirSync(join(root, `d${i}`), { recursive: true })
    for (let j = 0; j < 10; j++) writeFileSync(join(root, `d${i}`, `f${j}`), seededBytes(`${i} ${j}`, 3000))
  }
  mkdirSync(join(root, 'kept', 'a', 'b'), { recursive: true })
  writeFileSync(join(root, 'kept', 'a', 'b', 'deep'), 'deep')
}

/** Files and manifests that were put since `from`: rclone's MKCOL does not tell whose a folder is, which takes one more. */
function puts(proxy: DavProxy, from = 0): number {
  const { length } = proxy.requests
    .slice(from)
    .filter(({ method, path }) => method === 'PUT' && !/claim-/.test(path))
  return length
}

/** Long enough that no file counts as changed a moment ago. */
const settle = (): Promise<void> => sleep(60)

for (const program of allDavPrograms) {
  describe.skipIf(program.missing !== undefined)(`${program.name}${program.missing ?? ''}`, () => {
    test('odd names, links, devices, holes, modes, owners and times come back', async () => {
      await using server = await program.start()
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      mkdirSync(from)
      makeOddTree(from)
      const setup = { url: backupsUrl(server), state: folder.path }
      const summary = await backUpToWebDav(from, setup)
      expect(summary.problems).toEqual([])
      const to = join(folder.path, 'to')
      const restored = await restoreFromWebDav(to, { ...setup, number: 1 })
      expect(restored.problemList).toEqual([])
      expect(listing(to)).toEqual(listing(from))
      // Once more: all of it is there.
      const again = await restoreFromWebDav(to, { ...setup, number: 1 })
      expect([again.files, again.problems]).toEqual([0, 0])
      expect(listing(to)).toEqual(listing(from))
    })

    test('the next backup sends what changed, and has the server copy the rest', async () => {
      await using server = await program.start()
      await using proxy = await DavProxy.start(server.url)
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      makeTree(from)
      await settle()
      const setup = { url: backupsUrl(proxy), state: folder.path }
      const first = await backUpToWebDav(from, setup)
      expect(puts(proxy)).toBe(first.files + 1)
      let at = proxy.requests.length
      await backUpToWebDav(from, setup)
      expect(proxy.counts(at)).toMatchObject({ COPY: 1, MOVE: 1 })
      expect(puts(proxy, at)).toBe(1)
      // Every folder of what was copied is looked at once.
      const { PROPFIND = 0 } = proxy.counts(at)
      expect(PROPFIND).toBeLessThan(16 + 4)
      expect(proxy.requests.length - at - PROPFIND).toBeLessThan(12)
      at = proxy.requests.length
      writeFileSync(join(from, 'd3', 'f4'), 'changed')
      writeFileSync(join(from, 'd5', 'new'), 'new')
      rmSync(join(from, 'd6', 'f7'))
      rmSync(join(from, 'd7'), { recursive: true })
      renameSync(join(from, 'd8'), join(from, 'd8-moved'))
      const third = await backUpToWebDav(from, setup)
      expect([third.filesRead, third.problems]).toEqual([12, []])
      // The files, and the manifest.
      expect(puts(proxy, at)).toBe(13)
      // d0, d1, d2, d4, d9, d10, d11 and kept as they are; of d3, d5 and d6 what did not change.
      expect(proxy.counts(at).COPY).toBe(8 + 9 + 10 + 9)
      const to = join(folder.path, 'to')
      await restoreFromWebDav(to, { ...setup, number: 3 })
      expect(listing(to)).toEqual(listing(from))
    })

    test('a run that ended anywhere is gone on with, and sends nothing twice', async () => {
      await using server = await program.start()
      await using proxy = await DavProxy.start(server.url)
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      makeTree(from)
      await settle()
      const setup = { url: backupsUrl(proxy), state: folder.path }
      let left = 50
      const broken = backUpToWebDav(from, {
        ...setup,
        wrapTarget: (target) =>
          wrapFileTarget(target, {
            put: (path, content, signal) =>
              left-- > 0
                ? target.put(path, content, signal)
                : Promise.reject(new Problem('internal-error', 'injected')),
          }),
      })
      await expect(broken).rejects.toMatchObject({ code: 'internal-error' })
      // Gone meanwhile: it must not come back from what was sent.
      rmSync(join(from, 'd0'), { recursive: true })
      rmSync(join(from, 'd1', 'f1'))
      const at = proxy.requests.length
      const sentBefore = proxy.counts().PUT as number
      const rest = await backUpToWebDav(from, setup)
      expect(rest).toMatchObject({ resumed: true, checkpoint: { number: 1 } })
      const gone = 11
      expect(proxy.counts(at).PUT).toBeLessThanOrEqual(121 - sentBefore + 1)
      expect(rest.files).toBe(121 - gone)
      const to = join(folder.path, 'to')
      await restoreFromWebDav(to, { ...setup, number: 1 })
      expect(listing(to)).toEqual(listing(from))
      const stray = await fetch(`${server.url}/backups/test/1/files/d0/f0`)
      expect(stray.status).toBe(404)
      await stray.text()
    })

    test('of a directory of many files the server copies all at once', async () => {
      await using server = await program.start()
      await using proxy = await DavProxy.start(server.url)
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      const at = (name: string): string => join(from, 'd', name)
      mkdirSync(join(from, 'd'), { recursive: true })
      for (let i = 0; i < 60; i++) writeFileSync(at(`f${i}`), `content ${i}`)
      await settle()
      const setup = { url: backupsUrl(proxy), state: folder.path }
      await backUpToWebDav(from, setup)
      writeFileSync(at('f7'), 'CONTENT 7')
      writeFileSync(at('f8'), seededBytes('large', 5_000_000))
      writeFileSync(at('new'), 'new')
      rmSync(at('f9'))
      rmSync(at('f10'))
      mkdirSync(join(from, 'e'))
      linkSync(at('f11'), join(from, 'e', 'other name'))
      linkSync(at('new'), at('new too'))
      await settle()
      const before = proxy.requests.length
      expect(await backUpToWebDav(from, setup)).toMatchObject({ problems: [] })
      // The directory, what was put, a name of an inode.
      expect(proxy.counts(before).COPY).toBeLessThanOrEqual(1 + 4 + 2)
      expect(proxy.requests.length - before).toBeLessThan(40)
      const to = join(folder.path, 'to')
      expect((await restoreFromWebDav(to, { ...setup, number: 2 })).problemList).toEqual([])
      expect(listing(to)).toEqual(listing(from))
      for (const path of ['2/files/d/f9', '2/aside-1/']) {
        const gone = await fetch(`${server.url}/backups/test/${path}`)
        expect(gone.status).toBe(404)
        await gone.text()
      }
    })

    test('names that a listing leaves out are there when an unfinished backup is gone on with', async () => {
      await using server = await program.start()
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      const names = [
        '.hidden',
        '.davfs.tmp1',
        '.git/.index',
        '.git/.refs/.heads',
        'A',
        'a',
        'e\u0301',
        '\u00e9',
      ]
      for (const name of names) {
        mkdirSync(join(from, 'd', name, '..'), { recursive: true })
        writeFileSync(join(from, 'd', name), name)
      }
      await settle()
      const setup = { url: backupsUrl(server), state: folder.path }
      const commit = () => Promise.reject(new Problem('internal-error', 'injected'))
      const broken = backUpToWebDav(from, {
        ...setup,
        wrapTarget: (target) => wrapFileTarget(target, { commit }),
      })
      await expect(broken).rejects.toMatchObject({ code: 'internal-error' })
      rmSync(join(from, 'd', 'a'))
      expect(await backUpToWebDav(from, setup)).toMatchObject({ resumed: true, filesRead: 0, problems: [] })
      // As a whole, and file by file.
      writeFileSync(join(from, 'top'), 'top')
      expect(await backUpToWebDav(from, setup)).toMatchObject({ filesRead: 1, problems: [] })
      writeFileSync(join(from, 'd', '.git', 'new'), 'new')
      expect(await backUpToWebDav(from, setup)).toMatchObject({ filesRead: 1, problems: [] })
      for (const number of [1, 2, 3]) {
        const to = join(folder.path, `to${number}`)
        const { problemList } = await restoreFromWebDav(to, { ...setup, number })
        expect(problemList).toEqual([])
        if (number === 3) expect(listing(to)).toEqual(listing(from))
      }
      const stray = await fetch(`${server.url}/backups/test/1/files/d/a`)
      expect(stray.status).toBe(404)
      await stray.text()
    })

    test('what the server lost of an unfinished backup is sent again', async () => {
      await using server = await program.start()
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      makeTree(from)
      await settle()
      const setup = { url: backupsUrl(server), state: folder.path }
      const broken = backUpToWebDav(from, {
        ...setup,
        wrapTarget: (target) =>
          wrapFileTarget(target, {
            commit: () => Promise.reject(new Problem('internal-error', 'injected')),
          }),
      })
      await expect(broken).rejects.toMatchObject({ code: 'internal-error' })
      const files = `${server.url}/backups/test/1.partial/files`
      for (const [method, path, body] of [
        ['DELETE', 'd1/f1'],
        ['PUT', 'd2/f2', 'cut'],
        ['PUT', 'stray', 'stray'],
        ['DELETE', 'd3/'],
      ] as const) {
        const answer = await fetch(`${files}/${path}`, { method, ...(body === undefined ? {} : { body }) })
        expect(answer.ok).toBe(true)
        await answer.text()
      }
      const rest = await backUpToWebDav(from, setup)
      expect(rest).toMatchObject({ resumed: true, filesRead: 12, problems: [] })
      const to = join(folder.path, 'to')
      await restoreFromWebDav(to, { ...setup, number: 1 })
      expect(listing(to)).toEqual(listing(from))
      const stray = await fetch(`${server.url}/backups/test/1/files/stray`)
      expect(stray.status).toBe(404)
      await stray.text()
    })

    test('files and directories that change places while a backup is unfinished', async () => {
      await using server = await program.start()
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      mkdirSync(join(from, 'directory', 'inner'), { recursive: true })
      mkdirSync(join(from, 'large'))
      for (const name of ['file', 'directory/a', 'directory/inner/b', 'large/a']) {
        writeFileSync(join(from, name), name)
      }
      await settle()
      const setup = { url: backupsUrl(server), state: folder.path }
      const broken = backUpToWebDav(from, {
        ...setup,
        wrapTarget: (target) =>
          wrapFileTarget(target, {
            commit: () => Promise.reject(new Problem('internal-error', 'injected')),
          }),
      })
      await expect(broken).rejects.toMatchObject({ code: 'internal-error' })
      for (const name of ['file', 'directory', 'large']) rmSync(join(from, name), { recursive: true })
      mkdirSync(join(from, 'file', 'deep'), { recursive: true })
      writeFileSync(join(from, 'file', 'deep', 'a'), 'new')
      writeFileSync(join(from, 'file', 'large'), seededBytes('large', 9_000_000))
      writeFileSync(join(from, 'directory'), 'a file now')
      writeFileSync(join(from, 'large'), seededBytes('large', 9_000_000))
      const rest = await backUpToWebDav(from, setup)
      expect(rest).toMatchObject({ resumed: true, problems: [] })
      const to = join(folder.path, 'to')
      await restoreFromWebDav(to, { ...setup, number: 1 })
      expect(listing(to)).toEqual(listing(from))
    })

    test('a large file is streamed, and one that grows meanwhile is read again', async () => {
      await using server = await program.start()
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      mkdirSync(from)
      writeFileSync(join(from, 'large'), seededBytes('large', 30_000_000))
      writeFileSync(join(from, 'grows'), seededBytes('grows', 9_000_000))
      const setup = { url: backupsUrl(server), state: folder.path }
      let grown = false
      const summary = await backUpToWebDav(from, {
        ...setup,
        wrapSource: (source) => ({
          ...{ capabilities: source.capabilities, about: source.about, close: () => source.close() },
          scan: (signal) => source.scan(signal),
          fill: (files, signal) => {
            // Between the scan and the first reading.
            if (!grown) writeFileSync(join(from, 'grows'), seededBytes('grows', 9_500_000))
            grown = true
            return source.fill(files, signal)
          },
        }),
      })
      expect(summary.problems).toEqual([])
      const to = join(folder.path, 'to')
      await restoreFromWebDav(to, { ...setup, number: 1 })
      expect(listing(to)).toEqual(listing(from))
    })

    test('a stream of unknown length', async () => {
      await using server = await program.start()
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'image')
      writeFileSync(from, seededBytes('image', 9_000_001))
      const setup = { url: backupsUrl(server), state: folder.path }
      await backUpToWebDav(await ChunkSource.open(from, { name: 'disk.img' }), setup)
      const to = join(folder.path, 'to')
      await restoreFromWebDav(to, { ...setup, number: 1 })
      expect((await readFile(join(to, 'disk.img'))).equals(await readFile(from))).toBe(true)
    })

    test('a client that has lost its database learns from the manifest what need not be read', async () => {
      await using server = await program.start()
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      mkdirSync(from)
      makeOddTree(from)
      makeTree(from)
      await settle()
      const url = backupsUrl(server)
      await backUpToWebDav(from, { url, state: join(folder.path, 'one') })
      writeFileSync(join(from, 'd3', 'f4'), 'changed')
      const second = await backUpToWebDav(from, { url, state: join(folder.path, 'two') })
      expect([second.filesRead, second.checkpoint.number]).toEqual([1, 2])
      const to = join(folder.path, 'to')
      await restoreFromWebDav(to, { url, number: 2 })
      expect(listing(to)).toEqual(listing(from))
    })
  })
}
