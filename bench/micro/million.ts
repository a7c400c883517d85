/**
 * A vault with a million chunks: looking ids up in its index, and committing a checkpoint that reaches all of them.
 * The chunks are tiny and in full blocks, so that it is made in seconds: index, lists and walk do not see how long a chunk is.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Level } from 'level'
import { ReceiverClient } from '../../client/receiver-client.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'
import { encodeBlock } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import { type Id, idToBytes } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { FileListBuilder } from '../../protocol/list-builder.ts'
import { type EncodedObject, encodeDirectoryObject } from '../../protocol/objects.ts'
import type { FileEntry } from '../../protocol/schema.ts'
import { ContentIndex } from '../../server/store/content-index.ts'
import { PackChunkStore } from '../../server/store/pack-chunk-store.ts'
import { verified } from '../../server/store/receive.ts'
import { Dice } from '../../test/support/dice.ts'
import { startBuiltReceiver } from '../built-receiver.ts'
import type { Cost } from './figures.ts'
import { type Effort, time, timingOf } from './timing.ts'

const vaultName = 'million'
const files = 1000
const chunkBytes = 16
const sought = 1000

export interface Million {
  readonly folder: string
  /** Of how many chunks. */
  readonly chunks: number
  readonly root: Id
}

function vaultFolder({ folder }: Pick<Million, 'folder'>): string {
  return join(folder, 'data', 'vaults', vaultName)
}

function chunkOf(number: number): Buffer {
  const bytes = Buffer.alloc(chunkBytes)
  bytes.writeUInt32LE(number, 0)
  return bytes
}

/** Makes the vault through the store's own interface, as a receiver has it on its disk. */
export async function makeMillion(folder: string, chunks: number): Promise<Million> {
  await rm(folder, { recursive: true, force: true })
  const store = await PackChunkStore.open(vaultFolder({ folder }))
  const put = async (all: readonly EncodedObject[]): Promise<void> => {
    const rows = all.map(({ id, bytes }) => ({ id, length: bytes.length }))
    const plain = Buffer.concat(all.map(({ bytes }) => bytes))
    await store.put(
      await verified(await encodeBlock(rows, plain, { encoding: all.length === 1 ? 'zstd' : 'identity' })),
    )
  }
  const entries: FileEntry[] = []
  const some: EncodedObject[] = []
  for (let file = 0; file < files; file++) {
    const list = new FileListBuilder()
    for (let i = (file * chunks) / files; i < ((file + 1) * chunks) / files; i++) {
      const bytes = chunkOf(i)
      const id = hashId(bytes)
      some.push({ id, bytes })
      if (some.length === limits.maxBlockChunks) await put(some.splice(0))
      for (const object of list.add({ id, size: chunkBytes })) await put([object])
    }
    const { objects, reference } = list.finish()
    for (const object of objects) await put([object])
    entries.push({
      kind: 'file',
      name: String(file).padStart(4, '0'),
      ...attributes,
      ...reference,
    } as FileEntry)
  }
  if (some.length > 0) await put(some)
  const root = encodeDirectoryObject(entries)
  await put([root])
  await store.close()
  return { folder, chunks, root: root.id }
}

const attributes = { mode: 0o644, uid: 0, gid: 0, mtimeNs: '0' }

/** Looks a thousand ids up at once, others each time: those that are there, and those that are not. */
export async function measureLookups(million: Million, effort: Effort): Promise<Cost[]> {
  const costs: Cost[] = []
  const path = join(vaultFolder(million), 'index')
  const dice = new Dice(1)
  let ids: Id[] = []
  const kinds = { present: 0, absent: million.chunks }
  for (const [kind, first] of Object.entries(kinds)) {
    const pick = (): void => {
      ids = Array.from({ length: sought }, () => hashId(chunkOf(first + dice.pick(million.chunks))))
    }
    const bare = new Level<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    const limit = await time(() => bare.getMany(ids.map(idToBytes)), effort, pick)
    await bare.close()
    const index = await ContentIndex.open(path)
    const timing = await time(() => index.find(ids), effort, pick)
    await index.close()
    const name = `look up ${sought} ids, ${kind}, among ${million.chunks.toLocaleString('en')}`
    const floor: Cost = { name: 'LevelDB’s getMany', items: sought, timing: limit }
    costs.push({ name, items: sought, timing, limit: floor })
  }
  return costs
}

export interface Commits {
  readonly first: Cost
  readonly again: Cost
  /** Of the receiver: before, after the first commit, after the others. */
  readonly peakBytes: readonly [number, number, number]
}

/** Commits the root in a receiver that was just started, then twice more in the same; so often. */
export async function measureCommits(million: Million, rounds: number): Promise<Commits> {
  const [first, again]: [number[], number[]] = [[], []]
  let peakBytes: Commits['peakBytes'] = [0, 0, 0]
  for (let round = 0; round < rounds; round++) {
    await using receiver = await startBuiltReceiver(million.folder)
    const client = new ReceiverClient(parseVaultUrl(`${receiver.url}/${vaultName}`))
    const commit = async (): Promise<number> => {
      const { source, number } = await client.openCheckpoint('bench', { kind: 'dir' })
      const began = performance.now()
      await client.commitCheckpoint({ source, number }, { root: million.root })
      return performance.now() - began
    }
    await client.capabilities()
    const before = receiver.usage().peakBytes
    first.push(await commit())
    const after = receiver.usage().peakBytes
    for (let i = 0; i < 2; i++) again.push(await commit())
    peakBytes = [before, after, receiver.usage().peakBytes]
    await client.close()
  }
  const name = `commit of ${million.chunks.toLocaleString('en')} chunks in ${files.toLocaleString('en')} files`
  const cost = (when: string, samples: readonly number[]): Cost => {
    return { name: `${name}, ${when}`, items: million.chunks, timing: timingOf(samples) }
  }
  return { first: cost('first after a start', first), again: cost('again', again), peakBytes }
}
