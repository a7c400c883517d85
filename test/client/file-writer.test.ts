/** What a restore's last station does when something dies under it. */
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { FileJob, FileSteps } from '../../client/restore/file-steps.ts'
import { FileWriter } from '../../client/restore/file-writer.ts'
import { partName } from '../../client/restore/part-file.ts'
import { RestoreLog } from '../../client/restore/restore-log.ts'
import { RestoredDirectory } from '../../client/restore/restored-directory.ts'
import type { Piece, TreeContent } from '../../client/restore/tree-content.ts'
import { hashId } from '../../protocol/hash.ts'
import { plain } from './tree-fixture.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-writer-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const half = Buffer.from('half of it')
const pieceOf = (bytes: Buffer): Piece => ({ id: hashId(bytes), size: bytes.length })

/** Gives `half` for whatever is asked. */
const content = (onRead: () => void = () => {}) =>
  ({
    read: async (pieces: readonly Piece[]) => {
      onRead()
      return new Map(pieces.map(({ id }) => [id, half]))
    },
  }) as unknown as TreeContent

async function write(chunks: number, job: Partial<FileJob>, source: TreeContent, signal?: AbortSignal) {
  const log = new RestoreLog()
  const directory = RestoredDirectory.root(Buffer.from(folder), undefined, () => {})
  const whole: FileJob = {
    directory,
    name: Buffer.from('f'),
    key: 'key',
    size: chunks * half.length,
    sparse: false,
    digest: undefined,
    attributes: undefined,
    resume: false,
    ...job,
  }
  const chunk = pieceOf(half)
  async function* steps(): AsyncGenerator<FileSteps> {
    if (chunks === 1) {
      yield [{ kind: 'whole', job: whole, chunk }]
      return
    }
    for (let i = 0; i < chunks; i++)
      yield [{ kind: 'chunk', job: whole, offset: i * half.length, chunk, isThere: false }]
    yield [{ kind: 'end', job: whole }]
  }
  directory.begin()
  const writer = new FileWriter({ content: source, log, written: () => {}, signal })
  try {
    await writer.write(steps())
  } finally {
    await writer.close()
  }
  return log
}

describe('a thread that dies ends the restore', () => {
  // No time that any backup can tell: what the thread throws is a defect.
  const attributes = { ...plain, mtimeNs: 'never' }
  test.each([
    ['while it writes a file of one chunk', 1],
    ['while it finishes a larger one', 2],
  ])('%s', async (_, chunks) => {
    await expect(write(chunks, { attributes }, content())).rejects.toThrow(SyntaxError)
  })
})

test('a failed file whose part somebody has removed is one failed file', async () => {
  const name = Buffer.from('f')
  const digest = hashId(Buffer.from('something else'))
  const removesPart = content(() => void rm(join(folder, String(partName(name, 'key')))))
  const log = await write(2, { digest }, removesPart)
  expect(log.problems).toMatchObject([{ path: name, code: 'digest-mismatch' }])
  expect(await readdir(folder)).toEqual([])
})

test('a restore that is cancelled does not wait until a large file is read back', async () => {
  // Of holes, but for two chunks: reading all of it takes minutes.
  const size = 2 ** 38
  const digest = hashId(half)
  const started = performance.now()
  const restoring = write(2, { digest, size }, content(), AbortSignal.timeout(1500))
  await expect(restoring).rejects.toMatchObject({ code: 'cancelled' })
  expect(performance.now() - started).toBeLessThan(10_000)
  expect(await readdir(folder)).toEqual([String(partName(Buffer.from('f'), 'key'))])
})
