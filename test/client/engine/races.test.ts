/** What else happens while a backup runs: other runs, other files under old inodes, cancellation at bad moments. */
import { linkSync, mkdirSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Engine } from '../../../client/engine/engine.ts'
import { HardLinks } from '../../../client/engine/hard-links.ts'
import type { SourceStat } from '../../../client/engine/source.ts'
import type { FileTask } from '../../../client/engine/source-thread.ts'
import type { Target } from '../../../client/engine/target.ts'
import { ReceiverClient } from '../../../client/receiver-client.ts'
import { ChunkSource } from '../../../client/sources/chunk-source.ts'
import { parseVaultUrl } from '../../../client/vault-url.ts'
import type { Id } from '../../../protocol/id.ts'
import type { CommitRequest } from '../../../protocol/schema.ts'
import { backUp, restoreTo, wrapSource, wrapTarget } from '../../support/backup.ts'
import { startReceiver } from '../../support/receiver.ts'
import { listing, temporaryFolder } from '../../support/tree.ts'

async function tree(files = 3) {
  const folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  mkdirSync(from)
  for (let i = 0; i < files; i++) writeFileSync(join(from, `f${i}`), `content ${i}`)
  await sleep(60)
  return { folder, from }
}

const someId: Id = `blake3:${'0'.repeat(64)}`

test('an inode that was freed and used again is another file, whatever its number', () => {
  const links = new HardLinks()
  const stat = { size: 3, mtimeNs: '1', ctimeNs: '1', inode: '1:2', links: 3 } as SourceStat
  const task = (over: Partial<SourceStat> = {}): FileTask => ({ stat: { ...stat, ...over } }) as FileTask
  const first = task()
  expect(links.meet(first)).toBe('read')
  expect(links.meet(task())).toBe('wait')
  expect(links.meet(task({ ctimeNs: '2' }))).toBe('read')
  expect(links.settle(first, { id: someId, chunked: false, stat })).toHaveLength(1)
  expect(links.meet(task({ size: 4 }))).toBe('read')
})

test('content of a freed inode is not taken over by the file that got its number', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  const outside = join(folder.path, 'outside')
  mkdirSync(join(from, 'sub'), { recursive: true })
  mkdirSync(outside)
  writeFileSync(join(from, 'a'), 'OLD')
  linkSync(join(from, 'a'), join(outside, 'x'))
  const { ino } = statSync(join(from, 'a'))
  const scanned = wrapSourceInTwo(async () => {
    unlinkSync(join(from, 'a'))
    unlinkSync(join(outside, 'x'))
    for (let i = 0; i < 50; i++) {
      const path = join(from, 'sub', `c${i}`)
      writeFileSync(path, 'NEW')
      linkSync(path, join(outside, `y${i}`))
      if (statSync(path).ino === ino) break
    }
  })
  const { checkpoint } = await backUp(from, { ...receiver, state: folder.path, wrapSource: scanned })
  await restoreTo(join(folder.path, 'to'), { ...receiver, number: checkpoint.number })
  const files = listing(join(folder.path, 'to', 'sub')).filter((line) => line.includes(' f '))
  expect(files.length).toBeGreaterThan(0)
  const contents = new Set(files.map((line) => line.split(' ').at(-1)))
  expect(contents).toEqual(
    new Set(
      listing(join(from, 'sub'))
        .filter((line) => line.includes(' f '))
        .map((line) => line.split(' ').at(-1)),
    ),
  )
})

/** A scan whose root is told from one walk and the rest, after `between`, from another. */
function wrapSourceInTwo(between: () => Promise<void>) {
  return (source: Parameters<typeof wrapSource>[0]) =>
    wrapSource(source, {
      async *scan(signal) {
        const first = (await collect(source.scan(signal))).flat()
        yield first.slice(0, first.findIndex((event) => event.type === 'listed') + 1)
        await sleep(300)
        await between()
        const second = (await collect(source.scan(signal))).flat()
        yield second.slice(second.findIndex((event) => event.type === 'listed') + 1)
      },
    })
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

test('a chunk that is missing at the commit of a stream: the stream is not read to an empty end', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const source = await ChunkSource.open('/dev/null', { name: 'stream' })
  const once = wrapSource(source, { capabilities: { ...source.capabilities, rereadable: false } })
  const losing = (target: Target): Target =>
    wrapTarget(target, { commit: async () => ({ missing: [{ id: someId }] }) })
  const lost = backUp(once, { ...receiver, state: folder.path, wrapTarget: losing })
  await expect(lost).rejects.toMatchObject({
    code: 'missing-chunks',
    message: expect.stringContaining('run the command again'),
  })
})

test('the list of a chunk checkpoint changes between two rounds: the commit goes to a new checkpoint', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree()
  await using _ = folder
  let commits = 0
  const changing = (target: Target): Target =>
    wrapTarget(target, {
      commit: async (request: CommitRequest) => {
        if (commits++ > 0) return target.commit(request)
        writeFileSync(join(from, 'new'), 'new file meanwhile')
        return { missing: [{ id: request.root as Id, within: request.root as Id }] }
      },
    })
  const summary = await backUp(from, { ...receiver, state: folder.path, as: 'chunks', wrapTarget: changing })
  expect(summary).toMatchObject({ files: 4, checkpoint: { number: 2, state: 'committed' } })
  await restoreTo(join(folder.path, 'to'), { ...receiver, number: 2 })
  expect(listing(join(folder.path, 'to'))).toEqual(listing(from))
})

test('healing counts nothing twice, and reads inodes with other names again', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree(20)
  await using _ = folder
  for (let i = 0; i < 3; i++) linkSync(join(from, 'f0'), join(folder.path, `outside-${i}`))
  let reads = 0
  let commits = 0
  let id: Id | undefined
  const losing = (target: Target): Target =>
    wrapTarget(target, {
      put: (chunks) => {
        id ??= chunks[0]?.id
        return target.put(chunks)
      },
      commit: async (request) => {
        const lost = { id: id as Id, within: id as Id }
        return commits++ === 0 ? { missing: [lost] } : target.commit(request)
      },
    })
  const counting = (source: Parameters<typeof wrapSource>[0]) =>
    wrapSource(source, {
      fill: (files, signal) => {
        reads += files.length
        return source.fill(files, signal)
      },
    })
  const summary = await backUp(from, {
    ...receiver,
    state: folder.path,
    wrapTarget: losing,
    wrapSource: counting,
  })
  expect(reads).toBe(21)
  expect(summary).toMatchObject({ files: 20, filesNew: 20, filesChanged: 0, filesUnmodified: 0 })
})

test('a checkpoint that an earlier run committed after all: the rerun makes a new one', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree()
  await using _ = folder
  let request: CommitRequest | undefined
  const dying = (target: Target): Target =>
    wrapTarget(target, {
      commit: async (asked) => {
        request = asked
        throw new Error('killed while the commit is under way')
      },
    })
  await expect(backUp(from, { ...receiver, state: folder.path, wrapTarget: dying })).rejects.toThrow('killed')
  writeFileSync(join(from, 'new'), 'new')
  const late = (target: Target): Target =>
    wrapTarget(target, {
      begin: async (resume, about) => {
        const begun = await target.begin(resume, about)
        if (begun.number === 1) {
          const client = new ReceiverClient(parseVaultUrl(receiver.vaultUrl))
          await client.commitCheckpoint({ source: 'test', number: 1 }, request as CommitRequest)
          await client.close()
        }
        return begun
      },
    })
  const { checkpoint } = await backUp(from, { ...receiver, state: folder.path, wrapTarget: late })
  expect(checkpoint).toMatchObject({ number: 2, state: 'committed' })
})

test('cancelled while the receiver commits: the run ends at once', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree()
  await using _ = folder
  let engine: Engine | undefined
  const slow = (target: Target): Target =>
    wrapTarget(target, {
      commit: () => {
        engine?.cancel()
        return new Promise(() => {})
      },
    })
  const onEngine = (made: Engine): void => {
    engine = made
  }
  const cut = backUp(from, { ...receiver, state: folder.path, wrapTarget: slow, onEngine })
  await expect(cut).rejects.toMatchObject({ code: 'cancelled' })
})

test('cancelled while the last checkpoint is read from the receiver: the next run reads it again', async () => {
  await using receiver = await startReceiver()
  const { folder, from } = await tree(30)
  await using _ = folder
  await backUp(from, { ...receiver, state: join(folder.path, 'a') })
  let engine: Engine | undefined
  const cancelling = (target: Target): Target =>
    wrapTarget(target, {
      async *read(ids, signal) {
        for await (const chunk of target.read(ids, signal)) {
          engine?.cancel()
          yield chunk
        }
      },
    })
  const onEngine = (made: Engine): void => {
    engine = made
  }
  const state = join(folder.path, 'b')
  await expect(backUp(from, { ...receiver, state, wrapTarget: cancelling, onEngine })).rejects.toMatchObject({
    code: 'cancelled',
  })
  expect(await backUp(from, { ...receiver, state })).toMatchObject({
    filesRead: 0,
    filesUnmodified: 30,
    resumed: true,
  })
})

test('many changed directories and a slow receiver: the scan waits', async () => {
  await using receiver = await startReceiver()
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  for (let i = 0; i < 1000; i++) mkdirSync(join(from, `d${i}`), { recursive: true })
  let underWay = 0
  let most = 0
  const slow = (target: Target): Target =>
    wrapTarget(target, {
      put: async (chunks) => {
        most = Math.max(most, ++underWay)
        await sleep(5)
        const count = await target.put(chunks)
        underWay--
        return count
      },
    })
  await backUp(from, { ...receiver, state: folder.path, wrapTarget: slow })
  expect(most).toBeLessThanOrEqual(65)
})
