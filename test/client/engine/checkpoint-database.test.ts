/** The client's memory: damage is noticed, never believed, and costs one failed run at most. */
import { writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { Level } from 'level'
import { expect, test } from 'vitest'
import { CheckpointDatabase } from '../../../client/engine/checkpoint-database.ts'
import { backUp, restoreTo } from '../../support/backup.ts'
import { startReceiver } from '../../support/receiver.ts'
import { listing, temporaryFolder } from '../../support/tree.ts'

test('records of a directory come in the order of their names, and no others', async () => {
  await using folder = await temporaryFolder()
  const database = await CheckpointDatabase.open(join(folder.path, 'db'))
  const names = ['b', 'a', 'ab', '\xff', '\x01', 'Z'].map((name) => Buffer.from(name, 'latin1'))
  for (const name of names) database.put(7, name, { sent: name[0] as number })
  database.put(6, Buffer.from('zz'), {})
  database.put(8, Buffer.from(''), {})
  database.remove(7, Buffer.from('ab'))
  const found: string[] = []
  for await (const { name, record } of database.records(7)) {
    expect(record.sent).toBe(name[0])
    found.push(name.toString('latin1'))
  }
  expect(found).toEqual(['\x01', 'Z', 'a', 'b', '\xff'])
  await database.close()
})

test('directory numbers are never given twice, whatever way a run ended', async () => {
  await using folder = await temporaryFolder()
  const given = new Set<number>()
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 1500 }), async (count) => {
      const database = await CheckpointDatabase.open(join(folder.path, 'db'))
      for (let i = 0; i < count; i++) {
        const number = database.newNumber()
        expect(given.has(number)).toBe(false)
        given.add(number)
      }
      await database.close()
    }),
    { numRuns: 8 },
  )
})

test('a flipped bit is noticed; the next run begins with the receiver’s last checkpoint', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  await mkdir(from)
  for (let i = 0; i < 300; i++) writeFileSync(join(from, `file-${i}`), `content ${i}`)
  await sleep(60)
  await backUp(from, { ...receiver, state: folder.path })
  await flipBit(join(folder.path, 'test-dir'), 'file-150')
  await expect(backUp(from, { ...receiver, state: folder.path })).rejects.toMatchObject({
    code: 'store-corrupt',
  })
  const healed = await backUp(from, { ...receiver, state: folder.path })
  expect(healed).toMatchObject({ filesRead: 0, filesUnmodified: 300 })
  await restoreTo(join(folder.path, 'to'), { ...receiver, number: healed.checkpoint.number })
  expect(listing(join(folder.path, 'to'))).toEqual(listing(from))
})

test('what an older version has left is not believed, and what was forgotten on purpose is not forgotten again', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'db')
  const level = new Level(path)
  await level.put('reserved', '7')
  await level.put('d\0\0\0\0\0\0', '{"number":1}')
  await level.close()
  const name = Buffer.from('a')
  const first = await CheckpointDatabase.open(path)
  expect(await first.isEmpty()).toBe(true)
  await first.clear()
  first.put(first.newNumber(), name, { sent: 5 })
  await first.close()
  const second = await CheckpointDatabase.open(path)
  expect(await second.get(1, name)).toEqual({ sent: 5 })
  await second.close()
})

/** Flips a bit in what is kept under a name, below the database's own checksums. */
async function flipBit(folder: string, name: string): Promise<void> {
  const level = new Level<Buffer, Buffer>(folder, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
  for await (const [key, value] of level.iterator()) {
    if (!key.toString('latin1').endsWith(name)) continue
    value[20] = (value[20] as number) ^ 1
    await level.put(key, value)
  }
  await level.close()
}
