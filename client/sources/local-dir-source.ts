/** A directory tree on this machine, or several files and trees side by side. */
import { lstat, realpath } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename, resolve } from 'node:path'
import { hashImplementations } from '../../protocol/hash.ts'
import { Problem } from '../../protocol/problem.ts'
import { begun } from '../begun.ts'
import type { FileToRead, Filled, ScanEvent, Source, SourceCapabilities } from '../engine/source.ts'
import { loading } from '../v8-tuning.ts'
import { about } from './about.ts'
import type { ScanJob } from './directory-walk.ts'
import type { ExcludeOptions } from './exclude-rules.ts'
import type { ReadingThreads } from './reading-threads.ts'
import { scanEvents } from './scan-batch.ts'
import { type ScanThread, takeScanThread } from './scan-thread.ts'

export interface LocalDirOptions extends Partial<ExcludeOptions> {
  readonly oneFileSystem?: boolean
  /** Threads that read, cut and hash. Default: one for every two processors, at most four: zstd wants the others. */
  readonly readers?: number
}

/** A scan whose first batch was asked for before anybody took it. */
interface ScanAhead {
  readonly batches: AsyncIterable<Uint8Array>
  readonly cancel: AbortController
}

export class LocalDirSource implements Source {
  readonly capabilities: SourceCapabilities = { form: 'dir', rereadable: true }
  readonly about: Readonly<Record<string, string>>
  readonly #job: ScanJob
  readonly #scanner: ScanThread
  readonly #readerCount: number
  #readers: Promise<ReadingThreads> | undefined
  #ahead: ScanAhead | undefined
  #isClosed = false

  private constructor(job: ScanJob, told: Record<string, string>, readers: number) {
    this.#job = job
    this.about = told
    this.#scanner = takeScanThread()
    this.#readerCount = readers
  }

  /**
   * One directory is the tree itself; several paths, or a single file, are gathered under a root that
   * holds them by their last names. Problem `usage` when a path is not there or two share a name.
   */
  static async open(paths: readonly string[], options: LocalDirOptions = {}): Promise<LocalDirSource> {
    const roots = await Promise.all(paths.map(openRoot))
    const gathered = roots.length !== 1 || roots[0]?.directory !== true
    const names = new Set(roots.map((root) => root.name))
    if (roots.length === 0) throw new Problem('usage', 'name at least one path to back up')
    if (names.size !== roots.length) {
      throw new Problem('usage', 'two of the paths end in the same name; back them up as two sources')
    }
    const job: ScanJob = {
      roots: roots.map(({ name, path }) => ({ name, path })),
      gathered,
      exclude: { patterns: options.patterns ?? [], caches: options.caches ?? false },
      oneFileSystem: options.oneFileSystem ?? false,
    }
    const told = about({ paths: roots.map((root) => root.shown).join(' ') })
    return new LocalDirSource(
      job,
      told,
      options.readers ?? Math.max(1, Math.min(4, availableParallelism() >> 1)),
    )
  }

  /** Begins what the first call of `scan` will tell: what changes from now on may be missing there. */
  scanAhead(): void {
    const cancel = new AbortController()
    const batches = begun(this.#scanner.run(this.#job, cancel.signal))
    this.#ahead = { batches, cancel }
  }

  async *scan(signal: AbortSignal): AsyncGenerator<readonly ScanEvent[], void, undefined> {
    const cancel = this.#ahead?.cancel ?? new AbortController()
    const batches = this.#ahead?.batches ?? this.#scanner.run(this.#job, cancel.signal)
    this.#ahead = undefined
    const onAbort = (): void => cancel.abort(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
    try {
      for await (const batch of batches) yield scanEvents(batch)
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  async *fill(files: readonly FileToRead[], signal: AbortSignal): AsyncGenerator<Filled, void, undefined> {
    const absolute = files.map((file) => this.#absolute(file.path.toString('latin1')))
    if (this.#isClosed) throw new Problem('cancelled', 'the source was closed')
    this.#readers ??= this.#startReaders()
    yield* (await this.#readers).fill({ files: absolute, anyKind: false }, signal)
  }

  /** Where nothing has changed, none are needed. */
  async #startReaders(): Promise<ReadingThreads> {
    return await loading(async () => {
      const { ReadingThreads } = await import('./reading-threads.ts')
      hashImplementations()
      return new ReadingThreads(this.#readerCount)
    })
  }

  /** The absolute byte string of a path below the root. */
  #absolute(path: string): string {
    const { roots, gathered } = this.#job
    if (!gathered) return `${roots[0]?.path}/${path}`
    const slash = path.indexOf('/')
    const name = slash === -1 ? path : path.slice(0, slash)
    const root = roots.find((candidate) => candidate.name === name)
    if (root === undefined) throw new TypeError(`no such root: ${name}`)
    return slash === -1 ? root.path : root.path + path.slice(slash)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    const readers = await this.#readers
    await Promise.all([this.#scanner.close(), readers?.close()])
  }
}

async function openRoot(
  path: string,
): Promise<{ name: string; path: string; shown: string; directory: boolean }> {
  const absolute = resolve(path)
  try {
    // What the user names may be a link to the directory that is meant, as with tar's trailing slash.
    const real = await realpath(absolute, { encoding: 'buffer' })
    const stats = await lstat(real)
    const name = basename(absolute) || 'root'
    return {
      name: latin1(name),
      path: real.toString('latin1').replace(/^\/$/, ''),
      shown: absolute,
      directory: stats.isDirectory(),
    }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    const why = code === 'ENOENT' ? 'there is no such file or directory' : message
    throw new Problem('usage', `cannot back up ${absolute}: ${why}`, { cause })
  }
}

/** UTF-8 text as a byte string. */
function latin1(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1')
}
