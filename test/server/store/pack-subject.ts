import { cp, mkdtemp, open, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Id } from '../../../protocol/id.ts'
import { nodeFiles } from '../../../server/file-layer.ts'
import { ContentIndex } from '../../../server/store/content-index.ts'
import { PackChunkStore, type PackChunkStoreOptions } from '../../../server/store/pack-chunk-store.ts'
import { type Location, packName, scanRecords } from '../../../server/store/pack-file.ts'
import type { ChunkStoreSubject } from '../../conformance/chunk-store-suite.ts'

/** A vault folder of its own, and what tests do to it behind the store's back. */
export class PackSubject implements ChunkStoreSubject {
  readonly vaultDir: string
  readonly #options: PackChunkStoreOptions

  private constructor(vaultDir: string, options: PackChunkStoreOptions) {
    this.vaultDir = vaultDir
    this.#options = options
  }

  static async create(options: PackChunkStoreOptions = {}): Promise<PackSubject> {
    return new PackSubject(await mkdtemp(join(tmpdir(), 'chunkdav-store-')), options)
  }

  open(options: PackChunkStoreOptions = {}): Promise<PackChunkStore> {
    return PackChunkStore.open(this.vaultDir, { ...this.#options, ...options })
  }

  /** A copy of the folder as it is now: what a kill -9 at this moment would leave. */
  async copy(options: PackChunkStoreOptions = {}): Promise<PackSubject> {
    const copy = await PackSubject.create({ ...this.#options, ...options })
    await cp(this.vaultDir, copy.vaultDir, { recursive: true })
    return copy
  }

  packPath(pack: number): string {
    return join(this.vaultDir, 'packs', packName(pack))
  }

  async packs(): Promise<string[]> {
    return (await readdir(join(this.vaultDir, 'packs'))).sort()
  }

  /** Every whole record of a pack. */
  async records(pack: number): Promise<(Location & { ids: Id[] })[]> {
    const file = await nodeFiles.open(this.packPath(pack), 'read')
    try {
      const records = []
      for await (const step of scanRecords(file, { start: 16, size: await file.size(), verify: false })) {
        if ('damage' in step) continue
        const { rows, totalBytes } = step.block.header
        records.push({ pack, offset: step.offset, bytes: totalBytes, ids: rows.map(({ id }) => id) })
      }
      return records
    } finally {
      await file.close()
    }
  }

  /** Flips the lowest bit of one byte. */
  async flip(pack: number, offset: number): Promise<void> {
    const handle = await open(this.packPath(pack), 'r+')
    try {
      const byte = Buffer.alloc(1)
      await handle.read(byte, 0, 1, offset)
      byte[0] = (byte[0] as number) ^ 1
      await handle.write(byte, 0, 1, offset)
    } finally {
      await handle.close()
    }
  }

  async damage(id: Id): Promise<void> {
    const packs = await this.packs()
    for (const name of packs) {
      const records = await this.records(Number.parseInt(name, 10))
      const record = records.find(({ ids }) => ids.includes(id))
      if (record !== undefined) return this.flip(record.pack, record.offset + record.bytes - 1)
    }
    throw new TypeError(`${id} is in no pack`)
  }

  async tear(block: { bytes: Buffer }): Promise<void> {
    const last = (await this.packs()).at(-1) as string
    const handle = await open(join(this.vaultDir, 'packs', last), 'a')
    await handle.write(block.bytes.subarray(0, block.bytes.length - 10))
    await handle.close()
  }

  dropIndex(): Promise<void> {
    return ContentIndex.remove(join(this.vaultDir, 'index'))
  }

  dispose(): Promise<void> {
    return rm(this.vaultDir, { recursive: true, force: true })
  }
}
