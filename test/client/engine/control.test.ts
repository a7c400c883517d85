/** Pause, resume, cancel, --scan-first, and progress. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Engine } from '../../../client/engine/engine.ts'
import type { Source } from '../../../client/engine/source.ts'
import { backUp, wrapSource } from '../../support/backup.ts'
import { startReceiver } from '../../support/receiver.ts'
import { seededBytes, temporaryFolder } from '../../support/tree.ts'

async function tree() {
  const folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  mkdirSync(from)
  for (let i = 0; i < 40; i++) writeFileSync(join(from, `f${i}`), seededBytes(`${i}`, 500_000))
  return { folder, from }
}

test('paused: nothing is read; resumed: all is done', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree()
  await using _ = folder
  let engine: Engine | undefined
  let fills = 0
  const watching = (source: Source): Source =>
    wrapSource(source, {
      fill: (...args: Parameters<Source['fill']>) => {
        fills++
        return source.fill(...args)
      },
    })
  const onEngine = (made: Engine): void => {
    engine = made
    made.pause()
  }
  const done = backUp(from, { ...receiver, state: folder.path, wrapSource: watching, onEngine })
  await sleep(300)
  expect(fills).toBe(0)
  engine?.resume()
  expect((await done).filesRead).toBe(40)
})

test('cancelled: rejects with `cancelled`, and the next run goes on in the same checkpoint', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree()
  await using _ = folder
  const cancel = new AbortController()
  const watching = (source: Source): Source =>
    wrapSource(source, {
      async *fill(...args: Parameters<Source['fill']>) {
        for await (const filled of source.fill(...args)) {
          yield filled
          cancel.abort()
        }
      },
    })
  const cut = backUp(from, {
    ...receiver,
    state: folder.path,
    wrapSource: watching,
    options: { signal: cancel.signal },
  })
  await expect(cut).rejects.toMatchObject({ code: 'cancelled' })
  const rest = await backUp(from, { ...receiver, state: folder.path })
  expect(rest).toMatchObject({ resumed: true, checkpoint: { number: 1 } })
})

test('scan first: the totals are known before the first byte is read', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree()
  await using _ = folder
  let engine: Engine | undefined
  const seen: unknown[] = []
  const watching = (source: Source): Source =>
    wrapSource(source, {
      fill: (...args: Parameters<Source['fill']>) => {
        seen.push({ ...engine?.progress, settled: undefined })
        return source.fill(...args)
      },
    })
  const onEngine = (made: Engine): void => {
    engine = made
  }
  await backUp(from, {
    ...receiver,
    state: folder.path,
    wrapSource: watching,
    onEngine,
    options: { scanFirst: true },
  })
  expect(seen[0]).toEqual({ scanned: true, seen: { files: 40, bytes: 20_000_000 } })
  expect(engine?.progress.settled).toEqual({ files: 40, bytes: 20_000_000 })
})
