import { basename } from 'node:path'
import {
  type FileLayer,
  type FileStat,
  nodeFiles,
  type OpenMode,
  type StoreFile,
} from '../../server/file-layer.ts'

/** Kinds of calls that can fail. */
export const fileCalls = [
  'open',
  'openToWrite',
  'create',
  'read',
  'write',
  'datasync',
  'truncate',
  'size',
  'stat',
  'makeFolder',
  'names',
  'rename',
  'unlink',
  'syncFolder',
] as const
export type FileCall = (typeof fileCalls)[number]

const openings: Readonly<Record<OpenMode, FileCall>> = {
  read: 'open',
  write: 'openToWrite',
  create: 'create',
  replace: 'create',
}

interface Fault {
  readonly call: FileCall
  readonly code: string | undefined
  /** Calls of this kind that go well before. */
  after: number
  times: number
}

/** A file layer with a record of every call and faults on demand. */
export class FaultyFiles implements FileLayer {
  /** `call name` in the order in which the calls succeeded. */
  readonly calls: string[] = []
  openFiles = 0
  /** What failed: `call name`. */
  readonly failed: string[] = []
  readonly #faults: Fault[] = []
  readonly #files: FileLayer
  #gate: Promise<void> | undefined
  #writeGate: Promise<void> | undefined

  constructor(files: FileLayer = nodeFiles) {
    this.#files = files
  }

  /** `times` calls of this kind fail with `code`, when `after` more went well; a write gets half of its bytes down first. */
  fail(call: FileCall, code: string, times = 1, after = 0): void {
    this.#faults.push({ call, code, times, after })
  }

  /** The next call of this kind fails as code with a defect does. */
  failByDefect(call: FileCall): void {
    this.#faults.push({ call, code: undefined, times: 1, after: 0 })
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

  count(call: FileCall): number {
    return this.calls.filter((made) => made.startsWith(`${call} `)).length
  }

  async open(path: string, mode: OpenMode): Promise<StoreFile> {
    const name = basename(path)
    this.#check(openings[mode], name)
    const file = await this.#files.open(path, mode)
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
      size: async () => {
        this.#check('size', name)
        return await file.size()
      },
      close: async () => {
        this.openFiles--
        await file.close()
      },
    }
  }

  async stat(path: string): Promise<FileStat | undefined> {
    this.#check('stat', basename(path))
    return await this.#files.stat(path)
  }

  async rename(from: string, to: string): Promise<void> {
    this.#check('rename', basename(to))
    await this.#files.rename(from, to)
  }

  async makeFolder(path: string): Promise<boolean> {
    this.#check('makeFolder', basename(path))
    return await this.#files.makeFolder(path)
  }

  async names(folder: string): Promise<string[]> {
    this.#check('names', basename(folder))
    return await this.#files.names(folder)
  }

  async unlink(path: string): Promise<void> {
    this.#check('unlink', basename(path))
    await this.#files.unlink(path)
  }

  async syncFolder(path: string): Promise<void> {
    this.#check('syncFolder', basename(path))
    await this.#files.syncFolder(path)
  }

  #check(call: FileCall, name: string): void {
    const fault = this.#faults.find((other) => other.call === call && other.times > 0)
    if (fault === undefined || fault.after > 0) {
      if (fault !== undefined) fault.after--
      this.calls.push(`${call} ${name}`)
      return
    }
    fault.times--
    this.failed.push(`${call} ${name}`)
    if (fault.code === undefined) throw new RangeError(`injected into ${call} of ${name}`)
    throw Object.assign(new Error(`${fault.code}: injected into ${call} of ${name}`), { code: fault.code })
  }
}
