/**
 * One history of a vault: it is worked on, the power goes or the process is killed at a random moment, also while the
 * vault is being opened again; then all that it promised is looked for. A seed repeats it, as far as threads do.
 */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PackChunkStore } from '../../server/store/pack-chunk-store.ts'
import { type Vault, Vaults } from '../../server/vaults.ts'
import { Dice } from '../support/dice.ts'
import { PowerCutDisk, ProcessFiles } from '../support/power-cut-files.ts'
import { removeInPart } from '../support/power-cut-levels.ts'
import { VaultModel } from './vault-model.ts'
import { Stopped, VaultWork } from './vault-work.ts'

export interface CutFigures {
  runs: number
  cuts: number
  kills: number
  /** Of both, those that came while the vault was being opened. */
  whileOpening: number
  operations: number
  bytes: number
  moments: number
}

export function noFigures(): CutFigures {
  return { runs: 0, cuts: 0, kills: 0, whileOpening: 0, operations: 0, bytes: 0, moments: 0 }
}

const vaultName = 'home'
const packBytes = 64 * 1024

export class CutRun {
  readonly #dice: Dice
  readonly #model = new VaultModel()
  readonly #figures: CutFigures
  readonly #folder: string
  #disk: PowerCutDisk
  #disks = 0
  /** What was done and asked of the disk, for a failure's report. */
  readonly story: string[] = []

  private constructor(seed: number, folder: string, disk: PowerCutDisk, figures: CutFigures) {
    this.#dice = new Dice(seed)
    this.#folder = folder
    this.#disk = disk
    this.#figures = figures
  }

  /** Runs the history of a seed. An AssertionError, or whatever else was not to be, has `story` in its message. */
  static async of(seed: number, figures: CutFigures): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'chunkdav-cut-'))
    await mkdir(join(folder, '0'))
    const run = new CutRun(seed, folder, await PowerCutDisk.of(join(folder, '0')), figures)
    try {
      await run.#run()
    } catch (error) {
      throw new Error(`seed ${seed} failed after\n${run.story.slice(-150).join('\n')}`, { cause: error })
    } finally {
      run.#disk.levels.forget()
      // A failed one may still be at work.
      await rm(folder, { recursive: true, force: true, maxRetries: 20 })
    }
    figures.runs++
  }

  async #run(): Promise<void> {
    const lives = 2 + this.#dice.pick(4)
    for (let life = 0; life < lives; life++) await this.#life()
    await this.#lastLife()
  }

  /** From an opening to a sudden end. */
  async #life(): Promise<void> {
    const dice = this.#dice
    let left = dice.once(3) ? dice.pick(60) : Number.POSITIVE_INFINITY
    const files = new ProcessFiles(this.#disk, () => {
      if (left-- <= 0) files.kill()
    })
    const vaults = await this.#open(files)
    const vault = vaults && (await this.#get(vaults, files))
    if (vault === undefined) {
      this.#figures.whileOpening++
    } else {
      left = Number.POSITIVE_INFINITY
      this.story.push('-- opened')
      await this.#model.check(vault)
      left = dice.once(2) ? dice.pick(150) : dice.pick(1200)
      await this.#work(vault, files, 10 + dice.pick(60))
    }
    files.kill()
    this.story.push(...files.trace.slice(-40).map((what) => `      ${what}`))
    await this.#close(vaults, files)
    this.#figures.moments += files.moments
    if (dice.once(4)) await this.#kill()
    else await this.#cut()
    if (dice.once(10)) {
      this.story.push('-- a reindex was interrupted')
      await removeInPart(join(this.#disk.root, 'vaults', vaultName, 'index'), dice.pick)
    }
  }

  /** Undefined when the process ended on the way. */
  async #open(files: ProcessFiles): Promise<Vaults | undefined> {
    try {
      const vaults = await Vaults.open(this.#disk.root, {
        openStore: (path) => PackChunkStore.open(path, { packBytes, files, onFault: () => {} }),
        trashMs: 24 * 3600 * 1000,
        scrubBytesPerSecond: 2 ** 30,
        onDamage: (problem) => {
          // What was under way when the power went may lie about; what anybody needs is not damaged.
          if (files.isAlive && problem.extensions.lostChunks !== 0) throw problem
        },
        files,
      })
      if ((await vaults.list()).length === 0) {
        assert.equal(this.#model.isCreated, false, 'the vault is there')
        await vaults.create(vaultName)
        this.#model.isCreated = true
      }
      return vaults
    } catch (error) {
      if (files.isAlive) throw error
      return undefined
    }
  }

  async #get(vaults: Vaults, files: ProcessFiles): Promise<Vault | undefined> {
    try {
      const vault = await vaults.get(vaultName)
      return files.isAlive ? vault : undefined
    } catch (error) {
      if (files.isAlive) throw error
      return undefined
    }
  }

  async #work(vault: Vault, files: ProcessFiles, each: number): Promise<void> {
    const work = new VaultWork({ vault, model: this.#model, files, dice: this.#dice })
    try {
      await work.run(each)
    } catch (error) {
      if (!(error instanceof Stopped)) throw error
    } finally {
      this.story.push(...work.history)
      this.#figures.operations += work.operations
      this.#figures.bytes += work.bytes
    }
  }

  async #close(vaults: Vaults | undefined, files: ProcessFiles): Promise<void> {
    try {
      await vaults?.close()
    } catch {
      // Its disk is gone.
    }
    await files.settled()
    assert.deepEqual(this.#disk.openFiles, [], 'every file is closed')
  }

  /** The page cache goes on. */
  async #kill(): Promise<void> {
    this.story.push('-- killed')
    this.#figures.kills++
    this.#model.survived = new Set(this.#model.written)
  }

  async #cut(): Promise<void> {
    this.story.push('-- the power was cut')
    this.#figures.cuts++
    this.#model.survived.clear()
    this.#model.written.clear()
    const before = this.#disk.root
    this.#disk = await this.#disk.cut(join(this.#folder, `${++this.#disks}`), this.#dice.pick)
    await rm(before, { recursive: true, force: true })
  }

  /** Nothing happens any more: what is there is there, work goes on, and is there after a proper end too. */
  async #lastLife(): Promise<void> {
    for (const isLast of [false, true]) {
      const files = new ProcessFiles(this.#disk)
      const vaults = (await this.#open(files)) as Vaults
      const vault = await vaults.get(vaultName)
      await this.#model.check(vault)
      const work = new VaultWork({ vault, model: this.#model, files, dice: this.#dice })
      try {
        await work.backUp()
        await work.collectAll()
      } finally {
        this.story.push(...work.history)
      }
      if (isLast) await this.#model.check(vault)
      await vaults.close()
    }
  }
}
