/** Wherever the power goes, or the process, a checkpoint is as it was before or after what was asked for, and nothing is damaged. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { CheckpointState } from '../../../protocol/schema.ts'
import { CheckpointFolder } from '../../../server/catalog/checkpoint-folder.ts'
import { appendItems, readItems, syncItems } from '../../../server/catalog/item-list.ts'
import { Dice } from '../../support/dice.ts'
import { PowerCutDisk, ProcessFiles } from '../../support/power-cut-files.ts'
import { chunk } from '../requests.ts'

const cutsPerMoment = 8
const part = { id: chunk('content').id, size: 7 }

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-checkpoint-cuts-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const opened: CheckpointState = {
  source: 's',
  number: 1,
  kind: 'chunks',
  state: 'open',
  openedAt: '2024-01-01T00:00:00.000Z',
}
const committed: CheckpointState = { ...opened, state: 'committed', items: 1 }

type Found = 'nothing' | 'open' | 'committed'
type Step = (checkpoint: CheckpointFolder, files: ProcessFiles) => Promise<unknown>

const begin: Step = async (checkpoint) => {
  await checkpoint.nextNumber()
  await checkpoint.begin(opened)
}
const append: Step = (checkpoint, files) => appendItems(files, checkpoint.itemsPath(1), 0, [part])
const commit: Step = async (checkpoint, files) => {
  await syncItems(files, checkpoint.itemsPath(1))
  await checkpoint.commit(committed)
}
const remove: Step = (checkpoint) => checkpoint.remove(1)

/** What may be found when it ends in this step, and what it is afterwards. */
interface Stage {
  readonly step: Step
  readonly meanwhile: readonly Found[]
  readonly after: Found
}

const life: Stage[] = [
  { step: begin, meanwhile: ['nothing', 'open'], after: 'open' },
  { step: append, meanwhile: ['open'], after: 'open' },
  { step: commit, meanwhile: ['open', 'committed'], after: 'committed' },
  { step: remove, meanwhile: ['committed', 'nothing'], after: 'nothing' },
]
const givenUp: Stage[] = [
  { step: begin, meanwhile: ['nothing', 'open'], after: 'open' },
  { step: append, meanwhile: ['open'], after: 'open' },
  { step: remove, meanwhile: ['open', 'nothing'], after: 'nothing' },
]

async function look(path: string, files: ProcessFiles): Promise<Found> {
  const damage: unknown[] = []
  const checkpoint = new CheckpointFolder(path, (problem) => damage.push(problem), files)
  const open = await checkpoint.recover()
  const state = await checkpoint.readCommitted(1)
  expect(damage).toEqual([])
  if (state !== undefined) {
    expect(open).toEqual([])
    expect(state).toEqual(committed)
    expect(await readItems(files, checkpoint.itemsPath(1), 0, 1)).toEqual([part])
    return 'committed'
  }
  return open.length === 0 ? 'nothing' : 'open'
}

/** Runs the stages until the process ends at a moment; returns what may be found then. */
async function live(path: string, stages: readonly Stage[], files: ProcessFiles): Promise<readonly Found[]> {
  const checkpoint = new CheckpointFolder(path, undefined, files)
  let mayBe: readonly Found[] = ['nothing']
  try {
    for (const { step, meanwhile, after } of stages) {
      mayBe = meanwhile
      await step(checkpoint, files)
      mayBe = [after]
    }
  } catch (error) {
    if (files.isAlive) throw error
  }
  return mayBe
}

async function everyMoment(
  stages: readonly Stage[],
  end: (disk: PowerCutDisk, dice: Dice, mayBe: readonly Found[], place: string) => Promise<void>,
): Promise<void> {
  for (let moment = 0, isOver = false; !isOver; moment++) {
    for (let cut = 0; cut < cutsPerMoment; cut++) {
      const root = join(folder, `${moment}-${cut}`)
      await mkdir(join(root, 's'), { recursive: true })
      const disk = await PowerCutDisk.of(root)
      let left = moment
      const files = new ProcessFiles(disk, () => {
        if (left-- <= 0) files.kill()
      })
      const mayBe = await live(join(root, 's'), stages, files)
      isOver = files.isAlive
      files.kill()
      await end(disk, new Dice(moment * cutsPerMoment + cut), mayBe, `moment ${moment}, cut ${cut}`)
    }
  }
}

test.each([
  ['committed and deleted', life],
  ['given up', givenUp],
])('a checkpoint that is %s: the power goes', async (_, stages) => {
  await everyMoment(stages, async (disk, dice, mayBe, place) => {
    const after = await disk.cut(`${disk.root}-cut`, dice.pick)
    const found = await look(join(after.root, 's'), new ProcessFiles(after))
    expect(mayBe, place).toContain(found)
    after.levels.forget()
  })
})

test('what was found after a process was killed is there after the power went, too', async () => {
  await everyMoment(life, async (disk, dice, mayBe, place) => {
    const files = new ProcessFiles(disk)
    const found = await look(join(disk.root, 's'), files)
    expect(mayBe, place).toContain(found)
    files.kill()
    const after = await disk.cut(`${disk.root}-cut`, dice.pick)
    expect(await look(join(after.root, 's'), new ProcessFiles(after)), place).toBe(found)
    after.levels.forget()
  })
})
