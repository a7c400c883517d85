/** A backup that ends anywhere is gone on with: in the same checkpoint, without sending anything twice. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Target } from '../../../client/engine/target.ts'
import { Problem } from '../../../protocol/problem.ts'
import { backUp, restoreTo, wrapTarget } from '../../support/backup.ts'
import { startReceiver } from '../../support/receiver.ts'
import { listing, seededBytes, temporaryFolder } from '../../support/tree.ts'

function makeTree(root: string): void {
  for (let i = 0; i < 12; i++) {
    mkdirSync(join(root, `d${i}`), { recursive: true })
    for (let j = 0; j < 10; j++) writeFileSync(join(root, `d${i}`, `f${j}`), seededBytes(`${i} ${j}`, 50_000))
  }
}

/** Passes everything on, and refuses every put from number `puts` on. */
function failing(target: Target, puts: number): Target {
  let left = puts
  return wrapTarget(target, {
    put: (chunks) =>
      left-- > 0 ? target.put(chunks) : Promise.reject(new Problem('transport-failed', 'injected')),
  })
}

/** What was on the wire when the client gave up may still be arriving. */
async function settled(measure: () => number): Promise<number> {
  for (let before = -1; ; await sleep(150)) {
    const now = measure()
    if (now === before) return now
    before = now
  }
}

for (const as of ['dir', 'chunks'] as const) {
  for (const puts of [0, 1, 3, 9]) {
    test(`the ${puts + 1}. put fails (${as}): the next run sends the rest and only that`, async () => {
      await using receiver = await startReceiver()
      await using folder = await temporaryFolder()
      const from = join(folder.path, 'from')
      makeTree(from)
      await sleep(60)
      const whole = await backUp(from, { ...receiver, state: folder.path, as, source: 'whole' })
      const setup = {
        ...receiver,
        state: folder.path,
        as,
        source: 'broken',
        vaultUrl: `${receiver.url}/other`,
      }
      const broken = backUp(from, { ...setup, wrapTarget: (target) => failing(target, puts) })
      await expect(broken).rejects.toMatchObject({ code: 'transport-failed' })
      const { store } = await receiver.receiver.vaults.get('other')
      const stored = await settled(() => store.usage.chunks)
      const rest = await backUp(from, setup)
      expect(rest.resumed).toBe(true)
      expect(rest.checkpoint.number).toBe(1)
      expect(rest.checkpoint.root).toBe(whole.checkpoint.root)
      expect(rest.chunksSent + stored).toBe(whole.chunksSent)
      await restoreTo(join(folder.path, 'to'), { ...setup, number: 1 })
      expect(listing(join(folder.path, 'to'))).toEqual(listing(from))
    })
  }
}

test('an open checkpoint that was deleted, or a vault that is gone: a new one is begun', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  makeTree(from)
  const broken = backUp(from, { ...receiver, state: folder.path, wrapTarget: (target) => failing(target, 4) })
  await expect(broken).rejects.toMatchObject({ code: 'transport-failed' })
  await fetch(`${receiver.vaultUrl}/checkpoints/test/1`, { method: 'DELETE' })
  const second = await backUp(from, { ...receiver, state: folder.path })
  expect(second).toMatchObject({ resumed: false, checkpoint: { number: 2 } })
})

test('two runs at once on one database: the second is refused', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  makeTree(from)
  const intruding = (target: Target): Target =>
    wrapTarget(target, {
      begin: async (...args: Parameters<Target['begin']>) => {
        const second = backUp(from, { ...receiver, state: folder.path })
        await expect(second).rejects.toMatchObject({ code: 'in-use' })
        return target.begin(...args)
      },
    })
  await backUp(from, { ...receiver, state: folder.path, wrapTarget: intruding })
  expect.assertions(1)
})
