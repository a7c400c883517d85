/** The npm package `webdav`, as a program that uses it would. */
import { Readable, type Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { expect, test } from 'vitest'
import { createClient, type FileStat } from 'webdav'
import { seededBytes } from '../support/tree.ts'
import { startTree } from './tree-server.ts'

const names = [
  'plain.txt',
  'with space',
  'a#b',
  'a&b<c>',
  '100% sure',
  'per%41cent',
  'ünïcödé-名前',
  "it's+?;=",
]

test('the npm package webdav: files, folders, streams, properties and locks', async () => {
  await using server = await startTree()
  const client = createClient(server.url)
  await client.createDirectory('/folder/deeper', { recursive: true })
  const contents = new Map(names.map((name) => [name, seededBytes(name, 10_000)]))
  for (const [name, bytes] of contents)
    expect(await client.putFileContents(`/folder/${name}`, bytes)).toBe(true)

  const listed = (await client.getDirectoryContents('/folder')) as FileStat[]
  expect(listed.map(({ basename }) => basename).sort()).toEqual([...names, 'deeper'].sort())
  for (const [name, bytes] of contents) {
    const got = (await client.getFileContents(`/folder/${name}`)) as Buffer
    expect(bytes.equals(got), name).toBe(true)
    expect(await client.stat(`/folder/${name}`)).toMatchObject({ type: 'file', size: 10_000, basename: name })
  }

  // A stream has no length: it is sent chunked.
  const streamed = seededBytes('streamed', 3_000_000)
  await pipeline(Readable.from([streamed]), client.createWriteStream('/streamed.bin') as Writable)
  await expect
    .poll(async () => (await client.exists('/streamed.bin')) && (await client.stat('/streamed.bin')))
    .toMatchObject({ size: 3_000_000 })
  const range = { start: 1_000_000, end: 1_999_999 }
  const piece = await buffer(client.createReadStream('/streamed.bin', { range }) as Readable)
  expect(piece.equals(streamed.subarray(1_000_000, 2_000_000))).toBe(true)

  await client.copyFile('/folder', '/copy')
  await client.moveFile('/copy/plain.txt', '/copy/deeper/moved#.txt')
  expect(await client.exists('/copy/plain.txt')).toBe(false)
  const moved = (await client.getFileContents('/copy/deeper/moved#.txt')) as Buffer
  expect(contents.get('plain.txt')?.equals(moved)).toBe(true)
  expect(await client.putFileContents('/streamed.bin', 'no', { overwrite: false })).toBe(false)

  const lock = await client.lock('/streamed.bin')
  await expect(client.putFileContents('/streamed.bin', 'no')).rejects.toMatchObject({ status: 423 })
  const headers = { If: `(<${lock.token}>)` }
  expect(await client.putFileContents('/streamed.bin', 'yes', { headers })).toBe(true)
  // It does not add the angle brackets that the header needs.
  await client.unlock('/streamed.bin', `<${lock.token}>`)
  expect(await client.getFileContents('/streamed.bin', { format: 'text' })).toBe('yes')

  await client.deleteFile('/folder')
  expect(await client.exists('/folder')).toBe(false)
  await expect(client.getFileContents('/folder/plain.txt')).rejects.toMatchObject({ status: 404 })
})
