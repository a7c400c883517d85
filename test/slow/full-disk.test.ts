/**
 * `npm run proof:full-disk`: a disk of 64 MiB fills up in the middle of a backup, under the real receiver and the real
 * client as processes. Once by the backups themselves, with the reserve and without one, and once by somebody else, to
 * the last byte, while the receiver runs and while it is started. Each time: the client ends with 1 and one clear line;
 * the receiver stays up and shows and restores what is there; and it goes on by itself when there is space again.
 *
 * CHUNKDAV_DISK_MIB and CHUNKDAV_BACKUP_MIB say how large disk and backup are (64 and 200).
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { runServerCommand, type ServeProcess, serveProcess } from '../support/serve-process.ts'
import { growToTheLastByte, type SmallDisk, smallDisk } from '../support/small-disk.ts'
import { listing, seededBytes, temporaryFolder } from '../support/tree.ts'

const MiB = 1024 * 1024
const diskBytes = Number(process.env.CHUNKDAV_DISK_MIB ?? 64) * MiB
const backupMiB = Number(process.env.CHUNKDAV_BACKUP_MIB ?? 200)
const bin = new URL('../../client/bin.ts', import.meta.url).pathname

const probe = await smallDisk(diskBytes)
const reason = typeof probe === 'string' ? probe : undefined
if (typeof probe !== 'string') await probe[Symbol.asyncDispose]()
if (reason !== undefined) console.log(`skipped, a file system of its own cannot be mounted here: ${reason}`)

/** Files of a MiB and some small ones, all different. */
function makeTree(root: string, mib: number, seed: string): void {
  mkdirSync(root, { recursive: true })
  for (let i = 0; i < mib; i++) {
    writeFileSync(join(root, `large-${i}`), seededBytes(`${seed} ${i}`, MiB))
    writeFileSync(join(root, `small-${i}`), seededBytes(`${seed} small ${i}`, 100 + i))
  }
}

interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** What the tests do to one receiver on one disk. */
class Stage {
  readonly disk: SmallDisk
  readonly folder: string
  serve: ServeProcess | undefined
  readonly #args: readonly string[]
  readonly figures: Record<string, unknown>

  constructor(disk: SmallDisk, folder: string, args: readonly string[]) {
    this.disk = disk
    this.folder = folder
    this.#args = args
    this.figures = { disk: disk.kind, diskMiB: diskBytes / MiB }
    for (const [name, mib] of [
      ['first', 4],
      ['second', 4],
      ['huge', backupMiB],
    ] as const) {
      makeTree(this.path(name), mib, name)
    }
  }

  path(name: string): string {
    return join(this.folder, name)
  }

  get url(): string {
    return this.serve?.urls[0] ?? ''
  }

  get dataDir(): string {
    return join(this.disk.path, 'data')
  }

  async start(): Promise<void> {
    this.serve = await serveProcess(this.dataDir, ['--listen', '127.0.0.1:0', ...this.#args])
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.serve?.child.kill(signal)
    await this.serve?.ended
  }

  async chunkdav(...args: string[]): Promise<Ended> {
    const env = { ...process.env, CHUNKDAV_STATE_DIR: this.path('state') }
    const child = spawn(process.execPath, [bin, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let [out, err] = ['', '']
    child.stdout.on('data', (text) => {
      out += text
    })
    child.stderr.on('data', (text) => {
      err += text
    })
    const [code] = (await once(child, 'close')) as [number]
    return { code, out, err }
  }

  backUp(name: string): Promise<Ended> {
    return this.chunkdav('backup', this.path(name), `${this.url}/home`, '--source', name)
  }

  async expectBackUp(name: string): Promise<void> {
    const { code, err } = await this.backUp(name)
    expect([code, err]).toEqual([0, ''])
  }

  /** It fails with one line, which says that there is no space. */
  async expectNoSpace(name: string): Promise<void> {
    const started = performance.now()
    const { code, err } = await this.backUp(name)
    this.figures.refusedAfterMs = Math.round(performance.now() - started)
    this.figures.refusal = err.trim()
    expect([code, err.trimEnd().split('\n').length]).toEqual([1, 1])
    expect(err).toMatch(/^chunkdav: .*(nearly full|no space left).*\n$/)
  }

  async expectRestored(name: string): Promise<void> {
    const to = this.path('restored')
    const { code, err } = await this.chunkdav('restore', `${this.url}/home`, '--source', name, '--to', to)
    expect([code, err]).toEqual([0, ''])
    expect(listing(to)).toEqual(listing(this.path(name)))
    rmSync(to, { recursive: true })
  }

  /** The receiver is up, lists what there is, and restores it. */
  async expectServing(...names: string[]): Promise<void> {
    const health = await fetch(`${this.url}/-/health`)
    expect(health.status).toBe(200)
    this.figures.health = ((await health.json()) as { status: string }).status
    const { code, out } = await this.chunkdav('checkpoints', `${this.url}/home`)
    expect(code).toBe(0)
    for (const name of names) {
      expect(out).toMatch(new RegExp(`^${name} +\\d+ `, 'm'))
      await this.expectRestored(name)
    }
    expect(this.serve?.child.exitCode).toBeNull()
  }

  /** With the receiver stopped: nothing is torn. */
  async expectSound(): Promise<void> {
    await this.stop()
    const doctor = runServerCommand(['doctor', '--data', this.dataDir, '--deep'])
    expect([await doctor.ended, doctor.out]).toEqual([0, expect.stringContaining('No problem found')])
    const reindex = runServerCommand(['reindex', '--data', this.dataDir])
    expect([await reindex.ended, reindex.err]).toEqual([0, ''])
    expect(reindex.out).not.toContain('damaged')
    this.figures.reindex = reindex.out.trim()
  }

  tell(what: string): void {
    console.log(what, JSON.stringify(this.figures))
  }
}

async function onStage(args: readonly string[], play: (stage: Stage) => Promise<void>): Promise<void> {
  const disk = await smallDisk(diskBytes)
  if (typeof disk === 'string') throw new Error(disk)
  await using folder = await temporaryFolder()
  const stage = new Stage(disk, folder.path, args)
  try {
    await play(stage)
  } catch (error) {
    console.log(stage.serve?.err.slice(-4000))
    throw error
  } finally {
    await stage.stop('SIGKILL')
    await disk[Symbol.asyncDispose]()
  }
}

describe.skipIf(reason !== undefined)('a full disk', () => {
  test.each([
    ['the reserve is kept', [] as string[]],
    ['without a reserve', ['--reserve', '0']],
  ])('filled by a backup: %s', async (what, args) => {
    await onStage(args, async (stage) => {
      const { disk } = stage
      await stage.start()
      await stage.expectBackUp('first')
      // What will be removed to make space.
      const filler = join(disk.path, 'filler')
      await writeFile(filler, seededBytes('filler', 24 * MiB))
      await stage.expectNoSpace('huge')
      stage.figures.freeMiB = (await disk.freeBytes()) / MiB
      await stage.expectServing('first')
      await stage.expectNoSpace('second')
      // Small things go on in the reserve.
      if (args.length === 0) {
        expect(await disk.freeBytes()).toBeGreaterThan(0.04 * diskBytes)
        expect((await stage.chunkdav('pin', `${stage.url}/home`, 'first/1')).code).toBe(0)
        expect((await stage.chunkdav('policy', `${stage.url}/home`, '--keep-last', '9')).code).toBe(0)
      }
      await rm(filler)
      await stage.expectBackUp('second')
      await stage.expectServing('first', 'second')
      await stage.expectSound()
      await stage.start()
      await stage.expectServing('first', 'second')
      stage.tell(what)
    })
  })

  test('deleting backups and collecting garbage gives the space back', async () => {
    await onStage([], async (stage) => {
      await stage.start()
      const url = `${stage.url}/home`
      await stage.expectBackUp('first')
      await stage.expectNoSpace('huge')
      await stage.expectNoSpace('second')
      const stored = async (): Promise<number> =>
        ((await (await fetch(`${url}/`)).json()) as { storedBytes: number }).storedBytes
      const before = await stored()
      // What the huge one has sent is kept as long as somebody may go on with it.
      for (const name of ['huge/1', 'second/1']) {
        const { code, err } = await stage.chunkdav('forget', url, name, '--yes')
        expect([code, err]).toEqual([0, ''])
      }
      const { code, err } = await stage.chunkdav('gc', url)
      expect([code, err]).toEqual([0, ''])
      stage.figures.storedMiB = [before, await stored()].map((bytes) => Math.round(bytes / MiB))
      stage.figures.freeMiB = Math.round((await stage.disk.freeBytes()) / MiB)
      expect(await stored()).toBeLessThan(before / 4)
      await stage.expectBackUp('second')
      await stage.expectServing('first', 'second')
      await stage.expectSound()
      await stage.start()
      await stage.expectServing('first', 'second')
      stage.tell('space given back')
    })
  })

  test('filled to the last byte by somebody else, while the receiver runs and while it is started', async () => {
    await onStage([], async (stage) => {
      const { disk } = stage
      await stage.start()
      await stage.expectBackUp('first')
      await stage.expectBackUp('second')
      const filler = join(disk.path, 'filler')
      stage.figures.fillerMiB = Math.round((await growToTheLastByte(filler)) / MiB)
      expect(await disk.freeBytes()).toBe(0)
      await stage.expectNoSpace('huge')
      await stage.expectServing('first', 'second')
      // A collection that needs more than there is to move what is left of a pack fails, and costs nothing.
      expect((await stage.chunkdav('forget', `${stage.url}/home`, 'second/1', '--yes')).code).toBe(0)
      const { code, err } = await stage.chunkdav('gc', `${stage.url}/home`)
      stage.figures.collected = code === 0 ? Math.round((await disk.freeBytes()) / MiB) : err.trim()
      expect(err.trimEnd().split('\n').length).toBe(1)
      await growToTheLastByte(filler)
      await stage.expectServing('first')
      for (const signal of ['SIGTERM', 'SIGKILL', 'SIGTERM'] as const) {
        await stage.stop(signal)
        await stage.start()
        await stage.expectServing('first')
        await growToTheLastByte(filler)
        await stage.expectNoSpace('second')
        await stage.expectServing('first')
      }
      await rm(filler)
      await stage.expectBackUp('second')
      await stage.expectServing('first', 'second')
      await stage.expectSound()
      await stage.start()
      await stage.expectServing('first', 'second')
      const audit = await readFile(join(stage.dataDir, 'audit.jsonl'), 'utf8')
      for (const line of audit.trimEnd().split('\n')) JSON.parse(line)
      stage.tell('filled from outside')
    })
  })
})
