/** One stream of bytes: a file, a block device, or standard input. */
import type { BigIntStats } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { nameFault } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import { plainStat } from '../engine/plain-stat.ts'
import type {
  FileToRead,
  FillEvent,
  Filled,
  ScanEvent,
  Source,
  SourceCapabilities,
  SourceStat,
} from '../engine/source.ts'
import { about } from './about.ts'
import { sourceStat } from './lstat.ts'
import { ReadingThreads } from './reading-threads.ts'

const standardInput = 0

export class ChunkSource implements Source {
  readonly capabilities: SourceCapabilities
  readonly about: Readonly<Record<string, string>>
  readonly #input: string | number
  readonly #name: Buffer
  readonly #stat: SourceStat
  readonly #readers = new ReadingThreads(1)
  #begun = false

  private constructor(input: string | number, name: string, stat: SourceStat, rereadable: boolean) {
    this.capabilities = { form: 'chunks', rereadable }
    this.#input = input
    this.#name = Buffer.from(name, 'utf8')
    this.#stat = stat
    this.about = about({ paths: typeof input === 'string' ? input : '-', name })
  }

  /**
   * `path` is a file or a device; `-` is standard input. `name` is what the stream is called in listings
   * and when it is restored as a file. Problem `usage` when nothing can be called so, or when there is nothing that can
   * be read there.
   */
  static async open(path: string, options: { name?: string } = {}): Promise<ChunkSource> {
    const fault = options.name === undefined ? undefined : nameFault(Buffer.from(options.name, 'utf8'))
    if (fault !== undefined) throw new Problem('usage', `no stream can be called "${options.name}": ${fault}`)
    if (path === '-') return new ChunkSource(standardInput, options.name ?? 'stdin', madeStat(), false)
    const absolute = resolve(path)
    try {
      const stats = await stat(absolute, { bigint: true })
      if (stats.isDirectory()) throw new Problem('usage', `${absolute} is a directory, not a stream of bytes`)
      const name = options.name ?? (basename(absolute) || 'stream')
      const rereadable = stats.isFile() || stats.isBlockDevice()
      return new ChunkSource(absolute, name, streamStat(stats), rereadable)
    } catch (cause) {
      if (cause instanceof Problem) throw cause
      const { code, message } = cause as NodeJS.ErrnoException
      const why = code === 'ENOENT' ? 'there is no such file' : message
      throw new Problem('usage', `cannot back up ${absolute}: ${why}`, { cause })
    }
  }

  async *scan(): AsyncGenerator<readonly ScanEvent[], void, undefined> {
    const { uid, gid } = this.#stat
    const root: SourceStat = { ...madeStat(), mode: 0o755, uid, gid, mtimeNs: '0' }
    yield [
      { type: 'enter', name: Buffer.alloc(0), stat: root },
      { type: 'entries', entries: [{ name: this.#name, kind: 'file', stat: this.#stat }] },
      { type: 'listed' },
      { type: 'leave' },
    ]
  }

  async *fill(files: readonly FileToRead[], signal: AbortSignal): AsyncGenerator<Filled, void, undefined> {
    if (files.length !== 1) throw new TypeError('a stream is one file')
    signal.throwIfAborted()
    if (this.#begun && !this.capabilities.rereadable) {
      throw new Problem('source-unreadable', 'the stream can be read only once; run the command again')
    }
    this.#begun = true
    const input =
      typeof this.#input === 'number' ? this.#input : Buffer.from(this.#input, 'utf8').toString('latin1')
    const job = { files: [input], anyKind: true }
    for await (const { events, release } of this.#readers.fill(job, signal)) {
      yield {
        events: events.map((event) =>
          event.type === 'done' ? { ...event, stat: this.#readStat(event) } : event,
        ),
        release,
      }
    }
  }

  /** What held while the stream was read. */
  #readStat({ stat, bytesRead }: FillEvent & { type: 'done' }): SourceStat {
    // Only a regular file has an inode here.
    const known = this.#stat.inode === '' ? this.#stat : { ...plainStat(stat), links: 1 }
    return { ...known, size: bytesRead }
  }

  async close(): Promise<void> {
    await this.#readers.close()
  }
}

/** The stat of a stream that has none: it came to be now. */
function madeStat(): SourceStat {
  return {
    size: 0,
    mode: 0o600,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    mtimeNs: `${BigInt(Date.now()) * 1_000_000n}`,
    ctimeNs: '0',
    inode: '',
    links: 1,
    major: 0,
    minor: 0,
    sparse: false,
  }
}

/** A regular file keeps what it has. Of a device or a pipe, times and numbers say nothing about the stream. */
function streamStat(stats: BigIntStats): SourceStat {
  const known = sourceStat(stats)
  // One file is all there is here: other names of it are none of its business.
  if (stats.isFile()) return { ...known, links: 1 }
  return { ...madeStat(), mode: known.mode & 0o777, uid: known.uid, gid: known.gid }
}
