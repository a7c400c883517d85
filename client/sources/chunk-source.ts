/** One stream of bytes: a file, a block device, or standard input. */
import { stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, resolve } from 'node:path'
import { Problem } from '../../protocol/problem.ts'
import type {
  FileToRead,
  Filled,
  ScanEvent,
  Source,
  SourceCapabilities,
  SourceStat,
} from '../engine/source.ts'
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
    this.about = { host: hostname(), paths: typeof input === 'string' ? input : '-', name }
  }

  /**
   * `path` is a file or a device; `-` is standard input. `name` is what the stream is called in listings
   * and when it is restored as a file. Problem `usage` when there is nothing that can be read there.
   */
  static async open(path: string, options: { name?: string } = {}): Promise<ChunkSource> {
    const now = `${BigInt(Date.now()) * 1_000_000n}`
    const made = {
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
      ctimeNs: '0',
      inode: '',
      links: 1,
    }
    const plain = { ...made, size: 0, mode: 0o600, mtimeNs: now, major: 0, minor: 0, sparse: false }
    if (path === '-') return new ChunkSource(standardInput, options.name ?? 'stdin', plain, false)
    const absolute = resolve(path)
    try {
      const stats = await stat(absolute, { bigint: true })
      if (stats.isDirectory()) throw new Problem('usage', `${absolute} is a directory, not a stream of bytes`)
      const size = stats.isFile() ? Number(stats.size) : 0
      const mode = Number(stats.mode & 0o777n)
      const known = { ...plain, size, mode, uid: Number(stats.uid), gid: Number(stats.gid) }
      const times = stats.isFile() ? { mtimeNs: `${stats.mtimeNs}`, ctimeNs: `${stats.ctimeNs}` } : {}
      const name = options.name ?? (basename(absolute) || 'stream')
      const rereadable = stats.isFile() || stats.isBlockDevice()
      return new ChunkSource(absolute, name, { ...known, ...times }, rereadable)
    } catch (cause) {
      if (cause instanceof Problem) throw cause
      const { code, message } = cause as NodeJS.ErrnoException
      const why = code === 'ENOENT' ? 'there is no such file' : message
      throw new Problem('usage', `cannot back up ${absolute}: ${why}`, { cause })
    }
  }

  async *scan(): AsyncGenerator<readonly ScanEvent[], void, undefined> {
    const root: SourceStat = { ...this.#stat, size: 0, mode: 0o755, mtimeNs: '0', sparse: false }
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
      // A device's or a pipe's own stat says nothing about the stream.
      const stat = (bytesRead: number): SourceStat => ({ ...this.#stat, size: bytesRead })
      yield {
        events: events.map((event) =>
          event.type === 'done' ? { ...event, stat: stat(event.bytesRead) } : event,
        ),
        release,
      }
    }
  }

  async close(): Promise<void> {
    await this.#readers.close()
  }
}
