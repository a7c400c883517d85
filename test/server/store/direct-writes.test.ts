/** A file's large writes go past the page cache, and nobody who reads it can tell. */
import { execFileSync } from 'node:child_process'
import { constants } from 'node:fs'
import { mkdtemp, open, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type FileLayer, filesOver, type Handle } from '../../../server/file-layer.ts'
import { noise } from '../requests.ts'

const MiB = 1024 * 1024
const { O_DIRECT } = constants
const isDirect = (flags: number): boolean => (flags & O_DIRECT) !== 0

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-direct-'))
})
afterAll(() => rm(folder, { recursive: true }))

type Writev = (parts: readonly Buffer[], position: number) => Promise<{ bytesWritten: number }>

interface Write {
  readonly direct: boolean
  readonly position: number
  readonly bytes: number
}

/** Files that note each write, and of which those past the page cache are done by `direct`. */
function noted(direct: (writev: Writev) => Writev = (writev) => writev): {
  files: FileLayer
  writes: Write[]
  open: number
} {
  const seen = { files: undefined as unknown as FileLayer, writes: [] as Write[], open: 0 }
  seen.files = filesOver(async (path, flags) => {
    const file = await open(path, flags)
    seen.open++
    const asIs: Writev = (parts, position) => file.writev(parts, position)
    const chosen = isDirect(flags) ? direct(asIs) : asIs
    const writev: Writev = async (parts, position) => {
      const answer = await chosen(parts, position)
      seen.writes.push({ direct: isDirect(flags), position, bytes: answer.bytesWritten })
      return answer
    }
    const close = async (): Promise<void> => {
      await file.close()
      seen.open--
    }
    return {
      writev,
      close,
      read: file.read.bind(file),
      datasync: file.datasync.bind(file),
      stat: file.stat.bind(file),
    } as Partial<Handle> as Handle
  })
  return seen
}

let next = 0
const fresh = (): string => join(folder, `file${next++}`)

/** `bytes` in pieces of a few lengths, empty ones among them. */
function inParts(bytes: Buffer, lengths: readonly number[]): Buffer[] {
  const parts: Buffer[] = []
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = lengths[i % lengths.length] as number
    parts.push(bytes.subarray(at, at + length))
    at += length
  }
  return parts
}

describe('what is written', () => {
  test.each([
    { position: 0, bytes: MiB },
    { position: 0, bytes: MiB + 1 },
    { position: 1, bytes: MiB },
    { position: 4095, bytes: 4 * MiB + 4097 },
    { position: 4096, bytes: 4 * MiB },
    { position: 4097, bytes: 9 * MiB + 17 },
    { position: 16, bytes: 4 * MiB - 16 },
  ])('from $position on, $bytes bytes, can be read', async ({ position, bytes }) => {
    const seen = noted()
    const path = fresh()
    const content = noise(position + bytes + 5000, bytes)
    const file = await seen.files.open(path, 'create')
    await file.write([content.subarray(0, position)], 0)
    await file.write(inParts(content.subarray(position, position + bytes), [300_000, 0, 1, 70_000]), position)
    await file.write([content.subarray(position + bytes)], position + bytes)
    const target = Buffer.alloc(content.length + 1)
    expect(await file.read(target, 0)).toBe(content.length)
    expect(target.subarray(0, -1).equals(content)).toBe(true)
    await file.datasync()
    await file.close()
    expect(seen.open).toBe(0)
    expect((await readFile(path)).equals(content)).toBe(true)
    const direct = seen.writes.filter((write) => write.direct)
    for (const write of direct) expect([write.position % 4096, write.bytes % 4096]).toEqual([0, 0])
    const left = bytes - direct.reduce((sum, write) => sum + write.bytes, 0)
    expect(left).toBeLessThan(2 * 4096)
  })

  test('is not in the page cache, as far as it is whole pages', async ({ skip }) => {
    const path = fresh()
    const file = await noted().files.open(path, 'create')
    await file.write([noise(8 * MiB, 1)], 0)
    await file.close()
    const inCache = pagesInCache(path)
    if (inCache === undefined) skip('fincore is not here, or the file system is all memory')
    expect(inCache).toBe(0)
  })

  test.each([MiB - 1, 4096, 1])('goes through it when it is small: %i bytes', async (bytes) => {
    const seen = noted()
    const file = await seen.files.open(fresh(), 'create')
    await file.write([noise(bytes, 2)], 0)
    await file.close()
    expect(seen.writes).toEqual([{ direct: false, position: 0, bytes }])
  })

  test('in many files at once stands in each of them', async () => {
    const seen = noted()
    const paths = Array.from({ length: 6 }, fresh)
    const contents = paths.map((_, i) => noise(5 * MiB + i, 100 + i))
    await Promise.all(
      paths.map(async (path, i) => {
        const file = await seen.files.open(path, 'create')
        const content = contents[i] as Buffer
        await file.write([content.subarray(0, 3 * MiB)], 0)
        await file.write([content.subarray(3 * MiB)], 3 * MiB)
        await file.close()
      }),
    )
    for (const [i, path] of paths.entries())
      expect((await readFile(path)).equals(contents[i] as Buffer)).toBe(true)
    expect(seen.open).toBe(0)
  })

  test('behind a cut that leaves part of a page is right', async () => {
    const path = fresh()
    const file = await noted().files.open(path, 'create')
    const content = noise(6 * MiB, 3)
    await file.write([content], 0)
    await truncate(path, 2 * MiB + 100)
    const other = noise(3 * MiB, 4)
    await file.write([other], 2 * MiB + 100)
    await file.close()
    const expected = Buffer.concat([content.subarray(0, 2 * MiB + 100), other])
    expect((await readFile(path)).equals(expected)).toBe(true)
  })
})

const failing = (code: string) => async (): Promise<never> => {
  throw Object.assign(new Error(code), { code })
}

describe('where the file system', () => {
  test.each(['EINVAL', 'EMFILE', 'EACCES'])(
    'does not open it so (%s), it is written all the same',
    async (code) => {
      let asked = 0
      const files = filesOver(async (path, flags) => {
        if (!isDirect(flags)) return open(path, flags)
        asked++
        return failing(code)()
      })
      await expectWritten(files)
      expect(asked).toBe(1)
    },
  )

  test.each(['EINVAL', 'EOPNOTSUPP'])('refuses a write (%s), it is not asked again', async (code) => {
    let asked = 0
    const seen = noted(() => async () => {
      asked++
      return failing(code)()
    })
    await expectWritten(seen.files)
    expect(asked).toBe(1)
    expect(seen.open).toBe(0)
  })

  test.each([0, 1, 511, 4096, 5000, MiB])(
    'writes %i bytes of what it is given, the rest follows',
    async (most) => {
      const seen = noted((writev) => async ([first = Buffer.alloc(0)], position) => {
        const pages = first.subarray(0, most - (most % 4096))
        if (pages.length > 0) await writev([pages], position)
        return { bytesWritten: Math.min(most, first.length) }
      })
      await expectWritten(seen.files)
    },
  )

  test.each(['ENOSPC', 'EIO'])('fails (%s), the write fails', async (code) => {
    const seen = noted(() => failing(code))
    const file = await seen.files.open(fresh(), 'create')
    await expect(file.write([noise(2 * MiB, 5)], 0)).rejects.toMatchObject({ code })
    await file.close()
    expect(seen.open).toBe(0)
  })
})

test('a file that has taken the name is left alone', async () => {
  const seen = noted()
  const path = fresh()
  const file = await seen.files.open(path, 'create')
  await rename(path, `${path}.moved`)
  await writeFile(path, 'somebody else')
  const content = noise(3 * MiB, 6)
  await file.write([content], 0)
  await file.close()
  expect(await readFile(path, 'utf8')).toBe('somebody else')
  expect((await readFile(`${path}.moved`)).equals(content)).toBe(true)
  expect(seen.open).toBe(0)
})

async function expectWritten(files: FileLayer): Promise<void> {
  const path = fresh()
  const file = await files.open(path, 'create')
  const content = noise(11 * MiB + 77, 7)
  for (let at = 0; at < content.length; at += 5 * MiB)
    await file.write([content.subarray(at, at + 5 * MiB)], at)
  await file.close()
  expect((await readFile(path)).equals(content)).toBe(true)
}

/** Undefined where that cannot be told. */
function pagesInCache(path: string): number | undefined {
  try {
    const type = execFileSync('stat', ['-f', '-c', '%T', path], { encoding: 'utf8' }).trim()
    if (!/^(ext2\/ext3|xfs)$/.test(type)) return undefined
    return Number(execFileSync('fincore', ['--noheadings', '--output', 'PAGES', path], { encoding: 'utf8' }))
  } catch {
    return undefined
  }
}
