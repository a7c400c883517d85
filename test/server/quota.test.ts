/** A vault's quota and the reserve of the disk, as clients see them; and what is held back for a full disk. */
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { Problem } from '../../protocol/problem.ts'
import { Ballast, withBallast } from '../../server/ballast.ts'
import { openCatalog } from '../../server/catalog/catalog.ts'
import { DiskRoom, defaultReserveBytes } from '../../server/disk-room.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { writeUsers } from '../support/users.ts'
import { ask } from './dav-requests.ts'
import { begin, blockOf, chunk, MiB, noise, post, problemOf, put } from './requests.ts'

const setQuota = (server: TestReceiver, quotaBytes: number): Promise<Response> =>
  fetch(`${server.vaultUrl}/settings`, { method: 'PUT', body: JSON.stringify({ quotaBytes }) })
const capabilities = async (server: TestReceiver): Promise<Record<string, number>> =>
  (await (await fetch(`${server.vaultUrl}/`)).json()) as Record<string, number>
const davQuota = async (server: TestReceiver): Promise<number[]> => {
  const body = '<propfind xmlns="DAV:"><prop><quota-available-bytes/><quota-used-bytes/></prop></propfind>'
  const { text } = await ask(server, 'PROPFIND', '', { depth: '0' }, body)
  return ['available', 'used'].map((what) =>
    Number(new RegExp(`quota-${what}-bytes>(\\d+)<`).exec(text)?.[1]),
  )
}

/** So many times what is free. */
async function reserveAround(path: string, times: number): Promise<number> {
  return Math.round((await (await DiskRoom.open(path, 1)).freeBytes()) * times)
}

/** Everything that takes content in. */
const ways: [
  string,
  (server: TestReceiver, seed: number) => Promise<Response | { status: number; text: string }>,
][] = [
  ['PUT chunks/{id}', (server, seed) => put(server, 'chunks', chunk(noise(100_000, seed)))],
  ['PUT into the tree', (server, seed) => ask(server, 'PUT', `f${seed}`, {}, noise(100_000, seed))],
  [
    'PUT of a large file into the tree',
    (server, seed) => ask(server, 'PUT', `g${seed}`, {}, noise(3 * MiB, seed)),
  ],
]

describe('quota', () => {
  test.each(ways)(
    '%s: 507 before it is exceeded; what is known goes through, and all can be read',
    async (_, send) => {
      await using server = await startReceiver()
      const known = chunk(noise(50_000, 1))
      await put(server, 'chunks', known)
      const { storedBytes = 0 } = await capabilities(server)
      await setQuota(server, storedBytes + 60_000)
      const answer = await send(server, 7)
      const text = answer instanceof Response ? await answer.text() : answer.text
      expect([answer.status, JSON.parse(text)]).toEqual([
        507,
        expect.objectContaining({
          type: 'urn:chunkdav:problem:insufficient-storage',
          quotaBytes: storedBytes + 60_000,
          storedBytes: expect.any(Number),
        }),
      ])
      const after = await capabilities(server)
      expect(after.storedBytes).toBeLessThanOrEqual(storedBytes + 60_000)
      expect((await put(server, 'chunks', known)).status).toBe(200)
      expect((await fetch(`${server.vaultUrl}/chunks/${known.id}`)).status).toBe(200)
      await setQuota(server, 1e9)
      expect([200, 201, 204]).toContain((await send(server, 7)).status)
    },
  )

  test('is shown, and what is left of it', async () => {
    await using server = await startReceiver()
    expect((await capabilities(server)).quotaBytes).toBeUndefined()
    await put(server, 'chunks', chunk(noise(100_000)))
    await setQuota(server, 150_000)
    const { quotaBytes, storedBytes = 0 } = await capabilities(server)
    expect(quotaBytes).toBe(150_000)
    expect(await davQuota(server)).toEqual([150_000 - storedBytes, storedBytes])
    await setQuota(server, 10)
    expect(await davQuota(server)).toEqual([0, storedBytes])
  })

  test('a full vault still commits and deletes', async () => {
    await using server = await startReceiver()
    const item = chunk(noise(1000))
    await put(server, 'chunks', item)
    const path = await begin(server, 's', 'chunks')
    await post(server, `${path}/items`, { first: 0, items: [{ id: item.id, size: 1000 }] })
    await setQuota(server, 0)
    expect((await post(server, `${path}/commit`, { items: 1 })).status).toBe(200)
    expect((await fetch(`${server.vaultUrl}/${path}`, { method: 'DELETE' })).status).toBe(204)
  })

  describe('counts checkpoints', () => {
    /** Fills a vault in which so many bytes are left until it is told that it is full. */
    const floods: [string, (server: TestReceiver, path: string, round: number) => Promise<Response>][] = [
      ['begin', (server, _, round) => post(server, `checkpoints/s${round % 5}/`, { kind: 'dir', about })],
      [
        'begin of ever new sources',
        (server, _, round) => post(server, `checkpoints/n${round}/`, { kind: 'dir' }),
      ],
      [
        'items',
        (server, path, round) =>
          post(server, `${path}/items`, {
            first: round * 1000,
            items: Array(1000).fill({ id: known.id, size: 1 }),
          }),
      ],
      [
        'ids that are noted',
        async (server, _, round) => {
          const some = Array.from({ length: 500 }, (__, i) => chunk(`${round} ${i}`))
          const block = await blockOf(some)
          const type = { 'content-type': 'application/vnd.chunkdav.batch', 'chunkdav-checkpoint': 't/1' }
          return await fetch(`${server.vaultUrl}/chunks/`, {
            method: 'POST',
            headers: type,
            body: new Uint8Array(block),
          })
        },
      ],
    ]
    const about = { note: 'x'.repeat(4096) }
    const known = chunk('x')

    test.each(floods)('%s: 507 when they have filled it; commits and deletions go on', async (_, flood) => {
      await using server = await startReceiver()
      await put(server, 'chunks', known)
      const path = await begin(server, 'items', 'chunks')
      await begin(server, 't', 'chunks')
      const { storedBytes = 0 } = await capabilities(server)
      const quotaBytes = storedBytes + 200_000
      await setQuota(server, quotaBytes)
      const statuses: number[] = []
      for (let round = 0; round < 60 && !statuses.includes(507); round++) {
        const answer = await flood(server, path, round)
        statuses.push(answer.status)
        if (answer.status === 507) {
          const { type, ...facts } = (await answer.json()) as Record<string, unknown>
          expect([type, facts.quotaBytes, typeof facts.storedBytes]).toEqual([
            'urn:chunkdav:problem:insufficient-storage',
            quotaBytes,
            'number',
          ])
        }
      }
      expect(statuses.length).toBeGreaterThan(3)
      expect(statuses.at(-1)).toBe(507)
      const full = await capabilities(server)
      expect(full.storedBytes).toBeLessThanOrEqual(quotaBytes)
      expect(full.storedBytes).toBeGreaterThan(quotaBytes - 60_000)
      const stored = await put(server, 'chunks', chunk(noise(100_000)))
      expect(stored.status).toBe(507)
      const items = ((await (await fetch(`${server.vaultUrl}/${path}`)).json()) as { items: number }).items
      expect((await post(server, `${path}/commit`, { items })).status).toBe(200)
      expect((await fetch(`${server.vaultUrl}/checkpoints/t/1`, { method: 'DELETE' })).status).toBe(204)
      expect((await capabilities(server)).storedBytes).toBeLessThan(full.storedBytes as number)
    })

    test('the same before and after a restart, whatever was done to them', async () => {
      const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-counted-'))
      const counted = (server: TestReceiver) => capabilities(server).then(({ storedBytes }) => storedBytes)
      try {
        const server = await startReceiver({ dataDir })
        await put(server, 'chunks', known)
        const empty = await counted(server)
        const items = { first: 0, items: [{ id: known.id, size: 1 }] }
        for (const what of ['commit', 'delete', 'open', 'deleted later']) {
          const path = await begin(server, 's', 'chunks')
          await post(server, `${path}/items`, items)
          await put(server, 'chunks', known, { 'chunkdav-checkpoint': path.slice('checkpoints/'.length) })
          if (what !== 'open') await post(server, `${path}/commit`, { items: 1 })
          if (what.startsWith('delete')) await fetch(`${server.vaultUrl}/${path}`, { method: 'DELETE' })
        }
        const before = await counted(server)
        await server.stop()
        await using again = await startReceiver({ dataDir })
        expect(await counted(again)).toBe(before)
        for (const number of [1, 3]) {
          await fetch(`${again.vaultUrl}/checkpoints/s/${number}`, { method: 'DELETE' })
        }
        // The source stays, with the last number that it gave.
        expect(await counted(again)).toBe((empty as number) + 3 * 4096)
      } finally {
        await rm(dataDir, { recursive: true, force: true })
      }
    })

    test('an id that is noted again makes its log no longer', async () => {
      await using server = await startReceiver()
      await put(server, 'chunks', known)
      await begin(server, 's', 'dir')
      const sizes: (number | undefined)[] = []
      for (let round = 0; round < 3; round++) {
        const answer = await fetch(`${server.vaultUrl}/chunks/missing`, {
          method: 'POST',
          headers: { 'chunkdav-checkpoint': 's/1' },
          body: JSON.stringify({ ids: [known.id, known.id] }),
        })
        expect(answer.status).toBe(200)
        sizes.push((await capabilities(server)).storedBytes)
      }
      expect(new Set(sizes).size).toBe(1)
    })

    test('64 of a source can be open: 409 until one is finished', async () => {
      await using server = await startReceiver()
      for (let open = 0; open < 64; open++) await begin(server, 's', 'dir')
      const refused = await post(server, 'checkpoints/s/', { kind: 'dir' })
      expect(await problemOf(refused)).toBe('409 conflict')
      expect((await post(server, 'checkpoints/other/', { kind: 'dir' })).status).toBe(201)
      await fetch(`${server.vaultUrl}/checkpoints/s/7`, { method: 'DELETE' })
      expect((await post(server, 'checkpoints/s/', { kind: 'dir' })).status).toBe(201)
    })

    test('10,000 sources are enough for a vault: 507', async () => {
      const path = await mkdtemp(join(tmpdir(), 'chunkdav-sources-'))
      try {
        await mkdir(join(path, 'checkpoints'))
        for (let source = 0; source < 10_000; source++) await mkdir(join(path, 'checkpoints', `s${source}`))
        const { checkpoints } = await openCatalog(path, {} as never)
        await expect(checkpoints.begin('new', { kind: 'dir' })).rejects.toMatchObject({
          code: 'insufficient-storage',
        })
        expect((await checkpoints.begin('s1', { kind: 'dir' })).number).toBe(1)
      } finally {
        await rm(path, { recursive: true, force: true })
      }
    })
  })

  test('of one vault is none of another', async () => {
    await using server = await startReceiver()
    await setQuota(server, 0)
    await fetch(`${server.url}/other/`, { method: 'MKCOL' })
    const item = chunk(noise(1000))
    const sent = await fetch(`${server.url}/other/chunks/${item.id}`, {
      method: 'PUT',
      body: new Uint8Array(item.bytes),
    })
    expect(sent.status).toBe(201)
  })
})

describe('the reserve of the disk', () => {
  test.each(ways)(
    '%s: 507 while less is free; commits, deletions and small changes go on',
    async (_, send) => {
      const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-reserve-'))
      try {
        const item = chunk(noise(1000))
        const first = await startReceiver({ dataDir })
        await put(first, 'chunks', item)
        await first.stop()
        // Content does not fit, and yet half of it is free.
        const reserveBytes = await reserveAround(dataDir, 1.5)
        await using server = await startReceiver({ dataDir, reserveBytes })
        const answer = await send(server, 3)
        const text = answer instanceof Response ? await answer.text() : answer.text
        expect([answer.status, JSON.parse(text).reserveBytes]).toEqual([507, reserveBytes])
        expect((await put(server, 'chunks', item)).status).toBe(200)
        const path = await begin(server, 's', 'chunks')
        await post(server, `${path}/items`, { first: 0, items: [{ id: item.id, size: 1000 }] })
        expect((await post(server, `${path}/commit`, { items: 1 })).status).toBe(200)
        expect((await ask(server, 'MKCOL', 'c/')).status).toBe(201)
        expect((await fetch(`${server.vaultUrl}/${path}`, { method: 'DELETE' })).status).toBe(204)
        expect(await davQuota(server)).toEqual([0, expect.any(Number)])
      } finally {
        await rm(dataDir, { recursive: true, force: true })
      }
    },
  )

  test('when half of it is gone, nothing small is taken either; what gives space back goes on', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-reserve-'))
    try {
      const item = chunk(noise(1000))
      const items = { first: 0, items: [{ id: item.id, size: 1000 }] }
      const first = await startReceiver({ dataDir })
      await put(first, 'chunks', item)
      for (const path of [await begin(first, 's', 'chunks'), await begin(first, 's', 'chunks')]) {
        await post(first, `${path}/items`, items)
      }
      for (const name of ['c/', 'd/']) await ask(first, 'MKCOL', name)
      await first.stop()
      await using server = await startReceiver({ dataDir, reserveBytes: await reserveAround(dataDir, 3) })
      const headers = { 'Chunkdav-Checkpoint': 's/1' }
      const body = '<propertyupdate xmlns="DAV:"><set><prop><x/></prop></set></propertyupdate>'
      const refused = [
        await post(server, 'checkpoints/s/', { kind: 'dir' }),
        await post(server, 'checkpoints/s/1/items', items),
        await put(server, 'chunks', item, headers),
        await ask(server, 'MKCOL', 'e/'),
        await ask(server, 'PUT', 'f', {}, ''),
        await ask(server, 'PROPPATCH', 'c/', {}, body),
        await ask(server, 'COPY', 'c/', { destination: `${server.vaultUrl}/tree/e` }),
      ]
      expect(refused.map(({ status }) => status)).toEqual(refused.map(() => 507))
      const done = [
        await post(server, 'checkpoints/s/1/commit', { items: 1 }),
        await fetch(`${server.vaultUrl}/checkpoints/s/1/pin`, { method: 'PUT' }),
        await fetch(`${server.vaultUrl}/checkpoints/s/2`, { method: 'DELETE' }),
        await ask(server, 'MOVE', 'd/', { destination: `${server.vaultUrl}/tree/e` }),
        await ask(server, 'DELETE', 'c/'),
        await fetch(`${server.vaultUrl}/upkeep/prune`, { method: 'POST' }),
        await fetch(`${server.vaultUrl}/settings`, { method: 'PUT', body: '{}' }),
        await fetch(`${server.vaultUrl}/upkeep/collection`, { method: 'POST' }),
      ]
      expect(done.map(({ status }) => status)).toEqual([200, 200, 204, 201, 204, 200, 200, 202])
    } finally {
      await rm(dataDir, { recursive: true, force: true })
    }
  })

  test('is 256 MiB, or 5 % of a smaller disk', () => {
    expect([64, 1024, 5120, 1e6].map((mib) => defaultReserveBytes(mib * MiB) / MiB)).toEqual(
      [3.2, 51.2, 256, 256].map((mib) => Math.floor(mib * MiB) / MiB),
    )
  })

  test('counts what was written since the disk was asked, and what is being written', async () => {
    const probe = await DiskRoom.open(tmpdir(), 1)
    const free = await probe.freeBytes()
    // Others write to this disk as well.
    const slack = Math.min(2048 * MiB, Math.floor(free / 8))
    const room = await DiskRoom.open(tmpdir(), free - 2 * slack)
    expect(await room.take(slack)).toBe(true)
    expect(await room.take(3 * slack)).toBe(false)
    expect(await room.take(2 * slack)).toBe(false)
    room.settle(slack, true)
    expect(await room.take(2 * slack)).toBe(false)
    // The disk is asked anew, and has not lost what was not written after all.
    await new Promise((resolve) => setTimeout(resolve, 1100))
    expect(await room.take(slack)).toBe(true)
    room.settle(slack, false)
    expect(await room.take(slack)).toBe(true)
  })

  test.each([
    ['plenty of inodes', 1_000_000, 900_000, false],
    ['hardly any inode', 1_000_000, 999, true],
    ['none', 1_000_000, 0, true],
    ['a large disk with many', 1e9, 10_000, false],
    ['a file system that does not count them', 0, 0, false],
  ])('with %s', async (_, files, ffree, isShort) => {
    const look = async () => ({ blocks: 1e9, bsize: 4096, bavail: 1e9, files, ffree })
    expect(await (await DiskRoom.open('/', undefined, look)).isShort()).toBe(isShort)
  })

  test('of 0 keeps nothing free', async () => {
    const room = await DiskRoom.open(tmpdir(), 0)
    expect([await room.take(2 ** 52), room.reserveBytes]).toEqual([true, 0])
  })
})

describe('ballast', () => {
  test('is made, given up piece by piece, and made again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'chunkdav-ballast-'))
    const ballast = new Ballast(folder, { pieceBytes: 4096, reserveBytes: 0 })
    try {
      expect(await ballast.release('open')).toBe(false)
      await Promise.all([ballast.refill(), ballast.refill()])
      const names = await readdir(join(folder, 'ballast'))
      expect(names.length).toBe(8)
      expect((await stat(join(folder, 'ballast/1'))).size).toBe(4096)
      let fails = 3
      const work = async (): Promise<string> => {
        if (fails-- > 0) throw new Problem('insufficient-storage', 'full')
        return 'done'
      }
      expect(await withBallast(() => ballast.release('open'), work)).toBe('done')
      expect((await readdir(join(folder, 'ballast'))).length).toBe(5)
      fails = 100
      await expect(withBallast(() => ballast.release('collect'), work)).rejects.toThrow('full')
      expect((await readdir(join(folder, 'ballast'))).length).toBe(4)
      await expect(withBallast(() => ballast.release('open'), work)).rejects.toThrow('full')
      expect((await readdir(join(folder, 'ballast'))).length).toBe(0)
      await ballast.refill()
      expect((await readdir(join(folder, 'ballast'))).length).toBe(8)
    } finally {
      await ballast.close()
      await rm(folder, { recursive: true, force: true })
    }
  })

  test('is not made where there is no room beside the reserve', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'chunkdav-ballast-'))
    const ballast = new Ballast(folder, { reserveBytes: 2 ** 50 })
    try {
      await ballast.refill()
      expect(await readdir(join(folder, 'ballast'))).toEqual([])
    } finally {
      await ballast.close()
      await rm(folder, { recursive: true, force: true })
    }
  })
})

test('only an operator changes the quota', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-quota-'))
  try {
    const tokens = await writeUsers(dataDir, {
      admin: { grants: { home: 'admin' } },
      operator: { grants: { '*': 'admin' } },
    })
    await using server = await startReceiver({ dataDir })
    const set = (user: string, settings: unknown): Promise<Response> =>
      fetch(`${server.vaultUrl}/settings`, {
        method: 'PUT',
        body: JSON.stringify(settings),
        headers: { authorization: `Bearer ${tokens[user]}` },
      })
    expect(await problemOf(await set('admin', { quotaBytes: 5 }))).toBe('403 forbidden')
    expect((await set('admin', { retention: { keepLast: 1 } })).status).toBe(200)
    expect((await set('operator', { quotaBytes: 5 })).status).toBe(200)
    expect(await problemOf(await set('admin', { quotaBytes: 6 }))).toBe('403 forbidden')
    expect(await problemOf(await set('admin', {}))).toBe('403 forbidden')
    expect((await set('admin', { quotaBytes: 5, retention: { keepLast: 2 } })).status).toBe(200)
    await server.stop()
    await writeFile(join(dataDir, 'vaults/home/settings.json'), '{')
    await using again = await startReceiver({ dataDir })
    const later = (user: string): Promise<Response> =>
      fetch(`${again.vaultUrl}/settings`, {
        method: 'PUT',
        body: '{}',
        headers: { authorization: `Bearer ${tokens[user]}` },
      })
    expect(await problemOf(await later('admin'))).toBe('403 forbidden')
    expect((await later('operator')).status).toBe(200)
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
})
