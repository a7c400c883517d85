import { mkdir, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isProblem, Problem } from '../protocol/problem.ts'
import { parseVaultName } from '../protocol/url.ts'
import { type Catalog, openCatalog } from './catalog/catalog.ts'
import { makeFolderDurably, syncDirectory } from './catalog/durable-file.ts'
import type { ChunkStore } from './store/chunk-store.ts'

/** One tenant's store: its own chunks, its own checkpoints, nothing shared with other vaults. */
export interface Vault {
  readonly name: string
  readonly store: ChunkStore
  readonly catalog: Catalog
}

/** Whether a folder below `vaults/` can be a vault: a file system's own, such as lost+found, are none. */
export function isVaultName(name: string): boolean {
  try {
    parseVaultName(name)
    return true
  } catch (error) {
    if (isProblem(error, 'invalid-name')) return false
    throw error
  }
}

/** Opens the store that is kept in a vault's folder, creating it when there is none. */
export type OpenStore = (vaultPath: string) => Promise<ChunkStore>

/**
 * The vaults below `{data}/vaults`. A vault is opened by the first request that needs it and stays open
 * until `close`.
 */
export class Vaults {
  readonly path: string
  private readonly openStore: OpenStore
  private readonly onDamage: (problem: Problem) => void
  private readonly opened = new Map<string, Promise<Vault>>()
  private closed = false

  private constructor(path: string, openStore: OpenStore, onDamage: (problem: Problem) => void) {
    this.path = path
    this.openStore = openStore
    this.onDamage = onDamage
  }

  /** Opens the vaults of a data directory, which is there. `onDamage` is told of checkpoints that are left out. */
  static async open(
    dataDir: string,
    openStore: OpenStore,
    onDamage: (problem: Problem) => void = () => {},
  ): Promise<Vaults> {
    const path = join(dataDir, 'vaults')
    await makeFolderDurably(path)
    return new Vaults(path, openStore, onDamage)
  }

  /** Names of all vaults, in order. */
  async list(): Promise<string[]> {
    const entries = await readdir(this.path, { withFileTypes: true })
    return entries
      .filter((entry) => entry.isDirectory() && isVaultName(entry.name))
      .map((entry) => entry.name)
      .sort()
  }

  /** Creates a vault; durable on return. Problem `vault-exists`. */
  async create(name: string): Promise<void> {
    try {
      await mkdir(join(this.path, parseVaultName(name)))
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause
      throw new Problem('vault-exists', `there is a vault ${name} already`, { cause })
    }
    await syncDirectory(this.path)
  }

  /** The vault of this name, open. Problems `vault-not-found`, `unavailable` after `close`. */
  async get(name: string): Promise<Vault> {
    if (this.closed) throw new Problem('unavailable', 'the receiver is stopping')
    let vault = this.opened.get(name)
    if (vault === undefined) {
      vault = this.openVault(parseVaultName(name))
      this.opened.set(name, vault)
      // Whatever kept it from opening may have passed by the next request.
      vault.catch(() => this.opened.delete(name))
    }
    return await vault
  }

  private async openVault(name: string): Promise<Vault> {
    const path = join(this.path, name)
    try {
      await stat(path)
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause
      throw new Problem('vault-not-found', `there is no vault ${name}; MKCOL /${name}/ creates it`, { cause })
    }
    // Whoever made it may have died before he synced this.
    await syncDirectory(this.path)
    const store = await this.openStore(path)
    try {
      return { name, store, catalog: await openCatalog(path, store, this.onDamage) }
    } catch (error) {
      await store.close()
      throw error
    }
  }

  /** Makes everything durable and releases it. Idempotent. Rejects when a store could not be closed well. */
  async close(): Promise<void> {
    this.closed = true
    const vaults = await Promise.allSettled(this.opened.values())
    this.opened.clear()
    const stores = vaults.flatMap((vault) => (vault.status === 'fulfilled' ? [vault.value.store] : []))
    const ends = await Promise.allSettled(stores.map((store) => store.close()))
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  }
}
