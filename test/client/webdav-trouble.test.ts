/** What servers may do to a backup, by a proxy before our own tree: it is whole in the end, or there is none. */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { DavProxy, type PassedRequest, type Verdict } from '../support/dav-proxy.ts'
import { listing, seededBytes, temporaryFolder } from '../support/tree.ts'
import { backUpToWebDav, backupsUrl, ownTree, restoreFromWebDav, wrapFileTarget } from '../support/webdav.ts'

interface Scene extends AsyncDisposable {
  readonly proxy: DavProxy
  /** The server itself, past the proxy. */
  readonly server: string
  readonly from: string
  readonly to: string
  readonly setup: { url: string; state: string }
  backUp(): ReturnType<typeof backUpToWebDav>
  /** Restores and compares. */
  expectEqual(number: number): Promise<void>
}

async function openScene(): Promise<Scene> {
  const stack = new AsyncDisposableStack()
  const server = stack.use(await ownTree.start())
  const proxy = stack.use(await DavProxy.start(server.url))
  const folder = stack.use(await temporaryFolder())
  const [from, to] = [join(folder.path, 'from'), join(folder.path, 'to')]
  for (const name of ['a', 'b', 'c']) {
    mkdirSync(join(from, name, 'inner'), { recursive: true })
    for (let i = 0; i < 5; i++) writeFileSync(join(from, name, `f${i}`), seededBytes(`${name}${i}`, 2000))
    writeFileSync(join(from, name, 'inner', 'x'), `inner of ${name}`)
  }
  writeFileSync(join(from, 'large'), seededBytes('large', 9_000_000))
  await sleep(60)
  const setup = { url: backupsUrl(proxy), state: folder.path }
  return {
    ...{ proxy, server: server.url, from, to, setup },
    backUp: () => backUpToWebDav(from, setup),
    expectEqual: async (number) => {
      const { problemList } = await restoreFromWebDav(to, { ...setup, number })
      expect(problemList).toEqual([])
      expect(listing(to)).toEqual(listing(from))
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

/** Only requests of `method`, and only the first `times` of them. */
function first(
  times: number,
  method: string,
  verdict: Verdict,
  path = /./,
): (request: PassedRequest) => Verdict {
  let left = times
  return (request) => (request.method === method && path.test(request.path) && left-- > 0 ? verdict : 'pass')
}

const always = Number.POSITIVE_INFINITY

describe('a server that does not copy', () => {
  for (const status of [207, 404, 405, 412, 500]) {
    test(`COPY is answered ${status}: everything is sent again`, async () => {
      await using scene = await openScene()
      await scene.backUp()
      writeFileSync(join(scene.from, 'a', 'f0'), 'changed')
      scene.proxy.rule = first(always, 'COPY', { status })
      const second = await scene.backUp()
      expect(second).toMatchObject({ files: 19, problems: [], checkpoint: { number: 2 } })
      scene.proxy.rule = () => 'pass'
      await scene.expectEqual(2)
    })
  }

  test('a directory is not copied whole, its files are', async () => {
    await using scene = await openScene()
    await scene.backUp()
    scene.proxy.rule = first(always, 'COPY', { status: 403 }, /\/$/)
    const second = await scene.backUp()
    expect([second.filesRead, second.problems]).toEqual([0, []])
    await scene.expectEqual(2)
  })

  test('it says so beforehand: nothing is tried', async () => {
    await using scene = await openScene()
    await scene.backUp()
    const at = scene.proxy.requests.length
    scene.proxy.rule = first(always, 'OPTIONS', {
      status: 200,
      headers: { allow: 'OPTIONS, PROPFIND, GET, PUT, MKCOL, MOVE, DELETE' },
    })
    const second = await scene.backUp()
    expect(second).toMatchObject({ filesRead: 19, problems: [] })
    expect(scene.proxy.counts(at).COPY).toBeUndefined()
    await scene.expectEqual(2)
  })
})

describe('a server that cannot rename', () => {
  const rules: Record<string, (request: PassedRequest) => Verdict> = {
    'says so beforehand': first(always, 'OPTIONS', {
      status: 200,
      headers: { allow: 'PROPFIND, PUT, COPY' },
    }),
    'says so when it comes to that': first(always, 'MOVE', { status: 405 }),
  }
  for (const [name, rule] of Object.entries(rules)) {
    test(name, async () => {
      await using scene = await openScene()
      scene.proxy.rule = rule
      await expect(scene.backUp()).rejects.toMatchObject({ code: 'method-not-allowed' })
    })
  }
})

describe('broken connections', () => {
  const cases: [string, (request: PassedRequest) => Verdict][] = [
    ['before a small file', first(2, 'PUT', 'reset', /\/a\//)],
    ['before a large file', first(2, 'PUT', 'reset', /large/)],
    ['behind a small file', first(2, 'PUT', 'no-answer', /\/a\//)],
    ['behind a large file', first(1, 'PUT', 'no-answer', /large/)],
    ['behind MKCOL', first(3, 'MKCOL', 'no-answer')],
    ['behind the manifest', first(1, 'PUT', 'no-answer', /manifest/)],
    ['behind the commit', first(1, 'MOVE', 'no-answer')],
    ['503 for a while', first(3, 'PUT', { status: 503, headers: { 'retry-after': '1' } }, /\/b\//)],
    ['503 for a large file', first(1, 'PUT', { status: 503 }, /large/)],
  ]
  for (const [name, rule] of cases) {
    test(name, async () => {
      await using scene = await openScene()
      scene.proxy.rule = rule
      expect(await scene.backUp()).toMatchObject({ files: 19, problems: [] })
      await scene.expectEqual(1)
    })
  }

  test('behind COPY, and while a restore reads', async () => {
    await using scene = await openScene()
    await scene.backUp()
    writeFileSync(join(scene.from, 'new'), 'new')
    scene.proxy.rule = first(3, 'COPY', 'no-answer')
    expect(await scene.backUp()).toMatchObject({ files: 20, problems: [] })
    scene.proxy.rule = first(2, 'GET', 'no-answer')
    await scene.expectEqual(2)
  })
})

describe('what concerns everything ends the backup', () => {
  const cases: [string, (request: PassedRequest) => Verdict, string][] = [
    ['507 for a small file', first(always, 'PUT', { status: 507 }, /\/b\//), 'insufficient-storage'],
    ['507 for a large file', first(always, 'PUT', { status: 507 }, /large/), 'insufficient-storage'],
    ['507 for the manifest', first(always, 'PUT', { status: 507 }, /manifest/), 'insufficient-storage'],
    ['401 in the middle', first(always, 'PUT', { status: 401 }, /\/b\//), 'forbidden'],
    ['403 for the folder', first(always, 'MKCOL', { status: 403 }), 'forbidden'],
    ['500 for a file', first(always, 'PUT', { status: 500 }, /\/b\//), 'internal-error'],
    [
      'a redirection',
      first(always, 'PUT', { status: 301, headers: { location: 'http://x/' } }),
      'protocol-violation',
    ],
    ['a promise', first(always, 'PUT', { status: 202 }, /\/b\//), 'protocol-violation'],
    ['no folders', first(always, 'MKCOL', { status: 405 }), 'method-not-allowed'],
    ['no listing', first(always, 'PROPFIND', { status: 405 }), 'protocol-violation'],
  ]
  for (const [name, rule, code] of cases) {
    test(name, async () => {
      await using scene = await openScene()
      scene.proxy.rule = rule
      await expect(scene.backUp()).rejects.toMatchObject({ code })
      scene.proxy.rule = () => 'pass'
      await scene.backUp()
      await scene.expectEqual(1)
    })
  }

  test('no WebDAV server at all', async () => {
    await using folder = await temporaryFolder()
    const server = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    try {
      const url = `webdav+http://127.0.0.1:${(server.address() as AddressInfo).port}/x`
      const backingUp = backUpToWebDav(folder.path, { url, state: join(folder.path, 'state') })
      await expect(backingUp).rejects.toMatchObject({ code: 'protocol-violation' })
    } finally {
      server.close()
    }
  })

  test('a folder above that is not there', async () => {
    await using scene = await openScene()
    const url = `${scene.setup.url}/not/there`
    const backingUp = backUpToWebDav(scene.from, { ...scene.setup, url })
    await expect(backingUp).rejects.toMatchObject({ code: 'not-found' })
  })
})

describe('a directory of many files, of which few changed', () => {
  const aside = /aside-\d+\/$/
  const cases: [string, (request: PassedRequest) => Verdict, 'goes on' | 'ends'][] = [
    ['its COPY is refused', first(always, 'COPY', { status: 403 }, /files\/many\/$/), 'goes on'],
    ['its COPY fails', first(1, 'COPY', { status: 500 }, /files\/many\/$/), 'goes on'],
    ['its COPY is not answered', first(1, 'COPY', 'no-answer', /files\/many\/$/), 'goes on'],
    ['what was put is not copied', first(1, 'COPY', { status: 403 }, /partial\/files\/many\/f7$/), 'goes on'],
    ['the DELETE is not answered', first(1, 'DELETE', 'no-answer', /files\/many\/$/), 'goes on'],
    ['the MOVE is not answered', first(1, 'MOVE', 'no-answer', aside), 'goes on'],
    ['the MOVE is refused', first(1, 'MOVE', { status: 403 }, aside), 'ends'],
  ]
  for (const [name, rule, end] of cases) {
    test(`${name}: the backup ${end}, and what is committed is right`, async () => {
      await using scene = await openScene()
      mkdirSync(join(scene.from, 'many'))
      for (let i = 0; i < 40; i++) writeFileSync(join(scene.from, 'many', `f${i}`), `content ${i}`)
      await sleep(60)
      await scene.backUp()
      writeFileSync(join(scene.from, 'many', 'f7'), 'CONTENT 7')
      rmSync(join(scene.from, 'many', 'f8'))
      scene.proxy.rule = rule
      if (end === 'ends') await expect(scene.backUp()).rejects.toMatchObject({ code: 'unavailable' })
      expect((await scene.backUp()).problems).toEqual([])
      await scene.expectEqual(2)
      const left = await fetch(`${scene.server}/backups/test/2/aside-1/`)
      expect(left.status).toBe(404)
      await left.text()
    })
  }
})

describe('a server that keeps names in another form', () => {
  const forms: Record<string, (path: string) => string> = {
    'of Unicode': (path) => path.replaceAll('e%CC%81', '%C3%A9'),
    'with other capitals': (path) =>
      path.replace(/(?<=\/files\/.*)(Old|Ke|Ne)/, (name) => name.toLowerCase()),
  }
  for (const [form, rename] of Object.entries(forms)) {
    test(form, async () => {
      await using scene = await openScene()
      scene.proxy.rename = rename
      for (const name of ['Ke\u0301pt', 'n/Ne\u0301w', 'n/Old']) {
        mkdirSync(join(scene.from, name, '..'), { recursive: true })
        writeFileSync(join(scene.from, name), name)
      }
      await sleep(60)
      await scene.backUp()
      writeFileSync(join(scene.from, 'n', 'Ne\u0301w'), 'other')
      scene.proxy.rule = first(1, 'PUT', { status: 507 }, /manifest/)
      await expect(scene.backUp()).rejects.toMatchObject({ code: 'insufficient-storage' })
      expect(await scene.backUp()).toMatchObject({ resumed: true, filesRead: 0, problems: [] })
      await scene.expectEqual(2)
    })
  }
})

describe('what concerns one file is told, and the rest is backed up', () => {
  for (const status of [403, 414, 423]) {
    test(`${status} for a small and for a large file`, async () => {
      await using scene = await openScene()
      scene.proxy.rule = first(always, 'PUT', { status }, /\/(b\/f3|large)$/)
      const { problems, files } = await scene.backUp()
      expect(problems.map(({ path }) => String(path)).sort()).toEqual(['b/f3', 'large'])
      expect(files).toBe(17)
      scene.proxy.rule = () => 'pass'
      // They are tried again.
      expect(await scene.backUp()).toMatchObject({ filesRead: 2, problems: [] })
      await scene.expectEqual(2)
    })
  }

  test('a directory that the server does not take', async () => {
    await using scene = await openScene()
    scene.proxy.rule = first(always, 'MKCOL', { status: 403 }, /\/b\/$/)
    const { problems } = await scene.backUp()
    expect(problems).toHaveLength(6)
    const { problemList } = await restoreFromWebDav(scene.to, { ...scene.setup, number: 1 })
    expect(problemList).toEqual([])
    expect(await readFile(join(scene.to, 'c', 'inner', 'x'), 'utf8')).toBe('inner of c')
  })
})

test('a directory that an unfinished backup has lost is sent again', async () => {
  await using scene = await openScene()
  scene.proxy.rule = first(1, 'PUT', { status: 507 }, /manifest/)
  await expect(scene.backUp()).rejects.toMatchObject({ code: 'insufficient-storage' })
  const answer = await fetch(`${scene.server}/backups/test/1.partial/files/a/`, { method: 'DELETE' })
  expect(answer.ok).toBe(true)
  await answer.text()
  expect(await scene.backUp()).toMatchObject({ resumed: true, filesRead: 6, problems: [] })
  await scene.expectEqual(1)
})

describe('damage on the server', () => {
  const at = (scene: Scene, path: string): string => `${scene.server}/backups/test/1/${path}`
  const change = async (scene: Scene, path: string, body: Buffer | string | undefined): Promise<void> => {
    const method = body === undefined ? 'DELETE' : 'PUT'
    const answer = await fetch(at(scene, path), {
      method,
      ...(body === undefined ? {} : { body: new Blob([body as string]) }),
    })
    expect(answer.ok).toBe(true)
    await answer.text()
  }

  test('a restore tells the files that are not what they were, and restores the others', async () => {
    await using scene = await openScene()
    await scene.backUp()
    await change(scene, 'files/a/f0', seededBytes('other', 2000))
    await change(scene, 'files/a/f1', 'shorter')
    await change(scene, 'files/a/f2', undefined)
    await change(scene, 'files/large', seededBytes('other', 9_000_000))
    const { problemList, files } = await restoreFromWebDav(scene.to, { ...scene.setup, number: 1 })
    expect(problemList.map(({ path, code }) => `${path} ${code}`).sort()).toEqual([
      'a/f0 digest-mismatch',
      'a/f1 digest-mismatch',
      'a/f2 not-found',
      'large digest-mismatch',
    ])
    expect(files).toBe(15)
  })

  test('without its manifest a checkpoint is not restored, and no base', async () => {
    await using scene = await openScene()
    await scene.backUp()
    await change(scene, 'manifest.jsonl.zst', undefined)
    const restoring = restoreFromWebDav(scene.to, { ...scene.setup, number: 1 })
    await expect(restoring).rejects.toMatchObject({ code: 'checkpoint-not-found' })
    expect(await scene.backUp()).toMatchObject({ filesRead: 19, checkpoint: { number: 2 } })
    await scene.expectEqual(2)
  })

  test('a manifest that is cut off is told, and the next backup is whole all the same', async () => {
    await using scene = await openScene()
    await scene.backUp()
    const whole = Buffer.from(await (await fetch(at(scene, 'manifest.jsonl.zst'))).arrayBuffer())
    await change(scene, 'manifest.jsonl.zst', whole.subarray(0, whole.length - 60))
    writeFileSync(join(scene.from, 'b', 'f1'), 'changed')
    const { problemList } = await restoreFromWebDav(`${scene.to}1`, { ...scene.setup, number: 1 })
    expect(problemList.map(({ code }) => code)).toEqual(['invalid-object'])
    expect((await scene.backUp()).problems).toEqual([])
    await scene.expectEqual(2)
  })

  for (const [what, changed] of [
    ['nothing changes', 'nowhere'],
    ['something changes at the root', 'new'],
    ['something changes beside it', 'b/new'],
  ] as const) {
    test(`what was changed in the base since is put right by the next backup, when ${what}`, async () => {
      await using scene = await openScene()
      await scene.backUp()
      await change(scene, 'files/b/f1', 'cut')
      await change(scene, 'files/b/f2', undefined)
      await change(scene, 'files/b/stray', 'stray')
      await change(scene, 'files/b/inner/x', undefined)
      await change(scene, 'files/c/inner', undefined)
      if (changed !== 'nowhere') writeFileSync(join(scene.from, changed), 'new')
      expect((await scene.backUp()).problems).toEqual([])
      await scene.expectEqual(2)
      const stray = await fetch(`${scene.server}/backups/test/2/files/b/stray`)
      expect(stray.status).toBe(404)
      await stray.text()
    })
  }

  test('a folder that another client has opened at the same time is left to it', async () => {
    await using scene = await openScene()
    for (const path of ['', 'test/', 'test/1.partial/']) {
      await (await fetch(`${scene.server}/backups/${path}`, { method: 'MKCOL' })).text()
    }
    const claim = `${scene.server}/backups/test/1.partial/claim-theirs`
    await (await fetch(claim, { method: 'PUT', body: '.' })).text()
    // Nothing was there yet; and, as with rclone, each MKCOL makes it.
    scene.proxy.rule = ({ method, path }) => {
      if (method === 'PROPFIND' && path.endsWith('/test/')) return { status: 404 }
      return method === 'MKCOL' && /partial\/$/.test(path) && path.includes('1.') ? { status: 201 } : 'pass'
    }
    expect(await scene.backUp()).toMatchObject({ checkpoint: { number: 2 }, problems: [] })
    scene.proxy.rule = () => 'pass'
    await scene.expectEqual(2)
    expect((await fetch(claim)).status).toBe(200)
  })

  test('another checkpoint of the same number is not taken for the own one', async () => {
    await using scene = await openScene()
    const ask = async (method: string, path: string): Promise<void> => {
      await (await fetch(`${scene.server}/backups/test/${path}`, { method })).text()
    }
    scene.proxy.rule = first(1, 'MOVE', { status: 404 })
    const summary = await backUpToWebDav(scene.from, {
      ...scene.setup,
      wrapTarget: (target) =>
        wrapFileTarget(target, {
          commit: async (...request) => {
            await ask('MKCOL', '1/')
            return target.commit(...request)
          },
        }),
    })
    expect(summary).toMatchObject({ checkpoint: { number: 2 }, problems: [] })
    await scene.expectEqual(2)
  })

  test('files that the base has lost are sent again', async () => {
    await using scene = await openScene()
    await scene.backUp()
    await change(scene, 'files/a/f2', undefined)
    writeFileSync(join(scene.from, 'a', 'f0'), 'changed')
    expect(await scene.backUp()).toMatchObject({ problems: [], files: 19 })
    await scene.expectEqual(2)
  })
})
