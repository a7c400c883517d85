import { closeSync, linkSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ReceiverClient } from '../../client/receiver-client.ts'
import { partName } from '../../client/restore/part-file.ts'
import { hashId } from '../../protocol/hash.ts'
import { Problem } from '../../protocol/problem.ts'
import { Fixture, listing, randomBytes } from './tree-fixture.ts'

let fixture: Fixture
beforeEach(async () => {
  fixture = await Fixture.start()
  await mkdir(fixture.at('out'))
})
afterEach(() => fixture.stop())

describe('a part of a large file that an earlier run left', () => {
  const chunks = [1, 2, 3, 4].map((seed) => randomBytes(seed, 1_000_000))
  const whole = Buffer.concat(chunks)
  const garbage = Buffer.alloc(1_000_000, 'g')
  test.each<[string, Buffer, number]>([
    ['the first half', whole.subarray(0, 2_000_000), 2],
    ['the first half and a bit', whole.subarray(0, 2_300_000), 2],
    ['all of it', whole, 0],
    ['all of it and more', Buffer.concat([whole, garbage]), 0],
    [
      'wrong in the middle',
      Buffer.concat([whole.subarray(0, 1_000_000), garbage, whole.subarray(2_000_000)]),
      1,
    ],
    ['nothing that is right', garbage, 4],
    ['nothing', Buffer.alloc(0), 4],
  ])('%s: what is right is not fetched again', async (_, left, fetched) => {
    const entry = await fixture.chunkedFile('f', chunks)
    const checkpoint = await fixture.commit([entry])
    writeFileSync(join(fixture.at('out'), String(partName(Buffer.from('f'), entry.id))), left)
    const summary = await fixture.restore(checkpoint)
    expect(summary).toMatchObject({ files: 1, problems: 0, bytesFetched: fetched * 1_000_000 })
    expect(readFileSync(fixture.at('out', 'f')).equals(whole)).toBe(true)
    expect(await readdir(fixture.at('out'))).toEqual(['f'])
  })

  test('garbage where a hole belongs is overwritten', async () => {
    const sparse = [randomBytes(1, 100_000), Buffer.alloc(1_000_000), randomBytes(2, 100_000)]
    const entry = await fixture.chunkedFile('f', sparse, { sparse: true })
    const checkpoint = await fixture.commit([entry])
    const part = join(fixture.at('out'), String(partName(Buffer.from('f'), entry.id)))
    const fd = openSync(part, 'w')
    writeSync(fd, 'garbage', 500_000)
    closeSync(fd)
    expect(await fixture.restore(checkpoint)).toMatchObject({ files: 1, problems: 0 })
    expect(readFileSync(fixture.at('out', 'f')).equals(Buffer.concat(sparse))).toBe(true)
    expect(statSync(fixture.at('out', 'f')).blocks * 512).toBeLessThan(300_000)
  })
})

test('a part that has another name is not written to, and nothing of it is taken for done', async () => {
  const chunks = [1, 2, 3].map((seed) => randomBytes(seed, 500_000))
  const open = await fixture.client.openCheckpoint('pipe', { kind: 'chunks' })
  const items = []
  for (const bytes of chunks) items.push({ id: await fixture.put(bytes), size: bytes.length })
  await fixture.client.addItems(open, 0, items)
  const checkpoint = await fixture.client.commitCheckpoint(open, { items: items.length })
  const key = hashId(Buffer.from(JSON.stringify([fixture.client.location.shown, checkpoint])))
  writeFileSync(fixture.at('other'), Buffer.concat(chunks))
  linkSync(fixture.at('other'), join(fixture.at('out'), String(partName(Buffer.from('f'), key))))
  const summary = await fixture.restore(checkpoint, { to: fixture.at('out', 'f') })
  expect(summary).toMatchObject({ files: 1, problems: 0, bytesFetched: 1_500_000 })
  expect(readFileSync(fixture.at('out', 'f')).equals(Buffer.concat(chunks))).toBe(true)
  expect(statSync(fixture.at('other')).nlink).toBe(1)
})

test('a restore that is cancelled again and again comes to its end', async () => {
  const entries = []
  for (let i = 0; i < 30; i++) entries.push(await fixture.file(`small${i}`, randomBytes(i, 50_000)))
  const big = Array.from({ length: 24 }, (_, i) => randomBytes(100 + i, 1_000_000))
  entries.push(await fixture.chunkedFile('big', big))
  entries.push(await fixture.directory('d', [await fixture.file('last', 'L')], { mode: 0o555, mtimeNs: '9' }))
  const checkpoint = await fixture.commit(entries)
  let fetched = 0
  let cancelled = 0
  for (let ended = false; !ended; ) {
    const controller = new AbortController()
    let pieces = 0
    let inRun = 0
    try {
      const summary = await fixture.restore(checkpoint, {
        signal: controller.signal,
        onProgress: (counts) => {
          inRun = counts.bytesFetched
          pieces++
          if (pieces > 12 + cancelled * 9) controller.abort(new Problem('cancelled', 'enough'))
        },
      })
      expect(summary).toMatchObject({ problems: 0 })
      ended = true
    } catch (error) {
      expect(error).toMatchObject({ code: 'cancelled' })
      cancelled++
      expect(cancelled).toBeLessThan(50)
    }
    fetched += inRun
  }
  expect(cancelled).toBeGreaterThan(1)
  // What was written before each end was not fetched again, but for a small file that was under way.
  const all = 30 * 50_000 + 24_000_000 + 1
  expect(fetched).toBeGreaterThanOrEqual(all)
  expect(fetched).toBeLessThanOrEqual(all + cancelled * 50_000)
  const found = await listing(fixture.at('out'))
  expect(Object.keys(found)).toHaveLength(33)
  expect(found.big).toBe(hashId(Buffer.concat(big)))
})

describe('damage at the receiver', () => {
  /** Flips one bit of these bytes where they stand in a pack. */
  const flip = (bytes: Buffer) => async (packs: string) => {
    for (const name of await readdir(packs)) {
      const pack = await readFile(join(packs, name))
      const at = pack.indexOf(bytes)
      if (at < 0) continue
      pack[at + 100] = (pack[at + 100] as number) ^ 4
      await writeFile(join(packs, name), pack)
      return
    }
    throw new TypeError('the bytes stand in no pack')
  }

  test('one flipped bit: the file and the chunk are named, everything else is restored', async () => {
    const parts = [randomBytes(1, 500_000), randomBytes(2, 500_000)]
    const checkpoint = await fixture.commit([
      await fixture.file('a', randomBytes(3, 1000)),
      await fixture.directory('d', [
        await fixture.chunkedFile('broken', parts),
        await fixture.file('fine', 'F'),
      ]),
      await fixture.file('z', randomBytes(4, 1000)),
    ])
    await fixture.restart(flip(parts[1] as Buffer))
    const summary = await fixture.restore(checkpoint)
    const id = hashId(parts[1] as Buffer)
    expect(summary).toMatchObject({ files: 3, problems: 1 })
    expect(summary.problemList).toMatchObject([{ path: Buffer.from('d/broken'), id }])
    expect(['chunk-corrupt', 'chunk-not-found']).toContain(summary.problemList[0]?.code)
    const advice = `chunk ${id} is missing or damaged on the receiver; back the file up again to bring it back`
    expect(summary.problemList[0]?.detail).toBe(advice)
    expect(Object.keys(await listing(fixture.at('out')))).toEqual(['a', 'd', 'd/fine', 'z'])

    // Sent again, it is whole again.
    await fixture.put(parts[1] as Buffer)
    expect(await fixture.restore(checkpoint)).toMatchObject({ files: 1, filesKept: 3, problems: 0 })
  })

  test('a damaged directory object: its files are missing, its neighbours are not', async () => {
    const inside = await fixture.file('inside', 'I'.repeat(3000))
    const checkpoint = await fixture.commit([
      await fixture.directory('d', [inside]),
      await fixture.file('z', 'Z'),
    ])
    await fixture.restart(flip(Buffer.from('{"type":"directory","entries":[{"kind":"file","name":"inside"')))
    const summary = await fixture.restore(checkpoint)
    expect(summary.problemList).toMatchObject([{ path: Buffer.from('d') }])
    expect(await listing(fixture.at('out'))).toEqual({ d: 'directory', z: 'Z' })
  })
})

test('a receiver that is gone ends the restore, and it goes on later', async () => {
  const checkpoint = await fixture.commit([await fixture.file('a', 'A'), await fixture.file('b', 'B')])
  await fixture.restart(async () => {
    const client = new ReceiverClient(fixture.client.location, { firstContactMs: 100 })
    await expect(fixture.restore(checkpoint, { client })).rejects.toMatchObject({ code: 'transport-failed' })
    await client.close()
  })
  expect(await fixture.restore(checkpoint)).toMatchObject({ files: 2, problems: 0 })
})
