/**
 * One scripted history of a vault in which a single call fails: of the disk, or LevelDB's. Every call of it can be the
 * one. Whatever was asked for then is refused or done; nothing that was promised before is lost, everything works
 * again behind it, and the power may go at the end.
 */
import assert from 'node:assert/strict'
import { type FileHandle, mkdir, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type FileLayer, filesOver, type Handle } from '../../server/file-layer.ts'
import { PackChunkStore } from '../../server/store/pack-chunk-store.ts'
import { type Vault, Vaults } from '../../server/vaults.ts'
import { Dice } from '../support/dice.ts'
import { FaultyFiles, type FileCall, fileCalls } from '../support/faulty-files.ts'
import { PowerCutDisk, ProcessFiles } from '../support/power-cut-files.ts'
import { isDiskFault, VaultModel } from './vault-model.ts'
import { VaultWork } from './vault-work.ts'

export interface Fault {
  readonly call: FileCall | 'batch'
  readonly code: 'EIO' | 'ENOSPC'
  /** Calls of its kind that go well before. */
  readonly after: number
}

const packBytes = 16 * 1024
/** A pack that cannot be read counts as damaged, and its chunks are sent again: that is for other tests. */
const reading: ReadonlySet<Fault['call']> = new Set(['open', 'read'])
const takesSpace: ReadonlySet<Fault['call']> = new Set(['create', 'write', 'makeFolder', 'rename'])

/** Files whose every read and write does half of what it is asked for. */
export const shortFiles: FileLayer = filesOver(async (path, flags) => halfDoing(await open(path, flags)))

function halfDoing(handle: FileHandle): Handle {
  const half = (length: number): number => Math.ceil(length / 2)
  const read = (target: Buffer, at: number, length: number, position: number) =>
    handle.read(target, at, half(length), position)
  const writev = (parts: readonly Buffer[], position: number) => {
    const [first = Buffer.alloc(0)] = parts.filter(({ length }) => length > 0)
    return handle.writev([first.subarray(0, half(first.length))], position)
  }
  const { datasync, truncate, stat, close } = handle
  return {
    read,
    writev,
    datasync: datasync.bind(handle),
    truncate: truncate.bind(handle),
    stat: stat.bind(handle),
    close: close.bind(handle),
  } as Handle
}

/** Every fault there is in the history, but none that costs chunks. */
export async function allFaults(): Promise<Fault[]> {
  const { faults, batches } = await runWith(undefined)
  const faultsOf = (call: Fault['call'], count: number): Fault[] => {
    const codes = takesSpace.has(call) ? (['EIO', 'ENOSPC'] as const) : (['EIO'] as const)
    return Array.from({ length: count }, (_, after) => codes.map((code) => ({ call, code, after }))).flat()
  }
  return [
    ...fileCalls
      .flatMap((call) => faultsOf(call, faults.count(call)))
      .filter(({ call, after }) => !reading.has(call) || !isOfPack(nthOf(faults, call, after))),
    ...faultsOf('batch', batches),
  ]
}

function nthOf({ calls }: FaultyFiles, call: Fault['call'], place: number): string {
  return calls.filter((made) => made.startsWith(`${call} `))[place] ?? ''
}

function isOfPack(made: string): boolean {
  return made.endsWith('.pack')
}

/** Runs the history with one fault, or none. */
export async function runWith(
  fault: Fault | undefined,
  base?: FileLayer,
): Promise<{ faults: FaultyFiles; batches: number }> {
  const folder = await mkdtemp(join(tmpdir(), 'chunkdav-fault-'))
  const history: string[] = []
  try {
    await mkdir(join(folder, '0'))
    return await new FaultRun(folder, await PowerCutDisk.of(join(folder, '0')), fault, history, base).run()
  } catch (error) {
    throw new Error(`with ${JSON.stringify(fault)} after\n${history.slice(-80).join('\n')}`, { cause: error })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

class FaultRun {
  readonly #folder: string
  readonly #disk: PowerCutDisk
  readonly #fault: Fault | undefined
  readonly #model = new VaultModel()
  readonly #dice = new Dice(1)
  readonly #history: string[]
  readonly #process: ProcessFiles
  readonly #files: FaultyFiles

  constructor(
    folder: string,
    disk: PowerCutDisk,
    fault: Fault | undefined,
    history: string[],
    base?: FileLayer,
  ) {
    this.#folder = folder
    this.#disk = disk
    this.#fault = fault
    this.#history = history
    this.#process = new ProcessFiles(disk, undefined, base)
    this.#files = new FaultyFiles(this.#process)
  }

  async run(): Promise<{ faults: FaultyFiles; batches: number }> {
    if (this.#fault?.call === 'batch') this.#disk.levels.failBatchAfter = this.#fault.after
    else if (this.#fault !== undefined)
      this.#files.fail(this.#fault.call, this.#fault.code, 1, this.#fault.after)
    await this.#live()
    // The second opening finds what the first has left.
    await this.#live()
    const counted = { faults: this.#files, batches: this.#disk.levels.batches }
    this.#process.kill()
    const after = await this.#disk.cut(join(this.#folder, '1'), this.#dice.pick)
    const files = new ProcessFiles(after)
    const vaults = await this.#open(files, files)
    const vault = await vaults.get('home')
    await this.#model.check(vault)
    await vaults.close()
    after.levels.forget()
    return counted
  }

  async #live(): Promise<void> {
    const vaults = await this.#again(() => this.#open(this.#files, this.#process))
    const vault = await this.#again(() => vaults.get('home'))
    await this.#tree(vault)
    const work = new VaultWork({
      vault,
      model: this.#model,
      files: this.#process,
      dice: this.#dice,
      mayFail: this.#fault !== undefined,
    })
    try {
      await this.#script(work)
    } finally {
      this.#history.push('-- opened', ...work.history, `-- failed: ${this.#files.failed}`)
    }
    await this.#check(vault)
    await this.#again(() => vaults.close())
    assert.equal(this.#files.openFiles, 0, 'every file is closed')
  }

  /** What one fault kept from being done can be done. */
  async #again<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (this.#fault === undefined || !isDiskFault(error)) throw error
      return await work()
    }
  }

  /** The vault as it is goes on after its fault: what it promised is there at once. */
  async #check(vault: Vault): Promise<void> {
    await this.#again(() => this.#model.look(vault))
  }

  /** What kept it from being opened is tried again behind the first who asks. */
  async #tree(vault: Vault): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        vault.tree
        return
      } catch (error) {
        if (tries > 1000 || this.#fault === undefined || !isDiskFault(error)) throw error
        await sleep(1)
      }
    }
  }

  async #open(files: FileLayer, process: ProcessFiles): Promise<Vaults> {
    const vaults = await Vaults.open(process.disk.root, {
      openStore: (path) => PackChunkStore.open(path, { packBytes, files }),
      trashMs: 24 * 3600 * 1000,
      scrubBytesPerSecond: 2 ** 30,
      files,
    })
    if (!(await vaults.list()).includes('home')) await vaults.create('home')
    return vaults
  }

  async #script(work: VaultWork): Promise<void> {
    await work.begin('chunks')
    await work.put()
    await work.batch()
    await work.items()
    await work.touch()
    await work.flush()
    await work.putFiles()
    await work.makeCollection()
    await work.commit()
    await work.begin('dir')
    await work.commit()
    await work.pin()
    await work.putFiles()
    await work.move()
    await work.freeze()
    await work.batch()
    await work.remove()
    await work.collect(0)
    await work.begin('chunks')
    await work.put()
    await work.items()
    await work.commit()
    await work.scrub()
    await work.delete()
    await work.prune('backup')
    await work.flush()
  }
}
