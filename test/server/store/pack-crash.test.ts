/**
 * Whatever is put, flushed, cut off and killed in whatever order: what a flush vouched for is there, what
 * `stat` shows can be read and is right, and nothing else appears. fast-check prints the seed of a failure.
 */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { describe, it } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import type { Id } from '../../../protocol/id.ts'
import { isProblem } from '../../../protocol/problem.ts'
import type { PackChunkStore } from '../../../server/store/pack-chunk-store.ts'
import { collect, type Sample, sampleBlock } from '../../conformance/chunk-store-suite.ts'
import { FaultyFiles } from '../../support/faulty-files.ts'
import { PowerCutDisk, ProcessFiles } from '../../support/power-cut-files.ts'
import { PackSubject } from './pack-subject.ts'

/** Twenty chunks of different lengths, so that blocks meet each other's chunks often. */
const pool: Sample[] = Array.from({ length: 20 }, (_, i) => {
  const bytes = Buffer.alloc(i * 11, i + 1)
  return { id: hashId(bytes), bytes }
})

type Step =
  | { readonly do: 'put'; readonly blocks: readonly (readonly number[])[] }
  | { readonly do: 'flush' | 'close' | 'kill' | 'fail write' | 'fail sync' | 'lose index' }
  | { readonly do: 'cut power'; readonly picks: readonly number[] }

const put = fc.record({
  do: fc.constant('put' as const),
  blocks: fc.array(fc.array(fc.nat(pool.length - 1), { minLength: 1, maxLength: 5 }), {
    minLength: 1,
    maxLength: 4,
  }),
})
const cut = fc.record({
  do: fc.constant('cut power' as const),
  picks: fc.array(fc.nat(1000), { minLength: 40 }),
})
const plain = fc
  .constantFrom('flush', 'close', 'kill', 'fail write', 'fail sync', 'lose index')
  .map((name) => ({ do: name }))
const steps = fc.array(
  fc.oneof({ arbitrary: put, weight: 6 }, { arbitrary: cut, weight: 2 }, { arbitrary: plain, weight: 5 }),
  { maxLength: 25 },
) as fc.Arbitrary<Step[]>

/** Sequences that chance finds too seldom. */
const examples: [Step[]][] = [
  // A recovery that fails.
  [
    [
      { do: 'fail sync' },
      { do: 'put', blocks: [[5], [0]] },
      {
        do: 'put',
        blocks: [
          [11, 3, 6],
          [12, 8, 10],
          [7, 1, 8, 11],
        ],
      },
      { do: 'fail write' },
      { do: 'fail sync' },
      { do: 'put', blocks: [[9]] },
    ],
  ],
  // Several packs that were never synced: a killed process leaves them to the next one, which vouches for all.
  [
    [
      {
        do: 'put',
        blocks: [
          [15, 16, 17, 18, 19],
          [10, 11, 12, 13, 14],
          [5, 6, 7, 8, 9, 1, 2],
        ],
      },
      { do: 'kill' },
      { do: 'cut power', picks: [0] },
    ],
  ],
]

interface Process {
  readonly disk: PowerCutDisk
  readonly files: ProcessFiles
  readonly faults: FaultyFiles
  readonly subject: PackSubject
  readonly store: PackChunkStore
}

async function start(disk: PowerCutDisk, subject: PackSubject): Promise<Process> {
  const files = new ProcessFiles(disk)
  const faults = new FaultyFiles(files)
  return { disk, files, faults, subject, store: await subject.open({ files: faults }) }
}

/** A store, its folder, and what must be true of it. */
class Run {
  #disk: PowerCutDisk
  #files: ProcessFiles
  #faults: FaultyFiles
  #subject: PackSubject
  #store: PackChunkStore
  /** Put, and not yet vouched for. */
  readonly #written = new Set<Id>()
  readonly #promised = new Set<Id>()

  private constructor(process: Process) {
    this.#disk = process.disk
    this.#files = process.files
    this.#faults = process.faults
    this.#subject = process.subject
    this.#store = process.store
  }

  static async begin(): Promise<Run> {
    const subject = await PackSubject.create({ packBytes: 1500 })
    return new Run(await start(await PowerCutDisk.of(subject.vaultDir), subject))
  }

  async end(): Promise<void> {
    await this.#store.close().catch(expectStorageProblem)
    this.#disk.levels.forget()
    await this.#subject.dispose()
  }

  async step(step: Step): Promise<void> {
    if (step.do === 'put') await this.#put(step.blocks)
    else if (step.do === 'flush') await this.#vouched(this.#store.flush())
    else if (step.do === 'fail write') this.#faults.fail('write', 'ENOSPC')
    else if (step.do === 'fail sync') this.#faults.fail('datasync', 'EIO')
    else if (step.do === 'cut power') await this.#cutPower(step.picks)
    else if (step.do === 'kill') await this.#kill()
    else await this.#close(step.do === 'lose index')
    await this.#check()
  }

  async #put(blocks: readonly (readonly number[])[]): Promise<void> {
    const puts = blocks.map(async (places) => {
      const chunks = places.map((place) => pool[place] as Sample)
      try {
        await this.#store.put(await sampleBlock(chunks))
        for (const { id } of chunks) this.#written.add(id)
      } catch (error) {
        expectStorageProblem(error)
      }
    })
    await Promise.all(puts)
  }

  async #vouched(flush: Promise<void>): Promise<void> {
    const { losses } = this.#store
    try {
      await flush
      for (const id of this.#written) this.#promised.add(id)
    } catch (error) {
      expectStorageProblem(error)
      assert.ok(this.#store.losses > losses, 'a failed flush shows in losses')
    }
    this.#written.clear()
  }

  async #close(loseIndex: boolean): Promise<void> {
    await this.#vouched(this.#store.close())
    if (loseIndex) await this.#subject.dropIndex()
    await this.#start(this.#disk, this.#subject)
  }

  async #cutPower(picks: readonly number[]): Promise<void> {
    let next = 0
    const pick = (bound: number): number => (picks[next++ % picks.length] as number) % bound
    await this.#die()
    const copy = await PackSubject.create({ packBytes: 1500 })
    const disk = await this.#disk.cut(copy.vaultDir, pick)
    this.#written.clear()
    await this.#subject.dispose()
    await this.#start(disk, copy)
  }

  async #kill(): Promise<void> {
    await this.#die()
    // Everything written is found again, and an opening flushes what it finds.
    for (const id of this.#written) this.#promised.add(id)
    this.#written.clear()
    await this.#start(this.#disk, this.#subject)
  }

  async #die(): Promise<void> {
    this.#files.kill()
    await this.#store.close().catch(expectStorageProblem)
  }

  async #start(disk: PowerCutDisk, subject: PackSubject): Promise<void> {
    const process = await start(disk, subject)
    this.#disk = disk
    this.#files = process.files
    this.#faults = process.faults
    this.#subject = subject
    this.#store = process.store
  }

  /** The recovery that a failure calls for may meet the next failure; then the next call recovers. */
  async #stat(): Promise<(number | undefined)[]> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#store.stat(pool.map(({ id }) => id))
      } catch (error) {
        expectStorageProblem(error)
        assert.ok(attempt < 25, 'there are no more failures than steps')
      }
    }
  }

  async #check(): Promise<void> {
    const lengths = await this.#stat()
    let present = 0
    for (const [i, { id, bytes }] of pool.entries()) {
      if (lengths[i] === undefined) {
        assert.ok(!this.#promised.has(id), `chunk ${i} was vouched for and is gone`)
        assert.ok(!this.#written.has(id), `chunk ${i} was written and is gone`)
        continue
      }
      present++
      assert.equal(lengths[i], bytes.length)
      assert.ok((await this.#store.get(id))?.equals(bytes), `chunk ${i} reads back`)
    }
    assert.equal(this.#store.usage.chunks, present)
    assert.equal((await collect(this.#store.list())).length, present)
  }
}

function expectStorageProblem(error: unknown): void {
  assert.ok(isProblem(error, 'unavailable') || isProblem(error, 'insufficient-storage'), String(error))
}

describe('a pack store through crashes', () => {
  it('keeps its promises', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (sequence) => {
        const run = await Run.begin()
        try {
          for (const step of sequence) await run.step(step)
        } finally {
          await run.end()
        }
      }),
      { numRuns: 40, examples },
    )
  })
})
