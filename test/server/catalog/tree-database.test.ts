/** The database below the live tree: groups of changes against a model, and faults of LevelDB. */
import { mkdtemp, readdir, rm, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { isProblem } from '../../../protocol/problem.ts'
import { TreeDatabase, type TreeReads, type TreeWrites } from '../../../server/catalog/tree-database.ts'

const chunks = { losses: 0, flush: async () => {} }
let folder: string
let database: TreeDatabase

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-tree-database-'))
  database = await TreeDatabase.open(folder, chunks)
})

afterEach(async () => {
  vi.restoreAllMocks()
  await database.close()
  await rm(folder, { recursive: true, force: true })
})

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'done'
  } catch (error) {
    return isProblem(error) ? error.code : (error as Error).constructor.name
  }
}

async function rowsOf(reads: TreeReads, prefix: Buffer, after?: Buffer): Promise<[string, string][]> {
  const rows: [string, string][] = []
  for await (const { key, value } of reads.range(prefix, after)) rows.push([key.toString('hex'), `${value}`])
  return rows
}

function modelRows(model: ReadonlyMap<string, string>, prefix: Buffer, after?: Buffer): [string, string][] {
  const from = after?.toString('hex')
  return [...model]
    .filter(([key]) => key.startsWith(prefix.toString('hex')) && (from === undefined || key > from))
    .sort(([a], [b]) => (a < b ? -1 : 1))
}

describe('changes that rely on chunks', () => {
  const put = (name: string, losses?: number) =>
    codeOf(
      database.change(async (writes) => {
        writes.put(Buffer.from(name), Buffer.from(name))
        if (losses !== undefined) writes.needsChunks(losses)
      }),
    )
  afterEach(() => {
    chunks.losses = 0
    chunks.flush = async () => {}
  })

  test('fail alone when some were lost before', async () => {
    chunks.losses = 1
    expect(await Promise.all([put('a'), put('b', 0), put('c', 1)])).toEqual(['done', 'unavailable', 'done'])
    expect(await database.get(Buffer.from('b'))).toBeUndefined()
    expect(await database.get(Buffer.from('c'))).toEqual(Buffer.from('c'))
  })

  test('fail alone when some are lost while they are made durable', async () => {
    chunks.flush = async () => {
      chunks.losses = 1
    }
    expect(await Promise.all([put('a'), put('b', 0), put('c')])).toEqual(['done', 'unavailable', 'done'])
    expect(await database.get(Buffer.from('b'))).toBeUndefined()
    expect(await database.get(Buffer.from('a'))).toEqual(Buffer.from('a'))
  })
})

describe('groups of changes', () => {
  const byte = fc.constantFrom(0, 1, 0x7f, 0x80, 0xfe, 0xff)
  const rest = fc.array(byte, { maxLength: 2 }).map((bytes) => Buffer.from([0x65, ...bytes]))
  const step = fc.oneof(
    fc.record({ put: rest, value: fc.string({ maxLength: 3 }) }),
    fc.record({ remove: rest }),
    fc.record({ get: rest }),
    fc.record({ prefix: rest, after: fc.option(fc.array(byte, { minLength: 1, maxLength: 2 })) }),
  )
  const change = fc.record({ steps: fc.array(step, { maxLength: 12 }), fails: fc.boolean() })
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

  async function take(writes: TreeWrites, model: Map<string, string>, step: Step): Promise<void> {
    if ('put' in step) {
      writes.put(step.put, Buffer.from(step.value))
      model.set(step.put.toString('hex'), Buffer.from(step.value).toString())
    } else if ('remove' in step) {
      writes.remove(step.remove)
      model.delete(step.remove.toString('hex'))
    } else if ('get' in step) {
      const found = await writes.get(step.get)
      expect(found?.toString()).toBe(model.get(step.get.toString('hex')))
    } else {
      const after = step.after === null ? undefined : Buffer.from([...step.prefix, ...step.after])
      expect(await rowsOf(writes, step.prefix, after)).toEqual(modelRows(model, step.prefix, after))
    }
  }

  test('each sees what those before it left, and one that fails leaves nothing', async () => {
    let model = new Map<string, string>()
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(change, { maxLength: 8 }), { maxLength: 5 }), async (groups) => {
        for (const group of groups) {
          const durable = new Map(model)
          const ends = group.map(({ steps, fails }) =>
            database.change(async (writes) => {
              const own = new Map(model)
              for (const one of steps) await take(writes, own, one)
              // Readers see nothing of it yet.
              expect(await rowsOf(database, Buffer.from('e'))).toEqual(modelRows(durable, Buffer.from('e')))
              if (fails) throw new RangeError('wanted')
              model = own
            }),
          )
          const codes = await Promise.all(ends.map(codeOf))
          expect(codes).toEqual(group.map(({ fails }) => (fails ? 'RangeError' : 'done')))
          expect(await rowsOf(database, Buffer.from('e'))).toEqual(modelRows(model, Buffer.from('e')))
        }
      }),
      { numRuns: 150 },
    )
  }, 60_000)
})

test('a batch has a bounded number of rows, however many wait', async () => {
  const batch = vi.spyOn(Level.prototype, 'batch')
  const ends = Array.from({ length: 40 }, (_, i) =>
    database.change(async (writes) => {
      for (let row = 0; row < 1000; row++) writes.put(Buffer.from(`e${i}/${row}`), Buffer.from(`${i}`))
      return i
    }),
  )
  expect(await Promise.all(ends)).toEqual(ends.map((_, i) => i))
  const sizes = (batch.mock.calls as unknown as [unknown[]][]).map(([rows]) => rows.length)
  expect(Math.max(...sizes)).toBeLessThanOrEqual(5000)
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(40_000)
})

describe('when LevelDB fails', () => {
  const key = Buffer.from('e1')
  const put = (value: string) => database.change(async (writes) => writes.put(key, Buffer.from(value)))
  const fails = (method: 'batch' | 'open', message: string) =>
    vi.spyOn(Level.prototype, method).mockImplementationOnce(async () => {
      throw new Error(message)
    })

  test.each([
    ['IO error: 000005.log: No space left on device', 'insufficient-storage'],
    ['IO error: 000005.log: Input/output error', 'unavailable'],
  ])('%s: all who share the batch are told, and it goes on', async (message, code) => {
    await put('first')
    fails('batch', message)
    const early = put('second')
    // What it says rests on what the others would have written.
    const judged = database.change(async (writes) => {
      if (`${await writes.get(key)}` === 'second') throw new RangeError('second is there')
    })
    expect(await Promise.all([early, judged].map(codeOf))).toEqual([code, code])
    expect(`${await database.get(key)}`).toBe('first')
    await put('third')
    expect(`${await database.get(key)}`).toBe('third')
  })

  test.each([
    ['a read', async () => void (await database.get(key))],
    ['a list', async () => void (await rowsOf(database, key))],
    ['a change that reads first', () => database.change(async (writes) => void (await writes.get(key)))],
    ['a snapshot', () => database.at(async (reads) => void (await reads.get(key)))],
  ])('%s works again after an opening that failed too', async (_, use) => {
    await put('first')
    fails('batch', 'IO error: No space left on device')
    fails('open', 'IO error: No space left on device')
    expect(await codeOf(put('second'))).toBe('insufficient-storage')
    expect(await codeOf(use())).toBe('done')
    expect(`${await database.get(key)}`).toBe('first')
  })

  test('a disk that stays full is told to everybody as what it is, until there is space', async () => {
    await put('first')
    fails('batch', 'IO error: No space left on device')
    const full = vi.spyOn(Level.prototype, 'open').mockImplementation(async () => {
      throw new Error('Database failed to open', { cause: new Error('IO error: No space left on device') })
    })
    const uses = [
      () => put('second'),
      () => put('second'),
      async () => void (await database.get(key)),
      async () => void (await rowsOf(database, key)),
      () => database.at(async (reads) => void (await reads.get(key))),
    ]
    for (const use of uses) expect(await codeOf(use())).toBe('insufficient-storage')
    full.mockRestore()
    expect(await codeOf(put('third'))).toBe('done')
    expect(`${await database.get(key)}`).toBe('third')
  })
})

describe('closing', () => {
  test('waits for changes under way, and takes none after', async () => {
    const key = Buffer.from('e1')
    await database.change(async (writes) => writes.put(key, Buffer.from('1')))
    const slow = database.change(async (writes) => {
      for (let i = 0; i < 20; i++) await writes.get(key)
      writes.put(key, Buffer.from('2'))
    })
    await new Promise((resolve) => setImmediate(resolve))
    await Promise.all([database.close(), database.close()])
    expect(await codeOf(slow)).toBe('done')
    expect(await codeOf(database.change(async () => {}))).toBe('unavailable')
    expect(await codeOf(database.get(key))).toBe('unavailable')
    database = await TreeDatabase.open(folder, chunks)
    expect(`${await database.get(key)}`).toBe('2')
  })

  test('with a snapshot open, a list half read', async () => {
    await database.change(async (writes) => {
      for (let i = 0; i < 600; i++) writes.put(Buffer.from(`e${i}`), Buffer.from('1'))
    })
    const snapshot = await database.snapshot()
    const rows = snapshot.range(Buffer.from('e'))[Symbol.asyncIterator]()
    await rows.next()
    await database.close()
    const rest = async () => {
      while ((await rows.next()).done !== true);
    }
    expect(await codeOf(rest())).toBe('unavailable')
    expect(await codeOf(rowsOf(snapshot, Buffer.from('e')))).toBe('unavailable')
    expect(await codeOf(snapshot.close())).toBe('done')
    // Nobody opened it again: the folder is free.
    database = await TreeDatabase.open(folder, chunks)
  })
})

describe('a folder without CURRENT', () => {
  const key = Buffer.from('e1')

  async function withoutCurrent(): Promise<string[]> {
    await database.close()
    await unlink(join(folder, 'CURRENT'))
    return (await readdir(folder)).sort()
  }

  test.each([
    ['in its log', 0],
    ['in tables', 3],
  ])('that has data %s is told of, and left as it is', async (_, openings) => {
    await database.change(async (writes) => writes.put(key, Buffer.from('1')))
    for (let i = 0; i < openings; i++) {
      await database.close()
      database = await TreeDatabase.open(folder, chunks)
    }
    const names = await withoutCurrent()
    expect(names.some((name) => name.endsWith('.ldb'))).toBe(openings > 0)
    expect(await codeOf(TreeDatabase.open(folder, chunks))).toBe('store-corrupt')
    expect((await readdir(folder)).sort()).toEqual(names)
  })

  test('that a stop has left while the database was made becomes one', async () => {
    await withoutCurrent()
    await writeFile(join(folder, '000003.log'), '')
    await writeFile(join(folder, '000001.dbtmp'), 'MANIFEST-000001\n')
    database = await TreeDatabase.open(folder, chunks)
    await database.change(async (writes) => writes.put(key, Buffer.from('1')))
    expect(`${await database.get(key)}`).toBe('1')
  })

  test('is not taken for a new database after a failed write either', async () => {
    await database.change(async (writes) => writes.put(key, Buffer.from('1')))
    vi.spyOn(Level.prototype, 'batch').mockImplementationOnce((async () => {
      await unlink(join(folder, 'CURRENT'))
      throw new Error('EIO')
    }) as never)
    const changed = database.change(async (writes) => writes.put(key, Buffer.from('2')))
    expect(await codeOf(changed)).toBe('unavailable')
    expect(await codeOf(database.get(Buffer.from('e2')))).toBe('store-corrupt')
  })
})
