/** The reader finds what is remembered of each directory, in whatever order they come. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { CheckpointDatabase } from '../../../client/engine/checkpoint-database.ts'
import { temporaryFolder } from '../../support/tree.ts'

/** Records of each directory; the last one fills several pages. */
const sizes = [3, 0, 40, 1, 0, 0, 300, 2, 64, 5, 5000]
const inOrder = sizes.map((_, i) => i + 1)
const orders: [string, number[]][] = [
  ['in their order', inOrder],
  ['backwards', inOrder.toReversed()],
  ['to and fro', [7, 3, 11, 1, 9, 2, 11, 8]],
  ['with gaps', [1, 6, 9, 11]],
  ['the same twice', [3, 3, 7, 7]],
  ['none that is remembered', [500, 400, 2]],
]

test.each(orders)('%s', async (_, directories) => {
  await using folder = await temporaryFolder()
  const database = await CheckpointDatabase.open(join(folder.path, 'state'))
  const nameOf = (i: number): Buffer => Buffer.from(`name ${String(i).padStart(5, '0')}`)
  sizes.forEach((size, at) => {
    for (let i = 0; i < size; i++) database.put(at + 1, nameOf(i), { sent: (at + 1) * 10_000 + i })
  })
  await database.flush()
  const reader = database.reader()
  for (const directory of directories) {
    reader.enter(directory)
    const found: (number | undefined)[] = []
    for (let next = await reader.next(); next !== undefined; next = await reader.next()) {
      expect(next.name).toEqual(nameOf(found.length))
      found.push(next.record.sent)
      reader.drop()
    }
    expect(found).toEqual(Array.from({ length: sizes[directory - 1] ?? 0 }, (_, i) => directory * 10_000 + i))
  }
  await reader.close()
  await database.close()
})
