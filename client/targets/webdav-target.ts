/**
 * Any WebDAV server (RFC 4918) as a target: plain files, in a folder per checkpoint (webdav-backups.ts says how
 * they stand there). The server is asked for nothing but the methods of class 1, and takes part in nothing:
 * what it holds is checked when it is restored, by the digests in the manifest.
 *
 * A PUT need not be atomic: what a killed run has left under a file's name may be a part of it. So a file
 * counts as there only if the client remembers that the server acknowledged it, and its size agrees.
 */
import { randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Semaphore } from 'async-mutex'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CheckpointState, CommitRequest } from '../../protocol/schema.ts'
import { encodeSegment } from '../../protocol/url.ts'
import type {
  FileCommitOutcome,
  FileContent,
  FileTarget,
  FileTargetCapabilities,
  PlacedEntry,
  TreeEntry,
} from '../engine/file-target.ts'
import type { BegunCheckpoint, TargetCounters } from '../engine/target.ts'
import { CheckedStream } from './checked-stream.ts'
import {
  claimPrefix,
  committedFolder,
  type FoundCheckpoints,
  fetchManifest,
  findCheckpoints,
  openFolder,
  readHead,
  sourceFolder,
} from './webdav-backups.ts'
import type { WebDavClient } from './webdav-client.ts'
import { Collections } from './webdav-collections.ts'
import { type FetchedManifest, ManifestWriter, manifestName } from './webdav-manifest.ts'
import { storedName } from './webdav-names.ts'
import { WebDavTree } from './webdav-tree.ts'

export interface WebDavTargetOptions {
  /** Files that are put at once from memory, and copies under way at once. */
  readonly lanes?: number
}

/** A small manifest is put from memory, and so again when the connection breaks. */
const smallManifestBytes = 8 * 1024 * 1024
const manifestTries = 4

/** The open checkpoint. */
interface Begun {
  readonly number: number
  readonly openedAt: string
  readonly about: Readonly<Record<string, string>>
  readonly base: { readonly state: CheckpointState; readonly manifest: FetchedManifest } | undefined
  /** Something may stand in the folder that this object has not put there. */
  leftovers: boolean
}

export class WebDavTarget implements FileTarget {
  readonly capabilities: FileTargetCapabilities = { form: 'files' }
  readonly #client: WebDavClient
  readonly #source: string
  readonly #lanes: number
  readonly #turns: Semaphore
  readonly #collections: Collections
  readonly #cancel = new AbortController()
  #begun: Begun | undefined
  /** A file in the open checkpoint's folder, to be gone when it is published. */
  #claim: string | undefined
  #bytesStored = 0

  /** Backs up to `source`. Opens nothing yet. The client stays the caller's until `close`, which closes it. */
  constructor(client: WebDavClient, source: string, options: WebDavTargetOptions = {}) {
    this.#client = client
    this.#source = source
    this.#lanes = options.lanes ?? 4
    this.#turns = new Semaphore(this.#lanes)
    this.#collections = new Collections(client)
  }

  get counters(): TargetCounters {
    const { bytesSent, requests } = this.#client.counters
    return { bytesSent, requests, bytesStored: this.#bytesStored }
  }

  /** Where the open checkpoint's files are; TypeError before `begin`. */
  get #files(): string {
    return `${openFolder(this.#source, this.#open.number)}files/`
  }

  get #open(): Begun {
    if (this.#begun === undefined) throw new TypeError('begin comes first')
    return this.#begun
  }

  async begin(resume: number | undefined, about: Readonly<Record<string, string>>): Promise<BegunCheckpoint> {
    await this.#begun?.base?.manifest.close()
    this.#claim = undefined
    const found = await this.#found()
    const base = (await this.#canCopy()) ? await this.#base(found) : undefined
    const resumed = resume !== undefined && found.open.has(resume) && !found.committed.has(resume)
    const number = resumed ? resume : await this.#openNew(found, resume)
    if (!resumed && resume !== undefined && found.open.has(resume)) {
      await this.#client.remove(openFolder(this.#source, resume))
    }
    const openedAt = new Date().toISOString()
    this.#collections.leftovers = resumed
    this.#begun = { number, openedAt, about, base, leftovers: resumed }
    return { number, resumed, base: base?.state }
  }

  /** What is there of this source; its folder is made if need be. */
  async #found(): Promise<FoundCheckpoints> {
    const found = await findCheckpoints(this.#client, this.#source)
    if (found !== undefined) return found
    await this.#makeSourceFolder()
    return { committed: new Map(), open: new Map() }
  }

  /** The folder that the URL names may be new too; those above it must be there, lest a slip of the pen makes some. */
  async #makeSourceFolder(): Promise<void> {
    const { shown } = this.#client.location
    if ((await this.#client.kindAt('')) === undefined) {
      try {
        await this.#client.makeCollection('')
      } catch (cause) {
        if (!isProblem(cause, 'conflict') && !isProblem(cause, 'not-found')) throw cause
        const text = `the folder above ${shown} is not there; make it first, or check the URL`
        throw new Problem('not-found', text, { cause })
      }
    }
    await this.#client.makeCollection(sourceFolder(this.#source))
  }

  /** Whether the server can copy. Problem `method-not-allowed` when it cannot even rename. */
  async #canCopy(): Promise<boolean> {
    const methods = await this.#client
      .methods(sourceFolder(this.#source))
      .catch((error): readonly string[] => {
        // A server that does not say is tried.
        if (isProblem(error) && typeof error.extensions.status === 'number') return []
        throw error
      })
    if (!methods.includes('PROPFIND')) return true
    if (methods.includes('MOVE')) return methods.includes('COPY')
    const { shown } = this.#client.location
    throw new Problem('method-not-allowed', `${shown} has no MOVE, without which no backup can be completed`)
  }

  /** The last committed checkpoint whose manifest is there. */
  async #base({ committed }: FoundCheckpoints): Promise<Begun['base']> {
    for (const number of [...committed.keys()].sort((a, b) => b - a)) {
      const state = await readHead(this.#client, this.#source, number)
      if (state?.root === undefined) continue
      const manifest = await fetchManifest(this.#client, this.#source, number)
      return { state, manifest }
    }
    return undefined
  }

  async #openNew({ committed, open }: FoundCheckpoints, resume = 0): Promise<number> {
    for (let number = Math.max(0, resume, ...committed.keys(), ...open.keys()) + 1; ; number++) {
      const folder = openFolder(this.#source, number)
      if (await this.#client.makeCollection(folder)) {
        if (await this.#isOwn(folder)) return number
        continue
      }
      // Another client was faster; or the server has no MKCOL at all.
      if ((await this.#client.kindAt(folder)) !== undefined) continue
      const text = `${this.#client.location.shown} makes no folders; check the URL, and what the user may do there`
      throw new Problem('method-not-allowed', text)
    }
  }

  /**
   * Whether no other client has just opened the same folder. Where MKCOL makes what is there already, each
   * leaves a claim in it, and who finds anything else there goes away: of two, the later one does.
   */
  async #isOwn(folder: string): Promise<boolean> {
    if (!(await this.#client.makeCollection(folder))) return true
    const claim = `${claimPrefix}${randomUUID()}`
    await this.#client.put(folder + claim, [Buffer.from('\n')])
    const members = (await this.#client.list(folder)) ?? []
    if (members.every(({ name }) => name.toString('latin1') === claim)) {
      this.#claim = claim
      return true
    }
    await this.#client.remove(folder + claim)
    // Lest both go on in step.
    await sleep(Math.random() * 500)
    return false
  }

  async put(path: Buffer, content: FileContent, signal: AbortSignal): Promise<void> {
    const either = AbortSignal.any([signal, this.#cancel.signal])
    const names = namesAlong(path).map((name) => encodeSegment(storedName(name)))
    const stored = this.#files + names.join('/')
    const folder = stored.slice(0, stored.lastIndexOf('/') + 1)
    await this.#collections.ensure(openFolder(this.#source, this.#open.number), folder)
    try {
      await this.#putAt(stored, content, either)
    } catch (error) {
      if (!(await this.#clearWay(stored, error, either))) throw error
      if (!('pieces' in content)) {
        const text = 'a folder stood where the file must be, and is gone now'
        throw new Problem('unavailable', text, { cause: error })
      }
      await this.#putAt(stored, content, either)
    }
  }

  async #putAt(stored: string, content: FileContent, signal: AbortSignal): Promise<void> {
    try {
      if ('pieces' in content) {
        const { pieces, mtimeNs } = content
        await this.#turns.runExclusive(() => this.#client.put(stored, pieces, { mtimeNs, signal }))
        this.#bytesStored += pieces.reduce((sum, { length }) => sum + length, 0)
      } else {
        const checked = new CheckedStream(content)
        const { size: bytes, mtimeNs } = content
        await this.#client.putStream(stored, { pieces: checked, bytes }, { mtimeNs, signal })
        this.#bytesStored += checked.bytes
      }
    } catch (error) {
      const status = statusOf(error)
      // Of what it has refused, a server keeps nothing.
      if (status === undefined || status >= 500) await this.#cleanUp(stored)
      throw error
    }
  }

  /** An interrupted run may have left a folder where a file must be now. True when there was one, and it is gone. */
  async #clearWay(stored: string, error: unknown, signal: AbortSignal): Promise<boolean> {
    const status = statusOf(error)
    if (!this.#open.leftovers || status === undefined || [401, 423, 507].includes(status)) return false
    if ((await this.#client.kindAt(stored, { signal })) !== 'collection') return false
    this.#collections.forget(`${stored}/`)
    return this.#client.remove(`${stored}/`, { signal })
  }

  /** Best effort: what cannot be deleted now is overwritten, or deleted before the commit, which looks at all that is there. */
  async #cleanUp(stored: string): Promise<void> {
    if (this.#cancel.signal.aborted) return
    try {
      // In a folder's stead nothing was put.
      const kind = this.#open.leftovers ? await this.#client.kindAt(stored) : 'file'
      this.#open.leftovers = true
      if (kind === 'file') await this.#client.remove(stored, { signal: this.#cancel.signal })
    } catch (error) {
      if (!isProblem(error)) throw error
    }
  }

  async *readBase(signal: AbortSignal): AsyncIterable<PlacedEntry> {
    const { base } = this.#open
    if (base === undefined) throw new TypeError('there is no base')
    const { root, attributes } = base.state
    if (root === undefined || attributes === undefined)
      throw new Problem('invalid-object', 'the base has no root')
    yield { path: Buffer.alloc(0), entry: { kind: 'directory', ...attributes, id: root } }
    for await (const { path, entry } of base.manifest.entries()) {
      signal.throwIfAborted()
      yield { path, entry }
    }
  }

  async commit(
    request: CommitRequest,
    tree: AsyncIterable<TreeEntry>,
    signal: AbortSignal,
  ): Promise<FileCommitOutcome> {
    const { number, openedAt, about, base, leftovers } = this.#open
    const either = AbortSignal.any([signal, this.#cancel.signal])
    const { root, attributes, totals } = request
    const committedAt = new Date().toISOString()
    const state: CheckpointState = {
      ...{ source: this.#source, number, kind: 'dir', state: 'committed', openedAt, committedAt, about },
      ...{ ...(root && { root }), ...(attributes && { attributes }), ...(totals && { totals }) },
    }
    const writer = await ManifestWriter.open(state)
    const files = new WebDavTree({
      client: this.#client,
      collections: this.#collections,
      folder: this.#files,
      top: openFolder(this.#source, number),
      baseFolder: base === undefined ? '' : `${committedFolder(this.#source, base.state.number)}files/`,
      base: base && { root: base.state.root, entries: base.manifest.entries() },
      leftovers,
      lanes: this.#lanes,
      signal: either,
    })
    // A further round meets what this one has left.
    this.#open.leftovers = true
    this.#collections.leftovers = true
    try {
      for await (const entry of tree) {
        await files.add(entry)
        if (entry.path.length > 0) await writer.add(entry)
      }
      await files.finish()
      if (files.lost > 0) return { lost: files.lost }
      await this.#putManifest(await writer.finish(), either)
      await this.#publish(state, either)
      return { committed: state }
    } finally {
      await files.close()
      await writer.close()
    }
  }

  async #putManifest(file: { path: string; bytes: number }, signal: AbortSignal): Promise<void> {
    const path = openFolder(this.#source, this.#open.number) + manifestName
    if (file.bytes <= smallManifestBytes) {
      await this.#client.put(path, [await readFile(file.path)], { signal })
      return
    }
    for (let attempt = 1; ; attempt++) {
      try {
        const pieces = createReadStream(file.path)
        await this.#client.putStream(path, { pieces, bytes: file.bytes }, { signal })
        return
      } catch (error) {
        if (!isProblem(error, 'transport-failed') || attempt === manifestTries) throw error
      }
    }
  }

  /** Renames the folder: from then on it is a checkpoint. */
  async #publish(state: CheckpointState, signal: AbortSignal): Promise<void> {
    const { number } = state
    const [from, to] = [openFolder(this.#source, number), committedFolder(this.#source, number)]
    if (this.#claim !== undefined) await this.#client.remove(from + this.#claim, { signal })
    try {
      if ((await this.#client.move(from, to, { signal })) === 'done') return
    } catch (error) {
      if (!isProblem(error, 'not-found')) throw error
      // It may have been done although the answer got lost; or by another client, with what is its own.
      const there = await readHead(this.#client, this.#source, number, signal)
      if (isSame(there, state)) return
      throw new Problem('checkpoint-not-found', `checkpoint ${number} was deleted while it was made`, {
        cause: error,
      })
    }
    const text = `checkpoint ${number} of ${this.#source} is there already; another client may back up to the same place`
    throw new Problem('checkpoint-committed', text)
  }

  async close(): Promise<void> {
    this.#cancel.abort(new Problem('cancelled', 'the target was closed'))
    await this.#begun?.base?.manifest.close()
    await this.#client.close()
  }
}

/** Whether this is the checkpoint that was to be published, and not another of the same number. */
function isSame(
  there: CheckpointState | undefined,
  { root, openedAt, committedAt }: CheckpointState,
): boolean {
  return there?.root === root && there?.openedAt === openedAt && there.committedAt === committedAt
}

/** The status that the server answered with, if it did. */
function statusOf(error: unknown): number | undefined {
  const status = isProblem(error) ? error.extensions.status : undefined
  return typeof status === 'number' ? status : undefined
}

function namesAlong(path: Buffer): Buffer[] {
  const names: Buffer[] = []
  for (let at = 0; at <= path.length; ) {
    const slash = path.indexOf(0x2f, at)
    const end = slash < 0 ? path.length : slash
    names.push(path.subarray(at, end))
    at = end + 1
  }
  return names
}
