/**
 * What WebDAV cannot hold of a checkpoint: `manifest.jsonl.zst`, one zstd frame (with checksum) of JSON lines.
 *
 *     {"format":"chunkdav-manifest","version":1,"source":…,"number":…,"openedAt":…,"committedAt":…,
 *      "about":{…},"root":{"id":…,"mode":…,"uid":…,"gid":…,"mtimeNs":…},"totals":{…}}
 *     {"path":"docs","kind":"directory","mode":493,"uid":0,"gid":0,"mtimeNs":"…","id":"blake3:…"}
 *     {"path":"docs/a","kind":"file",…,"size":5,"digest":"blake3:…"}
 *     …
 *     {"entries":2}
 *
 * An entry has the fields of a directory object's (docs/protocol.md), but `path` or `path64` (base64, when it is
 * not UTF-8) for its name; a file has `digest`, the id of its whole content; and `at` is there where the
 * stored name is not the name itself. A directory stands before what is in it, names in the order of
 * their bytes. Who reads one trusts none of it: a line that stands out of place ends the reading.
 *
 * It is written to and read from a file on this machine, so that neither direction depends on a connection
 * that stays up as long as the work takes.
 */
import { isUtf8 } from 'node:buffer'
import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline, Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { constants, createZstdCompress, createZstdDecompress } from 'node:zlib'
import { nameBytes, nameFault, targetBytes } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import {
  type CheckpointState,
  CheckpointState as CheckpointStateSchema,
  check,
  DirectoryObject,
  type Entry,
  parseJson,
} from '../../protocol/schema.ts'
import { encodeSegment } from '../../protocol/url.ts'
import { storedName } from './webdav-names.ts'

export const manifestName = 'manifest.jsonl.zst'
const format = 'chunkdav-manifest'
const version = 1
/** A path has a few thousand bytes as a rule; but trees may be deeper than any path that a system takes. */
const maxLineBytes = 16 * 1024 * 1024
const slash = Buffer.from('/')

/** An entry, and where it is stored: percent-encoded, below the checkpoint's files; a directory's ends in a slash. */
export interface ManifestEntry {
  readonly path: Buffer
  readonly entry: Entry
  readonly stored: string
}

/** A folder of our own for a manifest, gone with `dispose`. */
async function temporaryFile(): Promise<{ path: string; dispose: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'chunkdav-'))
  return {
    path: join(folder, manifestName),
    dispose: () => rm(folder, { recursive: true, force: true }),
  }
}

/** Writes a manifest, an entry at a time. */
export class ManifestWriter {
  readonly #file: { path: string; dispose: () => Promise<void> }
  readonly #encoder = createZstdCompress({
    params: { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_checksumFlag]: 1 },
  })
  readonly #written: Promise<void>
  #entries = 0

  private constructor(file: { path: string; dispose: () => Promise<void> }) {
    this.#file = file
    const out = createWriteStream(file.path, { mode: 0o600 })
    pipeline(this.#encoder, out, () => {})
    this.#written = finished(out)
    // Told by `add` or `finish`.
    this.#written.catch(() => {})
  }

  /** `state` is what the checkpoint will be once it is committed. */
  static async open(state: CheckpointState): Promise<ManifestWriter> {
    const writer = new ManifestWriter(await temporaryFile())
    await writer.#line(headOf(state))
    // A block of its own: who wants only this line need not fetch much.
    await new Promise<void>((resolve) => writer.#encoder.flush(() => resolve()))
    return writer
  }

  async add({ path, entry }: { path: Buffer; entry: Entry }): Promise<void> {
    this.#entries++
    await this.#line(lineOf(path, entry))
  }

  async #line(value: object): Promise<void> {
    if (this.#encoder.write(`${JSON.stringify(value)}\n`)) return
    // A disk that is full ends both.
    await Promise.race([
      once(this.#encoder, 'drain'),
      this.#written.then(() => Promise.reject(new Error('closed'))),
    ])
  }

  /** Ends it; the finished file, valid until `close`. */
  async finish(): Promise<{ path: string; bytes: number }> {
    await this.#line({ entries: this.#entries })
    this.#encoder.end()
    await this.#written
    return { path: this.#file.path, bytes: (await stat(this.#file.path)).size }
  }

  /** Removes the file. Idempotent. */
  async close(): Promise<void> {
    this.#encoder.destroy()
    await this.#written.catch(() => {})
    await this.#file.dispose()
  }
}

function headOf({ source, number, openedAt, committedAt, about, root, attributes, totals }: CheckpointState) {
  return {
    format,
    version,
    source,
    number,
    openedAt,
    committedAt,
    about,
    root: { id: root, ...attributes },
    totals,
  }
}

function lineOf(path: Buffer, entry: Entry): object {
  const { name: _, name64: __, ...fields } = entry
  const name = nameBytes(entry)
  const stored = storedName(name)
  const shown = isUtf8(path) ? { path: path.toString('utf8') } : { path64: path.toString('base64') }
  const at = stored.equals(name) ? {} : { at: stored.toString('utf8') }
  if (fields.kind !== 'file') return { ...shown, ...fields, ...at }
  const { id, ...others } = fields
  return { ...shown, ...others, digest: id, ...at }
}

/** A manifest that was fetched from the server. */
export class FetchedManifest {
  readonly #file: { path: string; dispose: () => Promise<void> }

  private constructor(file: { path: string; dispose: () => Promise<void> }) {
    this.#file = file
  }

  /** Keeps `body` until `close`. */
  static async of(body: AsyncIterable<Buffer>): Promise<FetchedManifest> {
    const file = await temporaryFile()
    try {
      const out = createWriteStream(file.path, { mode: 0o600 })
      await finished(pipeline(Readable.from(body), out, () => {}))
      return new FetchedManifest(file)
    } catch (error) {
      await file.dispose()
      throw error
    }
  }

  /** The checkpoint that it says it is of. Problem `invalid-object` when it cannot be read. */
  async head(): Promise<CheckpointState> {
    for await (const line of linesOf(createReadStream(this.#file.path))) return stateOf(line)
    throw damaged('it is empty')
  }

  /** All entries in order; the root's is not among them. Problem `invalid-object` where it cannot be read on. */
  async *entries(): AsyncGenerator<ManifestEntry, void, undefined> {
    const open: OpenDirectories = { deepest: Buffer.alloc(0), levels: [] }
    let root: string | undefined
    let count = -1
    let ended = false
    for await (const line of linesOf(createReadStream(this.#file.path))) {
      if (ended) throw damaged('there is something behind its end')
      count++
      if (count === 0) {
        root = stateOf(line).root
        open.levels.push({ length: 0, stored: '', last: undefined })
        continue
      }
      const value = objectOf(line)
      if (value.path === undefined && value.path64 === undefined) {
        if (value.entries !== count - 1) throw damaged('it does not have as many entries as it says')
        ended = true
        continue
      }
      const next = placed(value, open)
      // By its id, a walk would take it for the root, and begin again.
      if (next.entry.kind === 'directory' && next.entry.id === root) throw damaged('a directory holds itself')
      yield next
    }
    if (!ended) throw damaged('it is cut off')
  }

  /** Removes the file. Idempotent. */
  close(): Promise<void> {
    return this.#file.dispose()
  }
}

/** The checkpoint that the first stretch of a manifest tells of. Problem `invalid-object`. */
export async function headIn(start: Buffer): Promise<CheckpointState> {
  for await (const line of linesOf(Readable.from([start]))) return stateOf(line)
  throw damaged('it is empty')
}

function damaged(what: string, cause?: unknown): Problem {
  const text = `the manifest is damaged (${what}); restore another checkpoint, or copy the files by hand`
  return new Problem('invalid-object', text, { cause })
}

/** Lines of a frame as far as they are complete; what breaks off throws when it is come to. */
async function* linesOf(encoded: Readable): AsyncGenerator<string, void, undefined> {
  const decoder = createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: 27 } })
  let rest: Buffer = Buffer.alloc(0)
  try {
    for await (const piece of pipeline(encoded, decoder, () => {}) as AsyncIterable<Buffer>) {
      let bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece])
      for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10)) {
        yield bytes.toString('utf8', 0, end)
        bytes = bytes.subarray(end + 1)
      }
      if (bytes.length > maxLineBytes) throw damaged('a line is too long')
      rest = Buffer.from(bytes)
    }
  } catch (cause) {
    if (cause instanceof Problem) throw cause
    const code = (cause as NodeJS.ErrnoException).code ?? ''
    // Whatever zlib says of the bytes; the disk's own errors are another matter.
    if (!code.startsWith('ZSTD_') && !code.startsWith('Z_') && !code.startsWith('ERR_')) throw cause
    throw damaged(`it does not decode (${code})`, cause)
  } finally {
    encoded.destroy()
    decoder.destroy()
  }
  if (rest.length > 0) throw damaged('it is cut off')
}

function objectOf(line: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line)
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch (cause) {
    throw damaged('a line is no JSON', cause)
  }
  throw damaged('a line is no JSON object')
}

function stateOf(line: string): CheckpointState {
  const { format: is, version: number, root, ...fields } = objectOf(line)
  if (is !== format) throw damaged('it is of another format')
  if (number !== version) {
    throw new Problem('invalid-object', 'the manifest is of a later version; use a newer chunkdav')
  }
  const { id, ...attributes } = (root ?? {}) as Record<string, unknown>
  const state = { ...fields, kind: 'dir', state: 'committed', root: id, attributes }
  return parseJson(CheckpointStateSchema, JSON.stringify(state), 'invalid-object')
}

function checkedEntry(value: object): Entry {
  const object = check(DirectoryObject, { type: 'directory', entries: [value] }, 'invalid-object')
  return (object as unknown as { entries: [Entry] }).entries[0]
}

/** The directories that an entry may stand in, from the root on: their paths begin the deepest one's. */
interface OpenDirectories {
  deepest: Buffer
  readonly levels: { readonly length: number; readonly stored: string; last: Buffer | undefined }[]
}

function placed(value: Record<string, unknown>, open: OpenDirectories): ManifestEntry {
  const { path: text, path64, digest, at, ...fields } = value
  const path = typeof text === 'string' ? Buffer.from(text, 'utf8') : Buffer.from(String(path64), 'base64')
  const name = path.subarray(path.lastIndexOf(0x2f) + 1)
  const parent = path.subarray(0, Math.max(0, path.length - name.length - 1))
  const { levels } = open
  while (levels.length > 1 && (levels.at(-1)?.length ?? 0) > parent.length) levels.pop()
  const directory = levels.at(-1)
  const isInside =
    directory?.length === parent.length && open.deepest.subarray(0, parent.length).equals(parent)
  if (directory === undefined || !isInside || path[0] === slash[0]) {
    throw damaged(`"${path}" stands outside its directory`)
  }
  const fault = nameFault(name)
  if (fault !== undefined) throw damaged(fault)
  if (directory.last !== undefined && Buffer.compare(directory.last, name) >= 0) {
    throw damaged(`"${path}" stands out of order, or twice`)
  }
  directory.last = Buffer.from(name)
  const named = isUtf8(name) ? { name: name.toString('utf8') } : { name64: name.toString('base64') }
  const entry = checkedEntry({ ...fields, ...named, ...(digest === undefined ? {} : { id: digest }) })
  if (entry.kind === 'symlink' && targetBytes(entry).includes(0)) throw damaged('a symlink leads nowhere')
  const storedAt = at === undefined ? name : Buffer.from(String(at), 'utf8')
  const storedFault = nameFault(storedAt)
  if (storedFault !== undefined) throw damaged(storedFault)
  const isDirectory = fields.kind === 'directory'
  const stored = `${directory.stored}${encodeSegment(storedAt)}${isDirectory ? '/' : ''}`
  if (isDirectory) {
    levels.push({ length: path.length, stored, last: undefined })
    open.deepest = path
  }
  return { path, entry, stored }
}
