/** A little of the proof of the wire (test/proof/wire.ts): two receivers, and requests that no client sends. */
import { expect, test } from 'vitest'
import { fuzz } from '../support/wire-fuzzer.ts'

test('requests that no client sends harm nothing', { timeout: 120_000 }, async () => {
  const seed = Number(process.env.CHUNKDAV_SEED ?? Date.now() % 1_000_000_000)
  const { violations } = await fuzz({ requests: 1500, seed })
  expect(violations.map(({ text }) => text)).toEqual([])
})
