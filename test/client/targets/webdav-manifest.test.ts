/** Manifests: what was written is read, and nothing is believed that does not hold together. */

import { readFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { compareInTree } from '../../../client/targets/webdav-base.ts'
import {
  FetchedManifest,
  headIn,
  type ManifestEntry,
  ManifestWriter,
} from '../../../client/targets/webdav-manifest.ts'
import { hashId } from '../../../protocol/hash.ts'
import { encodeName, encodeTarget } from '../../../protocol/objects.ts'
import type { CheckpointState, Entry } from '../../../protocol/schema.ts'

const id = hashId(Buffer.from('x'))
const root = hashId(Buffer.from('root'))
const plain = { mode: 0o644, uid: 1, gid: 2, mtimeNs: '-5000000001' }
const state: CheckpointState = {
  source: 'laptop',
  number: 7,
  kind: 'dir',
  state: 'committed',
  openedAt: '2026-11-23T05:22:15.000Z',
  committedAt: '2026-11-23T05:23:15.000Z',
  about: { host: 'here' },
  root,
  attributes: { ...plain, mode: 0o755 },
  totals: { files: 2, directories: 3, bytes: 10 },
}
const raw = (text: string): Buffer => Buffer.from(text, 'latin1')

const entries: { path: Buffer; entry: Entry }[] = [
  { path: raw('a'), entry: { kind: 'file', name: 'a', ...plain, id, size: 1, sparse: true, link: '1:2' } },
  { path: raw('d\xff'), entry: { kind: 'directory', ...encodeName(raw('d\xff')), ...plain, id } },
  { path: raw('d\xff/100%25'), entry: { kind: 'file', name: '100%25', ...plain, id, size: 1 } },
  { path: raw('d\xff/e'), entry: { kind: 'directory', name: 'e', ...plain, id } },
  { path: raw('d\xff/e/s'), entry: { kind: 'symlink', name: 's', ...plain, ...encodeTarget(raw('\xfe')) } },
  { path: raw('f'), entry: { kind: 'fifo', name: 'f', ...plain } },
  { path: raw('z'), entry: { kind: 'block-device', name: 'z', ...plain, major: 8, minor: 1 } },
]

async function written(): Promise<Buffer> {
  const writer = await ManifestWriter.open(state)
  try {
    for (const entry of entries) await writer.add(entry)
    const { path, bytes } = await writer.finish()
    const content = await readFile(path)
    expect(content.length).toBe(bytes)
    return content
  } finally {
    await writer.close()
  }
}

async function read(content: Buffer): Promise<ManifestEntry[]> {
  const manifest = await FetchedManifest.of(Readable.from([content]))
  try {
    return await Array.fromAsync(manifest.entries())
  } finally {
    await manifest.close()
  }
}

test('what was written is read, and where it is stored', async () => {
  const content = await written()
  const found = await read(content)
  expect(found.map(({ path, entry }) => ({ path, entry }))).toEqual(entries)
  expect(found.map(({ stored }) => stored)).toEqual([
    ...['a', 'd%25FF/', 'd%25FF/100%252525', 'd%25FF/e/', 'd%25FF/e/s', 'f', 'z'],
  ])
  expect(await headIn(content)).toEqual(state)
})

test('the first line can be read from a stretch', async () => {
  const writer = await ManifestWriter.open(state)
  for (let i = 0; i < 20_000; i++) {
    const name = `f${String(i).padStart(6, '0')}`
    const entry: Entry = { kind: 'file', name, ...plain, id: hashId(Buffer.from(name)), size: i }
    await writer.add({ path: Buffer.from(name), entry })
  }
  const { path } = await writer.finish()
  const content = await readFile(path)
  await writer.close()
  expect(content.length).toBeGreaterThan(500_000)
  expect(await headIn(content.subarray(0, 4096))).toEqual(state)
  expect(await read(content)).toHaveLength(20_000)
})

test('it is JSON lines that anybody can read', async () => {
  const lines = zstdDecompressSync(await written())
    .toString()
    .trimEnd()
    .split('\n')
  expect(lines).toHaveLength(entries.length + 2)
  const [head, first, second] = lines.map((line) => JSON.parse(line))
  expect(head).toMatchObject({ format: 'chunkdav-manifest', version: 1, source: 'laptop', number: 7 })
  expect(first).toMatchObject({ path: 'a', kind: 'file', digest: id, size: 1, mtimeNs: plain.mtimeNs })
  expect(second).toMatchObject({ path64: raw('d\xff').toString('base64'), at: 'd%FF', id })
  expect(JSON.parse(lines.at(-1) as string)).toEqual({ entries: entries.length })
})

describe('a manifest is not believed', () => {
  const change = async (edit: (lines: string[]) => void): Promise<Buffer> => {
    const lines = zstdDecompressSync(await written())
      .toString()
      .trimEnd()
      .split('\n')
    edit(lines)
    return zstdCompressSync(`${lines.join('\n')}\n`)
  }
  /** Replaces fields of line `at`. */
  const with_ = (at: number, fields: object) => (lines: string[]) => {
    lines[at] = JSON.stringify({ ...JSON.parse(lines[at] as string), ...fields })
  }
  const edits: [string, (lines: string[]) => void][] = [
    ['of another format', with_(0, { format: 'other' })],
    ['of a later version', with_(0, { version: 2 })],
    ['without its end', (lines) => void lines.pop()],
    ['with a false count', with_(8, { entries: 6 })],
    ['with something behind its end', (lines) => void lines.push('{}')],
    ['with a line that is missing', (lines) => void lines.splice(3, 1)],
    ['with a line twice', (lines) => void lines.splice(1, 0, lines[1] as string)],
    ['with lines out of order', (lines) => void lines.splice(1, 0, ...lines.splice(6, 1))],
    ['with what is no JSON', (lines) => void lines.splice(1, 1, '{')],
    ['with what is no object', (lines) => void lines.splice(1, 1, '17')],
    ['that leads out', with_(1, { path: '../a' })],
    ['that leads to the root', with_(1, { path: '/a' })],
    ['that names a parent', with_(1, { path: '..' })],
    ['with an empty name', with_(1, { path: '' })],
    ['with a name that holds NUL', with_(1, { path: 'a\0' })],
    ['below a directory that was not told', with_(1, { path: 'Z/a' })],
    ['below a file', with_(3, { path64: undefined, path: 'a/b' })],
    ['stored elsewhere', with_(1, { at: '../../a' })],
    ['stored nowhere', with_(1, { at: '..' })],
    ['without a digest', with_(1, { digest: undefined })],
    ['with a false size', with_(1, { size: -1 })],
    ['with a false mode', with_(1, { mode: 0o100000 })],
    ['of an unknown kind', with_(1, { kind: 'door' })],
    ['with a symlink that holds NUL', with_(5, { target64: undefined, target: 'a\0b' })],
    ['with a line that does not end', with_(1, { at: 'a'.repeat(20_000_000) })],
    ['of a directory that holds itself', with_(4, { id: root })],
  ]
  for (const [what, edit] of edits) {
    test(what, async () => {
      await expect(read(await change(edit))).rejects.toMatchObject({ code: 'invalid-object' })
    })
  }

  /** Some bits of a frame say nothing, and of its checksum nothing need be left when the content is all there. */
  async function expectNothingFalse(content: Buffer): Promise<void> {
    const found = await read(content).catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'invalid-object' })
      return undefined
    })
    if (found !== undefined) expect(found.map(({ path, entry }) => ({ path, entry }))).toEqual(entries)
  }

  test('cut anywhere', async () => {
    const content = await written()
    for (let length = 0; length < content.length; length += 13) {
      await expectNothingFalse(content.subarray(0, length))
    }
  })

  test('flipped anywhere', async () => {
    const content = await written()
    for (let at = 0; at < content.length; at += 11) {
      const other = Buffer.from(content)
      other[at] = (other[at] as number) ^ 0x40
      await expectNothingFalse(other)
    }
  })
})

test('the order of a tree is name by name', () => {
  const sorted = ['a', 'a/b', 'a/b/c', 'a/bc', 'a b', 'a-', 'a.b', 'a0', 'ab', 'b']
  for (const [i, left] of sorted.entries()) {
    for (const [j, right] of sorted.entries()) {
      expect(Math.sign(compareInTree(Buffer.from(left), Buffer.from(right)))).toBe(Math.sign(i - j))
    }
  }
})
