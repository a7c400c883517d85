/** A vault whose live tree the tests write without HTTP, and whose checkpoints they read back. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Id } from '../../../protocol/id.ts'
import { nameBytes } from '../../../protocol/objects.ts'
import { readContent } from '../../../server/catalog/content.ts'
import { entriesOf } from '../../../server/catalog/directory.ts'
import type { Names } from '../../../server/catalog/tree-records.ts'
import { receiveSmallFile } from '../../../server/store/incoming-file.ts'
import { type Vault, Vaults } from '../../../server/vaults.ts'
import { ForgetfulStore } from './forgetful-store.ts'

export function at(path: string): Names {
  return path.split('/').map((name) => Buffer.from(name))
}

export class TreeVault implements AsyncDisposable {
  readonly vault: Vault
  readonly vaults: Vaults
  readonly store: ForgetfulStore
  readonly folder: string

  private constructor(folder: string, vaults: Vaults, vault: Vault) {
    this.folder = folder
    this.vaults = vaults
    this.vault = vault
    this.store = vault.store as ForgetfulStore
  }

  static async open(): Promise<TreeVault> {
    const folder = await mkdtemp(join(tmpdir(), 'chunkdav-freeze-'))
    const vaults = await Vaults.open(folder, { openStore: () => ForgetfulStore.open(), trashMs: 1000 })
    await vaults.create('home')
    return new TreeVault(folder, vaults, await vaults.get('home'))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vaults.close()
    await rm(this.folder, { recursive: true, force: true })
  }

  async put(path: string, text: string, mtimeNs?: string): Promise<Id> {
    const { store, tree } = this.vault
    const since = store.losses
    const content = await receiveSmallFile(store, Buffer.from(text))
    const times = mtimeNs === undefined ? {} : { mtimeNs }
    return (await tree.change((change) => change.putFile(at(path), { ...content, ...times, since }))).id
  }

  async make(path: string): Promise<void> {
    await this.vault.tree.change((change) => change.makeCollection(at(path)))
  }

  async remove(path: string): Promise<void> {
    await this.vault.tree.change((change) => change.remove(at(path)))
  }

  async move(from: string, to: string): Promise<void> {
    await this.vault.tree.change((change) => change.move(at(from), at(to)))
  }

  async copy(from: string, to: string): Promise<void> {
    await this.vault.tree.copy(at(from), at(to), 'infinity', async () => {})
  }

  /** Paths of what a directory object holds, with `=content` behind files and a slash behind directories. */
  async frozen(root: Id | undefined, prefix = ''): Promise<string[]> {
    const found: string[] = []
    const { reader } = this.vault.catalog
    for await (const entry of entriesOf(reader, root as Id)) {
      const path = prefix + nameBytes(entry).toString('latin1')
      if (entry.kind === 'file') {
        const pieces = await Array.fromAsync(readContent(reader, entry))
        found.push(`${path}=${Buffer.concat(pieces)}`)
      } else if (entry.kind === 'directory') {
        found.push(`${path}/`, ...(await this.frozen(entry.id, `${path}/`)))
      }
    }
    return found
  }

  /** The same of the live tree. */
  async live(path = 'tree', prefix = ''): Promise<string[]> {
    const { tree, catalog } = this.vault
    const directory = await tree.find(at(path))
    if (directory?.kind !== 'directory') return []
    const found: string[] = []
    for await (const { name, record } of tree.members(directory)) {
      const shown = prefix + name.toString('latin1')
      if (record.kind === 'file') found.push(`${shown}=${await catalog.reader.get(record.id)}`)
      else found.push(`${shown}/`, ...(await this.live(`${path}/${name}`, `${shown}/`)))
    }
    return found
  }
}
