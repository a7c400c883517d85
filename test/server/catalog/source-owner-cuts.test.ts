/** Wherever the power goes: a source that has a checkpoint, or ever gave a number, has the owner who was told so. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { isProblem } from '../../../protocol/problem.ts'
import { openCatalog } from '../../../server/catalog/catalog.ts'
import type { Checkpoints } from '../../../server/catalog/checkpoints.ts'
import { type Claimant, unlimited } from '../../../server/catalog/source-owner.ts'
import { MemoryChunkStore } from '../../../server/store/memory-chunk-store.ts'
import { Dice } from '../../support/dice.ts'
import { PowerCutDisk, ProcessFiles } from '../../support/power-cut-files.ts'

const cutsPerMoment = 2
const alice: Claimant = { name: 'alice', mayUseAny: false }
const bob: Claimant = { name: 'bob', mayUseAny: false }

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-owner-cuts-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function checkpointsOn(disk: PowerCutDisk, files: ProcessFiles): Promise<Checkpoints> {
  const damage: unknown[] = []
  const { checkpoints } = await openCatalog(
    disk.root,
    new MemoryChunkStore(),
    (problem) => damage.push(problem),
    files,
  )
  expect(damage).toEqual([])
  return checkpoints
}

async function mayUse(checkpoints: Checkpoints, by: Claimant): Promise<boolean> {
  try {
    checkpoints.expectUsable('laptop', by)
    return true
  } catch (error) {
    if (isProblem(error, 'forbidden')) return false
    throw error
  }
}

test.each<[string, Claimant, boolean, boolean]>([
  ['alice', alice, true, false],
  ['nobody', unlimited, false, false],
])(
  'a source that %s begins',
  async (_, first, isHers, isHis) => {
    for (let moment = 0, isOver = false; !isOver; moment++) {
      for (let cut = 0; cut < cutsPerMoment; cut++) {
        const root = join(folder, `${moment}-${cut}`)
        await mkdir(root)
        const disk = await PowerCutDisk.of(root)
        let left = moment
        const files = new ProcessFiles(disk, () => {
          if (left-- <= 0) files.kill()
        })
        let begun = 0
        try {
          const checkpoints = await checkpointsOn(disk, files)
          await checkpoints.begin('laptop', { kind: 'dir' }, first)
          begun++
        } catch (error) {
          if (files.isAlive) throw error
        }
        isOver = files.isAlive
        files.kill()
        const after = await disk.cut(`${root}-cut`, new Dice(moment * cutsPerMoment + cut).pick)
        const checkpoints = await checkpointsOn(after, new ProcessFiles(after))
        const known = await checkpoints.list('laptop')
        const place = `moment ${moment}, cut ${cut}, ${begun} begun`
        expect(known.length, place).toBeGreaterThanOrEqual(begun)
        const told = [await mayUse(checkpoints, alice), await mayUse(checkpoints, bob)]
        if (known.length > 0) expect(told, place).toEqual([isHers, isHis])
        else {
          // Nobody was told of it: it is whoever's comes next, or it has its owner already.
          expect(
            [
              [true, true],
              [isHers, isHis],
            ],
            place,
          ).toContainEqual(told)
          if (told[1]) {
            await checkpoints.begin('laptop', { kind: 'dir' }, bob)
            expect(await mayUse(checkpoints, alice), place).toBe(false)
          }
        }
        after.levels.forget()
      }
    }
  },
  120_000,
)
