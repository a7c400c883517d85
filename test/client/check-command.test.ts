/** `chunkdav check`, by the receiver and by reading back: what each finds of each damage, and how it is told. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { SeenIds } from '../../client/restore/seen-ids.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { PackChunkStore } from '../../server/store/pack-chunk-store.ts'
import { backUp } from '../support/backup.ts'
import { cutIn, type FoundRecord, flipHeader, flipPayload, recordOf, removePack } from '../support/damage.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { seededBytes, type TemporaryFolder, temporaryFolder } from '../support/tree.ts'
import { events, runIn } from './run-cli.ts'

const MiB = 1024 * 1024

let server: TestReceiver
let folder: TemporaryFolder
let dataDir: string
const source = () => join(folder.path, 'source')

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-check-'))
  folder = await temporaryFolder()
  await mkdir(join(source(), 'docs'), { recursive: true })
  await writeFile(join(source(), 'one'), seededBytes('one', 900_000))
  await writeFile(join(source(), 'copy of one'), seededBytes('one', 900_000))
  await writeFile(join(source(), 'docs/two é'), seededBytes('two', 900_000))
  await writeFile(join(source(), 'docs/big'), seededBytes('big', 4 * MiB))
  server = await startReceiver({
    dataDir,
    openStore: (path) => PackChunkStore.open(path, { packBytes: 2 * MiB }),
    scrubBytesPerSecond: 1024 * MiB,
  })
})
afterEach(async () => {
  await server.stop()
  await folder[Symbol.asyncDispose]()
  await rm(dataDir, { recursive: true, force: true })
})

const back = (name = 'test', as: 'dir' | 'chunks' = 'dir') =>
  backUp(source(), { vaultUrl: server.vaultUrl, state: join(folder.path, 'state'), source: name, as })
const check = (...argv: string[]) => runIn(folder.path, ['check', server.vaultUrl, ...argv])
const summary = (out: string) => events(out).at(-1)
const problems = (out: string) =>
  events(out)
    .filter(({ type, path }) => type === 'problem' && path !== undefined)
    .map(({ source, checkpoint, path }) => `${source}/${checkpoint}: ${path}`)
const content = (name: string) => {
  const part = seededBytes(name, 1000)
  return recordOf(dataDir, (bytes) => bytes.indexOf(part) >= 0)
}
const text = (part: string) => recordOf(dataDir, (bytes) => bytes.includes(part))

describe('what is sound', () => {
  test('the receiver says so', async () => {
    await back()
    const { code, out, err } = await check()
    expect([code, err]).toEqual([0, ''])
    expect(out).toMatch(/^http:\S+ is sound\.\n {2}\d+ chunks in \d+ blocks, [\d.]+ MB, [\d.]+ s\n$/)
    expect(summary((await check('--json', '--source', 'test')).out)).toMatchObject({ sound: true, harmed: 0 })
  })

  test.each(['dir', 'chunks'] as const)('every file is read back once, of a backup as %s', async (as) => {
    await writeFile(join(source(), 'empty'), '')
    await back('test', as)
    await writeFile(join(source(), 'three'), seededBytes('three', 1000))
    await back('test', as)
    const { code, out, err } = await check('--read-back', '--json')
    expect([code, err]).toEqual([0, ''])
    // The first backup has nothing that the second has not; the directory that changed is entered again.
    expect(summary(out)).toMatchObject({
      sound: true,
      checkpoints: 2,
      filesRead: 5,
      filesSkipped: 0,
      bytesRead: 1_801_000 + 4 * MiB,
      problems: 0,
    })
  })

  test('--checkpoint and --share read less', async () => {
    await back()
    await back()
    const latest = await check('--read-back', '--json', '--checkpoint', 'latest')
    expect(summary(latest.out)).toMatchObject({ sound: true, checkpoints: 1, filesRead: 3, filesKnown: 1 })
    const share = summary((await check('--read-back', '--json', '--share', '40%')).out) as Record<
      string,
      number
    >
    expect(share.sound).toBe(true)
    expect((share.filesRead ?? 0) + (share.filesKnown ?? 0) + (share.filesSkipped ?? 0)).toBe(8)
  })
})

const cases: [string, () => Promise<FoundRecord>, (at: FoundRecord) => Promise<void>, string[]][] = [
  ['content of a file', () => content('two'), flipPayload, ['docs/two é']],
  ['content of two files', () => content('one'), flipPayload, ['copy of one', 'one']],
  ['a chunk of a long file', () => content('big'), flipPayload, ['docs/big']],
  ['a header', () => content('two'), flipHeader, ['docs/two é']],
  ['the object of a long file', () => text('"type":"file"'), flipPayload, ['docs/big']],
  ['the object of a directory', () => text('"name":"big"'), flipPayload, ['docs']],
]

test.each(cases)('damage to %s is found by both, and healed by a backup', async (_, find, damage, paths) => {
  const expected = ['test/1', 'test/2'].flatMap((backup) => paths.map((path) => `${backup}: ${path}`))
  await back()
  await writeFile(join(source(), 'zero'), 'another root')
  await back()
  await damage(await find())
  const there = await check('--json')
  expect([there.code, problems(there.out).sort()]).toEqual([1, expected])
  expect(summary(there.out)).toMatchObject({ sound: false, badRecords: 1, harmed: 2 })
  const here = await check('--read-back', '--json')
  expect([here.code, problems(here.out).sort()]).toEqual([1, expected])
  expect(summary(here.out)).toMatchObject({ sound: false, problems: expected.length })
  const again = await check()
  expect([again.code, again.out]).toEqual([1, expect.stringMatching(/ is damaged\.\n/)])
  for (const path of paths) {
    expect(again.err).toContain(`chunkdav: test/1: ${path}: its content is damaged or gone\n`)
  }
  await back()
  expect((await check()).code).toBe(0)
  expect((await check('--read-back')).code).toBe(0)
})

test('what the receiver has not found yet is found by reading back', async () => {
  await back()
  await flipPayload(await content('one'))
  const { code, out } = await check('--read-back', '--json')
  expect([code, problems(out)]).toEqual([1, ['test/1: copy of one', 'test/1: one']])
})

test.each([
  ['removed', removePack],
  ['cut off', cutIn],
])('a pack that is %s', async (_, damage) => {
  await back()
  await damage(await content('two'))
  const { code, err } = await check()
  expect([code, err]).toEqual([1, expect.stringContaining('test/1: ')])
  await back()
  expect((await check()).code).toBe(0)
  expect((await check('--read-back')).code).toBe(0)
})

test('with --source, only its backups count', async () => {
  await back('one')
  await writeFile(join(source(), 'docs/two é'), 'something else')
  await back('other')
  await flipPayload(await content('two'))
  expect(await check('--source', 'other')).toMatchObject({
    code: 0,
    out: expect.stringMatching(/other in .* is sound\.\n(.*\n)*.*damage elsewhere/),
  })
  expect((await check('--source', 'one')).code).toBe(1)
  expect((await check('--read-back', '--source', 'other')).code).toBe(0)
  expect((await check('--read-back', '--source', 'one')).code).toBe(1)
})

test.each([
  ['a share without --read-back', ['--share', '10%'], 2],
  ['a checkpoint without --read-back', ['--checkpoint', '1'], 2],
  ['no share', ['--read-back', '--share', '0%'], 2],
  ['too much', ['--read-back', '--share', '200%'], 2],
  ['a source that is not there', ['--source', 'nobody'], 1],
  ['a vault without backups', ['--read-back'], 1],
])('%s', async (_, argv, code) => {
  expect((await check(...argv)).code).toBe(code)
})

test('a vault that is not there', async () => {
  const { code, err } = await runIn(folder.path, ['check', `${server.url}/none`])
  expect([code, err]).toEqual([1, expect.stringContaining('there is no vault')])
})

test('seen ids are remembered, and others are not taken for them', () => {
  const seen = new SeenIds()
  const ids = Array.from({ length: 200_000 }, (_, i) => hashId(Buffer.from(String(i))))
  for (const id of ids.slice(0, 100_000)) expect(seen.add(id)).toBe(true)
  expect(ids.filter((id) => seen.has(id)).length).toBe(100_000)
  const zeros = `blake3:${'0'.repeat(64)}` as Id
  expect([seen.has(zeros), seen.add(zeros), seen.has(zeros), seen.add(zeros)]).toEqual([
    false,
    true,
    true,
    false,
  ])
})
