/** `chunkdav doctor`: what it says of each damage, and that it changes nothing. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, truncate, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { examine } from '../../server/doctor/doctor.ts'
import type { Finding, Severity } from '../../server/doctor/finding.ts'
import { PackChunkStore } from '../../server/store/pack-chunk-store.ts'
import { backUp } from '../support/backup.ts'
import { cutIn, flipAt, flipHeader, flipPayload, recordOf, recordsOf, removePack } from '../support/damage.ts'
import { startReceiver } from '../support/receiver.ts'
import { nodeArguments, runServerCommand, watch } from '../support/serve-process.ts'
import { seededBytes, temporaryFolder } from '../support/tree.ts'
import { hasStrace } from '../work/system-calls.ts'

const MiB = 1024 * 1024

/** A data directory with two backups of each kind and a live tree; copied for each test. */
let original: string
let dataDir: string

beforeAll(async () => {
  original = await mkdtemp(join(tmpdir(), 'chunkdav-doctor-test-'))
  await using folder = await temporaryFolder()
  const server = await startReceiver({
    dataDir: original,
    openStore: (path) => PackChunkStore.open(path, { packBytes: MiB }),
  })
  await mkdir(join(folder.path, 'source/docs'), { recursive: true })
  for (const name of ['one', 'docs/two', 'three']) {
    await writeFile(join(folder.path, 'source', name), seededBytes(name, 700_000))
  }
  for (const as of ['dir', 'chunks'] as const) {
    const setup = { vaultUrl: server.vaultUrl, state: join(folder.path, 'state'), source: as, as }
    await backUp(join(folder.path, 'source'), setup)
  }
  for (const name of ['a', 'b'])
    await fetch(`${server.vaultUrl}/tree/${name}`, { method: 'PUT', body: `live ${name}` })
  await fetch(`${server.vaultUrl}/checkpoints/open/`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: '{"kind":"dir"}',
  })
  await server.stop()
})
afterAll(async () => {
  await rm(original, { recursive: true })
})
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-doctor-test-'))
  await copyTree(original, dataDir)
})
afterEach(async () => {
  await rm(dataDir, { recursive: true })
})

async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true, mode: 0o700 })
  await chmod(to, 0o700)
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [path, copy] = [join(from, entry.name), join(to, entry.name)]
    if (entry.isDirectory()) await copyTree(path, copy)
    else await writeFile(copy, await readFile(path), { mode: 0o600 })
  }
}

/** Every file of the directory with its content: what must stay as it is. */
async function fingerprint(path = dataDir): Promise<string> {
  const hash = createHash('sha256')
  for (const name of (await readdir(path, { recursive: true })).sort()) {
    hash.update(name)
    try {
      hash.update(await readFile(join(path, name)))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EISDIR') throw error
    }
  }
  return hash.digest('hex')
}

async function doctor(deep = false) {
  const before = await fingerprint()
  const findings: Finding[] = []
  const report = await examine(dataDir, { deep }, (finding) => findings.push(finding))
  expect(await fingerprint()).toBe(before)
  const of = (severity: Severity) =>
    findings.filter((each) => each.severity === severity).map(({ place, what }) => `${place}: ${what}`)
  return { report, findings, problems: of('problem'), warnings: of('warning'), notes: of('note') }
}

const home = (...names: string[]) => join(dataDir, 'vaults/home', ...names)
const firstIn = async (folder: string, pattern: RegExp): Promise<string> => {
  const name = (await readdir(folder)).sort().find((each) => pattern.test(each))
  if (name === undefined) throw new Error(`nothing like ${pattern} is in ${folder}`)
  return join(folder, name)
}
const withContent = (name: string) =>
  recordOf(dataDir, (bytes) => bytes.indexOf(seededBytes(name, 1000)) >= 0)

test.each([[false], [true]])('a sound directory has no problem (deep: %s)', async (deep) => {
  const { report, problems, warnings, notes } = await doctor(deep)
  expect([problems, warnings]).toEqual([[], []])
  expect(report).toEqual({ isInUse: false, vaults: 1, problems: 0, warnings: 0 })
  expect(notes).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^vaults\/home\/packs: \d+ blocks in \d packs, \d+ bytes/),
      'vaults/home/checkpoints: 2 backups',
      expect.stringMatching(/^vaults\/home\/index: \d+ rows, all of them looked at$/),
      'vaults/home/tree: 2 files',
      expect.stringMatching(/^vaults\/home\/checkpoints\/open\/1.open.json: begun at .* and not finished$/),
    ]),
  )
})

type Damage = [
  string,
  () => Promise<unknown>,
  RegExp,
  { deep?: boolean; severity?: Severity; todo?: RegExp }?,
]

const damages: Damage[] = [
  [
    'a flipped bit in a payload',
    async () => flipPayload(await withContent('one')),
    /packs\/0000000\d\.pack: from byte \d+: the payload is damaged/,
    { deep: true, todo: /chunkdav check/ },
  ],
  [
    'a damaged header in a pack',
    async () => flipHeader(await withContent('one')),
    /packs\/0000000\d\.pack: from byte \d+: there is no record/,
  ],
  [
    'a header of a pack',
    async () => flipAt(home('packs/00000001.pack'), 2),
    /its header is damaged/,
    { severity: 'warning' },
  ],
  [
    'a pack that is gone',
    async () => removePack(await withContent('one')),
    /index: \d+ rows? of \d+ looked at/,
  ],
  [
    'a pack that is cut short',
    async () => cutIn(await withContent('one')),
    /00000001\.pack: from byte \d+: the record is cut short/,
  ],
  [
    'the last pack cut short',
    async () => cutIn((await recordsOf(dataDir)).at(-1) as never),
    /0000000\d\.pack: from byte \d+ it is damaged or cut off, and that was stored safely once/,
  ],
  [
    'something behind the last record',
    async () => {
      const { path, offset, header } = (await recordsOf(dataDir)).at(-1) as never as Awaited<
        ReturnType<typeof withContent>
      >
      await truncate(path, offset + header.totalBytes + 100)
    },
    /it ends in something unfinished, from byte \d+: normal after a crash/,
    { severity: 'note' },
  ],
  [
    'a foreign file among the packs',
    () => writeFile(home('packs/notes.txt'), ''),
    /notes\.txt: it is no pack/,
    { severity: 'warning' },
  ],
  [
    'no index',
    () => rm(home('index'), { recursive: true }),
    /index: there is none; the next start makes it/,
    { severity: 'note' },
  ],
  [
    'an index that LevelDB cannot read',
    async () => truncate(await firstIn(home('index'), /^MANIFEST-/), 3),
    /index: it does not open/,
    { todo: /chunkdav reindex --data \// },
  ],
  [
    'all packs gone',
    () => rm(home('packs'), { recursive: true }),
    /index: it knows 0000000\d\.pack, which is gone/,
    { todo: /bring missing packs back/ },
  ],
  [
    'a checkpoint that does not parse',
    () => writeFile(home('checkpoints/dir/1.json'), '{'),
    /dir\/1\.json: the checkpoint file .* is damaged/,
    { todo: /chunkdav forget URL dir\/1/ },
  ],
  [
    'a list of items that is gone',
    () => unlink(home('checkpoints/chunks/1.items')),
    /chunks\/1\.items: the list of the backup is gone/,
  ],
  [
    'a list of items that is short',
    () => truncate(home('checkpoints/chunks/1.items'), 20),
    /chunks\/1\.items: the list of the backup has 0 items of/,
  ],
  [
    'a list of items with a wrong bit',
    () => flipAt(home('checkpoints/chunks/1.items'), 5),
    /chunks\/1\.json: the item list .*1\.items is damaged/,
  ],
  [
    'a remainder',
    () => writeFile(home('checkpoints/dir/2.json.tmp'), '{'),
    /dir: 1 remainder of a stop/,
    { severity: 'note' },
  ],
  [
    'a backup that nobody goes on with',
    async () => {
      const path = home('checkpoints/open/1.open.json')
      const state = JSON.parse(await readFile(path, 'utf8'))
      await writeFile(path, JSON.stringify({ ...state, openedAt: '2020-01-01T00:00:00.000Z' }))
    },
    /open\/1\.open\.json: begun at 2020-01-01/,
    { severity: 'warning', todo: /chunkdav forget URL open\/1/ },
  ],
  [
    'a live tree that LevelDB cannot read',
    async () => truncate(await firstIn(home('tree'), /^MANIFEST-/), 3),
    /tree: it does not open/,
    { todo: /mv .*tree / },
  ],
  [
    'a live tree that has lost its CURRENT',
    () => unlink(home('tree/CURRENT')),
    /tree: its file CURRENT is gone/,
    { todo: /mv .*tree .*--gc off/ },
  ],
  [
    'settings that do not parse',
    () => writeFile(home('settings.json'), '{'),
    /settings\.json: /,
    { todo: /chunkdav policy/ },
  ],
  [
    'a collection that failed',
    async () => {
      await mkdir(home('upkeep'), { recursive: true })
      const last = {
        finishedAt: '2026-01-01T00:00:00Z',
        outcome: 'failed',
        detail: 'a root is gone',
        report: {},
      }
      await writeFile(home('upkeep/collection.json'), JSON.stringify(last))
    },
    /the last garbage collection failed: a root is gone/,
    { severity: 'warning', todo: /chunkdav gc/ },
  ],
  [
    'quarantined blocks',
    async () => {
      await mkdir(home('quarantine'))
      await writeFile(home('quarantine/00000001-16.json'), '{}')
    },
    /quarantine: 1 damaged block was put aside/,
    { severity: 'warning' },
  ],
  [
    'users that do not parse',
    () => writeFile(join(dataDir, 'users.json'), '{', { mode: 0o600 }),
    /^users\.json: /,
  ],
  [
    'users that others can read',
    () => writeFile(join(dataDir, 'users.json'), '{"format":1,"users":[],"tokens":[]}', { mode: 0o644 }),
    /^users\.json: others than its owner may read it/,
    { todo: /chmod 600 / },
  ],
  [
    'a directory that others can write',
    () => chmod(dataDir, 0o777),
    /^\.: others may write here/,
    { todo: /chmod 700 / },
  ],
  [
    'a directory that others can read',
    () => chmod(dataDir, 0o755),
    /^\.: others may look in here/,
    { severity: 'warning' },
  ],
]

describe('it finds', () => {
  test.each(damages)('%s', async (_, damage, expected, { deep = false, severity = 'problem', todo } = {}) => {
    await damage()
    const { findings, report } = await doctor(deep)
    const found = findings.filter(({ place, what }) => expected.test(`${place}: ${what}`))
    expect(found, JSON.stringify(findings, undefined, 1)).toHaveLength(1)
    expect(found[0]?.severity).toBe(severity)
    if (todo !== undefined) expect(found[0]?.todo).toMatch(todo)
    else if (severity !== 'note') expect(found[0]?.todo).toBeTypeOf('string')
    expect(report.problems > 0).toBe(severity === 'problem')
  })

  test('a root directory that is gone', async () => {
    const { root } = JSON.parse(await readFile(home('checkpoints/dir/1.json'), 'utf8'))
    await writeFile(
      home('checkpoints/dir/1.json'),
      JSON.stringify({
        ...JSON.parse(await readFile(home('checkpoints/dir/1.json'), 'utf8')),
        root: root.replace(/.{4}$/, '0000'),
      }),
    )
    expect((await doctor()).problems).toEqual([
      expect.stringMatching(/^vaults\/home\/index: the root directory of backup dir\/1 is gone/),
    ])
  })

  test.runIf(process.getuid?.() === 0)('files of another user', async () => {
    const { chown } = await import('node:fs/promises')
    await chown(home('packs/00000001.pack'), 12345, 12345)
    const { problems, findings } = await doctor()
    expect(problems).toEqual([
      expect.stringMatching(/^\.: vaults\/home\/packs\/00000001\.pack: of another user/),
    ])
    expect(findings.find(({ severity }) => severity === 'problem')?.todo).toMatch(/^chown -R 0:0 \//)
  })

  test('a scrub that is long past, and what it said is harmed', async () => {
    const counts = {
      bytes: 0,
      totalBytes: 0,
      records: 0,
      chunks: 0,
      badRecords: 0,
      strayRows: 0,
      lostChunks: 0,
      healedChunks: 0,
    }
    const checkpoints = [{ source: 'dir', number: 1, count: 2, paths: ['one', 'docs/two'] }]
    const at = '2026-01-01T00:00:00.000Z'
    const harm = { at, missingChunks: 1, checkpoints }
    const report = {
      startedAt: at,
      complete: true,
      lastCompleteAt: '2020-01-01T00:00:00.000Z',
      ...counts,
      found: [],
      harm,
    }
    await mkdir(home('upkeep'), { recursive: true })
    await writeFile(
      home('upkeep/scrub.json'),
      JSON.stringify({ startedAt: at, finishedAt: at, outcome: 'done', report }),
    )
    const { problems, warnings } = await doctor()
    expect(problems).toEqual([
      expect.stringMatching(/^vaults\/home: content of backups dir\/1 is damaged or gone/),
    ])
    expect(warnings).toEqual([expect.stringMatching(/the last scrub that read everything ended at 2020/)])
  })
})

describe('the command', () => {
  test('says what there is, and ends with 0 or 1', async () => {
    const sound = runServerCommand(['doctor', '--data', dataDir])
    expect([await sound.ended, sound.err]).toEqual([0, ''])
    expect(sound.out).toMatch(/No problem found\.\n$/)
    await flipHeader(await withContent('one'))
    const found = runServerCommand(['doctor', '--data', dataDir, '--json'])
    expect(await found.ended).toBe(1)
    const lines = found.out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines.at(-1)).toMatchObject({ type: 'summary', sound: false, problems: 2, inUse: false })
    expect(lines[0]).toMatchObject({
      type: 'finding',
      severity: expect.any(String),
      place: expect.any(String),
    })
    const wrong = runServerCommand(['doctor', '--nothing'])
    expect(await wrong.ended).toBe(2)
    const absent = runServerCommand(['doctor', '--data', join(dataDir, 'none')])
    expect([await absent.ended, absent.out + absent.err]).toEqual([
      1,
      expect.stringMatching(/there is nothing at .*none/),
    ])
  })

  test.skipIf(!hasStrace)('tells that no receiver is at work, however slow its links are made', async () => {
    const slow = ['-e', 'trace=?symlink,symlinkat', '-e', 'inject=?symlink,symlinkat:delay_enter=50000']
    const program = [process.execPath, ...nodeArguments, 'doctor', '--data', dataDir, '--json']
    const command = ['-f', '-qq', '-o', '/dev/null', ...slow, ...program]
    const doctor = watch(spawn('strace', command, { stdio: ['ignore', 'pipe', 'pipe'] }))
    expect([await doctor.ended, doctor.err]).toEqual([0, ''])
    expect(doctor.out).not.toContain('cannot be told')
  })

  test('sees that a receiver is at work, and leaves it alone', async () => {
    await using serve = runServerCommand(['serve', '--data', dataDir, '--listen', '127.0.0.1:0'])
    while (!serve.out.includes('listens on')) await new Promise((resolve) => setTimeout(resolve, 20))
    const url = /listens on (\S+)/.exec(serve.out)?.[1]
    expect((await fetch(`${url}/home/`)).status).toBe(200)
    const doctor = runServerCommand(['doctor', '--data', dataDir, '--json'])
    expect(await doctor.ended).toBe(0)
    expect(JSON.parse(doctor.out.trimEnd().split('\n').at(-1) ?? '')).toMatchObject({
      inUse: true,
      problems: 0,
    })
    // It still has its lock.
    const second = runServerCommand(['serve', '--data', dataDir, '--listen', '127.0.0.1:0'])
    expect(await second.ended).toBe(1)
    expect((await fetch(`${url}/home/tree/a`)).status).toBe(200)
  })
})
