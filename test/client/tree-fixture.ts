/** Checkpoints made by hand, so that a test can say exactly what is in them, right or wrong. */

import { execFile } from 'node:child_process'
import { lstatSync, readFileSync, readlinkSync } from 'node:fs'
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ReceiverClient } from '../../client/receiver-client.ts'
import { type RestoreOptions, restore } from '../../client/restore/restore.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'
import { encodeBlock } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { Id } from '../../protocol/id.ts'
import { encodeDirectoryObject, encodeFileObject, encodeName } from '../../protocol/objects.ts'
import type { Attributes, CheckpointState, DirectoryEntry, Entry, FileEntry } from '../../protocol/schema.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'

export const plain: Attributes = { mode: 0o644, uid: 0, gid: 0, mtimeNs: '1600000000123456789' }
export const plainDirectory: Attributes = { ...plain, mode: 0o755 }

/** Bytes that do not compress, the same each time. */
export function randomBytes(seed: number, length: number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4))
  let x = (seed + 1) * 0x9e3779b9
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    words[i] = x
  }
  return Buffer.from(words.buffer, 0, length)
}

/** A receiver, a client of it and a folder to restore into. */
export class Fixture {
  receiver: TestReceiver
  client: ReceiverClient
  readonly folder: string

  private constructor(receiver: TestReceiver, folder: string) {
    this.receiver = receiver
    this.client = clientOf(receiver)
    this.folder = folder
  }

  static async start(): Promise<Fixture> {
    const receiver = await startReceiver({ keep: true })
    return new Fixture(receiver, await mkdtemp(join(tmpdir(), 'chunkdav-restore-')))
  }

  async stop(): Promise<void> {
    await this.client.close()
    await this.receiver.stop()
    await rm(this.receiver.dataDir, { recursive: true, force: true })
    // Node's own rm does not get down to where paths are longer than PATH_MAX.
    await promisify(execFile)('rm', ['-rf', this.folder])
  }

  /** Stops the receiver, lets `change` at its data, and starts it again: nothing is in memory then. */
  async restart(change: (packs: string) => Promise<void> | void): Promise<void> {
    const { dataDir } = this.receiver
    await this.client.close()
    await this.receiver.stop()
    await change(join(dataDir, 'vaults', 'home', 'packs'))
    this.receiver = await startReceiver({ keep: true, dataDir })
    this.client = clientOf(this.receiver)
  }

  at(...names: string[]): string {
    return join(this.folder, ...names)
  }

  /** Stores bytes as a chunk of their own block. */
  async put(bytes: Buffer): Promise<Id> {
    const id = hashId(bytes)
    await this.client.putBatch([await encodeBlock([{ id, length: bytes.length }], bytes)])
    return id
  }

  async file(
    name: string | Buffer,
    content: string | Buffer,
    more: Partial<FileEntry> = {},
  ): Promise<FileEntry> {
    const bytes = Buffer.from(content)
    const id = await this.put(bytes)
    return { kind: 'file', ...encodeName(Buffer.from(name)), ...plain, id, size: bytes.length, ...more }
  }

  /** A file of several chunks. */
  async chunkedFile(name: string, chunks: Buffer[], more: Partial<FileEntry> = {}): Promise<FileEntry> {
    const parts = []
    for (const bytes of chunks) parts.push({ id: await this.put(bytes), size: bytes.length })
    const object = encodeFileObject(parts, hashId(Buffer.concat(chunks)))
    await this.put(object.bytes)
    const size = chunks.reduce((sum, bytes) => sum + bytes.length, 0)
    return {
      kind: 'file',
      ...encodeName(Buffer.from(name)),
      ...plain,
      id: object.id,
      size,
      chunked: true,
      ...more,
    }
  }

  async directory(
    name: string | Buffer,
    entries: Entry[],
    more: Partial<DirectoryEntry> = {},
  ): Promise<DirectoryEntry> {
    const id = await this.root(entries)
    return { kind: 'directory', ...encodeName(Buffer.from(name)), ...plainDirectory, id, ...more }
  }

  /** Stores the directory object of these entries, in order of their names. */
  async root(entries: Entry[]): Promise<Id> {
    const name = (entry: Entry) => Buffer.from(entry.name ?? '', 'utf8')
    const key = (entry: Entry) =>
      entry.name === undefined ? Buffer.from(entry.name64 ?? '', 'base64') : name(entry)
    const object = encodeDirectoryObject([...entries].sort((a, b) => Buffer.compare(key(a), key(b))))
    return this.put(object.bytes)
  }

  /** A committed checkpoint of these entries. */
  async commit(entries: Entry[], attributes: Attributes = plainDirectory): Promise<CheckpointState> {
    const root = await this.root(entries)
    const open = await this.client.openCheckpoint('test', { kind: 'dir' })
    return this.client.commitCheckpoint(open, { root, attributes })
  }

  /** What a checkpoint with this root would look like, which the receiver would refuse to commit. */
  pretend(root: Id): CheckpointState {
    const openedAt = '2026-01-01T00:00:00Z'
    return {
      source: 'test',
      number: 1,
      kind: 'dir',
      state: 'committed',
      openedAt,
      root,
      attributes: plainDirectory,
    }
  }

  restore(checkpoint: CheckpointState, options: Partial<RestoreOptions> = {}) {
    return restore({ client: this.client, checkpoint, to: this.at('out'), ...options })
  }
}

function clientOf(receiver: TestReceiver): ReceiverClient {
  return new ReceiverClient(parseVaultUrl(receiver.vaultUrl), { firstPauseMs: 5, retries: 2 })
}

/** Every path below `folder` with what it is: for comparing. */
export async function listing(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  const visit = async (path: string, shown: string): Promise<void> => {
    for (const name of (await readdir(path)).sort()) {
      const inner = join(path, name)
      const stats = lstatSync(inner)
      const key = shown === '' ? name : `${shown}/${name}`
      if (stats.isDirectory()) {
        found[key] = 'directory'
        if ((stats.mode & 0o500) !== 0o500) await chmod(inner, 0o700)
        await visit(inner, key)
      } else if (stats.isSymbolicLink()) found[key] = `-> ${readlinkSync(inner)}`
      else if (stats.isFile())
        found[key] = stats.size > 100 ? hashId(readFileSync(inner)) : readFileSync(inner, 'latin1')
      else found[key] = 'special'
    }
  }
  await visit(folder, '')
  return found
}
