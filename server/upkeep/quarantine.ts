/**
 * Where the bytes of damaged records are kept for whoever wants to look at them:
 *
 *     {vault}/quarantine/{pack}-{offset}.block   the bytes as they stood in the pack
 *     {vault}/quarantine/{pack}-{offset}.json    what was wrong, when it was found, which chunks they were
 *
 * They are copies: the packs only grow, and garbage collection removes the damaged bytes from there in time. Nothing
 * reads them; the folder may be removed. It is bounded: beyond that, damage is told of and not kept.
 */
import { join } from 'node:path'
import { makeFolderDurably, replaceDurably } from '../catalog/durable-file.ts'
import { type FileLayer, nodeFiles } from '../file-layer.ts'
import { isDiskFull } from '../full-disk.ts'
import type { BadStretch } from '../store/pack-audit.ts'
import { packName } from '../store/pack-file.ts'

const maxBlocks = 1000
const maxBytes = 256 * 1024 * 1024
/** Of one stretch: a longest record and its table. */
export const maxBlockBytes = 34 * 1024 * 1024
/** Ids that are named in the note. */
const namedIds = 4096

export class Quarantine {
  readonly #folder: string
  readonly #files: FileLayer

  constructor(vaultPath: string, files: FileLayer = nodeFiles) {
    this.#folder = join(vaultPath, 'quarantine')
    this.#files = files
  }

  /** Whether this stretch was found before. */
  async has(stretch: Pick<BadStretch, 'pack' | 'offset'>): Promise<boolean> {
    return (await this.#files.stat(join(this.#folder, `${nameOf(stretch)}.json`))) !== undefined
  }

  /** Keeps the bytes and a note, durably; false when it is full, or the disk is. */
  async keep(stretch: BadStretch, bytes: Buffer, foundAt: string): Promise<boolean> {
    const { pack, offset, damage, ids = [] } = stretch
    try {
      await makeFolderDurably(this.#folder, this.#files)
      const note = {
        pack: packName(pack),
        offset,
        bytes: stretch.bytes,
        damage,
        foundAt,
        chunks: ids.length,
        ids: ids.slice(0, namedIds),
      }
      const room = await this.#room()
      if (room.blocks <= 0) return false
      const fits = bytes.length <= room.bytes
      if (fits) await this.#write(`${nameOf(stretch)}.block`, bytes)
      await replaceDurably(
        join(this.#folder, `${nameOf(stretch)}.json`),
        `${JSON.stringify(note, undefined, 2)}\n`,
        this.#files,
      )
      return fits
    } catch (error) {
      if (!isDiskFull(error)) throw error
      return false
    }
  }

  async #write(name: string, bytes: Buffer): Promise<void> {
    const file = await this.#files.open(join(this.#folder, name), 'replace')
    try {
      await file.write([bytes], 0)
      await file.datasync()
    } finally {
      await file.close()
    }
  }

  async #room(): Promise<{ blocks: number; bytes: number }> {
    let blocks = maxBlocks
    let bytes = maxBytes
    for (const name of await this.#files.names(this.#folder)) {
      if (name.endsWith('.json')) blocks--
      bytes -= (await this.#files.stat(join(this.#folder, name)))?.bytes ?? 0
    }
    return { blocks, bytes }
  }
}

function nameOf({ pack, offset }: Pick<BadStretch, 'pack' | 'offset'>): string {
  return `${packName(pack).replace(/\.pack$/, '')}-${offset}`
}
