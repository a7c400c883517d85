/** The pool by itself, and with reading threads that are cancelled all the time. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { bufferAt, createBuffers, giveBuffer, takeBuffer } from '../../../client/sources/buffer-pool.ts'
import { LocalDirSource } from '../../../client/sources/local-dir-source.ts'
import { filesOf, walkOf, within } from '../../conformance/source-suite.ts'
import { seededBytes, temporaryFolder } from '../../support/tree.ts'

test('hands out every buffer once, and again what was given back', () => {
  const buffers = createBuffers(4, 16)
  const take = (): number | undefined => takeBuffer(buffers, () => true)
  const taken = [take(), take(), take(), take()] as number[]
  expect([...taken].sort()).toEqual([0, 1, 2, 3])
  expect(take()).toBeUndefined()
  giveBuffer(buffers, 2)
  expect(take()).toBe(2)
  expect(take()).toBeUndefined()
  for (const index of taken) giveBuffer(buffers, index)
  expect([take(), take(), take(), take()].sort()).toEqual([0, 1, 2, 3])
})

test('buffers do not overlap', () => {
  const buffers = createBuffers(3, 16)
  for (const index of [0, 1, 2]) bufferAt(buffers, index).fill(index + 1)
  for (const index of [0, 1, 2]) expect(bufferAt(buffers, index)).toEqual(Buffer.alloc(16, index + 1))
  expect(bufferAt(buffers, 1, 4, 3)).toEqual(Buffer.alloc(3, 2))
})

test('no buffer is lost, however often reading is given up', async () => {
  await using folder = await temporaryFolder()
  writeFileSync(join(folder.path, 'large'), seededBytes('large', 20_000_000))
  for (let i = 0; i < 20; i++) writeFileSync(join(folder.path, `small-${i}`), seededBytes(`${i}`, 100_000))
  const source = await LocalDirSource.open([folder.path], { readers: 2 })
  try {
    const files = filesOf(await walkOf(source))
    for (let round = 0; round < 40; round++) {
      const abort = new AbortController()
      const fills = [0, 1, 2].map(async (each) => {
        for await (const { release } of source.fill(files, abort.signal)) {
          release()
          if ((round + each) % 4 === 0) break
        }
      })
      const ends = Promise.allSettled(fills)
      if (round % 2 === 1) await sleep(round % 7)
      abort.abort()
      await within(ends, 'aborted fills')
    }
    // Eight buffers for two threads: as many as ever are lent, each to a call of its own.
    const small = filesOf(await walkOf(source)).filter(({ stat }) => stat.size < 1e6)
    const held = []
    for (let i = 0; i < 8; i++) {
      for await (const filled of source.fill(small.slice(0, 1), new AbortController().signal))
        held.push(filled)
    }
    expect(held.length).toBe(8)
    for (const { release } of held) release()
  } finally {
    await source.close()
  }
})
