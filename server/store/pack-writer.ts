import { join } from 'node:path'
import type { Block } from '../../protocol/block.ts'
import type { FileLayer, StoreFile } from '../file-layer.ts'
import { type Location, type Position, packHeader, packHeaderBytes, packName } from './pack-file.ts'

export interface PackWriterOptions {
  readonly files: FileLayer
  readonly folder: string
  /** Where the next record goes. With offset 0 the pack is created by the first append. */
  readonly position: Position
  /** A pack that has this many bytes is not appended to. */
  readonly packBytes: number
}

/**
 * The end of the pack log. One `append` at a time; `sync` may run at the same time as an `append`.
 * After either rejected, the writer is of no use any more: close it and recover.
 */
export class PackWriter {
  readonly #files: FileLayer
  readonly #folder: string
  readonly #packBytes: number
  #pack: number
  #offset: number
  #current: StoreFile | undefined
  /** Packs that were rolled away from and may still have to be synced. */
  #retired: StoreFile[] = []
  readonly #dirty = new Set<StoreFile>()
  #folderIsDirty = false
  #writtenBytes = 0

  private constructor(options: PackWriterOptions) {
    this.#files = options.files
    this.#folder = options.folder
    this.#packBytes = options.packBytes
    this.#pack = options.position.pack
    this.#offset = options.position.offset
  }

  /** What the pack holds up to `position` may not be synced yet, so the first `sync` includes it. */
  static async open(options: PackWriterOptions): Promise<PackWriter> {
    const writer = new PackWriter(options)
    if (options.position.offset > 0) {
      writer.#current = await options.files.open(writer.#path(), 'write')
      writer.#dirty.add(writer.#current)
    }
    return writer
  }

  get position(): Position {
    return { pack: this.#pack, offset: this.#offset }
  }

  /** Bytes that this writer has appended, pack headers included. */
  get writtenBytes(): number {
    return this.#writtenBytes
  }

  /** Writes blocks one behind the other, with one system call as long as they go into one pack. */
  async append(blocks: readonly Block[]): Promise<Location[]> {
    const locations: Location[] = []
    let run: Buffer[] = []
    let end = this.#offset
    for (const { bytes } of blocks) {
      if (end > packHeaderBytes && end + bytes.length > this.#packBytes) {
        await this.#write(run)
        run = []
        this.#roll()
        end = 0
      }
      if (end === 0) {
        run.push(packHeader())
        end = packHeaderBytes
      }
      locations.push({ pack: this.#pack, offset: end, bytes: bytes.length })
      run.push(bytes)
      end += bytes.length
    }
    await this.#write(run)
    return locations
  }

  /** Begins a new pack, which is there from then on; the one before is not appended to any more. */
  async seal(): Promise<void> {
    if (this.#offset > packHeaderBytes) this.#roll()
    if (this.#offset === 0) await this.#write([packHeader()])
  }

  /** Makes durable what was appended before the call: the bytes, and the names of new packs. */
  async sync(): Promise<void> {
    const dirty = [...this.#dirty]
    const retired = new Set(this.#retired)
    this.#dirty.clear()
    for (const file of dirty) await file.datasync()
    if (this.#folderIsDirty) {
      this.#folderIsDirty = false
      await this.#files.syncFolder(this.#folder)
    }
    this.#retired = this.#retired.filter((file) => !retired.has(file))
    for (const file of retired) await file.close()
  }

  /** Releases the files; syncs nothing. */
  async close(): Promise<void> {
    const files = [...this.#retired, ...(this.#current === undefined ? [] : [this.#current])]
    this.#retired = []
    this.#current = undefined
    this.#dirty.clear()
    for (const file of files) await file.close()
  }

  async #write(run: readonly Buffer[]): Promise<void> {
    if (run.length === 0) return
    if (this.#current === undefined) {
      this.#current = await this.#files.open(this.#path(), 'create')
      this.#folderIsDirty = true
    }
    await this.#current.write(run, this.#offset)
    // Marked only now: a sync that ran during the write has not seen all of it.
    this.#dirty.add(this.#current)
    const bytes = run.reduce((sum, part) => sum + part.length, 0)
    this.#offset += bytes
    this.#writtenBytes += bytes
  }

  #roll(): void {
    if (this.#current !== undefined) this.#retired.push(this.#current)
    this.#current = undefined
    this.#pack++
    this.#offset = 0
  }

  #path(): string {
    return join(this.#folder, packName(this.#pack))
  }
}
