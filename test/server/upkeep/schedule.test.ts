/** What the receiver does by itself: freezes that are due, trash that has been kept long enough. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pino } from 'pino'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { hashId } from '../../../protocol/hash.ts'
import { isProblem, Problem } from '../../../protocol/problem.ts'
import type { FrozenView, Names } from '../../../server/catalog/live-tree.ts'
import { openReceiver } from '../../../server/index.ts'
import { Schedule } from '../../../server/upkeep/schedule.ts'
import { parseDuration, parseScheduledFreeze } from '../../../server/upkeep/schedule-options.ts'
import { Vaults } from '../../../server/vaults.ts'
import { startReceiver } from '../../support/receiver.ts'
import { ask } from '../dav-requests.ts'
import { ForgetfulStore } from './forgetful-store.ts'
import { TreeVault } from './tree-vault.ts'

/** A log, and what it was told. */
function keptLog() {
  const lines: Record<string, unknown>[] = []
  const stream = new Writable({
    write(line: Buffer, _encoding, done) {
      lines.push(JSON.parse(String(line)))
      done()
    },
  })
  return { log: pino({ level: 'info' }, stream), lines }
}

const noVault = async () => Promise.reject(new Problem('vault-not-found', 'none'))
const fakeVaults = { list: async (): Promise<string[]> => [], get: noVault, visit: noVault }

const codeOf = (work: () => unknown): string => {
  try {
    return JSON.stringify(work())
  } catch (error) {
    return isProblem(error) ? error.code : String(error)
  }
}

describe('what the command line says', () => {
  test.each([
    ['home 0 3 * * *', 'home', ['tree'], '0 3 * * *'],
    ['home/ @daily', 'home', ['tree'], '@daily'],
    [
      '  home/docs/my%20papers   0 */6 * * MON-FRI ',
      'home',
      ['tree', 'docs', 'my papers'],
      '0 */6 * * MON-FRI',
    ],
    ['home/größe 30 0 3 * * *', 'home', ['tree', 'größe'], '30 0 3 * * *'],
  ])('"%s" is a schedule', (words, vault, names, cron) => {
    const parsed = parseScheduledFreeze(words)
    expect({ ...parsed, names: parsed.names.map(String) }).toEqual({ vault, names, cron })
  })

  test.each([
    [''],
    ['home'],
    ['home/docs'],
    ['home 0 3 * *'],
    ['home 61 3 * * *'],
    ['home nonsense'],
    ['home 0 0 30 2 *'],
    ['Home 0 3 * * *'],
    ['/home 0 3 * * *'],
    ['home/a/../b 0 3 * * *'],
    ['home/%zz 0 3 * * *'],
  ])('"%s" is none', (words) => {
    expect(codeOf(() => parseScheduledFreeze(words))).toBe('usage')
  })

  test.each<[string, number | 'usage']>([
    ['0', 0],
    ['45s', 45_000],
    ['90m', 5_400_000],
    ['12h', 43_200_000],
    ['30d', 2_592_000_000],
    ['4w', 2_419_200_000],
    ['36525d', 3_155_760_000_000],
    ['', 'usage'],
    ['30', 'usage'],
    ['d', 'usage'],
    ['-1d', 'usage'],
    ['1.5h', 'usage'],
    ['30 d', 'usage'],
    ['36526d', 'usage'],
  ])('"%s" as a duration', (words, expected) => {
    expect(codeOf(() => parseDuration(words))).toBe(String(expected))
  })

  const entry = new URL('../../../server/main.ts', import.meta.url).href
  const script = `await (await import(${JSON.stringify(entry)})).main(process.argv.slice(1))`
  test.each([
    [['--freeze', 'home every day'], 'cron pattern'],
    [['--freeze', 'home/my documents 0 3 * * *'], '; in the path a space is written %20'],
    [['--freeze', 'no/../name 0 3 * * *'], ''],
    [['--keep-trash', 'long'], '12h or 30d'],
    [['--log-level', 'loud'], 'debug'],
    [['--kep-trash', '1d'], '--keep-trash'],
  ])('serve %j is refused in one line, which says what to do', async (options, part) => {
    const words = ['--input-type=module', '-e', script, '--', 'serve', ...options]
    const child = spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'pipe'] })
    const [told, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')])
    expect([code, told]).toEqual([
      2,
      expect.stringMatching(/^chunkdav: [^\n]+; see chunkdav serve --help\n$/),
    ])
    expect(told).toContain(part)
  })

  test('and a library user is told too', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-schedule-'))
    const freezes = [{ vault: 'home', names: [Buffer.from('tree')], cron: 'x' }]
    await expect(openReceiver({ dataDir, port: 0, freezes })).rejects.toMatchObject({ code: 'usage' })
    await rm(dataDir, { recursive: true })
  })
})

describe('a scheduled freeze', () => {
  test('commits when something has changed, and only then', async () => {
    const { log, lines } = keptLog()
    const nightly = parseScheduledFreeze('home/docs 0 3 * * *')
    await using server = await startReceiver({ log, freezes: [nightly] })
    await ask(server, 'MKCOL', 'docs/')
    await ask(server, 'PUT', 'docs/a', {}, 'one')
    const { schedule, vaults } = server.receiver
    for (let i = 0; i < 3; i++) await schedule.freeze(nightly)
    await ask(server, 'PUT', 'docs/a', {}, 'two')
    await schedule.freeze(nightly)
    const list = await (await vaults.get('home')).catalog.checkpoints.list('tree-docs')
    expect(list.map(({ number, state, about }) => [number, state, about])).toEqual([
      [1, 'committed', { path: 'tree/docs', madeBy: 'freeze' }],
      [2, 'committed', { path: 'tree/docs', madeBy: 'freeze' }],
    ])
    const said = lines.map(({ msg }) => msg).filter((msg) => /fr[eo]/.test(String(msg)))
    const idle = 'not frozen: nothing has changed'
    expect(said).toEqual(['freezes are scheduled', 'frozen', idle, idle, 'frozen'])
    expect(lines.find(({ msg }) => msg === 'frozen')).toMatchObject({
      vault: 'home',
      path: 'tree/docs',
      source: 'tree-docs',
      checkpoint: 1,
      files: 1,
      bytes: 3,
    })
  })

  test('ends when the receiver stops, and leaves nothing', async () => {
    const { log, lines } = keptLog()
    await using home = await TreeVault.open()
    await home.make('tree/a')
    const { catalog, tree } = home.vault
    const stoppedMeanwhile = Object.create(tree, {
      find: { value: tree.find.bind(tree) },
      freeze: {
        value: (names: Names, use: (view: FrozenView) => Promise<unknown>) =>
          tree.freeze(names, async (view) => {
            void schedule.close()
            return await use(view)
          }),
      },
    })
    const vaults = { ...fakeVaults, get: async () => ({ ...home.vault, tree: stoppedMeanwhile }) }
    const schedule = new Schedule(vaults, { freezes: [], trashMs: 0, log })
    await schedule.freeze(parseScheduledFreeze('home 0 3 * * *'))
    await schedule.close()
    expect([lines, await catalog.checkpoints.list('tree')]).toEqual([[], []])
  })

  test('that fails is told, and the receiver goes on', async () => {
    const { log, lines } = keptLog()
    await using server = await startReceiver({ log })
    await server.receiver.schedule.freeze(parseScheduledFreeze('nobody 0 3 * * *'))
    const docs = parseScheduledFreeze('home/docs 0 3 * * *')
    await server.receiver.schedule.freeze(docs)
    await ask(server, 'MKCOL', 'docs/')
    await server.receiver.schedule.freeze(docs)
    await ask(server, 'DELETE', 'docs/')
    await server.receiver.schedule.freeze(docs)
    const failures = lines.filter(({ msg }) => /not frozen|failed/.test(String(msg)))
    const gone = 'not frozen: there is no collection at tree/docs'
    expect(failures.map(({ level, vault, code, msg }) => [level, vault, code, msg])).toEqual([
      [40, 'nobody', 'vault-not-found', expect.stringMatching(/^not frozen: there is no vault nobody/)],
      [40, 'home', 'not-found', gone],
      [40, 'home', 'not-found', gone],
    ])
    expect(JSON.stringify(failures)).not.toContain('    at ')
  })

  test.each<[string, unknown, Record<string, unknown>]>([
    ['a Problem', new Problem('chunk-corrupt', 'x'), { code: 'chunk-corrupt' }],
    [
      'one with a cause',
      new Problem('unavailable', 'x', { cause: new Error('EIO, read') }),
      { code: 'unavailable', reason: 'EIO, read' },
    ],
    [
      'a full disk',
      Object.assign(new Error('ENOSPC: write'), { code: 'ENOSPC' }),
      { code: 'insufficient-storage', reason: 'ENOSPC: write' },
    ],
  ])('by %s is told in one line without a stack', async (_, error, fields) => {
    const { log, lines } = keptLog()
    const vaults = { ...fakeVaults, get: async () => Promise.reject(error) }
    await new Schedule(vaults, { freezes: [], trashMs: 0, log }).freeze(
      parseScheduledFreeze('home 0 3 * * *'),
    )
    expect(lines).toEqual([expect.objectContaining({ level: 50, vault: 'home', ...fields })])
    expect(JSON.stringify(lines)).not.toContain('    at ')
  })

  test('by a defect is told with its stack', async () => {
    const { log, lines } = keptLog()
    const vaults = { ...fakeVaults, get: async () => Promise.reject(new TypeError('x')) }
    await new Schedule(vaults, { freezes: [], trashMs: 0, log }).freeze(
      parseScheduledFreeze('home 0 3 * * *'),
    )
    expect(lines).toEqual([
      expect.objectContaining({ level: 50, err: expect.objectContaining({ message: 'x' }) }),
    ])
    expect(JSON.stringify(lines)).toContain('    at ')
  })
})

describe('time', () => {
  afterEach(() => {
    vi.useRealTimers()
  })

  test('comes as the pattern says, and every hour the trash is looked through and vaults are pruned, until it is stopped', async () => {
    vi.useFakeTimers({ now: new Date(2030, 0, 1, 12, 30) })
    const { log, lines } = keptLog()
    let looked = 0
    const vaults = {
      ...fakeVaults,
      list: async () => {
        looked++
        return []
      },
    }
    const freezes = ['home 0 3 * * *', 'home 0 */12 * * *'].map(parseScheduledFreeze)
    const schedule = new Schedule(vaults, { freezes, trashMs: 1000, log })
    schedule.start()
    await vi.advanceTimersByTimeAsync(24 * 3_600_000)
    const failures = () => lines.filter(({ level }) => level === 40).map(({ cron }) => cron)
    expect([looked, failures()]).toEqual([50, ['0 */12 * * *', '0 3 * * *', '0 */12 * * *']])
    await schedule.close()
    await vi.advanceTimersByTimeAsync(48 * 3_600_000)
    expect([looked, failures().length]).toEqual([50, 3])
    await schedule.freeze(freezes[0] as never)
    expect(failures().length).toBe(3)
  })
})

describe('the trash', () => {
  test('is emptied of what is too old, in every vault; those that nobody uses are closed again', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-schedule-'))
    const { log, lines } = keptLog()
    const first = await startReceiver({ dataDir })
    await first.receiver.vaults.create('work')
    for (const vault of ['home', 'work']) {
      await ask(first, 'PUT', `/${vault}/tree/x`, {}, 'one')
      await ask(first, 'DELETE', `/${vault}/tree/x`)
    }
    await first.stop()

    const later = await startReceiver({ dataDir, trashMs: 0, log })
    const removed = () =>
      lines.filter(({ items }) => items !== undefined).map(({ vault, items }) => [vault, items])
    // It looks when it starts; this waits for that.
    await later.receiver.schedule.expireTrash()
    await later.stop()
    expect(removed()).toEqual([
      ['home', 1],
      ['work', 1],
    ])
    await rm(dataDir, { recursive: true })
  })

  test('may be purged by others meanwhile', async () => {
    await using home = await TreeVault.open()
    for (const name of ['a', 'b', 'c']) await home.put(`tree/${name}`, name)
    for (const name of ['a', 'b', 'c']) await home.remove(`tree/${name}`)
    const { tree } = home.vault
    const later = new Date(Date.now() + 1000)
    const [one, other] = await Promise.all([tree.expire(later), tree.expire(later)])
    expect(one + other).toBe(3)
  })

  test('that cannot be read costs no other vault', async () => {
    const { log, lines } = keptLog()
    const expired: string[] = []
    const vaults = {
      ...fakeVaults,
      list: async () => ['a', 'b', 'c'],
      visit: async <T>(name: string, _work: unknown): Promise<T> => {
        if (name === 'b') throw new Problem('store-corrupt', 'damaged')
        expired.push(name)
        return 0 as T
      },
    }
    await new Schedule(vaults, { freezes: [], trashMs: 0, log }).expireTrash()
    expect(expired).toEqual(['a', 'c'])
    expect(lines.map(({ level, vault }) => [level, vault])).toEqual([[50, 'b']])
  })
})

test('what leaves the trash of a vault that nobody uses is cleared away before the vault is closed', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'chunkdav-visit-'))
  try {
    const vaults = await Vaults.open(folder, { openStore: () => ForgetfulStore.open(), trashMs: 1000 })
    await vaults.create('home')
    const top: Names = [Buffer.from('tree'), Buffer.from('top')]
    const content = { part: { id: hashId(Buffer.alloc(0)), size: 0 }, md5: '', sha1: '', since: 0 }
    await vaults.visit('home', async ({ tree }) => {
      await tree.change((change) => change.makeCollection(top))
      for (let first = 0; first < 5000; first += 100) {
        await tree.change(async (change) => {
          for (let i = first; i < first + 100; i++)
            await change.putFile([...top, Buffer.from(`${i}`)], content)
        })
      }
      await tree.change((change) => change.remove(top))
    })
    const { log } = keptLog()
    // Kept for less than no time: what was deleted just now is too old.
    await new Schedule(vaults, { freezes: [], trashMs: -10_000, log }).expireTrash()
    let left = 0
    await vaults.visit('home', async ({ tree }) => {
      for await (const _ of tree.contents()) left++
    })
    expect(left).toBe(0)
    await vaults.close()
  } finally {
    await rm(folder, { recursive: true })
  }
})

describe('a visited vault', () => {
  async function withVaults(
    use: (vaults: Vaults, open: Set<ForgetfulStore>) => Promise<void>,
  ): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'chunkdav-visit-'))
    const open = new Set<ForgetfulStore>()
    const openStore = async () => {
      const store = await ForgetfulStore.open()
      const close = store.close.bind(store)
      store.close = async () => {
        await close()
        open.delete(store)
      }
      open.add(store)
      return store
    }
    const vaults = await Vaults.open(folder, { openStore, trashMs: 1000 })
    await vaults.create('home')
    await use(vaults, open)
    await vaults.close()
    expect(open.size).toBe(0)
    await rm(folder, { recursive: true })
  }

  test('is closed by its last visitor', async () => {
    await withVaults(async (vaults, open) => {
      const sizes = await Promise.all([0, 1].map(() => vaults.visit('home', async () => open.size)))
      expect([sizes, open.size]).toEqual([[1, 1], 0])
    })
  })

  test('stays open when somebody needs it, before or meanwhile', async () => {
    await withVaults(async (vaults, open) => {
      await vaults.visit('home', async (visited) => expect(await vaults.get('home')).toBe(visited))
      await vaults.visit('home', async () => {})
      expect(open.size).toBe(1)
    })
  })

  test('is opened anew for whoever comes while it closes', async () => {
    await withVaults(async (vaults, open) => {
      let asked: Promise<unknown> | undefined
      const visited = vaults.visit('home', async ({ tree }) => {
        const close = tree.close.bind(tree)
        tree.close = async () => {
          asked = vaults.get('home').then((vault) => vault.tree.find([Buffer.from('tree')]))
          await close()
        }
      })
      await visited
      expect(await asked).toMatchObject({ kind: 'directory' })
      expect(open.size).toBe(1)
    })
  })

  test('that does not exist, or fails, leaves nothing open', async () => {
    await withVaults(async (vaults, open) => {
      await expect(vaults.visit('none', async () => {})).rejects.toMatchObject({ code: 'vault-not-found' })
      await expect(vaults.visit('home', async () => Promise.reject(new Error('x')))).rejects.toThrow('x')
      expect(open.size).toBe(0)
    })
  })

  test('is closed once when all end meanwhile', async () => {
    await withVaults(async (vaults) => {
      const visited = vaults.visit('home', async () => vaults.close())
      await visited
      await expect(vaults.visit('home', async () => {})).rejects.toMatchObject({ code: 'unavailable' })
    })
  })
})
