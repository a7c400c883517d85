/** A snapshot as a tar archive, as GNU tar unpacks it. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ChunkSource } from '../../client/sources/chunk-source.ts'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import type { Entry } from '../../protocol/schema.ts'
import type { ChunkReader } from '../../server/catalog/chunk-reader.ts'
import { tarArchive, walkDirectory } from '../../server/catalog/tar-archive.ts'
import { encodeTarHeader, type TarHeader } from '../../server/catalog/tar-header.ts'
import { backUp } from '../support/backup.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { listing, makeOddTree, type TemporaryFolder, temporaryFolder } from '../support/tree.ts'
import { attributes, begin, chunk, fileEntry, noise, post, problemOf, put } from './requests.ts'

let server: TestReceiver
let folder: TemporaryFolder
let source: string
let state: string
beforeAll(async () => {
  server = await startReceiver()
  folder = await temporaryFolder()
  source = join(folder.path, 'source')
  state = join(folder.path, 'state')
  mkdirSync(source)
  makeOddTree(source)
})
afterAll(async () => {
  await server.stop()
  await folder[Symbol.asyncDispose]()
})

/** Has GNU tar unpack an archive; returns what it said. */
async function unpack(archive: NodeJS.ReadableStream, to: string): Promise<string> {
  rmSync(to, { recursive: true, force: true })
  mkdirSync(to)
  const tar = spawn('tar', ['-x', '-p', '--numeric-owner', '--warning=no-timestamp', '-C', to], {
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  let said = ''
  tar.stderr.on('data', (text) => {
    said += text
  })
  const ended = new Promise<number | null>((resolve) => tar.once('close', resolve))
  await pipeline(archive, tar.stdin)
  return `${await ended}${said}`
}

function bodyOf(answer: Response): Readable {
  return Readable.fromWeb(answer.body as never)
}

describe.each(['dir', 'chunks'] as const)('a backup of a tree, as %s', (as) => {
  const name = `odd-${as}`
  beforeAll(async () => {
    await backUp(source, { vaultUrl: server.vaultUrl, state, source: name, as })
  })

  test.each([
    ['?archive=tar', {}],
    ['', { Accept: 'application/x-tar' }],
  ])('is unpacked as it was: %s %o', async (query, headers) => {
    const answer = await fetch(`${server.vaultUrl}/snapshots/${name}/latest/${query}`, { headers })
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'application/x-tar'])
    const to = join(folder.path, 'unpacked')
    expect(await unpack(bodyOf(answer), to)).toBe('0')
    expect(listing(to)).toEqual(listing(source))
  })

  test('a directory in it is unpacked alone', async () => {
    const answer = await fetch(`${server.vaultUrl}/snapshots/${name}/1/sub?archive=tar`)
    const to = join(folder.path, 'sub-unpacked')
    expect(await unpack(bodyOf(answer), to)).toBe('0')
    const links = (lines: string[]): string[] => lines.map((line) => line.replace(/ \d+link\d+ /, ' 1 '))
    expect(links(listing(to))).toEqual(links(listing(join(source, 'sub'))))
  })

  test('HEAD tells the same headers and reads nothing', async () => {
    const url = `${server.vaultUrl}/snapshots/${name}/1/?archive=tar`
    const head = await fetch(url, { method: 'HEAD' })
    const get = await fetch(url)
    await get.body?.cancel()
    for (const header of ['content-type', 'cache-control', 'content-security-policy', 'vary']) {
      expect(head.headers.get(header)).toBe(get.headers.get(header))
    }
  })
})

test('a backup of one stream is one file, named after the source', async () => {
  const file = join(source, 'sub', 'big')
  const stream = await ChunkSource.open(file)
  await backUp(stream, { vaultUrl: server.vaultUrl, state, source: 'stream', as: 'chunks' })
  const answer = await fetch(`${server.vaultUrl}/snapshots/stream/1/?archive=tar`)
  const to = join(folder.path, 'stream')
  expect(await unpack(bodyOf(answer), to)).toBe('0')
  expect(spawnSync('cmp', [join(to, 'stream'), file]).status).toBe(0)
})

test.each(['', 'odd-dir/'])('above snapshots there is no tar: "%s"', async (path) => {
  const url = `${server.vaultUrl}/snapshots/${path}`
  expect(await problemOf(await fetch(`${url}?archive=tar`))).toBe('406 not-acceptable')
  expect((await fetch(`${url}?archive=zip`)).status).toBe(400)
  expect((await fetch(url)).headers.get('content-type')).toBe('text/html; charset=utf-8')
})

test('an archive that cannot go on breaks the connection', async () => {
  const [good, lost] = [chunk(noise(1_000_000, 1)), chunk(noise(1_000_000, 2))]
  for (const item of [good, lost]) await put(server, 'chunks', item)
  const root = encodeDirectoryObject([fileEntry('a', good), fileEntry('b', lost)])
  await put(server, 'dirs', root)
  const path = await begin(server, 'damaged', 'dir')
  expect((await post(server, `${path}/commit`, { root: root.id })).status).toBe(200)
  const { store } = await server.receiver.vaults.get('home')
  const { get } = store
  store.get = async (id) => (id === lost.id ? undefined : await get.call(store, id))
  try {
    const answer = await fetch(`${server.vaultUrl}/snapshots/damaged/1/?archive=tar`)
    expect(answer.status).toBe(200)
    await expect(answer.arrayBuffer()).rejects.toThrow()
  } finally {
    store.get = get
  }
})

describe('what no file system of a test machine has', () => {
  const zeros = Buffer.alloc(1024 * 1024)
  async function* zerosOf(size: number): AsyncGenerator<Buffer> {
    for (let left = size; left > 0; left -= zeros.length) yield zeros.subarray(0, left)
  }
  const none: ChunkReader = {
    losses: 0,
    stat: async (ids) => ids.map(() => undefined),
    get: async () => undefined,
    flush: async () => {},
  }
  const listed = (lines: string): string[] => lines.trim().split('\n')

  /** What `tar -tv` says of an archive of these entries. */
  async function listEntries(entries: readonly Entry[]): Promise<string[]> {
    const root = encodeDirectoryObject([...entries])
    const reader = {
      ...none,
      stat: async (): Promise<number[]> => [root.bytes.length],
      get: async () => root.bytes,
    }
    const walk = walkDirectory(reader, root.id, undefined, new AbortController().signal)
    const tar = spawn('tar', ['-tv', '--numeric-owner', '--full-time', '--quoting-style=escape'], {
      env: { ...process.env, TZ: 'UTC', LC_ALL: 'C' },
    })
    let output = ''
    tar.stdout.on('data', (text) => {
      output += text
    })
    tar.stderr.on('data', (text) => {
      output += text
    })
    const ended = new Promise((resolve) => tar.once('close', resolve))
    await pipeline(Readable.from(tarArchive(walk, ({ size }) => zerosOf(size))), tar.stdin)
    await ended
    return listed(output).map((line) => line.replaceAll(/ +/g, ' '))
  }

  test('owners and devices of large numbers, long names that are not UTF-8', async () => {
    const name64 = Buffer.from(`${'\xff'.repeat(120)}`, 'latin1').toString('base64')
    const id = chunk('').id
    const lines = await listEntries([
      { kind: 'character-device', name: 'a', ...attributes, major: 2_000_000_000, minor: 3_000_000 },
      { kind: 'file', name: 'b', ...attributes, uid: 4_000_000_000, gid: 3_000_000, id, size: 0 },
      { kind: 'file', name: 'c', ...attributes, mtimeNs: '99999999999000000001', id, size: 0 },
      { kind: 'socket', name: 'd', ...attributes },
      { kind: 'symlink', name: 'e', ...attributes, target64: name64 },
      { kind: 'file', name64, ...attributes, mtimeNs: '1', id, size: 0 },
    ])
    const long = '\\377'.repeat(120)
    expect(lines).toEqual([
      'crw-r--r-- 0/0 2000000000,3000000 2023-11-14 22:13:20 ./a',
      '-rw-r--r-- 4000000000/3000000 0 2023-11-14 22:13:20 ./b',
      '-rw-r--r-- 0/0 0 5138-11-16 09:46:39.000000001 ./c',
      `lrw-r--r-- 0/0 0 2023-11-14 22:13:20 ./e -> ${long}`,
      `-rw-r--r-- 0/0 0 1970-01-01 00:00:00.000000001 ./${long}`,
    ])
  })

  test('a file of more than 8 GiB', () => {
    const size = 9 * 1024 ** 3
    const header: TarHeader = { ...attributes, type: 'file', path: Buffer.from('./large'), size }
    const bytes = encodeTarHeader(header)
    expect(bytes.toString('latin1')).toContain(`19 size=${size}\n`)
    const { stdout } = spawnSync('tar', ['-tv'], { input: bytes, encoding: 'utf8' })
    expect(stdout).toContain(String(size))
  })
})
