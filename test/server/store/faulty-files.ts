import { basename } from 'node:path'
import {
  type FileLayer,
  type FileStat,
  nodeFiles,
  type OpenMode,
  type StoreFile,
} from '../../../server/file-layer.ts'

type Call = 'open' | 'create' | 'read' | 'write' | 'datasync' | 'truncate' | 'size' | 'unlink' | 'syncFolder'

/** The real files, with a record of every call and faults on demand. */
export class FaultyFiles implements FileLayer {
  /** `call name` in the order in which the calls succeeded. */
  readonly calls: string[] = []
  openFiles = 0
  readonly #faults: { call: Call; code: string | undefined; times: number }[] = []
  #gate: Promise<void> | undefined
  #writeGate: Promise<void> | undefined

  /** The next `times` calls of this kind fail with `code`; a write gets half of its bytes down first. */
  fail(call: Call, code: string, times = 1): void {
    this.#faults.push({ call, code, times })
  }

  /** The next call of this kind fails as code with a defect does. */
  failByDefect(call: Call): void {
    this.#faults.push({ call, code: undefined, times: 1 })
  }

  /** Every datasync waits until the returned function is called. */
  holdSyncs(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#gate = promise
    return () => {
      this.#gate = undefined
      resolve()
    }
  }

  /** Every write is done half, and goes on when the returned function is called. */
  holdWrites(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#writeGate = promise
    return () => {
      this.#writeGate = undefined
      resolve()
    }
  }

  count(call: Call): number {
    return this.calls.filter((made) => made.startsWith(`${call} `)).length
  }

  async open(path: string, mode: OpenMode): Promise<StoreFile> {
    const name = basename(path)
    this.#check(mode === 'create' || mode === 'replace' ? 'create' : 'open', name)
    const file = await nodeFiles.open(path, mode)
    this.openFiles++
    return {
      read: async (target, position) => {
        this.#check('read', name)
        return file.read(target, position)
      },
      write: async (parts, position) => {
        const bytes = Buffer.concat(parts)
        try {
          this.#check('write', name)
        } catch (error) {
          await file.write([bytes.subarray(0, bytes.length >>> 1)], position)
          throw error
        }
        const half = bytes.length >>> 1
        await file.write([bytes.subarray(0, half)], position)
        await this.#writeGate
        await file.write([bytes.subarray(half)], position + half)
      },
      datasync: async () => {
        await this.#gate
        this.#check('datasync', name)
        await file.datasync()
      },
      truncate: async (length) => {
        this.#check('truncate', name)
        await file.truncate(length)
      },
      size: () => file.size(),
      close: async () => {
        this.openFiles--
        await file.close()
      },
    }
  }

  stat(path: string): Promise<FileStat | undefined> {
    return nodeFiles.stat(path)
  }

  rename(from: string, to: string): Promise<void> {
    return nodeFiles.rename(from, to)
  }

  makeFolder(path: string): Promise<boolean> {
    return nodeFiles.makeFolder(path)
  }

  names(folder: string): Promise<string[]> {
    return nodeFiles.names(folder)
  }

  async unlink(path: string): Promise<void> {
    this.#check('unlink', basename(path))
    await nodeFiles.unlink(path)
  }

  async syncFolder(path: string): Promise<void> {
    this.#check('syncFolder', basename(path))
    await nodeFiles.syncFolder(path)
  }

  #check(call: Call, name: string): void {
    const fault = this.#faults.find((other) => other.call === call && other.times > 0)
    if (fault === undefined) {
      this.calls.push(`${call} ${name}`)
      return
    }
    fault.times--
    if (fault.code === undefined) throw new RangeError(`injected into ${call} of ${name}`)
    throw Object.assign(new Error(`${fault.code}: injected into ${call} of ${name}`), { code: fault.code })
  }
}
